//! Starting a program where there is no faster way than std's.

use super::image::Image;
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Starts programs.
#[derive(Debug)]
pub(super) struct Starter;

impl Starter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Starts a process that leads a group of its own.
    ///
    /// # Errors
    ///
    /// The error number of what could not be done; nothing was started.
    pub(super) fn start(&mut self, image: &Image<'_>) -> Result<Pid, i32> {
        self.spawn(image)
            .map_err(|error| error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()))
    }

    fn spawn(&self, image: &Image<'_>) -> io::Result<Pid> {
        let stdio = |descriptor: &OwnedFd| Ok::<_, io::Error>(Stdio::from(descriptor.try_clone()?));
        let stdin = image.stdin.as_ref().map_or(Ok(Stdio::null()), stdio)?;
        let [stdout, stderr] = &image.outputs;
        let (program, args) = image
            .argv
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        // All that std needs to take the posix_spawn path instead of a fork: an absolute program, no closure.
        let child = Command::new(text(program))
            .args(args.iter().map(|arg| text(arg)))
            .env_clear()
            .envs(image.env.iter().filter_map(|pair| split(pair)))
            .current_dir(text(image.cwd))
            .process_group(0)
            .stdin(stdin)
            .stdout(stdio(stdout)?)
            .stderr(stdio(stderr)?)
            .spawn()?;
        Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData.into())
    }
}

fn text(bytes: &CStr) -> &OsStr {
    OsStr::from_bytes(bytes.to_bytes())
}

fn split(pair: &CStr) -> Option<(&OsStr, &OsStr)> {
    let pair = pair.to_bytes();
    let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
    Some((OsStr::from_bytes(name), OsStr::from_bytes(&value[1..])))
}
