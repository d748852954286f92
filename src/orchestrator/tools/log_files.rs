//! The files that an attempt's streams are logged in. `setup` and `verify` have one for each of their lines and streams,
//! read as one stream.

use crate::api::Stream;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A stream's files, in order.
pub(super) struct LogFiles(Vec<(PathBuf, u64)>);

impl LogFiles {
    /// Returns the files of a stream in the folder `logs`; none where nothing was written.
    pub(super) fn of(logs: &Path, stream: Stream) -> io::Result<Self> {
        let files = match stream {
            Stream::Stdout => vec![logs.join("stdout")],
            Stream::Stderr => vec![logs.join("stderr")],
            Stream::Final => vec![logs.join("final")],
            Stream::Events => vec![logs.join("events")],
            Stream::Diff => vec![logs.join("diff")],
            Stream::Setup => numbered(logs, "setup-")?,
            Stream::Verify => numbered(logs, "verify-")?,
        };
        let mut found = Vec::new();
        for file in files {
            match file.metadata() {
                Ok(metadata) => found.push((file, metadata.len())),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(found))
    }

    /// Returns the length of the stream in bytes.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Reads up to `max` bytes of the stream from `start`.
    pub(super) fn read(&self, start: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut before = 0;
        for (path, size) in &self.0 {
            let left = max - bytes.len();
            let from = (start + bytes.len() as u64).saturating_sub(before);
            before += size;
            if left == 0 || from >= *size {
                continue;
            }
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(from))?;
            let most = (size - from).min(left as u64);
            file.take(most).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Returns the files whose names are `prefix`, a number and an extension, by number and name.
fn numbered(logs: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(logs) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let number = rest.and_then(|rest| rest.split_once('.')?.0.parse::<u32>().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
