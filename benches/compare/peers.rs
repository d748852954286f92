//! The programs that are measured, and those that they are given to talk to.

use crate::client::{Client, Link};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One build of mahavishnu.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
}

/// Returns the build under test, then the one that `MAHAVISHNU_BEFORE` names, if any.
pub(crate) fn builds() -> Vec<Build> {
    let mut builds = vec![Build {
        name: "mahavishnu",
        program: env!("CARGO_BIN_EXE_mahavishnu").into(),
    }];
    if let Some(program) = std::env::var_os("MAHAVISHNU_BEFORE") {
        builds.push(Build {
            name: "before",
            program: program.into(),
        });
    }
    builds
}

/// Returns the path of the bare rmcp server. It is an example: cargo builds it beside the benchmarks' programs, but passes
/// its path to none of them.
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

/// Starts the bare server with a trivial answer.
pub(crate) fn start_bare() -> Client {
    Client::start(Command::new(bare_server()), Link::Pipes)
}

/// Returns the command of a stand-in for Session-Buddy. It takes every memory, finds ten for every search, and lists what the
/// file `listing` in `folder` holds at that time (see [`write_listing`]). `options` are the bare server's.
pub(crate) fn session_buddy(folder: &Path, listing: &str, options: &[&str]) -> Vec<String> {
    let rule = "=".repeat(50);
    let items: String = (1..=10)
        .map(|n| format!("\n{n}. 📝 peer's memory {n} of quokka and locking\n"))
        .collect();
    let found = format!(
        "🧠 Searching for concept: 'q'\n{rule}\n📈 Found 10 related conversations:\n{items}"
    );
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    let tools: [(&str, Value); 2] = [
        (
            "store_reflection",
            text("💾 Reflection stored successfully!"),
        ),
        ("search_by_concept", text(&found)),
    ];
    let mut command = vec![utf8(&bare_server())];
    command.extend(options.iter().map(|&option| option.to_owned()));
    for (tool, answer) in tools {
        let file = folder.join(format!("{tool}.json"));
        std::fs::write(&file, answer.to_string()).expect("it can be written");
        command.push(format!("{tool}={}", utf8(&file)));
    }
    command.push(format!(
        "fingerprint_search={}",
        utf8(&folder.join(listing))
    ));
    command
}

/// Writes what a stand-in for Session-Buddy lists. Without memories it refuses: an empty list would mean that it lost what it
/// was sent.
pub(crate) fn write_listing(file: &Path, memories: Option<&[(String, String)]>) {
    let item = |(id, content): &(String, String)| json!({"id": id, "content": content});
    let results: Vec<Value> = memories.unwrap_or_default().iter().map(item).collect();
    let answer = json!({
        "content": [{"type": "text", "text": "listed"}],
        "structuredContent": {"success": memories.is_some(), "results": results},
    });
    std::fs::write(file, answer.to_string()).expect("it can be written");
}

fn utf8(path: &Path) -> String {
    path.to_str().expect("the paths are UTF-8").to_owned()
}
