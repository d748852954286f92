//! Whether a host's reason for taking a call back means that a person stopped it.

/// Returns whether `reason`, of a `notifications/cancelled`, is a person's in a host that was measured.
///
/// No reason, an unknown one and a time-out are not: the run goes on.
pub(super) fn is_a_persons(reason: Option<&str>) -> bool {
    reason.is_some_and(|reason| PERSONS.contains(&reason))
}

/// The reasons that measured hosts give when a person interrupts a call.
const PERSONS: [&str; 0] = [];
