//! What is kept of one stream: its end in memory, its beginning in a log file.

use super::Captured;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

/// The bytes that may wait for the disk before the stream is read no further.
const MAX_PENDING: usize = 1 << 20;

/// One stream as it is kept.
#[derive(Debug)]
pub(super) struct Capture {
    tail: Tail,
    log: Log,
    total: u64,
}

impl Capture {
    pub(super) fn new(
        log: PathBuf,
        log_cap_bytes: u64,
        tail_bytes: usize,
        context_bytes: usize,
    ) -> Self {
        Self {
            tail: Tail::new(tail_bytes, context_bytes),
            log: Log::new(log, log_cap_bytes),
            total: 0,
        }
    }

    /// Keeps what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.tail.push(bytes);
        self.log.push(bytes);
    }

    /// Returns whether more may be read now; else [`written`](Self::written) is to be awaited.
    pub(super) fn has_room(&self) -> bool {
        self.log.pending.len() < MAX_PENDING
    }

    /// Waits until the disk has taken what it is writing; for ever, where it is writing nothing.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn written(&mut self) {
        self.log.written().await;
    }

    /// Writes what is left and returns what was kept.
    pub(super) async fn finish(mut self) -> Captured {
        while self.log.writing.is_some() {
            self.log.written().await;
        }
        let (before_tail, tail, left_out_bytes) = self.tail.texts(self.total);
        Captured {
            before_tail,
            tail,
            left_out_bytes,
            total_bytes: self.total,
            logged_bytes: self.log.logged,
            log_error: self.log.error,
        }
    }
}

/// The last bytes of a stream and what came before them, in at most twice their room.
#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    room: usize,
    /// How many bytes before the tail are kept.
    context: usize,
}

impl Tail {
    fn new(room: usize, context: usize) -> Self {
        Self {
            bytes: Vec::new(),
            room,
            context,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let most = self.room + self.context;
        let bytes = &bytes[bytes.len().saturating_sub(most)..];
        if self.bytes.len() + bytes.len() > most.saturating_mul(2) {
            let kept = self.bytes.len().min(most);
            self.bytes.drain(..self.bytes.len() - kept);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what came right before the tail, and the tail, of a stream of `total` bytes; no character is cut.
    fn texts(&self, total: u64) -> (String, String, u64) {
        let most = self.room + self.context;
        let kept = &self.bytes[self.bytes.len().saturating_sub(most)..];
        let mut cut = kept.len().saturating_sub(self.room);
        if (self.room as u64) < total {
            cut += continuations(&kept[cut..]);
        }
        let begin = if (kept.len() as u64) < total {
            continuations(&kept[..cut])
        } else {
            0
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let left_out = total - (kept.len() - cut) as u64;
        (text(&kept[begin..cut]), text(&kept[cut..]), left_out)
    }
}

/// Returns how many bytes at the beginning go on with a UTF-8 character: three at most.
fn continuations(bytes: &[u8]) -> usize {
    let first = bytes.iter().take(3);
    first.take_while(|byte| matches!(byte, 0x80..=0xBF)).count()
}

/// A log file that is written on the runtime's blocking threads, one batch at a time.
#[derive(Debug)]
struct Log {
    cap: u64,
    /// The bytes taken so far, written or not.
    taken: u64,
    logged: u64,
    capped: bool,
    pending: Vec<u8>,
    /// The file and its state between two batches; absent while one is written and after an error.
    sink: Option<Sink>,
    writing: Option<JoinHandle<(Sink, io::Result<()>)>>,
    error: Option<String>,
}

#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: Option<File>,
    batch: Vec<u8>,
}

impl Log {
    fn new(path: PathBuf, cap: u64) -> Self {
        Self {
            cap,
            taken: 0,
            logged: 0,
            capped: false,
            pending: Vec::new(),
            sink: Some(Sink {
                path,
                file: None,
                batch: Vec::new(),
            }),
            writing: None,
            error: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.capped || self.error.is_some() {
            return;
        }
        let room = usize::try_from(self.cap - self.taken).unwrap_or(usize::MAX);
        let fits = &bytes[..bytes.len().min(room)];
        self.pending.extend_from_slice(fits);
        self.taken += fits.len() as u64;
        if fits.len() < bytes.len() {
            self.capped = true;
            let told = format!(
                "\n[mahavishnu: the log ends here, at its cap of {} bytes]\n",
                self.cap
            );
            self.pending.extend_from_slice(told.as_bytes());
        }
        self.write();
    }

    fn write(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Some(mut sink) = self.sink.take() {
            sink.batch.clear();
            std::mem::swap(&mut sink.batch, &mut self.pending);
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let written = sink.write();
                (sink, written)
            }));
        }
    }

    async fn written(&mut self) {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let ended = writing.await;
        self.writing = None;
        match ended {
            Ok((sink, Ok(()))) => {
                // The closing line about the cap is not part of the stream.
                self.logged = (self.logged + sink.batch.len() as u64).min(self.cap);
                self.sink = Some(sink);
                self.write();
            }
            Ok((_, Err(error))) => self.fail(error.to_string()),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, error: String) {
        self.pending = Vec::new();
        self.error = Some(error);
    }
}

impl Sink {
    fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        file.write_all(&self.batch)
    }
}

/// Makes a log that only this user can read, and its folder.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn kept_of(room: usize, context: usize, pieces: &[&[u8]]) -> (String, String, u64) {
        let mut tail = Tail::new(room, context);
        for piece in pieces {
            tail.push(piece);
            assert!(tail.bytes.len() <= 2 * (room + context));
        }
        tail.texts(pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    #[test]
    fn the_tail_says_what_is_missing_and_cuts_no_character() {
        let kept =
            |before: &str, tail: &str, left_out| (before.to_owned(), tail.to_owned(), left_out);
        assert_eq!(kept_of(5, 0, &[b"ab", b"cde"]), kept("", "abcde", 0));
        assert_eq!(kept_of(4, 0, &[b"ab", b"cde", b"f"]), kept("", "cdef", 2));
        assert_eq!(kept_of(3, 0, &["xé€".as_bytes()]), kept("", "€", 3));
        assert_eq!(kept_of(4, 0, &["xé€".as_bytes()]), kept("", "€", 3));
        assert_eq!(kept_of(0, 0, &[b"ab"]), kept("", "", 2));
        assert_eq!(kept_of(3, 1, &["xé€".as_bytes()]), kept("", "€", 3));
        assert_eq!(kept_of(3, 2, &["xé€".as_bytes()]), kept("é", "€", 3));
        assert_eq!(kept_of(3, 9, &[b"abc", b"def"]), kept("abc", "def", 3));
        assert_eq!(
            kept_of(2, 2, &[b"\x80\x80\x80\x80\x80"]),
            kept("\u{fffd}", "", 5)
        );
    }

    #[tokio::test]
    async fn the_log_is_made_at_the_first_byte_and_ends_at_its_cap() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a/b/stdout");
        let mut capture = Capture::new(path.clone(), 10, 100, 0);
        tokio::task::yield_now().await;
        assert!(!dir.path().join("a").exists());
        for piece in ["01234", "56789", "abc", "def"] {
            capture.push(piece.as_bytes());
        }
        let kept = capture.finish().await;
        let log = std::fs::read_to_string(&path).expect("the log");
        assert_eq!(
            log,
            "0123456789\n[mahavishnu: the log ends here, at its cap of 10 bytes]\n"
        );
        assert_eq!((kept.total_bytes, kept.logged_bytes), (16, 10));
        assert_eq!(kept.tail, "0123456789abcdef");
        let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(path.parent().expect("has one"))),
            (0o600, 0o700)
        );
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_is_told_and_stops_nothing() {
        let mut capture = Capture::new("/dev/full".into(), 1 << 20, 4, 0);
        for _ in 0..100 {
            capture.push(&[b'x'; 1000]);
        }
        let kept = capture.finish().await;
        assert!(kept.log_error.is_some_and(|error| error.contains("space")));
        assert_eq!((kept.total_bytes, kept.logged_bytes), (100_000, 0));
    }
}
