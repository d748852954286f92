//! The frames between the server and its guardian: a little-endian `u32` length, then postcard.
//!
//! Both ends are the same build of the same program, so the format has no versions. A [`Request::Spawn`] frame's
//! descriptors (stdin where there is one, stdout, stderr) travel by `SCM_RIGHTS` with its first byte; its texts are C
//! strings already, which the guardian hands to `execve` as they lie in the frame.

use serde::{Deserialize, Serialize};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The longest frame in bytes; above what `execve` takes on any platform (`ARG_MAX`), so the kernel refuses first.
const MAX_FRAME: usize = 16 << 20;
const HEADER: usize = size_of::<u32>();

/// What the server asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request<'a> {
    /// Start a program.
    #[serde(borrow)]
    Spawn(Spawn<'a>),
    /// Signal a program's group; of no effect once it has ended.
    Signal {
        /// The program.
        id: u64,
        /// How hard.
        force: Force,
    },
}

/// A program to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spawn<'a> {
    pub(super) id: u64,
    /// Whether a descriptor for stdin precedes those for stdout and stderr; else stdin is empty.
    pub(super) has_stdin: bool,
    /// The folder to run in, the program, and its further arguments: two strings at least.
    #[serde(borrow)]
    pub(super) words: CStrings<'a>,
    /// Each `NAME=VALUE`.
    #[serde(borrow)]
    pub(super) env: CStrings<'a>,
}

/// C strings, one behind the other.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct CStrings<'a>(#[serde(borrow, with = "serde_bytes")] &'a [u8]);

impl<'a> CStrings<'a> {
    /// Returns the strings in turn; what no NUL ends is left out.
    pub(super) fn iter(self) -> impl Iterator<Item = &'a CStr> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let next = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[next.count_bytes() + 1..];
            Some(next)
        })
    }
}

/// Room in which C strings are put one behind the other.
#[derive(Debug, Default)]
pub(super) struct CStringBuffer(Vec<u8>);

impl CStringBuffer {
    /// Adds one string, given in parts.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where a part holds a NUL byte.
    pub(super) fn push(&mut self, parts: &[&OsStr]) -> io::Result<()> {
        for part in parts.iter().map(|part| part.as_bytes()) {
            if part.contains(&0) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
        Ok(())
    }

    /// Returns the strings.
    pub(super) fn strings(&self) -> CStrings<'_> {
        CStrings(&self.0)
    }
}

/// How hard to ask a group to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Force {
    /// SIGTERM.
    Ask,
    /// SIGKILL.
    Kill,
}

/// What the guardian tells of one program, as the last thing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) id: u64,
    pub(super) end: End,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It was never started: the error number.
    NotSpawned(i32),
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
                end: if id % 2 == 0 {
                    End::Exited(7)
                } else {
                    End::Signalled(9)
                },
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
    fn strings_come_back_as_they_were_put_and_a_nul_is_refused() {
        let mut buffer = CStringBuffer::default();
        buffer.push(&["".as_ref()]).expect("no NUL");
        buffer
            .push(&["A".as_ref(), "=".as_ref(), OsStr::from_bytes(b"\xff")])
            .expect("no NUL");
        assert!(buffer.push(&["a\0b".as_ref()]).is_err());
        let strings: Vec<&[u8]> = buffer.strings().iter().map(CStr::to_bytes).collect();
        assert_eq!(strings, [b"".as_slice(), b"A=\xff"]);
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
