//! The frames between the server and its guardian: a little-endian `u32` length, then postcard.
//!
//! Both ends are the same build of the same program, so the format has no versions. A [`Request::Spawn`] frame's
//! descriptors (stdin where there is one, stdout, stderr) travel by `SCM_RIGHTS` with its first byte.

use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;

/// The longest frame in bytes; above what `execve` takes on any platform (`ARG_MAX`), so the kernel refuses first.
const MAX_FRAME: usize = 16 << 20;
const HEADER: usize = size_of::<u32>();

/// A request of the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a program.
    Spawn(Spawn),
    /// Signal a program's group; without effect once it has ended.
    Signal {
        /// The program.
        id: u64,
        /// How hard.
        force: Force,
    },
}

/// A program to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spawn {
    pub(super) id: u64,
    /// Whether a descriptor for stdin precedes those for stdout and stderr; else stdin is empty.
    pub(super) has_stdin: bool,
    /// The folder to run in.
    pub(super) cwd: CString,
    /// The program's path, then its arguments.
    pub(super) argv: Vec<CString>,
    /// Each `NAME=VALUE`.
    pub(super) env: Vec<CString>,
}

/// How hard to ask a group to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Force {
    /// SIGTERM.
    Ask,
    /// SIGKILL.
    Kill,
}

/// The guardian's last word about one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) id: u64,
    /// The wait status, as `waitpid` returns it; the error number where the program was never started.
    pub(super) end: Result<i32, i32>,
    /// Whether it was sent a signal before it ended.
    pub(super) signalled: bool,
}

/// Appends `message` as a frame.
///
/// # Errors
///
/// `InvalidInput` for a frame that is too long; nothing is appended then.
pub(super) fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let mut whole = postcard::to_extend(message, std::mem::take(out)).map_err(io::Error::other)?;
    let length = whole.len() - start - HEADER;
    if length > MAX_FRAME {
        whole.truncate(start);
        *out = whole;
        return Err(io::Error::from(rustix::io::Errno::TOOBIG));
    }
    let length = u32::try_from(length).expect("MAX_FRAME fits in u32");
    whole[start..start + HEADER].copy_from_slice(&length.to_le_bytes());
    *out = whole;
    Ok(())
}

/// Bytes that came in and are not all decoded yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    decoded: usize,
}

impl Inbox {
    /// Adds what came in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.decoded > 0 {
            self.bytes.drain(..self.decoded);
            self.decoded = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, if there is one.
    ///
    /// # Errors
    ///
    /// `InvalidData` where the other side does not keep the format; the connection is of no more use.
    pub(super) fn next<'a, T: Deserialize<'a>>(&'a mut self) -> io::Result<Option<T>> {
        let rest = &self.bytes[self.decoded..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        self.decoded += HEADER + length;
        let message = postcard::from_bytes(frame)
            .map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))?;
        Ok(Some(message))
    }

    /// Returns whether a whole frame is waiting.
    pub(super) fn has_frame(&self) -> bool {
        let rest = &self.bytes[self.decoded..];
        rest.split_first_chunk::<HEADER>()
            .is_some_and(|(header, rest)| rest.len() >= u32::from_le_bytes(*header) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_however_they_are_cut() {
        let mut wire = Vec::new();
        let sent: Vec<Report> = (0..20)
            .map(|id| Report {
                id: id * 1_000_003,
                end: if id % 2 == 0 { Ok(7 << 8) } else { Err(2) },
                signalled: id % 3 == 0,
            })
            .collect();
        for report in &sent {
            encode(report, &mut wire).expect("encodes");
        }
        for piece in [1, 3, 5, wire.len()] {
            let mut inbox = Inbox::default();
            let mut got = Vec::new();
            for bytes in wire.chunks(piece) {
                inbox.push(bytes);
                while let Some(report) = inbox.next::<Report>().expect("decodes") {
                    got.push(report);
                }
                assert!(!inbox.has_frame());
            }
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_on_both_sides() {
        let mut out = vec![1, 2, 3];
        let huge = vec![0_u8; MAX_FRAME + 1];
        assert!(encode(&huge, &mut out).is_err());
        assert_eq!(out, [1, 2, 3]);
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        assert!(inbox.next::<Report>().is_err());
    }
}
