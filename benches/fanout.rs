//! What do many pools cost beside the slowest of them, and many memories beside a bare table?
//!
//! Collectors: every pool answers after a second, in one figure all but one that never does. Aggregation: the real
//! memory tools over a store on disk; the peer is another process that speaks MCP (`benches/peers/bare_server.rs`), takes
//! 0.1 s for a memory, and so many at once. Its limit: the slowest pool, then as many rounds of 0.1 s as the peer needs
//! for all of them.

mod harness;

use futures_util::future::BoxFuture;
use harness::corpus::{Corpus, memory};
use harness::peers::session_buddy;
use harness::{Bench, Goal, Unit, each, rate};
use mahavishnu::api::{AggregateMemory, Caller};
use mahavishnu::config::CacheConfig;
use mahavishnu::error::Problem;
use mahavishnu::mcp_client::{ClientSettings, Endpoint, Launcher, McpClient};
use mahavishnu::model::{At, NewMemory, PeerName, PoolName};
use mahavishnu::orchestrator::memory::collector::{Answer, fan_out};
use mahavishnu::orchestrator::memory::{Collect, Memories, Parts, PoolNames};
use mahavishnu::orchestrator::sync::DeliverySettings;
use mahavishnu::process::{Options, Processes};
use mahavishnu::session_buddy::SessionBuddy;
use mahavishnu::store::{Durability, Store, StoreOptions};
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the peer takes for one memory.
const INSERT: Duration = Duration::from_millis(100);

/// What a deadline may be missed by.
const LATE: Duration = Duration::from_millis(20);

fn main() {
    let bench = Bench::new("fanout");
    let runtime = Runtime::new().expect("a runtime");
    collectors(&bench, &runtime);
    // Pools, memories of each, and how many the peer takes at once.
    for (pools, each, at_once) in
        bench.size(&[(5, 20, 1), (5, 100, 8), (5, 100, 500)][..], &[(2, 3, 2)])
    {
        aggregation(&bench, &runtime, *pools, *each, *at_once);
    }
    let corpus = Corpus::new();
    bulk(&bench, &runtime, "short texts", |number| {
        memory(&name(0), number).text
    });
    bulk(&bench, &runtime, "texts of 80 words", |number| {
        corpus.memory(number).text
    });
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

fn collectors(bench: &Bench, runtime: &Runtime) {
    let latency = bench.size(Duration::from_secs(1), Duration::from_millis(10));
    let sizes: &[usize] = bench.size(&[10, 100, 1_000], &[10]);
    for &pools in sizes {
        bench
            .figure("pools of one second", Unit::Nanoseconds)
            .of(pools)
            .rounds(3)
            .add("collector", || {
                each(1, || ask(runtime, pools, latency, None))
            })
            .add("the slowest pool", || {
                each(1, || runtime.block_on(async { sleep(latency).await }))
            })
            .goal(Goal::AtMost(1.02))
            .run();
    }
    let (pools, deadline) = (sizes[sizes.len() - 1], latency * 2);
    bench
        .figure("pools of one second, one hung", Unit::Nanoseconds)
        .of(pools)
        .rounds(3)
        .add("collector", || {
            each(1, || ask(runtime, pools, latency, Some(deadline)))
        })
        .add("the deadline and 20 ms", || {
            vec![nanoseconds(deadline + LATE)]
        })
        .goal(Goal::AtMost(1.0))
        .run();
}

/// Asks all pools; with a deadline, the first of them hangs.
fn ask(runtime: &Runtime, pools: usize, latency: Duration, hung: Option<Duration>) {
    let answers = runtime.block_on(async {
        let deadline = Instant::now() + hung.unwrap_or(latency * 10);
        fan_out(0..pools, deadline, move |pool| async move {
            if pool == 0 && hung.is_some() {
                std::future::pending::<()>().await;
            }
            sleep(latency).await;
            Ok::<_, Problem>(pool)
        })
        .await
    });
    let late = answers
        .iter()
        .filter(|answer| matches!(answer, Answer::Late))
        .count();
    assert_eq!(late, usize::from(hung.is_some()));
}

/// Pools whose own servers hold memories.
struct Pools {
    count: usize,
    each: usize,
    latency: Duration,
    told: Mutex<BTreeMap<PoolName, Vec<NewMemory>>>,
}

impl Pools {
    fn new(count: usize, each: usize, latency: Duration) -> Self {
        Self {
            count,
            each,
            latency,
            told: Mutex::default(),
        }
    }

    /// Makes what the next collection finds, from `first` on, so that making it is not measured; each memory's text is
    /// what `text` returns of its number.
    fn learn(&self, first: usize, text: impl Fn(usize) -> String) {
        let told = (0..self.count).map(|pool| {
            let numbers = (first + pool * self.each..).take(self.each);
            let memories = numbers.map(|number| NewMemory {
                text: text(number),
                ..memory(&name(pool), number)
            });
            (name(pool), memories.collect())
        });
        *self.told.lock().expect("nobody panicked") = told.collect();
    }
}

fn name(pool: usize) -> PoolName {
    format!("p{pool}").parse().expect("a pool's name")
}

impl PoolNames for &Pools {
    fn exists(&self, name: &str) -> bool {
        self.all().iter().any(|pool| pool.as_str() == name)
    }

    fn all(&self) -> Vec<PoolName> {
        (0..self.count).map(name).collect()
    }

    fn collector(&self, pool: &PoolName) -> Option<Arc<dyn Collect>> {
        let mut told = self.told.lock().expect("nobody panicked");
        Some(Arc::new(OwnServer {
            memories: Mutex::new(told.remove(pool).expect("they have learned")),
            latency: self.latency,
        }))
    }
}

struct OwnServer {
    memories: Mutex<Vec<NewMemory>>,
    latency: Duration,
}

impl Collect for OwnServer {
    fn collect(&self, _: Option<At>, _: Instant) -> BoxFuture<'_, Result<Vec<NewMemory>, Problem>> {
        Box::pin(async {
            if !self.latency.is_zero() {
                sleep(self.latency).await;
            }
            Ok(std::mem::take(
                &mut *self.memories.lock().expect("nobody panicked"),
            ))
        })
    }
}

/// The memory tools over a store on disk.
struct Tools {
    memories: Memories,
    peer: Option<SessionBuddy>,
    closing: CancellationToken,
    tasks: TaskTracker,
    _dir: TempDir,
}

impl Tools {
    fn new(runtime: &Runtime, peer: Option<SessionBuddy>) -> Self {
        let _context = runtime.enter();
        let dir = tempfile::tempdir().expect("the temporary folder can be written");
        let store = Store::open(StoreOptions {
            dir: dir.path().to_owned(),
            durability: Durability::Full,
        });
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let memories = Memories::new(Parts {
            store: store.expect("it is empty"),
            peer: peer
                .clone()
                .map(|peer| (PeerName::new("session_buddy"), peer)),
            delivery: DeliverySettings::default(),
            cache: CacheConfig::default(),
            collect_deadline: Duration::from_secs(20),
            clock: Arc::new(std::time::Instant::now),
            tasks: tasks.clone(),
            closing: closing.clone(),
        });
        Self {
            memories,
            peer,
            closing,
            tasks,
            _dir: dir,
        }
    }

    /// Collects everything, and forwards it where there is a peer.
    fn aggregate(&self, runtime: &Runtime, pools: &Pools) {
        let caller = Caller::new(None, Duration::from_secs(300));
        let call = AggregateMemory {
            wait_s: Some(300.0),
            ..AggregateMemory::default()
        };
        let result = runtime.block_on(self.memories.aggregate(call, &caller, &pools));
        let result = result.expect("it aggregates");
        assert_eq!(result.new, (pools.count * pools.each) as u64, "{result:?}");
        let peer = self.memories.forward_to().map(|_| result.new);
        assert_eq!(result.forwarded, peer.unwrap_or(0), "{result:?}");
    }

    fn close(self, runtime: &Runtime) {
        self.closing.cancel();
        self.tasks.close();
        runtime.block_on(async {
            self.tasks.wait().await;
            if let Some(peer) = &self.peer {
                peer.client().close(Duration::from_secs(2)).await;
            }
        });
    }
}

/// A stand-in for Session-Buddy that takes [`INSERT`] for a memory and `at_once` of them at once.
fn peer(folder: &Path, at_once: usize) -> SessionBuddy {
    let (delay, at_once) = (INSERT.as_millis().to_string(), at_once.to_string());
    let options = ["--delay-ms", &delay, "--at-once", &at_once];
    let endpoint = Endpoint::Stdio {
        command: session_buddy(folder, &options),
        env: Vec::new(),
    };
    let launcher = Launcher {
        processes: Processes::new(Options {
            guardian_program: env!("CARGO_BIN_EXE_mahavishnu").into(),
            hold: None,
        }),
        cwd: folder.to_owned(),
    };
    let settings = ClientSettings {
        launcher: Some(launcher),
        ..ClientSettings::new("peer")
    };
    SessionBuddy::new(McpClient::new(endpoint, settings), 7)
}

fn aggregation(bench: &Bench, runtime: &Runtime, count: usize, each: usize, at_once: usize) {
    let latency = bench.size(Duration::from_secs(1), Duration::from_millis(10));
    let pools = Pools::new(count, each, latency);
    let learned = Cell::new(0);
    let learn = || {
        let first = learned.replace(learned.get() + count * each);
        pools.learn(first, |number| memory(&name(0), number).text);
    };
    let limit = latency + INSERT * u32::try_from((count * each).div_ceil(at_once)).expect("few");
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let goal = (at_once > 1).then_some(Goal::AtMost(1.05));
    let name = format!("aggregation, {count} x {each} to a peer that takes {at_once} at once");
    let timed = |tools: &Tools| {
        learn();
        harness::each(1, || tools.aggregate(runtime, &pools))
    };
    bench
        .figure(format!("{name}, first contact"), Unit::Nanoseconds)
        .rounds(3)
        .add("mahavishnu", || {
            let tools = Tools::new(runtime, Some(peer(folder.path(), at_once)));
            let taken = timed(&tools);
            tools.close(runtime);
            taken
        })
        .add("the limit", || vec![nanoseconds(limit)])
        .goal(goal)
        .run();
    let tools = OnceCell::new();
    let known = || {
        tools.get_or_init(|| {
            let tools = Tools::new(runtime, Some(peer(folder.path(), at_once)));
            timed(&tools);
            tools
        })
    };
    bench
        .figure(format!("{name}, known peer"), Unit::Nanoseconds)
        .rounds(3)
        .add("mahavishnu", || timed(known()))
        .add("the limit", || vec![nanoseconds(limit)])
        .goal(goal)
        .run();
    if let Some(tools) = tools.into_inner() {
        tools.close(runtime);
    }
}

/// Many memories at once, nobody to forward to; beside one transaction of SQLite with a full-text index.
fn bulk(bench: &Bench, runtime: &Runtime, sort: &str, text: impl Fn(usize) -> String) {
    let (count, each) = bench.size((100, 1_000), (3, 10));
    let pools = Pools::new(count, each, Duration::ZERO);
    let texts: Vec<String> = (0..count * each).map(&text).collect();
    bench
        .figure(
            format!("aggregation, {count} x {each}, no latency, {sort}"),
            Unit::PerSecond,
        )
        .rounds(3)
        .add("mahavishnu", || {
            pools.learn(0, |number| texts[number].clone());
            let tools = Tools::new(runtime, None);
            let took = rate(count * each, || tools.aggregate(runtime, &pools));
            tools.close(runtime);
            took
        })
        .add("SQLite and FTS5, one transaction", || {
            let dir = tempfile::tempdir().expect("the temporary folder can be written");
            rate(texts.len(), || {
                bare_sqlite(dir.path(), &texts).expect("it stores")
            })
        })
        .goal(Goal::AtLeast(0.5))
        .run();
}

fn bare_sqlite(folder: &Path, texts: &[String]) -> rusqlite::Result<()> {
    let mut connection = rusqlite::Connection::open(folder.join("bare.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE memories (m INTEGER PRIMARY KEY, text TEXT NOT NULL);
         CREATE VIRTUAL TABLE fts USING fts5(text, content = 'memories', content_rowid = 'm',
             tokenize = 'unicode61 remove_diacritics 2');",
    )?;
    let transaction = connection.transaction()?;
    {
        let mut memory = transaction.prepare("INSERT INTO memories (text) VALUES (?1)")?;
        let mut index = transaction.prepare("INSERT INTO fts (rowid, text) VALUES (?1, ?2)")?;
        for text in texts {
            let id = memory.insert([text])?;
            index.execute((id, text))?;
        }
    }
    transaction.commit()
}
