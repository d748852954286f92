//! Copying memories to Session-Buddy: take from the outbox ─► send ─► acknowledge, each at least once and never twice
//! knowingly.
//!
//! "Outbox" is the store's table of what is to be sent. In the order of reading: `forwarding` starts everything in the
//! background; [`Forwarder`] waits until no other server of this store sends, then runs a `Sender`, whose loop takes
//! entries, sends them as fast as `Pace` allows and writes down each outcome by `verdict`; `watch` and
//! `reconcile` find out what the peer lost. The sender works over the traits `Outbox` and `Peer`, so that it is
//! tested under a paused clock without a disk or a network. Not responsible for what is put into the outbox, nor for
//! what the peer's answers mean.

mod forwarder;
pub(super) mod forwarding;
mod outbox;
mod pace;
mod peer;
mod reconcile;
mod send;
mod sender;
mod settings;
mod status;
mod verdict;
mod watch;

pub use forwarder::Forwarder;
pub use settings::DeliverySettings;
pub use status::{DeliveryStatus, Link};
