//! Has the linker put what every start runs next to each other.
//!
//! Linux maps a program's text in pieces of 64 KB around each byte that is touched. What a start runs is a tenth of the
//! text but lies all over it, so that an idle server would hold nearly all of its text in memory, and its start would
//! wait for as many page faults. `layout.ld` names those functions, `layout.sh` finds them out anew. A name that is no
//! longer there costs nothing; a linker that does not take the script gets none.

#![expect(clippy::print_stdout, reason = "it is how cargo is told")]

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build/layout.ld");
    let script = path("CARGO_MANIFEST_DIR").join("build/layout.ld");
    let wanted = is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux");
    if wanted && links_with(&script) == Some(true) {
        println!("cargo::rustc-link-arg-bins=-T");
        println!("cargo::rustc-link-arg-bins={}", script.display());
    }
}

fn path(variable: &str) -> PathBuf {
    env::var_os(variable).expect("cargo sets it").into()
}

fn is(variable: &str, value: &str) -> bool {
    env::var_os(variable).is_some_and(|found| found == value)
}

/// Returns whether a program that does nothing can be linked with `script`; `None` where the compiler cannot be run.
fn links_with(script: &Path) -> Option<bool> {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut rustc = Command::new(path("RUSTC"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = OsString::from("-Clinker=");
        flag.push(linker);
        rustc.arg(flag);
    }
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    rustc
        .args(["-", "--crate-name=probe", "--edition=2024", "-Clink-arg=-T"])
        .arg(format!("-Clink-arg={}", script.display()))
        .arg("--target")
        .arg(path("TARGET"))
        .arg("-o")
        .arg(path("OUT_DIR").join("probe"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = rustc.spawn().ok()?;
    child.stdin.take()?.write_all(b"fn main() {}").ok()?;
    Some(child.wait().ok()?.success())
}
