//! Over the stdio of a child process: programs that do not start, die, or do not end.

use super::{nothing, soon};
use crate::support::launcher;
use mahavishnu::mcp_client::{ClientError, ClientSettings, Endpoint, McpClient, NotSent, Unclear};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Answers the handshake; `$id` is the id of the line in `$line`.
const HANDSHAKE: &str = r#"
take() { read -r line || exit 0; id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/'); }
take
printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id"
take
"#;

fn client(script: &str) -> McpClient {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    McpClient::new(Endpoint::Stdio { command, env }, settings())
}

fn settings() -> ClientSettings {
    ClientSettings {
        launcher: Some(launcher()),
        ..ClientSettings::new("child")
    }
}

#[tokio::test]
async fn a_program_that_does_not_start_is_told_with_its_last_words() {
    let error = client("echo first >&2; echo 'no such module: memory' >&2; exit 3")
        .call("store", nothing(), soon())
        .await
        .expect_err("it ended");
    let ClientError::NotSent {
        cause: NotSent::Spawn(message),
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(message.contains("no such module: memory"), "{message}");
    for command in [vec!["/no/such/program".to_owned()], Vec::new()] {
        let endpoint = Endpoint::Stdio {
            command,
            env: Vec::new(),
        };
        let error = McpClient::new(endpoint, settings())
            .call("store", nothing(), soon())
            .await
            .expect_err("nothing to start");
        assert!(
            matches!(
                error,
                ClientError::NotSent {
                    cause: NotSent::Spawn(_),
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn everyone_who_waits_fails_at_once_when_the_program_dies_and_the_next_call_starts_it_again()
{
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mark = folder.path().join("died");
    // Dies in the middle of an answer the first time, answers the second time.
    let script = format!(
        r#"{HANDSHAKE}
if [ ! -e {mark} ]; then
  for n in 1 2 3 4 5 6 7 8; do take; done
  : > {mark}; printf '{{"jsonrpc":"2.0","id":1,"resu'; exit 1
fi
while :; do take; printf '{{"jsonrpc":"2.0","id":%s,"result":{{"content":[{{"type":"text","text":"again"}}]}}}}\n' "$id"; done"#,
        mark = mark.display()
    );
    let client = client(&script);
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        calls.spawn(async move { client.call("store", nothing(), soon()).await });
    }
    let began = Instant::now();
    while let Some(result) = calls.join_next().await {
        let result = result.expect("no panic");
        assert!(
            matches!(
                result,
                Err(ClientError::Unclear {
                    cause: Unclear::Broken(_),
                    ..
                })
            ),
            "{result:?}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "they waited for their deadline"
    );
    let reply = client.call("store", nothing(), soon()).await;
    let reply = reply.expect("the program is started again");
    assert_eq!(reply.text, "again");
    assert_eq!(client.losses(), 1);
    client.close(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn closing_ends_a_program_that_does_not_listen_with_its_children() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pids = folder.path().join("pids");
    let script = format!(
        r#"trap '' TERM; sleep 1000 & echo "$$ $!" > {pids}; {HANDSHAKE}
take; printf '{{"jsonrpc":"2.0","id":%s,"result":{{"content":[]}}}}\n' "$id"
while :; do sleep 1; done"#,
        pids = pids.display()
    );
    let client = client(&script);
    client
        .call("store", nothing(), soon())
        .await
        .expect("it is done");
    let alive: Vec<String> = std::fs::read_to_string(&pids)
        .expect("it wrote them")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(alive.len(), 2);
    client.close(Duration::from_millis(300)).await;
    for pid in alive {
        let deadline = soon();
        while is_running(&pid) {
            assert!(Instant::now() < deadline, "{pid} outlived its client");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let error = client
        .call("store", nothing(), soon())
        .await
        .expect_err("it was closed");
    assert!(
        matches!(
            error,
            ClientError::NotSent {
                cause: NotSent::Closed,
                ..
            }
        ),
        "{error:?}"
    );
}

/// Returns whether the process exists and is no zombie that somebody else has to reap.
fn is_running(pid: &str) -> bool {
    let output = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", pid])
        .output()
        .expect("ps runs");
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// Returns the processor time that this process has used.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = stat.rsplit_once(')').expect("it has a name");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "measures this process's processor time, which other tests use too: run it alone"]
async fn a_program_that_writes_without_end_costs_little() {
    for (flood, stream) in [
        ("yes >&2", "stderr"),
        ("yes", "stdout"),
        ("tr '\\0' x </dev/zero", "one line"),
    ] {
        let script = format!(
            r#"{HANDSHAKE}
take; printf '{{"jsonrpc":"2.0","id":%s,"result":{{"content":[]}}}}\n' "$id"; exec {flood}"#
        );
        let client = client(&script);
        client
            .call("store", nothing(), soon())
            .await
            .expect("it answers");
        // The allowance of the request that was sent may be used up first.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let before = processor_time();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let used = processor_time() - before;
        eprintln!("{stream}: {used:?} in 10 s");
        assert!(used < Duration::from_secs(1), "{stream}: {used:?}");
        client.close(Duration::from_millis(100)).await;
    }
}
