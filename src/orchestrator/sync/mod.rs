//! Delivery of the outbox to a peer: take ─► send ─► acknowledge, as fast as the peer can and never twice knowingly.
//!
//! The only code that joins the store and the client. [`Pace`] decides how many calls are in flight, the breaker whether
//! any are, [`Delivery`] drives both over the traits [`Outbox`] and [`Peer`], so that all of it runs under a paused clock
//! without a disk or a network. Not responsible for what is put into the outbox, nor for what the peer's answers mean.

mod driver;
mod forward;
pub(crate) mod forwarding;
mod pace;
mod parts;
mod send;
mod verdict;

pub use driver::Delivery;
pub use forward::{Forwarder, PeerOutbox};
pub use pace::{Pace, Ticket};
pub use parts::{DeliverySettings, DeliveryStatus, Link, Outbox, Peer, Undelivered};
