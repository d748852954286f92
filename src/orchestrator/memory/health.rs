//! What `check_health` tells of forwarding: how it stands, what was refused, what a comparison with the peer found.

use super::handle::Memories;
use crate::api::{Check, HealthStatus};
use crate::error::Problem;
use crate::model::{
    DeadLetter, MemoryId, OutboxCounts, PeerName, PeerState, Reconciled, SenderState,
};
use crate::orchestrator::sync::forwarding::Forwarding;
use crate::session_buddy::{Door, Marker};
use std::time::{Duration, Instant};

/// How long the peer may take to say who it is, and then for the comparison; together less than a host waits.
const PROBE_LIMIT: Duration = Duration::from_secs(12);
const COMPARE_LIMIT: Duration = Duration::from_secs(25);

/// How many dead letters and duplicates are named.
const NAMED: u32 = 3;

/// The most bytes of a peer's words that a line quotes.
const QUOTED_BYTES: usize = 200;

impl Memories {
    /// Returns the checks of forwarding; with `probe` the peer is asked who it is and compared with what it was sent.
    pub(in crate::orchestrator) async fn checks(&self, probe: bool) -> Vec<Check> {
        let Some(forwarding) = &self.0.forwarding else {
            let off = "off: the config names no [session_buddy]; memories stay in the store";
            return vec![Check::ok("forwarding", off)];
        };
        let mut checks = Vec::new();
        if probe {
            checks.push(probed(forwarding).await);
        }
        match state_of(forwarding).await {
            Ok(state) => {
                checks.insert(0, state.forwarding());
                checks.extend(state.comparison());
            }
            Err(problem) => {
                checks.insert(0, Check::of("forwarding", HealthStatus::Fault, problem));
            }
        }
        checks
    }
}

/// What the store and the sender know.
struct State {
    peer: PeerName,
    sender: SenderState,
    known: PeerState,
    counts: OutboxCounts,
    dead: Vec<DeadLetter>,
}

async fn state_of(forwarding: &Forwarding) -> Result<State, Problem> {
    let (store, peer) = (&forwarding.forwarder().store, forwarding.peer().clone());
    Ok(State {
        sender: forwarding.sender_state().await?,
        known: store.peer_state(peer.clone()).await?,
        counts: store.outbox_counts(peer.clone()).await?,
        dead: store.dead_letters(peer.clone(), NAMED).await?,
        peer,
    })
}

impl State {
    fn forwarding(&self) -> Check {
        let counts = &self.counts;
        let mut detail = match self.sender.down_since {
            Some(since) => format!("to {}: down since {since}", self.peer),
            None => format!("to {}: ok", self.peer),
        };
        if let Some(error) = &self.sender.error {
            detail.push_str(&format!(" ({})", quoted(&error.message)));
        }
        detail.push_str(&format!(
            "; {} waiting, {} resting until it is known whether they arrived, {} acknowledged, {} refused for good",
            counts.pending + counts.sending,
            counts.resting,
            counts.acked,
            counts.dead
        ));
        for letter in &self.dead {
            detail.push_str(&format!(
                "; {} after {} tries: {}",
                letter.id,
                letter.attempts,
                quoted(&letter.error)
            ));
        }
        let (status, fix) = self.fix();
        Check {
            fix,
            ..Check::new("forwarding", status, detail)
        }
    }

    fn fix(&self) -> (HealthStatus, Option<String>) {
        if self.sender.down_since.is_some() {
            let hint = self
                .sender
                .error
                .as_ref()
                .and_then(|error| error.hint.clone());
            let fix = "start it, or correct [session_buddy] in the config; check_health with probe `peers` says what is wrong. Nothing is lost meanwhile";
            return (HealthStatus::Warning, hint.or(Some(fix.to_owned())));
        }
        if self.counts.dead > 0 {
            let fix = "aggregate_memory with `resend_failed` true sends them again; `mahavishnu forget ID` removes one for good";
            return (HealthStatus::Warning, Some(fix.to_owned()));
        }
        (HealthStatus::Ok, None)
    }

    /// Returns what the last comparison found; nothing where there never was one.
    fn comparison(&self) -> Option<Check> {
        let found = self.known.reconciled.as_ref().map(found);
        if let Some(problem) = &self.known.reconcile_error {
            let before = found.map_or(String::new(), |(_, detail)| format!("; before: {detail}"));
            let detail = format!(
                "what {} has could not be compared: {}{before}",
                self.peer,
                quoted(&problem.message)
            );
            return Some(Check {
                fix: problem.hint.clone(),
                ..Check::new("forwarded copies", HealthStatus::Warning, detail)
            });
        }
        let (status, detail) = found?;
        let fix = (status != HealthStatus::Ok).then(|| {
            format!(
                "searches here show each once; remove the surplus in {} if it matters",
                self.peer
            )
        });
        Some(Check {
            fix,
            ..Check::new("forwarded copies", status, detail)
        })
    }
}

fn found(found: &Reconciled) -> (HealthStatus, String) {
    let mut detail = format!(
        "compared at {}: of {} acknowledged memories {} were lost and are sent again, {} are there more than once",
        found.at, found.checked, found.lost, found.duplicates
    );
    let named: Vec<String> = found
        .twice
        .iter()
        .take(NAMED as usize)
        .map(|(id, times)| format!("{id} {times} times"))
        .collect();
    if named.is_empty() {
        return (HealthStatus::Ok, detail);
    }
    detail.push_str(&format!(": {}", named.join(", ")));
    (HealthStatus::Info, detail)
}

/// Asks the peer who it is and whether it can use its database, then compares.
async fn probed(forwarding: &Forwarding) -> Check {
    let name = forwarding.peer().as_str();
    match asked(forwarding).await {
        Ok(detail) => Check::ok(name, detail),
        Err(problem) => Check::of(name, HealthStatus::Fault, problem),
    }
}

async fn asked(forwarding: &Forwarding) -> Result<String, Problem> {
    let forwarder = forwarding.forwarder();
    let info = tokio::time::timeout(PROBE_LIMIT, forwarder.probe()).await;
    let info = info.map_err(|_| late("it did not say who it is", PROBE_LIMIT))??;
    let deadline = Instant::now() + COMPARE_LIMIT;
    // Only a look into its database tells that another process holds it.
    let nothing = Marker {
        pool: "none".parse().expect("a name"),
        id: MemoryId::new(),
    };
    let looked = forwarder.buddy.is_there(&nothing, deadline).await;
    looked?;
    // What it finds or why it does not is a check of its own.
    let _ = forwarder.reconcile(deadline).await;
    let door = match info.door {
        Door::Default => "default",
        Door::Full => "full",
    };
    let version = info
        .version
        .map_or(String::new(), |version| format!(", version {version}"));
    Ok(format!(
        "answers: {door} front door, {} tools{version}; its database is not locked",
        info.tools
    ))
}

fn late(what: &str, limit: Duration) -> Problem {
    let message = format!("{what} within {} s", limit.as_secs());
    Problem::new(crate::error::ErrorKind::TimedOut, message)
        .with_hint("it may be busy; ask again in a minute, or restart it")
}

fn quoted(text: &str) -> &str {
    &text[..text.floor_char_boundary(QUOTED_BYTES)]
}
