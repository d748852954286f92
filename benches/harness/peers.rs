//! The programs that are measured beside ours, and those that ours are given to talk to.

use serde_json::{Value, json};
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

/// Returns the command of a stand-in for Session-Buddy: it takes every memory, always finds ten, and refuses to
/// list them, as an empty list would mean that it lost them. Its answers are files in `folder`; `options` are the bare server's.
pub(crate) fn session_buddy(folder: &Path, options: &[&str]) -> Vec<String> {
    let rule = "=".repeat(50);
    let items: String = (1..=10)
        .map(|n| format!("\n{n}. 📝 peer's memory {n} of quokka and locking\n"))
        .collect();
    let found = format!(
        "🧠 Searching for concept: 'q'\n{rule}\n📈 Found 10 related conversations:\n{items}"
    );
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    let mut listing = text("none");
    listing["structuredContent"] = json!({"success": false, "results": []});
    let tools: [(&str, Value); 3] = [
        (
            "store_reflection",
            text("💾 Reflection stored successfully!"),
        ),
        ("search_by_concept", text(&found)),
        ("fingerprint_search", listing),
    ];
    let mut command = vec![utf8(&bare_server())];
    command.extend(options.iter().map(|&option| option.to_owned()));
    for (tool, answer) in tools {
        let file = folder.join(format!("{tool}.json"));
        std::fs::write(&file, answer.to_string()).expect("it can be written");
        command.push(format!("{tool}={}", utf8(&file)));
    }
    command
}

fn utf8(path: &Path) -> String {
    path.to_str().expect("the paths are UTF-8").to_owned()
}
