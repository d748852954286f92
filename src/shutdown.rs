//! The signals that ask the process to end. What they end, and how long that may take, is the front's and the core's.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end: INT, TERM and HUP.
#[derive(Debug)]
pub struct Signals([Signal; 3]);

impl Signals {
    /// Takes the signals over from their default action.
    ///
    /// # Errors
    ///
    /// The system's, where a handler cannot be set.
    pub fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    ///
    /// A signal that is not waited for is given to the next call.
    pub async fn recv(&mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}
