//! What a program leaves behind.

use super::*;

#[tokio::test]
async fn a_lingering_child_dies_with_its_program() {
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
async fn an_unmarked_stray_lives_as_long_as_a_program_it_may_belong_to() {
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
    let orphaning =
        |after: &str| bench.script(&format!("(setsid sleep 1000 & echo stray $!); {after}"));
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
