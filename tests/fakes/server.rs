//! A stand-in for the server: `fake_server GUARDIAN LOCK LOGS JOBS PROGRAM [ARG...]` takes the lock, runs the program JOBS
//! times at once, prints its output, and waits for the jobs' end, which a test does not wait for.

use mahavishnu::process::{Hold, Job, Options, Processes, Program};
use rustix::fs::{FlockOperation, flock};
use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [guardian, lock, logs, jobs, program, args @ ..] = args.as_slice() else {
        return Err("usage: fake_server GUARDIAN LOCK LOGS JOBS PROGRAM [ARG...]".into());
    };
    let path = Path::new(lock).to_owned();
    let lock = File::create(lock)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let lock = lock.into();
    let processes = Processes::new(Options {
        guardian_program: guardian.into(),
        hold: Some(Hold { lock, path }),
    });
    let mut running = JoinSet::new();
    for index in 0..jobs.parse::<u32>()? {
        let job = Job {
            program: Program {
                program: program.into(),
                args: args.iter().map(Into::into).collect(),
                cwd: "/".into(),
                env: [("PATH".into(), "/usr/bin:/bin".into())].into(),
            },
            stdin: None,
            stdout_log: Path::new(logs).join(format!("{index}.out")),
            stderr_log: Path::new(logs).join(format!("{index}.err")),
            log_cap_bytes: 1 << 20,
            tail_bytes: 4096,
            context_bytes: 0,
            deadline: None,
            stall: None,
            grace: Duration::from_secs(5).into(),
        };
        let processes = processes.clone();
        running.spawn(async move {
            let mut print = |_, bytes: &[u8]| {
                let mut out = io::stdout().lock();
                out.write_all(bytes)
                    .and_then(|()| out.flush())
                    .expect("the test reads");
            };
            processes
                .run(job, &mut print, &CancellationToken::new())
                .await
        });
    }
    while let Some(exit) = running.join_next().await {
        println_exit(&format!("{:?}", exit?.end))?;
    }
    processes.close().await;
    Ok(())
}

fn println_exit(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
