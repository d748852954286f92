//! The lock that makes one server the sender to a peer.

use super::locks::open_lock_file;
use super::{Store, StoreError};
use crate::model::PeerName;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;

/// The right to send to one peer, among all servers of this state directory; freed when it is dropped or its process
/// ends.
#[derive(Debug)]
pub struct PeerLock {
    _held: File,
}

impl Store {
    /// Tries to become the one sender to `peer`; nothing where another server is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Directory`] where the lock file cannot be used.
    pub fn peer_lock(&self, peer: &PeerName) -> Result<Option<PeerLock>, StoreError> {
        // A hash, because a peer's name may be a URL; its beginning is enough to tell peers apart.
        let hash: [u8; 32] = Sha256::digest(peer.as_str()).into();
        let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.inner.owners.dir.join(format!("peer-{name}.lock"));
        let failed = |source| StoreError::directory(&path, source);
        let held = open_lock_file(&path).map_err(failed)?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(PeerLock { _held: held })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}
