//! The guardian itself, and its end and the server's in every order.

use super::*;

#[tokio::test]
async fn the_guardian_survives_signals_in_a_session_of_its_own() {
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

/// A stand-in for a whole server: a process of its own with a lock file, a guardian and programs.
struct FakeServer {
    dir: TempDir,
    process: tokio::process::Child,
    lines: mpsc::Receiver<String>,
}

impl FakeServer {
    /// Starts a server that runs `program` with `args`, `jobs` times at once.
    fn start(jobs: u32, program: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut process = tokio::process::Command::new(example("fake_server"))
            .args([GUARDIAN.as_ref(), dir.path().join("lock").as_path()])
            .args([dir.path().join("logs"), jobs.to_string().into()])
            .arg(program)
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("spawns");
        let stdout = process.stdout.take().expect("piped");
        let stdout = stdout.into_owned_fd().expect("a descriptor");
        rustix::fs::fcntl_setfl(&stdout, rustix::fs::OFlags::empty()).expect("blocking");
        let (sender, lines) = mpsc::channel(1024);
        std::thread::spawn(move || {
            let read = BufReader::new(File::from(stdout)).lines();
            read.map_while(Result::ok)
                .for_each(|line| drop(sender.blocking_send(line)));
        });
        Self {
            dir,
            process,
            lines,
        }
    }

    /// Returns the pids of the next `count` lines `WORD PID`.
    async fn pids(&mut self, count: usize) -> Vec<Pid> {
        let mut pids = Vec::new();
        while pids.len() < count {
            let line = timeout(HANG, self.lines.recv()).await.expect("no hang");
            let line = line.expect("the server goes on");
            if !line.starts_with("ignoring") {
                pids.push(to_pid(line.split_once(' ').expect("WORD PID").1));
            }
        }
        pids
    }

    fn pid(&self) -> Pid {
        let id = self.process.id().expect("it runs");
        Pid::from_raw(id.cast_signed()).expect("a pid")
    }

    /// Opens the lock file and tries to lock it.
    fn lock_is_free(&self) -> bool {
        let file = File::open(self.dir.path().join("lock")).expect("opens");
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }
}

#[tokio::test]
async fn the_lock_of_a_killed_server_is_free_when_its_programs_are_dead() {
    let verbs = [
        "ignore-term",
        "pid",
        "grandchild",
        "setsid-grandchild",
        "hang",
    ];
    let mut server = FakeServer::start(10, &example("fake_worker"), &verbs);
    let pids = server.pids(30).await;
    assert!(pids.iter().all(|pid| lives(*pid)));
    assert!(!server.lock_is_free(), "the server holds it");
    let spawner = parent(pids[0]);
    let keeper = parent(spawner);
    kill_process(server.pid(), Signal::KILL).expect("kills");
    until("the lock is free", || server.lock_is_free()).await;
    let left: Vec<&Pid> = pids.iter().filter(|pid| lives(**pid)).collect();
    assert!(left.is_empty(), "the lock is free and these live: {left:?}");
    gone(spawner).await;
    gone(keeper).await;
}

#[tokio::test]
async fn programs_die_with_the_server_and_both_guardians() {
    let mut server = FakeServer::start(3, &example("fake_worker"), &["pid", "hang"]);
    let pids = server.pids(3).await;
    let spawner = parent(pids[0]);
    for process in [server.pid(), parent(spawner), spawner] {
        kill_process(process, Signal::STOP).expect("it lives");
    }
    // None of them can react to the end of another.
    for process in [server.pid(), parent(spawner), spawner] {
        kill_process(process, Signal::KILL).expect("it lives");
    }
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn leftovers_of_a_dead_server_are_ended_by_the_next() {
    let script = "(setsid sleep 1000 & echo stray $!); exec sleep 1000";
    let mut server = FakeServer::start(1, Path::new("/bin/sh"), &["-c", script]);
    let stray = server.pids(1).await[0];
    // Until the subshell has ended, its child is not the spawner's yet.
    let is_guardian = |pid: Pid| {
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        std::fs::read_to_string(path).is_ok_and(|line| line.contains("guardian"))
    };
    until("the stray is adopted", || is_guardian(parent(stray))).await;
    let spawner = parent(stray);
    let lock = server.dir.path().join("lock");
    let end = || {
        let dead = [lock.clone()];
        tokio::task::spawn_blocking(move || mahavishnu::process::end_leftovers(&dead))
    };
    let keeper = parent(spawner);
    for process in [server.pid(), keeper, spawner] {
        kill_process(process, Signal::STOP).expect("it lives");
    }
    // Children first: the death of a parent continues a stopped guardian, which would end the stray.
    for process in [spawner, keeper, server.pid()] {
        kill_process(process, Signal::KILL).expect("it lives");
    }
    until("the lock is free", || server.lock_is_free()).await;
    assert!(lives(stray), "nothing is left that could end it");
    assert!(end().await.expect("no panic") >= 1);
    assert!(!lives(stray));
}

#[tokio::test]
async fn programs_are_seen_dead_before_the_loss_of_both_guardians_is_reported() {
    let bench = Bench::new();
    let mut started = bench.start(
        bench.job("pid grandchild setsid-grandchild hang"),
        &CancellationToken::new(),
    );
    let pids = [
        started.pid("pid").await,
        started.pid("grandchild").await,
        started.pid("grandchild").await,
    ];
    let in_cgroup = cgroup_of(pids[2]).contains("mahavishnu-");
    let spawner = parent(pids[0]);
    let keeper = parent(spawner);
    for guardian in [keeper, spawner] {
        kill_process(guardian, Signal::STOP).expect("it lives");
    }
    for guardian in [keeper, spawner] {
        kill_process(guardian, Signal::KILL).expect("it lives");
    }
    let exit = started.exit().await;
    assert!(matches!(exit.end, Ended::GuardianLost), "{exit:?}");
    // Without a control group the last one is not found: it left its group and has no environment.
    let found = if in_cgroup { &pids[..] } else { &pids[..2] };
    let left: Vec<&Pid> = found.iter().filter(|pid| lives(**pid)).collect();
    assert!(
        left.is_empty(),
        "reported as lost, and these live: {left:?}"
    );
    let _ = kill_process(pids[2], Signal::KILL);
    assert!(bench.run(bench.job("exit 0")).await.succeeded());
}

fn cgroup_of(pid: Pid) -> String {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
    let groups = groups.unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn no_control_group_stays_behind() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let mut started = bench.start(bench.job("pid hang"), &cancel);
    let group = cgroup_of(started.pid("pid").await);
    timeout(HANG, bench.processes.close())
        .await
        .expect("no hang");
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    for mount in mounts.lines().filter(|line| line.contains(" cgroup2 ")) {
        let point = mount.split(' ').nth(1).expect("a mount point");
        let folder = format!("{point}{group}");
        assert!(
            !group.contains("mahavishnu-") || !Path::new(&folder).exists(),
            "{folder} is left"
        );
    }
}

#[tokio::test]
async fn a_program_cannot_stop_the_spawner() {
    let bench = Bench::new();
    let exit = bench.run(bench.script("kill -STOP $PPID; sleep 0.1; exit 3"));
    assert!(matches!(exit.await.end, Ended::Exited(3)));
    assert!(bench.run(bench.job("exit 0")).await.succeeded());
}

#[tokio::test]
async fn a_program_that_stops_its_parents_dies_with_the_server() {
    // The spawner is stopped again and again, the keeper once.
    let script = "echo pid $$; keeper=$(cut -d' ' -f4 /proc/$PPID/stat); kill -STOP $keeper; \
        while :; do kill -STOP $PPID; done";
    let mut server = FakeServer::start(1, Path::new("/bin/sh"), &["-c", script]);
    let pid = server.pids(1).await[0];
    let spawner = parent(pid);
    let keeper = parent(spawner);
    let stopped = |pid| stat(pid, 0).is_some_and(|state| state == "T");
    until("both are stopped", || stopped(spawner) && stopped(keeper)).await;
    kill_process(server.pid(), Signal::KILL).expect("kills");
    for process in [pid, spawner, keeper] {
        gone(process).await;
    }
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
