//! The outbox of a real store against peers that fail in every way: nothing is lost, nothing is twice, nothing is given
//! up for the peer's faults.

use super::forward::{forwarder, memories, open, peer, wait_for_acked};
use super::real::{self, Profile, Server};
use crate::mcp_client::scripted::{Request, Scripted, json_answer};
use crate::memory::{Bench, PEER};
use crate::proxy::{Fault, Proxy};
use crate::support::HANG;
use mahavishnu::api::{AggregateMemory, Forwarding};
use mahavishnu::model::{At, MemoryId, OutboxCounts, PeerName, PoolName};
use mahavishnu::orchestrator::sync::{DeliverySettings, DeliveryStatus, Forwarder};
use mahavishnu::redact::redact;
use mahavishnu::session_buddy::{Marker, SessionBuddy};
use mahavishnu::store::Store;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Waits until the store says so.
async fn wait_for(store: &Store, what: &str, holds: impl Fn(&OutboxCounts) -> bool) {
    let deadline = Instant::now() + HANG;
    loop {
        let counts = store.outbox_counts(peer()).await.expect("it counts");
        if holds(&counts) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {counts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for_status(forwarder: &Forwarder, holds: impl FnMut(&DeliveryStatus) -> bool) {
    let mut status = forwarder.link.status.subscribe();
    let waited = tokio::time::timeout(HANG, status.wait_for(holds)).await;
    let stood = waited.map(|waited| waited.map(drop).is_ok());
    assert_eq!(stood, Ok(true), "{:?}", forwarder.link.status.borrow());
}

/// Puts `count` memories into the outbox; returns their markers.
async fn keep(store: &Store, count: usize) -> Vec<Marker> {
    let unique = MemoryId::new();
    let batch = memories(count).into_iter().map(|mut memory| {
        memory.text = redact(&format!("{}{unique}", memory.text));
        memory
    });
    let report = store
        .insert_memories(batch.collect(), Some(peer()))
        .await
        .expect("they are stored");
    let pool: PoolName = "it".parse().expect("a name");
    let marked = report.ids.into_iter().map(|id| Marker {
        pool: pool.clone(),
        id,
    });
    marked.collect()
}

async fn assert_has_each_once(buddy: &SessionBuddy, markers: &[Marker]) {
    let presence = buddy.presence(markers, real::soon()).await;
    assert_eq!(presence, Ok(Default::default()));
}

fn begin(forwarder: &Forwarder, tasks: &mut JoinSet<()>) {
    let sender = forwarder.clone();
    tasks.spawn(async move { sender.run().await });
}

async fn end(forwarder: &Forwarder, tasks: &mut JoinSet<()>) {
    forwarder.link.stop.cancel();
    let ended = tasks.join_next().await.expect("it ran");
    ended.expect("it did not panic");
}

#[tokio::test]
async fn of_two_servers_one_sends_and_the_other_takes_over() {
    let Some(server) = real::shared(Profile::Full) else {
        return real::skipped("of_two_servers_one_sends_and_the_other_takes_over");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = [open(folder.path()), open(folder.path())];
    let both = stores
        .clone()
        .map(|store| forwarder(&store, real::buddy(server.port())));
    let mut tasks = [JoinSet::new(), JoinSet::new()];
    for (forwarder, tasks) in both.iter().zip(&mut tasks) {
        begin(forwarder, tasks);
    }
    let sends = |at: usize| both[at].link.status.borrow().sending;
    while !sends(0) && !sends(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (first, second) = if sends(0) { (0, 1) } else { (1, 0) };
    // Put in through the one that does not send.
    let mut markers = keep(&stores[second], 40).await;
    both[second].link.enqueued.notify_one();
    wait_for_acked(&stores[second], 5).await;
    assert!(sends(first) && !sends(second), "one at a time");
    // It ends with work left, and the idle one takes over without being told.
    end(&both[first], &mut tasks[first]).await;
    wait_for_acked(&stores[second], 40).await;
    assert!(sends(second));
    markers.extend(keep(&stores[second], 2).await);
    both[second].link.enqueued.notify_one();
    wait_for_acked(&stores[second], 42).await;
    assert_has_each_once(&real::buddy(server.port()), &markers).await;
    end(&both[second], &mut tasks[second]).await;
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_send_tells_that_the_peer_is_down() {
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = gone.local_addr().expect("it is bound").port();
    drop(gone);
    let one = Bench::new(Some(real::buddy(port)));
    one.tools.resume();
    let sender = one.tools.forwarder().expect("there is a peer");
    wait_for_status(sender, |status| status.sending).await;
    let two = one.beside(Some(real::buddy(port)));
    two.tools.resume();
    two.remember("kept while the peer is down").await;
    let call = AggregateMemory {
        wait_s: Some(45.0),
        ..AggregateMemory::default()
    };
    let began = Instant::now();
    let sum = two.aggregate(call.clone()).await;
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "it gave up early"
    );
    assert_eq!((sum.pending, sum.forwarding), (1, Forwarding::Down));
    let own = two.tools.forwarder().expect("there is a peer");
    assert!(!own.link.status.borrow().sending, "the other one sends");
    let ms = |at: Option<At>| at.expect("it is down").unix_ms();
    let since = sender.link.status.borrow().down_since;
    assert_eq!(ms(sum.down_since), ms(since));
    let state = own.sender_state().await.expect("it is readable");
    assert!(state.error.is_some(), "{state:?}");
    one.close().await;
    // The next sender knows since when.
    wait_for_status(own, |status| status.sending).await;
    let later = two.aggregate(call).await;
    assert_eq!(
        (later.down_since, later.outbox_pending),
        (sum.down_since, 1)
    );
    two.close().await;
}

#[tokio::test]
async fn a_peer_that_restarts_empty_gets_everything_again_by_itself() {
    for profile in Profile::BOTH {
        if real::venv().is_none() {
            return real::skipped("a_peer_that_restarts_empty_gets_everything_again_by_itself");
        }
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::start(profile, home.path());
        let bench = Bench::new(Some(real::buddy(server.port())));
        bench.tools.resume();
        let mut markers = Vec::new();
        for n in 0..4 {
            let kept = bench
                .remember(&format!("the peer will lose quoll {n}"))
                .await;
            let pool = "b".parse().expect("a name");
            let id = kept.id.parse().expect("an id");
            markers.push(Marker { pool, id });
        }
        let arrived = bench
            .aggregate(AggregateMemory {
                wait_s: Some(45.0),
                ..AggregateMemory::default()
            })
            .await;
        assert_eq!((arrived.forwarded, arrived.outbox_pending), (4, 0));
        let forwarder = bench.tools.forwarder().expect("there is a peer");
        // Nothing is sent meanwhile, so that only looking can tell.
        server.kill();
        server.wipe();
        server.restart();
        wait_until_all_there(server.port(), &markers).await;
        let sent = forwarder.link.status.borrow().delivered;
        assert_eq!(sent, 8, "each once more");
        // Between two runs of ours: the next one compares at its start.
        let beside = bench.beside(Some(real::buddy(server.port())));
        bench.close().await;
        server.kill();
        server.wipe();
        server.restart();
        beside.tools.resume();
        wait_until_all_there(server.port(), &markers).await;
        let state = beside.store.peer_state(PeerName::new(PEER)).await;
        let found = state.expect("it is readable").reconciled;
        assert_eq!(found.map(|found| (found.checked, found.lost)), Some((4, 4)));
        beside.close().await;
    }
}

async fn wait_until_all_there(port: u16, markers: &[Marker]) {
    let deadline = Instant::now() + HANG;
    loop {
        let presence = real::buddy(port).presence(markers, real::soon()).await;
        let presence = presence.expect("it answers");
        assert_eq!(presence.duplicates, []);
        if presence.missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{presence:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_or_lost_is_asked_for_and_never_sent_twice() {
    for profile in Profile::BOTH {
        let Some(server) = real::shared(profile) else {
            return real::skipped(
                "an_answer_that_is_cut_or_lost_is_asked_for_and_never_sent_twice",
            );
        };
        let proxy = Proxy::start(server.port()).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path());
        let buddy = real::buddy(proxy.port());
        buddy.probe(real::soon()).await.expect("it answers");
        let mut forwarder = forwarder(&store, buddy);
        forwarder.settings.unclear_rest = Duration::from_secs(1);
        forwarder.settings.call_timeout = Duration::from_secs(10);
        let mut tasks = JoinSet::new();
        begin(&forwarder, &mut tasks);
        let mut kept = Vec::new();
        for fault in [
            Fault::CutAfter(0),
            Fault::CutBodyAfter(30),
            Fault::HalfOpen,
            Fault::AnswerTwice,
            Fault::Delay(Duration::from_secs(1)),
        ] {
            proxy.set(fault);
            let asked = forwarder.link.status.borrow().already_there;
            kept.extend(keep(&store, 2).await);
            forwarder.link.enqueued.notify_one();
            let passes = matches!(fault, Fault::AnswerTwice | Fault::Delay(_));
            if !passes {
                wait_for(&store, "one rests", |counts| counts.resting > 0).await;
            }
            proxy.set(if passes { fault } else { Fault::None });
            wait_for_acked(&store, kept.len() as u64).await;
            let status = forwarder.link.status.borrow().clone();
            assert!(
                passes || status.already_there > asked,
                "{fault:?} {status:?}"
            );
            assert_eq!(status.dead, 0, "{fault:?}");
        }
        proxy.set(Fault::None);
        assert_has_each_once(&real::buddy(server.port()), &kept).await;
        end(&forwarder, &mut tasks).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_a_locked_peer_cannot_take_waits_until_it_can() {
    if real::venv().is_none() {
        return real::skipped("what_a_locked_peer_cannot_take_waits_until_it_can");
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut holder = Server::start(Profile::Default, home.path());
    // The database is opened, and so locked, by the first store.
    let owner = real::buddy(holder.port());
    let first = owner
        .store(&real::outgoing("the owner's"), real::soon())
        .await;
    first.expect("it is stored");
    let mut locked = Server::start_beside(&holder);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(folder.path());
    let forwarder = forwarder(&store, real::buddy(locked.port()));
    let markers = keep(&store, 3).await;
    let mut tasks = JoinSet::new();
    begin(&forwarder, &mut tasks);
    wait_for_status(&forwarder, |status| status.down_since.is_some()).await;
    let error = forwarder.link.status.borrow().error.clone();
    let hint = error.and_then(|error| error.hint).expect("a next step");
    assert!(hint.contains("other Session-Buddy"), "{hint}");
    let counts = store.outbox_counts(peer()).await.expect("it counts");
    assert_eq!((counts.open(), counts.dead), (3, 0));
    holder.kill();
    // It holds no lock of its own, and may not try again by itself.
    locked.kill();
    locked.restart();
    wait_for_acked(&store, 3).await;
    assert_has_each_once(&real::buddy(locked.port()), &markers).await;
    end(&forwarder, &mut tasks).await;
    store.close().await;
}

/// What a peer of the test's own does with a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Good,
    Errors,
    Garbage,
    NotASessionBuddy,
    Status(u16),
}

/// A peer that behaves as the full front door where it is good.
struct Moody {
    server: Scripted,
    mood: Arc<Mutex<Mood>>,
    stored: Arc<Mutex<Vec<String>>>,
}

impl Moody {
    async fn start(mood: Mood) -> Self {
        let mood = Arc::new(Mutex::new(mood));
        let stored: Arc<Mutex<Vec<String>>> = Arc::default();
        let (now, book) = (Arc::clone(&mood), Arc::clone(&stored));
        let server = Scripted::mcp_with(move |request| {
            let mood = *now.lock().expect("nothing panics with it");
            let mut stored = book.lock().expect("nothing panics with it");
            reply(mood, request, &mut stored)
        });
        Self {
            server: server.await,
            mood,
            stored,
        }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("nothing panics with it") = mood;
    }

    fn stored(&self) -> Vec<String> {
        self.stored.lock().expect("nothing panics with it").clone()
    }
}

fn reply(
    mood: Mood,
    request: &Request,
    stored: &mut Vec<String>,
) -> crate::mcp_client::scripted::Answer {
    let done = |result: Value| {
        let body = json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result});
        json_answer(200, &body)
    };
    if request.method() == "tools/list" {
        let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
        let names: &[&str] = match mood {
            Mood::NotASessionBuddy => &["list_pools", "remember"],
            _ => &["store_conversation", "search_conversations"],
        };
        let tools: Vec<Value> = names.iter().map(|name| tool(name)).collect();
        return done(json!({"tools": tools}));
    }
    let say = |text: String| done(json!({"content": [{"type": "text", "text": text}]}));
    let params = &request.body["params"];
    let text = |name: &str| {
        params["arguments"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    match mood {
        Mood::Status(status) => json_answer(status, &json!({"no": "answer"})),
        Mood::Errors => say("Error storing: the disk is full".to_owned()),
        Mood::Garbage => Some((
            200,
            "content-type: application/json\r\n".to_owned(),
            "{\"jsonrpc\": \"2.0\", <html>".to_owned(),
        )),
        _ if params["name"] == "store_conversation" => {
            stored.push(text("content"));
            say("✅ Conversation stored successfully!\n\n📝 Conversation ID: 0".to_owned())
        }
        _ => {
            let query = text("query");
            let found: Vec<_> = stored.iter().filter(|it| it.contains(&query)).collect();
            if found.is_empty() {
                return say(format!("🔍 No conversations found matching: \"{query}\""));
            }
            let mut page = format!(
                "🔍 Search Results for: '{query}'\n====\nFound {} conversations\n\n",
                found.len()
            );
            for (n, item) in found.iter().enumerate() {
                let shown: String = item.chars().take(200).collect();
                page.push_str(&format!(
                    "{}. Score: 0.0%\n   📁 Project: it\n   🕐 now\n   📝 {shown}\n\n",
                    n + 1
                ));
            }
            say(page)
        }
    }
}

#[tokio::test]
async fn no_fault_of_the_peer_makes_a_dead_letter_and_everything_arrives_once_it_is_well() {
    let bad = [
        Mood::Errors,
        Mood::Garbage,
        Mood::NotASessionBuddy,
        Mood::Status(500),
        Mood::Status(503),
    ];
    for mood in bad {
        let moody = Moody::start(mood).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (store, forwarder) = quick(folder.path(), moody.server.port);
        let markers = keep(&store, 6).await;
        let mut tasks = JoinSet::new();
        begin(&forwarder, &mut tasks);
        wait_for_status(&forwarder, |status| status.down_since.is_some()).await;
        // Many more tries than an entry of its own would be given.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let counts = store.outbox_counts(peer()).await.expect("it counts");
        assert_eq!(
            (counts.open(), counts.acked, counts.dead),
            (6, 0, 0),
            "{mood:?}"
        );
        let error = forwarder.link.status.borrow().error.clone();
        let error = error.unwrap_or_else(|| panic!("{mood:?} is told"));
        if mood == Mood::NotASessionBuddy {
            assert!(error.message.contains("not a Session-Buddy"), "{error:?}");
            assert!(
                error
                    .hint
                    .is_some_and(|hint| hint.contains("[session_buddy]"))
            );
        }
        moody.set(Mood::Good);
        wait_for_acked(&store, 6).await;
        let status = forwarder.link.status.borrow().clone();
        assert_eq!((status.down_since, status.dead), (None, 0), "{mood:?}");
        let stored = moody.stored();
        for marker in &markers {
            let times = stored
                .iter()
                .filter(|it| it.starts_with(&marker.to_string()));
            assert_eq!(times.count(), 1, "{mood:?}");
        }
        end(&forwarder, &mut tasks).await;
        store.close().await;
    }
}

/// A forwarder that does not wait for long.
fn quick(dir: &Path, port: u16) -> (Store, Forwarder) {
    let store = open(dir);
    let mut forwarder = forwarder(&store, real::buddy(port));
    forwarder.settings = DeliverySettings {
        unclear_rest: Duration::from_millis(300),
        retry_wait: (Duration::from_millis(20), Duration::from_millis(200)),
        ..DeliverySettings::default()
    };
    (store, forwarder)
}
