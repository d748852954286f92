//! The programs that are measured beside ours.

use std::path::{Path, PathBuf};

/// Returns the bare rmcp server, an example: cargo builds it beside the benchmarks' programs, but tells its path to nobody.
///
/// # Panics
///
/// When it was not built.
pub(crate) fn bare_server() -> PathBuf {
    let program =
        Path::new(env!("CARGO_BIN_EXE_mahavishnu")).with_file_name("examples/bare_server");
    assert!(
        program.exists(),
        "build it in the same profile first: cargo build --example bare_server [--release]"
    );
    program
}
