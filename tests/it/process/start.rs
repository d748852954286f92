//! How a program starts: its arguments, folder, environment and descriptors, and why it may not start.

use super::*;

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
    job.program.env = [path, ("NAME".into(), "two words".into())].into();
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
async fn a_failed_start_names_the_cause_and_the_next_step() {
    let bench = Bench::new();
    let script = |name: &str, text: &str, mode: u32| {
        let path = bench.dir.path().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        path
    };
    let with = |program: PathBuf| {
        let mut job = bench.job("");
        job.program.program = program;
        job
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

    let mut job = bench.job("");
    job.program.args = vec!["a\0b".into()];
    let nul = refused(bench.run(job).await);
    assert!(matches!(nul, SpawnError::Nul), "{nul:?}");
    assert_eq!(nul.kind(), ErrorKind::InvalidArgument);

    let mut job = bench.job("exit 0");
    job.program.cwd = bench.dir.path().join("none");
    let no_folder = refused(bench.run(job).await);
    assert!(
        matches!(no_folder, SpawnError::NoFolder { .. }),
        "{no_folder:?}"
    );

    for bytes in [3 << 20, 20 << 20] {
        let mut job = bench.job("");
        job.program.args = vec!["x".repeat(bytes).into()];
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
async fn a_program_holds_its_own_three_pipes_and_nothing_else() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("lock");
    let lock = File::create(&path).expect("creates").into();
    let bench = Bench::holding(Some(Hold { lock, path }));
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
