//! How a program ends by itself, by a signal, by its deadline, and when it is cancelled.

use super::*;

#[tokio::test]
async fn an_end_by_signal_is_reported_as_such() {
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
    let job = bench.script("kill -40 $$; sleep 100");
    let exit = bench.run(job).await;
    assert!(matches!(exit.end, Ended::Signalled(40)), "{exit:?}");
    assert!(bench.run(bench.job("exit 0")).await.succeeded());
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
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
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
async fn a_stronger_stop_reason_replaces_a_weaker_one() {
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
async fn a_grace_can_be_shortened_while_the_program_ends() {
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

/// Stands for a server that was stopped (SIGSTOP, a laptop's lid): its one runtime thread does not run for a while.
#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "it blocks the runtime thread on purpose"
)]
async fn a_program_that_ended_in_time_is_not_called_timed_out_late() {
    let bench = Bench::new();
    let soon = Duration::from_millis(1500);
    for (deadline, stall) in [(Some(Instant::now() + soon), None), (None, Some(soon))] {
        let job = Job {
            deadline,
            stall,
            ..bench.job("pid sleep 0.3 exit 4")
        };
        let mut started = bench.start(job, &CancellationToken::new());
        started.pid("pid").await;
        std::thread::sleep(2 * soon);
        let exit = started.exit().await;
        assert!(matches!(exit.end, Ended::Exited(4)), "{exit:?}");
        assert_eq!(exit.stopped_by, None);
    }
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "it blocks the runtime thread on purpose"
)]
async fn output_that_is_read_late_is_no_stall() {
    let bench = Bench::new();
    let job = Job {
        stall: Some(Duration::from_millis(1500)),
        ..bench.job("drip 20 250")
    };
    let mut started = bench.start(job, &CancellationToken::new());
    started.line("drip").await;
    std::thread::sleep(Duration::from_secs(3));
    let exit = started.exit().await;
    assert!(exit.succeeded(), "{exit:?}");
}
