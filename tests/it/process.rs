//! Real programs through a real guardian: every way a program, its children, the guardian and the server can end.

use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::process::{
    Ended, Exit, Job, Options, Processes, Program, SpawnError, StopReason, Stream,
};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far above what anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);
const GUARDIAN: &str = env!("CARGO_BIN_EXE_mahavishnu");

fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a path");
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(
        path.exists(),
        "build it with `cargo build --examples`: {}",
        path.display()
    );
    path
}

struct Bench {
    dir: TempDir,
    processes: Processes,
}

impl Bench {
    fn new() -> Self {
        Self::holding(None)
    }

    fn holding(hold: Option<File>) -> Self {
        Self {
            dir: tempfile::tempdir().expect("tempdir"),
            processes: Processes::new(Options {
                guardian_program: GUARDIAN.into(),
                hold: hold.map(Into::into),
            }),
        }
    }

    fn job(&self, verbs: &str) -> Job {
        Job {
            program: example("fake_worker"),
            args: verbs.split_whitespace().map(Into::into).collect(),
            cwd: self.dir.path().canonicalize().expect("exists"),
            env: [("PATH".into(), "/usr/bin:/bin".into())].into(),
            stdin: None,
            stdout_log: self.dir.path().join("logs/stdout"),
            stderr_log: self.dir.path().join("logs/stderr"),
            log_cap_bytes: 1 << 20,
            tail_bytes: 4096,
            context_bytes: 0,
            deadline: None,
            stall: None,
            grace: HANG.into(),
        }
    }

    async fn run(&self, job: Job) -> Exit {
        self.run_until(job, &CancellationToken::new()).await
    }

    async fn run_until(&self, job: Job, cancel: &CancellationToken) -> Exit {
        timeout(HANG, self.processes.run(job, &mut |_, _| {}, cancel))
            .await
            .expect("no hang")
    }

    /// Starts a job and returns its first lines of output as they come, and its end.
    fn start(&self, job: Job, cancel: &CancellationToken) -> Started {
        let (tell, lines) = mpsc::channel(1024);
        let (processes, cancel) = (self.processes.clone(), cancel.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut rest = String::new();
            let mut split = |_: Stream, bytes: &[u8]| {
                rest.push_str(&String::from_utf8_lossy(bytes));
                while let Some((line, after)) = rest.split_once('\n') {
                    let _ = tell.try_send(line.to_owned());
                    rest = after.to_owned();
                }
            };
            processes.run(job, &mut split, &cancel).await
        });
        Started { task, lines }
    }
}

struct Started {
    task: JoinSet<Exit>,
    lines: mpsc::Receiver<String>,
}

impl Started {
    /// Returns what follows `word` in the first line that begins with it.
    async fn line(&mut self, word: &str) -> String {
        timeout(HANG, async {
            loop {
                let line = self
                    .lines
                    .recv()
                    .await
                    .expect("the job ended before it said so");
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
            }
        })
        .await
        .expect("no hang")
    }

    async fn pid(&mut self, word: &str) -> Pid {
        to_pid(&self.line(word).await)
    }

    async fn exit(&mut self) -> Exit {
        let ended = timeout(HANG, self.task.join_next()).await.expect("no hang");
        ended.expect("one task").expect("no panic")
    }
}

fn to_pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().expect("a pid")).expect("not zero")
}

/// Returns field `index` of what follows the name in a process's record: 0 the state, 1 the parent, 3 the session.
fn stat(pid: Pid, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    Some(
        stat.rsplit_once(')')?
            .1
            .split_ascii_whitespace()
            .nth(index)?
            .to_owned(),
    )
}

fn parent(pid: Pid) -> Pid {
    to_pid(&stat(pid, 1).expect("it lives"))
}

fn lives(pid: Pid) -> bool {
    stat(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "not within {HANG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn gone(pid: Pid) {
    until(&format!("process {pid:?} is gone"), || !lives(pid)).await;
}

fn refused(exit: Exit) -> SpawnError {
    match exit.end {
        Ended::NotSpawned(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn output_exit_code_folder_and_environment_come_through() {
    let bench = Bench::new();
    let exit = bench.run(bench.job("echo out warn err cwd exit 7")).await;
    assert!(matches!(exit.end, Ended::Exited(7)), "{exit:?}");
    let cwd = bench.dir.path().canonicalize().expect("exists");
    assert_eq!(exit.stdout.tail, format!("out\n{}\n", cwd.display()));
    assert_eq!(exit.stderr.tail, "err\n");
    assert_eq!(
        fs::read_to_string(bench.dir.path().join("logs/stdout")).expect("log"),
        exit.stdout.tail
    );
    assert_eq!(
        fs::read_to_string(bench.dir.path().join("logs/stderr")).expect("log"),
        "err\n"
    );
    assert_eq!((exit.stopped_by, exit.pipe_held_open), (None, false));

    let mut job = bench.job("env");
    let path = ("PATH".into(), "/usr/bin:/bin".into());
    job.env = [path, ("NAME".into(), "two words".into())].into();
    let exit = bench.run(job).await;
    let mut names: Vec<&str> = exit
        .stdout
        .tail
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["MAHAVISHNU_SPAWN", "NAME", "PATH"]);
    assert!(exit.stdout.tail.contains("NAME=two words\n"));

    let exit = bench.run(bench.job("write-file here")).await;
    assert!(exit.succeeded(), "{exit:?}");
    assert!(bench.dir.path().join("here").exists());
}

#[tokio::test]
async fn a_program_without_output_makes_no_log() {
    let bench = Bench::new();
    let exit = bench.run(bench.job("exit 0")).await;
    assert!(exit.succeeded());
    assert!(!bench.dir.path().join("logs").exists());
}

#[tokio::test]
async fn a_signal_is_told_as_such() {
    let bench = Bench::new();
    for signal in [Signal::KILL, Signal::INT, Signal::USR1] {
        let mut started = bench.start(bench.job("pid hang"), &CancellationToken::new());
        let pid = started.pid("pid").await;
        kill_process(pid, signal).expect("kills");
        let exit = started.exit().await;
        assert!(
            matches!(exit.end, Ended::Signalled(got) if got == signal.as_raw()),
            "{exit:?}"
        );
    }
}

/// A real-time signal has no name in the library that reads the ends.
#[tokio::test]
async fn a_real_time_signal_hides_no_other_end() {
    let bench = Bench::new();
    let mut job = bench.job("");
    job.program = "/bin/sh".into();
    job.args = vec!["-c".into(), "kill -40 $$; sleep 100".into()];
    let exit = bench.run(job).await;
    assert!(matches!(exit.end, Ended::Signalled(40)), "{exit:?}");
    assert!(bench.run(bench.job("exit 0")).await.succeeded());
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_what_to_do() {
    let bench = Bench::new();
    let script = |name: &str, text: &str, mode: u32| {
        let path = bench.dir.path().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        path
    };
    let with = |program: PathBuf| Job {
        program,
        ..bench.job("")
    };

    let missing = refused(bench.run(with(bench.dir.path().join("none"))).await);
    assert!(
        matches!(missing, SpawnError::NotFound { .. }),
        "{missing:?}"
    );
    assert_eq!(missing.problem().kind, ErrorKind::NotFound);
    assert!(missing.hint().is_some());

    let no_run_bit = refused(bench.run(with(script("plain", "#!/bin/sh\n", 0o644))).await);
    assert!(
        matches!(no_run_bit, SpawnError::NotExecutable { is_dir: false, .. }),
        "{no_run_bit:?}"
    );
    assert!(no_run_bit.hint().expect("a hint").contains("chmod +x"));

    let folder = refused(bench.run(with(bench.dir.path().into())).await);
    assert!(
        matches!(folder, SpawnError::NotExecutable { is_dir: true, .. }),
        "{folder:?}"
    );

    let garbage = refused(
        bench
            .run(with(script("garbage", "no program\n", 0o755)))
            .await,
    );
    assert!(
        matches!(garbage, SpawnError::NotAProgram { .. }),
        "{garbage:?}"
    );

    let headless = refused(
        bench
            .run(with(script("headless", "#!/no/such/shell\n", 0o755)))
            .await,
    );
    assert!(
        matches!(headless, SpawnError::NoInterpreter { .. }),
        "{headless:?}"
    );

    let relative = refused(bench.run(with("fake_worker".into())).await);
    assert!(
        matches!(relative, SpawnError::Relative { .. }),
        "{relative:?}"
    );

    let job = Job {
        args: vec!["a\0b".into()],
        ..bench.job("")
    };
    let nul = refused(bench.run(job).await);
    assert!(matches!(nul, SpawnError::Nul), "{nul:?}");
    assert_eq!(nul.kind(), ErrorKind::InvalidArgument);

    let job = Job {
        cwd: bench.dir.path().join("none"),
        ..bench.job("exit 0")
    };
    let no_folder = refused(bench.run(job).await);
    assert!(
        matches!(no_folder, SpawnError::NoFolder { .. }),
        "{no_folder:?}"
    );

    for bytes in [3 << 20, 20 << 20] {
        let job = Job {
            args: vec!["x".repeat(bytes).into()],
            ..bench.job("")
        };
        let too_long = refused(bench.run(job).await);
        assert!(matches!(too_long, SpawnError::TooLong), "{too_long:?}");
    }
    assert!(
        bench.run(bench.job("exit 0")).await.succeeded(),
        "the guardian goes on"
    );
}

#[tokio::test]
async fn a_missing_guardian_is_an_error_of_the_job() {
    let bench = Bench {
        processes: Processes::new(Options {
            guardian_program: "/no/such/guardian".into(),
            hold: None,
        }),
        ..Bench::new()
    };
    let error = refused(bench.run(bench.job("exit 0")).await);
    assert!(matches!(error, SpawnError::Guardian { .. }), "{error:?}");
    // One that is no guardian ends at once.
    let bench = Bench {
        processes: Processes::new(Options {
            guardian_program: "/bin/true".into(),
            hold: None,
        }),
        ..Bench::new()
    };
    let exit = bench.run(bench.job("exit 0")).await;
    assert!(matches!(exit.end, Ended::GuardianLost), "{exit:?}");
}

#[tokio::test]
async fn a_flood_of_a_gigabyte_fills_neither_memory_nor_disk() {
    const FLOOD: u64 = 1 << 30;
    let high_water = || {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .expect("VmHWM");
        line.split_ascii_whitespace()
            .nth(1)
            .expect("kB")
            .parse::<u64>()
            .expect("a number")
            << 10
    };
    let bench = Bench::new();
    let before = high_water();
    let exit = bench
        .run(bench.job(&format!("flood {FLOOD} warn done exit 3")))
        .await;
    assert!(matches!(exit.end, Ended::Exited(3)), "{exit:?}");
    assert_eq!(exit.stdout.total_bytes, FLOOD);
    assert_eq!(exit.stdout.logged_bytes, 1 << 20);
    assert!(exit.stdout.tail.len() < 5000);
    assert_eq!(exit.stdout.left_out_bytes, 1_073_737_728);
    assert_eq!(exit.stderr.tail, "done\n");
    let log = fs::metadata(bench.dir.path().join("logs/stdout"))
        .expect("log")
        .len();
    assert!((1 << 20..(1 << 20) + 200).contains(&log), "{log}");
    let grown = high_water() - before;
    assert!(grown < 64 << 20, "grew by {grown} bytes");
}

#[tokio::test]
async fn stdin_is_the_prompt_however_long_or_empty() {
    let bench = Bench::new();
    let prompt: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
    let job = Job {
        stdin: Some(prompt.clone().into_bytes()),
        tail_bytes: 2 * prompt.len(),
        context_bytes: 0,
        ..bench.job("read-stdin")
    };
    let exit = bench.run(job).await;
    assert!(
        exit.succeeded() && exit.stdout.tail == prompt,
        "{}",
        exit.stdout.total_bytes
    );
    for stdin in [None, Some(Vec::new())] {
        let exit = bench
            .run(Job {
                stdin,
                ..bench.job("read-stdin echo end")
            })
            .await;
        assert_eq!(exit.stdout.tail, "end\n");
    }
}

#[tokio::test]
async fn a_program_that_does_not_read_its_stdin_is_no_error() {
    let bench = Bench::new();
    let stdin = Some(vec![b'x'; 4 << 20]);
    let exit = bench
        .run(Job {
            stdin,
            ..bench.job("echo unread")
        })
        .await;
    assert!(
        exit.succeeded() && exit.stdout.tail == "unread\n",
        "{exit:?}"
    );
}

#[tokio::test]
async fn a_closed_pipe_is_not_taken_for_the_end() {
    let bench = Bench::new();
    let exit = bench
        .run(bench.job("echo before close-stdout sleep 0.2 warn after exit 4"))
        .await;
    assert!(matches!(exit.end, Ended::Exited(4)), "{exit:?}");
    assert_eq!(
        (exit.stdout.tail.as_str(), exit.stderr.tail.as_str()),
        ("before\n", "after\n")
    );
}

#[tokio::test]
async fn a_cancelled_program_is_asked_first() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let mut started = bench.start(bench.job("pid hang"), &cancel);
    let pid = started.pid("pid").await;
    cancel.cancel();
    let exit = started.exit().await;
    assert!(matches!(exit.end, Ended::Signalled(15)), "{exit:?}");
    assert_eq!(exit.stopped_by, Some(StopReason::Cancelled));
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace_and_its_output_kept() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let grace = Duration::from_millis(300);
    let mut started = bench.start(
        Job {
            grace: grace.into(),
            ..bench.job("ignore-term drip 20 100000")
        },
        &cancel,
    );
    started.line("drip").await;
    cancel.cancel();
    let asked = Instant::now();
    let exit = started.exit().await;
    assert!(asked.elapsed() >= grace);
    assert!(matches!(exit.end, Ended::Signalled(9)), "{exit:?}");
    assert!(exit.stdout.total_bytes > "ignoring SIGTERM\ndrip\n".len() as u64);
}

#[tokio::test]
async fn a_deadline_and_a_stall_stop_it() {
    let bench = Bench::new();
    let soon = Duration::from_millis(200);
    let job = Job {
        deadline: Some(Instant::now() + soon),
        ..bench.job("drip 10 100000")
    };
    assert_eq!(bench.run(job).await.stopped_by, Some(StopReason::Deadline));
    let exit = bench
        .run(Job {
            stall: Some(soon),
            ..bench.job("echo once hang")
        })
        .await;
    assert_eq!(
        (exit.stopped_by, exit.stdout.tail.as_str()),
        (Some(StopReason::Stall), "once\n")
    );
    // Slow, but never silent for so long.
    let stall = Some(Duration::from_secs(5));
    assert!(
        bench
            .run(Job {
                stall,
                ..bench.job("drip 50 20")
            })
            .await
            .succeeded()
    );
}

#[tokio::test]
async fn a_stronger_reason_replaces_a_weaker_one_and_gives_no_more_time() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let job = Job {
        stall: Some(Duration::from_millis(100)),
        grace: Duration::from_millis(1500).into(),
        ..bench.job("ignore-term warn x hang")
    };
    let mut started = bench.start(job, &cancel);
    started.line("ignoring").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    cancel.cancel();
    let exit = started.exit().await;
    assert_eq!(exit.stopped_by, Some(StopReason::Cancelled));
    assert!(matches!(exit.end, Ended::Signalled(9)), "{exit:?}");
}

#[tokio::test]
async fn a_grace_that_is_shortened_while_a_program_ends_is_heard() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let job = bench.job("ignore-term hang");
    let grace = job.grace.clone();
    let mut started = bench.start(job, &cancel);
    started.line("ignoring").await;
    cancel.cancel();
    // Whether it was asked already or not, the program ends: by the long grace this would count as hung.
    tokio::task::yield_now().await;
    grace.set(Duration::from_millis(1));
    let exit = started.exit().await;
    assert_eq!(exit.stopped_by, Some(StopReason::Cancelled));
    assert!(matches!(exit.end, Ended::Signalled(9)), "{exit:?}");
}

#[tokio::test]
async fn what_is_stopped_before_its_start_never_runs() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let exit = bench.run_until(bench.job("write-file ran"), &cancel).await;
    assert_eq!(exit.stopped_by, Some(StopReason::Cancelled));
    assert!(matches!(refused(exit), SpawnError::Stopped));
    let exit = bench
        .run(Job {
            deadline: Some(Instant::now()),
            ..bench.job("write-file ran")
        })
        .await;
    assert_eq!(exit.stopped_by, Some(StopReason::Deadline));
    assert!(!bench.dir.path().join("ran").exists());
}

#[tokio::test]
async fn dropping_the_future_kills_the_whole_group() {
    let bench = Bench::new();
    let mut started = bench.start(
        bench.job("ignore-term pid grandchild hang"),
        &CancellationToken::new(),
    );
    let pids = [started.pid("pid").await, started.pid("grandchild").await];
    started.task.abort_all();
    for pid in pids {
        gone(pid).await;
    }
    assert!(bench.run(bench.job("exit 0")).await.succeeded());
}

#[tokio::test]
async fn a_lingering_child_dies_with_its_program_and_holds_nothing_up() {
    let bench = Bench::new();
    for verbs in ["grandchild exit 5", "setsid-grandchild exit 5"] {
        let exit = bench.run(bench.job(verbs)).await;
        assert!(matches!(exit.end, Ended::Exited(5)), "{exit:?}");
        assert!(!exit.pipe_held_open, "{verbs}");
        gone(to_pid(
            exit.stdout
                .tail
                .trim()
                .strip_prefix("grandchild ")
                .expect("its pid"),
        ))
        .await;
    }
}

#[tokio::test]
async fn a_stray_of_nobody_knows_whom_is_spared_until_all_are_over_that_may_own_it() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let mut other = bench.start(bench.job("pid hang"), &cancel);
    other.pid("pid").await;
    let exit = bench.run(bench.job("setsid-grandchild exit 0")).await;
    assert!(exit.pipe_held_open, "the stray keeps the pipe");
    let stray = to_pid(
        exit.stdout
            .tail
            .trim()
            .strip_prefix("grandchild ")
            .expect("its pid"),
    );
    assert!(lives(stray));
    // A program that started later does not save it.
    let later = CancellationToken::new();
    let mut later_job = bench.start(bench.job("pid hang"), &later);
    let later_pid = later_job.pid("pid").await;
    cancel.cancel();
    other.exit().await;
    gone(stray).await;
    assert!(lives(later_pid));
    later.cancel();
    later_job.exit().await;
}

#[tokio::test]
async fn a_marked_stray_dies_with_its_own_program_only() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    // The subshell ends, so that the stray is adopted while its program still runs.
    let orphaning = |after: &str| Job {
        program: "/bin/sh".into(),
        args: vec![
            "-c".into(),
            format!("(setsid sleep 1000 & echo stray $!); {after}").into(),
        ],
        ..bench.job("")
    };
    let mut staying = bench.start(orphaning("echo up; sleep 1000"), &cancel);
    let kept = staying.pid("stray").await;
    staying.line("up").await;
    let mut ending = bench.start(orphaning("exit 0"), &cancel);
    let doomed = ending.pid("stray").await;
    assert!(matches!(ending.exit().await.end, Ended::Exited(0)));
    gone(doomed).await;
    assert!(lives(kept), "its own program still runs");
    cancel.cancel();
    staying.exit().await;
    gone(kept).await;
}

#[tokio::test]
async fn the_guardian_is_deaf_and_apart() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let mut started = bench.start(bench.job("pid hang"), &cancel);
    let program = started.pid("pid").await;
    let spawner = parent(program);
    let keeper = parent(spawner);
    for guardian in [spawner, keeper] {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
            kill_process(guardian, signal).expect("it lives");
        }
        assert_eq!(
            stat(guardian, 3),
            Some(guardian.as_raw_nonzero().to_string()),
            "its own session"
        );
    }
    assert!(bench.run(bench.job("exit 0")).await.succeeded());
    assert!(lives(program) && lives(spawner) && lives(keeper));
    // What the guardian is deaf to must end a program.
    kill_process(program, Signal::HUP).expect("it lives");
    assert!(matches!(started.exit().await.end, Ended::Signalled(1)));
}

#[tokio::test]
async fn a_killed_guardian_ends_all_programs_and_a_new_one_starts() {
    for kill_keeper in [false, true] {
        let bench = Bench::new();
        let cancel = CancellationToken::new();
        let mut started = bench.start(bench.job("pid grandchild setsid-grandchild hang"), &cancel);
        let program = started.pid("pid").await;
        let strays = [
            started.pid("grandchild").await,
            started.pid("grandchild").await,
        ];
        let spawner = parent(program);
        let keeper = parent(spawner);
        kill_process(if kill_keeper { keeper } else { spawner }, Signal::KILL).expect("kills");
        let exit = started.exit().await;
        assert!(matches!(exit.end, Ended::GuardianLost), "{exit:?}");
        for pid in [program, strays[0], strays[1], spawner, keeper] {
            gone(pid).await;
        }
        assert!(bench.run(bench.job("exit 0")).await.succeeded());
    }
}

#[tokio::test]
async fn closing_ends_everything_and_refuses_what_comes_after() {
    let bench = Bench::new();
    let mut started = bench.start(
        bench.job("ignore-term pid setsid-grandchild hang"),
        &CancellationToken::new(),
    );
    let program = started.pid("pid").await;
    let stray = started.pid("grandchild").await;
    let spawner = parent(program);
    timeout(HANG, bench.processes.close())
        .await
        .expect("no hang");
    for pid in [program, stray, spawner] {
        assert!(!lives(pid));
    }
    assert!(matches!(started.exit().await.end, Ended::GuardianLost));
    assert!(matches!(
        refused(bench.run(bench.job("exit 0")).await),
        SpawnError::Closed
    ));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_guardian() {
    let bench = Bench::new();
    let mut started = bench.start(bench.job("pid sleep 0.1"), &CancellationToken::new());
    let spawner = parent(started.pid("pid").await);
    started.exit().await;
    drop(started);
    drop(bench);
    gone(spawner).await;
}

#[tokio::test]
async fn a_program_holds_its_own_three_pipes_and_nothing_else() {
    let dir = tempfile::tempdir().expect("tempdir");
    let lock = File::create(dir.path().join("lock")).expect("creates");
    let bench = Bench::holding(Some(lock));
    let cancel = CancellationToken::new();
    let mut other = bench.start(bench.job("pid hang"), &cancel);
    let other_pid = other.pid("pid").await;
    let job = Job {
        stdin: Some(b"prompt".to_vec()),
        ..bench.job("fds")
    };
    let exit = bench.run(job).await;
    let lines: Vec<&str> = exit.stdout.tail.lines().collect();
    let numbers: Vec<&str> = lines
        .iter()
        .filter_map(|line| Some(line.split_once(' ')?.0))
        .collect();
    assert_eq!(numbers, ["0", "1", "2"], "{lines:?}");
    assert!(
        lines.iter().all(|line| line.contains(" pipe:[")),
        "{lines:?}"
    );
    let held: Vec<String> = fs::read_dir(format!("/proc/{}/fd", other_pid.as_raw_nonzero()))
        .expect("it lives")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a number")
        })
        .collect();
    assert_eq!(held.len(), 3, "{held:?}");
    cancel.cancel();
    other.exit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_keep_their_output_apart() {
    let bench = Arc::new(Bench::new());
    let seen = Arc::new(Mutex::new(0));
    let mut running = JoinSet::new();
    for index in 0..200 {
        let (bench, seen) = (Arc::clone(&bench), Arc::clone(&seen));
        running.spawn(async move {
            let job = Job {
                stdin: Some(format!("prompt {index}").into_bytes()),
                stdout_log: bench.dir.path().join(format!("{index}/stdout")),
                stderr_log: bench.dir.path().join(format!("{index}/stderr")),
                ..bench.job(&format!(
                    "sleep 0.3 read-stdin warn w{index} exit {}",
                    index % 100
                ))
            };
            let mut count =
                |_: Stream, bytes: &[u8]| *seen.lock().expect("no panic") += bytes.len();
            let exit = timeout(
                HANG,
                bench
                    .processes
                    .run(job, &mut count, &CancellationToken::new()),
            )
            .await
            .expect("no hang");
            assert!(
                matches!(exit.end, Ended::Exited(code) if code == index % 100),
                "{exit:?}"
            );
            assert_eq!(exit.stdout.tail, format!("prompt {index}"));
            assert_eq!(exit.stderr.tail, format!("w{index}\n"));
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
    assert!(*seen.lock().expect("no panic") > 200 * 9);
}

/// The server is killed as nothing can prevent; its programs are gone, and its lock is free only then.
#[tokio::test]
async fn nothing_outlives_a_killed_server_and_its_lock_is_free_only_then() {
    let dir = tempfile::tempdir().expect("tempdir");
    let lock = dir.path().join("lock");
    let mut server = tokio::process::Command::new(example("fake_server"))
        .args([
            Path::new(GUARDIAN),
            &lock,
            &dir.path().join("logs"),
            Path::new("10"),
            &example("fake_worker"),
        ])
        .args("ignore-term pid grandchild setsid-grandchild hang".split(' '))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("spawns");
    let stdout = server
        .stdout
        .take()
        .expect("piped")
        .into_owned_fd()
        .expect("a descriptor");
    rustix::fs::fcntl_setfl(&stdout, rustix::fs::OFlags::empty()).expect("blocking");
    let pids: Vec<Pid> = tokio::task::spawn_blocking(move || {
        BufReader::new(File::from(stdout))
            .lines()
            .map_while(Result::ok)
            .filter(|line| !line.starts_with("ignoring"))
            .map(|line| to_pid(line.split_once(' ').expect("WORD PID").1))
            .take(30)
            .collect()
    })
    .await
    .expect("reads");
    assert_eq!(pids.len(), 30);
    assert!(pids.iter().all(|pid| lives(*pid)));
    let locked = File::open(&lock).expect("opens");
    assert!(
        flock(&locked, FlockOperation::NonBlockingLockExclusive).is_err(),
        "the server holds it"
    );
    let spawner = parent(pids[0]);
    let keeper = parent(spawner);

    kill_process(
        Pid::from_raw(server.id().expect("it runs").cast_signed()).expect("a pid"),
        Signal::KILL,
    )
    .expect("kills");
    until("the lock is free", || {
        flock(&locked, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
    .await;
    let left: Vec<&Pid> = pids.iter().filter(|pid| lives(**pid)).collect();
    assert!(left.is_empty(), "the lock is free and these live: {left:?}");
    gone(spawner).await;
    gone(keeper).await;
    server.wait().await.expect("reaped");
}

/// Its pages that no other process shares; there may be four of them.
#[tokio::test]
async fn a_guardian_takes_little_memory() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let mut started = bench.start(bench.job("pid hang"), &cancel);
    let spawner = parent(started.pid("pid").await);
    for guardian in [spawner, parent(spawner)] {
        let path = format!("/proc/{}/smaps_rollup", guardian.as_raw_nonzero());
        let map = fs::read_to_string(path).expect("it lives");
        // Without the pages of the program's file, which are the file's, however few processes map them.
        let own: u64 = map
            .lines()
            .filter_map(|line| line.strip_prefix("Anonymous:"))
            .filter_map(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
            .sum();
        assert!(own > 0, "no figure in:\n{map}");
        assert!(own < 4096, "{own} kB of its own:\n{map}");
    }
    cancel.cancel();
    started.exit().await;
}

#[tokio::test]
async fn whoever_talks_to_a_program_hears_at_once_that_it_closed_its_output() {
    let bench = Bench::new();
    let program = Program {
        program: example("fake_worker"),
        args: ["close-stdout", "hang"].map(Into::into).to_vec(),
        cwd: "/".into(),
        env: [].into(),
    };
    let (mut talking, mut pipes) = bench.processes.talk(program).expect("it starts");
    let mut said = String::new();
    let read = timeout(HANG, pipes.stdout.read_to_string(&mut said)).await;
    assert_eq!(read.expect("in time").expect("readable"), 0);
    let ended = timeout(Duration::from_millis(50), talking.ended()).await;
    assert!(ended.is_err(), "it runs still: {ended:?}");
    talking.kill();
    assert!(
        timeout(HANG, talking.ended())
            .await
            .expect("in time")
            .is_ok()
    );
}
