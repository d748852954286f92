//! A full disk during an apply or an undo: all of it or nothing of it, never half.

use super::apply::{everything, item};
use super::support::{Place, workflow};
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{ApplyRequest, How};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names for the child which file system to work on.
const BASE: &str = "MAHAVISHNU_TEST_SMALL_DISK";
/// The size of the file system.
const DISK: &str = "size=48m";
/// By how much the free space differs from one try to the next.
const STEP: u64 = 96 << 10;
/// How many tries there are.
const TRIES: u64 = 40;

/// Returns bytes that no compression makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Fills the disk until `left` bytes are free.
fn fill(base: &Path, left: u64) {
    let disk = rustix::fs::statvfs(base).expect("asked");
    let free = disk.f_bavail * disk.f_frsize;
    let len = usize::try_from(free.saturating_sub(left)).expect("small");
    fs::write(base.join("filler"), vec![1; len]).expect("written");
}

/// Not a test of its own: the process that runs on the small disk.
#[tokio::test]
#[ignore = "run by the test below on a file system of its own"]
async fn child() {
    let base = PathBuf::from(std::env::var_os(BASE).expect("set by the test below"));
    for dir in ["root", "home", "state"] {
        fs::create_dir(base.join(dir)).expect("made");
    }
    let place = Place::existing(base.clone());
    let repo = place.repo("app");
    repo.write("gone", noise(1, 700 << 10));
    repo.write("grown", noise(2, 100 << 10));
    repo.write("shrunk", noise(3, 500 << 10));
    repo.commit("large files");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        fs::remove_file(work.dir.join("gone")).expect("removed");
        work.write("grown", noise(4, 900 << 10));
        work.write("shrunk", noise(5, 10 << 10));
        work.write("deep/new", noise(6, 600 << 10));
    })
    .await;
    let before = everything(&repo);
    let (mut applied, mut refused) = (0, 0);
    for nth in 0..TRIES {
        let how = if nth % 2 == 0 {
            How::WorkingCopy
        } else {
            How::Merge
        };
        let request = ApplyRequest {
            repo: repo.path(),
            workflow: workflow(),
            changes: vec![change.clone()],
            how,
            check_only: false,
        };
        fill(&base, nth * STEP);
        let outcome = repos.apply(request).await;
        let undo = match outcome {
            Ok(outcome) => outcome.undo,
            Err(_) => None,
        };
        let Some(token) = undo else {
            fs::remove_file(base.join("filler")).expect("removed");
            assert!(
                everything(&repo) == before,
                "try {nth}: half of it is there"
            );
            refused += 1;
            continue;
        };
        // The undo on a full disk is all or nothing too.
        fs::remove_file(base.join("filler")).expect("removed");
        let after = everything(&repo);
        fill(&base, (nth % 7) * STEP);
        let undone = repos.undo(&token).await;
        fs::remove_file(base.join("filler")).expect("removed");
        match undone {
            Ok(()) => assert!(everything(&repo) == before, "try {nth}: half undone"),
            Err(_) => {
                assert!(everything(&repo) == after, "try {nth}: half undone");
                repos.undo(&token).await.expect("there is room now");
                assert!(everything(&repo) == before, "try {nth}");
            }
        }
        applied += 1;
    }
    assert!(applied > 2 && refused > 2, "{applied} {refused}");
}

/// Returns whether this user may mount a file system in a namespace of its own.
fn can_mount() -> bool {
    let output = Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_disk_leaves_no_half_applied_or_half_undone_change() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = fs::canonicalize(dir.path()).expect("canonical");
    let child = std::env::current_exe().expect("this binary");
    let mut command = match can_mount() {
        true => {
            let mut command = Command::new("unshare");
            let script = format!("mount -t tmpfs -o {DISK} tmpfs \"$0\" && exec \"$@\"");
            command.args(["-rm", "sh", "-c", &script]).arg(&base);
            command
        }
        // Elsewhere a limit on the size of files stands in for a full disk.
        false => {
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' XFSZ; ulimit -f 1700; exec \"$@\"", "sh"]);
            command
        }
    };
    let output = command
        .arg(child)
        .args([
            "--exact",
            "repo::full_disk::child",
            "--ignored",
            "--nocapture",
        ])
        .env(BASE, &base)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
}
