//! The whole of it: the real server killed with -9 again and again, the real Session-Buddy too, and every memory arrives.

use super::real::{self, Profile};
use crate::memory::PEER;
use crate::support::processes::wait_until;
use crate::support::server::{Home, Server};
use crate::support::{HANG, say};
use mahavishnu::model::{MemoryId, PeerName};
use mahavishnu::session_buddy::{Marker, Presence};
use mahavishnu::store::{Durability, Store, StoreOptions};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// How much is done: what the environment says, else what an everyday run bears.
#[derive(Debug, Clone, Copy)]
struct Size {
    memories: usize,
    kills: usize,
    peer_kills: usize,
    seed: u64,
}

impl Size {
    fn from_env() -> Self {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|_| panic!("{name}={text} is no number")),
            Err(_) => default,
        };
        let count = |name, default| usize::try_from(number(name, default)).expect("it fits");
        let random = mahavishnu::model::At::now().unix_ms().unsigned_abs();
        Self {
            memories: count("MAHAVISHNU_FAULT_MEMORIES", 60),
            kills: count("MAHAVISHNU_FAULT_KILLS", 5),
            peer_kills: count("MAHAVISHNU_FAULT_PEER_KILLS", 2),
            seed: number("MAHAVISHNU_FAULT_SEED", random),
        }
    }

    /// Returns after which kill of the server the peer is killed too.
    fn peer_dies_in(&self, round: usize) -> bool {
        let share = |round: usize| round * self.peer_kills / self.kills;
        share(round + 1) > share(round)
    }
}

/// Random moments that a seed determines (Knuth's MMIX generator).
struct Moments(u64);

impl Moments {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        limit.mul_f64((self.0 >> 33) as f64 / (1_u64 << 31) as f64)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.below(Duration::from_secs(1)) < Duration::from_secs(1) / count
    }
}

/// What is to be kept, and what was told to be kept.
struct Kept {
    texts: Vec<String>,
    /// The id that the server gave, by the text's place.
    told: BTreeMap<usize, MemoryId>,
    /// Calls that a kill left without an answer.
    unanswered: usize,
}

impl Kept {
    /// Has every text up to `end` that was not told to be kept yet kept by `server`, without waiting for answers.
    fn begin(&self, server: &mut Server, end: usize) -> Vec<(usize, i64)> {
        let open = (0..end).filter(|at| !self.told.contains_key(at));
        open.map(|at| {
            let call = json!({"text": self.texts[at], "tags": ["faults"]});
            (at, server.begin("remember", call))
        })
        .collect()
    }

    fn note(&mut self, at: usize, answer: &serde_json::Value) {
        let id = answer["result"]["structuredContent"]["id"].as_str();
        let id = id.unwrap_or_else(|| panic!("it was not kept: {answer:#}"));
        let id = id.parse().expect("an id");
        let before = self.told.insert(at, id);
        assert!(before.is_none(), "it was asked for once it was answered");
    }
}

#[tokio::test]
async fn every_memory_arrives_once_although_both_sides_are_killed() {
    if real::venv().is_none() {
        return real::skipped("every_memory_arrives_once_although_both_sides_are_killed");
    }
    let size = Size::from_env();
    let began = Instant::now();
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut peer = real::Server::start(Profile::Default, data.path());
    let url = format!("http://127.0.0.1:{}/mcp", peer.port());
    let home = Home::with_config(&format!("[session_buddy]\nurl = {url:?}\n"));
    let mut kept = Kept {
        texts: texts(size.memories),
        told: BTreeMap::new(),
        unanswered: 0,
    };
    let mut moments = Moments(size.seed);
    for round in 0..size.kills {
        let end = (round + 1) * size.memories / size.kills;
        let kills_peer = size.peer_dies_in(round);
        run_and_kill(&home, &mut peer, &mut kept, end, kills_peer, &mut moments);
    }
    let mut server = Server::start(&home);
    for (at, id) in kept.begin(&mut server, size.memories) {
        let answer = server.response(id);
        kept.note(at, &answer);
    }
    let store = Store::open(StoreOptions {
        dir: home.state(),
        durability: Durability::Normal,
    })
    .expect("it can be shared");
    let presence = wait_until_all_arrived(&mut server, &store, &peer, size).await;
    let local = assert_kept_once(&store, &kept).await;
    let known = store.peer_state(PeerName::new(PEER)).await;
    let compared = known.expect("it is readable").reconciled;
    say(&format!(
        "MEASURED: faults (seed {}): {} memories, {} kills of the server, {} of Session-Buddy, {} calls cut off; kept \
         {local} of them once; Session-Buddy lacks {}, has {} twice; last comparison: {compared:?}; {:.0} s",
        size.seed,
        size.memories,
        size.kills,
        size.peer_kills,
        kept.unanswered,
        presence.missing.len(),
        presence.duplicates.len(),
        began.elapsed().as_secs_f64(),
    ));
    assert_eq!(presence.missing, []);
    assert_eq!(presence.duplicates, [], "seen by the peer:\n{}", peer.log());
    server.close_stdin();
    let _ended = server.wait_end();
    store.close().await;
}

fn texts(count: usize) -> Vec<String> {
    let words = "what was learned of the dunnart, at some length, as memories are. ".repeat(6);
    (0..count)
        .map(|n| format!("fault memory {n} of {}: {words}", MemoryId::new()))
        .collect()
}

/// Starts the server, has it keep what it was not told yet, and kills it at a random moment, the peer as well where the
/// round says so: before the server or after it.
fn run_and_kill(
    home: &Home,
    peer: &mut real::Server,
    kept: &mut Kept,
    end: usize,
    kills_peer: bool,
    moments: &mut Moments,
) {
    /// About what the peer takes a second.
    const RATE: f64 = 3.0;
    const EARLY: Duration = Duration::from_millis(60);
    let mut server = Server::start(home);
    let calls = kept.begin(&mut server, end);
    let share = Duration::from_secs_f64(calls.len() as f64 / RATE);
    let early = moments.one_in(3);
    let revived_first = kills_peer && moments.one_in(2);
    let mut pass = |limit: Duration| {
        let pause = moments.below(limit);
        wait_until(pause, || false);
    };
    // Early: while it is being told what to keep, or before it begins to send.
    pass(if early { EARLY } else { 2 * share });
    if kills_peer {
        peer.kill();
        pass(share);
    }
    if revived_first {
        peer.restart();
    }
    server.signal("KILL");
    let _killed = server.wait_end();
    for (at, id) in calls {
        match server.answered(id) {
            Some(answer) => kept.note(at, &answer),
            None => kept.unanswered += 1,
        }
    }
    server.marker.assert_none_survives();
    if kills_peer && !revived_first {
        peer.restart();
    }
}

/// Waits until nothing is on its way and the peer lacks nothing; returns what the peer has.
async fn wait_until_all_arrived(
    server: &mut Server,
    store: &Store,
    peer: &real::Server,
    size: Size,
) -> Presence {
    let limit = Duration::from_secs(300) + Duration::from_secs(2) * size.memories as u32;
    let deadline = Instant::now() + limit;
    loop {
        let call = json!({"pools": [], "wait_s": 10});
        let sum = server.call("aggregate_memory", call).ok();
        assert_eq!(sum["failed"], 0, "no memory is at fault: {sum:#}");
        if sum["outbox_pending"] == 0 {
            let markers = acked(store).await;
            let buddy = real::buddy(peer.port());
            let presence = buddy.presence(&markers, real::soon()).await;
            let presence = presence.expect("it answers");
            if presence.missing.is_empty() && markers.len() == size.memories {
                return presence;
            }
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {sum:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn acked(store: &Store) -> Vec<Marker> {
    let acked = store.acked(PeerName::new(PEER), None, 1_000_000).await;
    let acked = acked.expect("it is readable").into_iter();
    acked.map(|(id, pool)| Marker { pool, id }).collect()
}

/// Asserts that the store holds each text once and under the id that was told; returns how many it holds.
async fn assert_kept_once(store: &Store, kept: &Kept) -> u64 {
    let health = store.integrity().await.expect("it is readable");
    assert!(health.ok, "{health:?}");
    assert_eq!(health.memories, kept.texts.len() as u64, "each once");
    let ids: HashSet<MemoryId> = kept.told.values().copied().collect();
    assert_eq!(ids.len(), kept.texts.len());
    for (at, id) in &kept.told {
        let memory = store.memory(*id).await.expect("it is readable");
        let text = memory.map(|memory| memory.text.into_string());
        assert_eq!(text.as_ref(), Some(&kept.texts[*at]));
    }
    health.memories
}

#[test]
fn a_peer_that_was_started_as_a_child_and_listens_to_nothing_dies_with_a_killed_server() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    let script = format!(
        "trap '' TERM HUP; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 1; done",
        pid_file.display()
    );
    let command = format!("[\"/bin/sh\", \"-c\", {script:?}]");
    home.configure(&format!("[session_buddy]\ncommand = {command}\n"));
    let mut server = Server::start(&home);
    let kept = server.call("remember", json!({"text": "so that the peer is needed"}));
    assert_eq!(kept.ok()["forwarding"], "pending");
    assert!(wait_until(HANG, || pid_file.exists()), "it is started");
    let pid = std::fs::read_to_string(&pid_file).expect("it is written");
    let runs = || {
        let shown = std::process::Command::new("ps")
            .args(["-o", "stat=", "-p", pid.trim()])
            .output();
        let state = shown.expect("ps runs").stdout;
        !state.is_empty() && !state.starts_with(b"Z")
    };
    assert!(runs());
    server.signal("KILL");
    let _killed = server.wait_end();
    assert!(wait_until(HANG, || !runs()), "{pid} outlived its server");
}
