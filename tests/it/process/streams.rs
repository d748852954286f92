//! A program's three streams.

use super::*;

#[tokio::test]
async fn a_program_without_output_makes_no_log() {
    let bench = Bench::new();
    let exit = bench.run(bench.job("exit 0")).await;
    assert!(exit.succeeded());
    assert!(!bench.dir.path().join("logs").exists());
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
async fn a_closed_output_is_seen_while_the_program_runs() {
    let bench = Bench::new();
    let program = bench.program("close-stdout hang");
    let (mut child, mut pipes) = bench.processes.talk(program).expect("it starts");
    let mut said = String::new();
    let read = timeout(HANG, pipes.stdout.read_to_string(&mut said)).await;
    assert_eq!(read.expect("in time").expect("readable"), 0);
    let ended = timeout(Duration::from_millis(50), child.ended()).await;
    assert!(ended.is_err(), "it runs still: {ended:?}");
    child.kill();
    let end = timeout(HANG, child.ended()).await.expect("in time");
    assert!(matches!(end, Ended::Signalled(9)), "{end:?}");
}
