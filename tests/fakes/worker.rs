//! A scripted stand-in for a worker program: its arguments are verbs, done one after the other.
//!
//! `echo TEXT`, `warn TEXT` (to stderr), `sleep S`, `exit N`, `ignore-term`, `grandchild` (starts a child that lingers
//! and keeps the pipes), `setsid-grandchild` (the same, in a session of its own and without any environment; both print
//! `grandchild PID`), `flood BYTES`, `drip MS COUNT`, `close-stdout`, `hang`, `read-stdin` (echoes it), `env`, `cwd`, `fds` (what
//! its descriptors are), `write-file PATH`, `pid`.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let mut verbs = std::env::args().skip(1);
    while let Some(verb) = verbs.next() {
        let mut argument = || verbs.next().ok_or(format!("{verb} needs an argument"));
        let mut out = io::stdout();
        match verb.as_str() {
            "echo" => writeln!(out, "{}", argument()?)?,
            "warn" => writeln!(io::stderr(), "{}", argument()?)?,
            "sleep" => pause(Duration::from_secs_f64(argument()?.parse()?)),
            "exit" => exit(argument()?.parse()?),
            "ignore-term" => {
                signal_hook::flag::register(
                    signal_hook::consts::SIGTERM,
                    Arc::new(AtomicBool::new(false)),
                )?;
                writeln!(out, "ignoring SIGTERM")?;
            }
            "grandchild" => writeln!(out, "grandchild {}", grandchild(&["linger"], false)?)?,
            "setsid-grandchild" => writeln!(
                out,
                "grandchild {}",
                grandchild(&["setsid", "linger"], true)?
            )?,
            "setsid" => drop(rustix::process::setsid()?),
            // Says on stdin, which is a socket here, that it is ready, and lives for ever.
            "linger" => {
                rustix::io::write(io::stdin(), b"r")?;
                hang();
            }
            "flood" => flood(argument()?.parse()?)?,
            "drip" => {
                let every = Duration::from_millis(argument()?.parse()?);
                for _ in 0..argument()?.parse::<u32>()? {
                    writeln!(out, "drip")?;
                    pause(every);
                }
            }
            "close-stdout" => {
                let null = std::fs::File::options().write(true).open("/dev/null")?;
                rustix::stdio::dup2_stdout(null)?;
            }
            "hang" => hang(),
            "read-stdin" => drop(io::copy(&mut io::stdin(), &mut out)?),
            "env" => {
                for (name, value) in std::env::vars_os() {
                    writeln!(out, "{}={}", name.display(), value.display())?;
                }
            }
            "cwd" => writeln!(out, "{}", std::env::current_dir()?.display())?,
            "fds" => fds(&mut out)?,
            "write-file" => std::fs::write(argument()?, "written\n")?,
            "pid" => writeln!(out, "pid {}", std::process::id())?,
            unknown => return Err(format!("unknown verb {unknown}").into()),
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own without a runtime"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn hang() -> ! {
    loop {
        pause(Duration::from_secs(3600));
    }
}

fn grandchild(verbs: &[&str], clear_env: bool) -> Result<u32, Box<dyn Error>> {
    let (mut ready, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg0("lingering-grandchild")
        .args(verbs)
        .stdin(OwnedFd::from(theirs));
    if clear_env {
        command.env_clear();
    }
    let child = command.spawn()?;
    drop(command);
    ready.read_exact(&mut [0])?;
    Ok(child.id())
}

fn flood(mut bytes: u64) -> io::Result<()> {
    let block = [b'x'; 64 << 10];
    let mut out = io::stdout().lock();
    while bytes > 0 {
        let piece = bytes.min(block.len() as u64);
        out.write_all(&block[..usize::try_from(piece).unwrap_or(block.len())])?;
        bytes -= piece;
    }
    Ok(())
}

fn fds(out: &mut impl Write) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path())?;
        // The descriptor of this very listing.
        if !target.starts_with("/proc") {
            found.push(format!(
                "{} {}",
                entry.file_name().display(),
                target.display()
            ));
        }
    }
    found.sort();
    writeln!(out, "{}", found.join("\n"))
}
