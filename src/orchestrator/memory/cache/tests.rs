use super::*;
use std::sync::atomic::AtomicUsize;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

type Cache = SearchCache<String, String, String>;

const TTL: Duration = Duration::from_secs(300);

/// A clock that stands still until it is stepped.
#[derive(Clone)]
struct Stepped(Arc<Mutex<Instant>>);

impl Stepped {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn step(&self, by: Duration) {
        *self.0.lock() += by;
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Arc::new(move || *now.lock())
    }
}

fn cache_of(max_bytes: u64, time: &Stepped) -> Arc<Cache> {
    let weigh = |key: &String, value: &String| key.len() + value.len();
    Arc::new(SearchCache::new(max_bytes, TTL, time.clock(), weigh))
}

fn cache() -> (Arc<Cache>, Stepped) {
    let time = Stepped::new();
    (cache_of(1 << 20, &time), time)
}

async fn answer(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

async fn forbidden() -> Result<String, String> {
    panic!("nothing is to be loaded")
}

#[tokio::test]
async fn a_loaded_entry_is_a_hit_with_its_age() {
    let (cache, time) = cache();
    let loaded = cache
        .get_or_load("q".into(), answer("a"))
        .await
        .expect("loads");
    assert_eq!((loaded.how, loaded.age), (How::Loaded, Duration::ZERO));
    time.step(Duration::from_secs(7));
    let hit = cache
        .get_or_load("q".into(), forbidden())
        .await
        .expect("is there");
    assert_eq!((hit.how, hit.age), (How::Hit, Duration::from_secs(7)));
    assert!(Arc::ptr_eq(&hit.value, &loaded.value));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.coalesced), (1, 1, 0));
    assert_eq!(stats.hit_rate(), 0.5);
}

#[tokio::test]
async fn an_entry_expires_by_the_clock_and_by_its_own_time() {
    let (cache, time) = cache();
    cache.insert("long".into(), "a".into());
    cache.insert_for("short".into(), "b".into(), Duration::from_secs(10));
    time.step(Duration::from_secs(10));
    assert!(
        cache.get(&"short".into()).is_none(),
        "at its end it is over"
    );
    time.step(TTL - Duration::from_secs(11));
    assert!(
        cache.get(&"long".into()).is_some(),
        "a second before its end"
    );
    time.step(Duration::from_secs(1));
    let again = cache.get_or_load("long".into(), answer("new")).await;
    assert_eq!(*again.expect("loads").value, "new");
}

#[tokio::test]
async fn expired_entries_are_not_kept_though_nobody_asks_for_them() {
    let (cache, time) = cache();
    for number in 0..100 {
        cache.insert(format!("old {number}"), "x".into());
    }
    assert_eq!(cache.stats().entries, 100);
    time.step(TTL);
    cache.insert("new".into(), "y".into());
    cache.stored.sync();
    assert_eq!(cache.stored.entry_count(), 1, "swept by the insert alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_identical_misses_are_one_load() {
    let (cache, _) = cache();
    let loads = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Notify::new());
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let (cache, loads, gate) = (Arc::clone(&cache), Arc::clone(&loads), Arc::clone(&gate));
        calls.spawn(async move {
            let load = async {
                loads.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                answer("a").await
            };
            cache.get_or_load("q".into(), load).await
        });
    }
    // The load ends once all the others wait for it: the map and each call hold the flight.
    let all_wait = || {
        let flights = cache.flights.lock();
        flights
            .values()
            .any(|flight| Arc::strong_count(flight) == 101)
    };
    while !all_wait() {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    let hits: Vec<_> = calls.join_all().await;
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let how = |how| hits.iter().flatten().filter(|hit| hit.how == how).count();
    assert_eq!((how(How::Loaded), how(How::Coalesced)), (1, 99));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.coalesced), (0, 1, 99));
    assert!(cache.flights.lock().is_empty());
}

#[tokio::test]
async fn a_cancelled_leader_hands_over_to_a_waiter() {
    let (cache, _) = cache();
    let (started, leader_runs) = oneshot::channel();
    let mut leader = JoinSet::new();
    let first = Arc::clone(&cache);
    leader.spawn(async move {
        let load = async {
            started.send(()).expect("the test waits");
            std::future::pending().await
        };
        first.get_or_load("q".into(), load).await
    });
    leader_runs.await.expect("the leader starts");
    let mut waiters = JoinSet::new();
    for _ in 0..10 {
        let cache = Arc::clone(&cache);
        waiters.spawn(async move { cache.get_or_load("q".into(), answer("second")).await });
    }
    tokio::task::yield_now().await;
    leader.shutdown().await;
    let hits: Vec<_> = waiters.join_all().await;
    let loaded = hits.iter().flatten().filter(|hit| hit.how == How::Loaded);
    assert_eq!(loaded.count(), 1, "one waiter takes over");
    assert!(hits.iter().flatten().all(|hit| *hit.value == "second"));
    assert_eq!(hits.iter().flatten().count(), 10);
}

#[tokio::test]
async fn a_dropped_load_without_waiters_leaves_no_flight() {
    let (cache, _) = cache();
    let mut load = Box::pin(cache.get_or_load("q".into(), std::future::pending()));
    assert!(futures_util::poll!(&mut load).is_pending());
    assert_eq!(cache.flights.lock().len(), 1);
    drop(load);
    assert!(cache.flights.lock().is_empty());
}

#[tokio::test]
async fn a_panicking_load_hands_over_too() {
    let (cache, _) = cache();
    let mut calls = JoinSet::new();
    let failing = Arc::clone(&cache);
    calls.spawn(async move { failing.get_or_load("q".into(), forbidden()).await.is_ok() });
    assert!(
        calls.join_next().await.expect("one call").is_err(),
        "it panicked"
    );
    let next = cache.get_or_load("q".into(), answer("a")).await;
    assert_eq!(*next.expect("loads").value, "a");
}

#[tokio::test]
async fn an_error_reaches_all_waiters_and_is_not_cached() {
    let (cache, _) = cache();
    let gate = Notify::new();
    let failing = async {
        gate.notified().await;
        Err("down".to_owned())
    };
    let lead = cache.get_or_load("q".into(), failing);
    let wait = cache.get_or_load("q".into(), forbidden());
    let (led, waited, ()) = tokio::join!(lead, wait, async {
        tokio::task::yield_now().await;
        gate.notify_one();
    });
    assert_eq!(led, Err("down".into()));
    assert_eq!(waited, Err("down".into()));
    let next = cache.get_or_load("q".into(), answer("up")).await;
    assert_eq!(next.expect("loads anew").how, How::Loaded);
}

#[tokio::test]
async fn an_entry_invalidated_during_its_load_is_not_stored() {
    for clear in [false, true] {
        let (cache, _) = cache();
        let load = async {
            if clear {
                assert_eq!(cache.clear(), 0);
            } else {
                cache.invalidate(&"q".into());
            }
            answer("stale").await
        };
        let loaded = cache.get_or_load("q".into(), load).await.expect("loads");
        assert_eq!(*loaded.value, "stale", "who asked before gets it");
        assert!(cache.get(&"q".into()).is_none(), "who asks later does not");
    }
}

#[tokio::test]
async fn an_insert_during_a_load_is_not_overwritten() {
    let (cache, _) = cache();
    let load = async {
        cache.insert("q".into(), "newer".into());
        answer("older").await
    };
    cache.get_or_load("q".into(), load).await.expect("loads");
    assert_eq!(*cache.get(&"q".into()).expect("is there").value, "newer");
}

#[tokio::test]
async fn clearing_tells_how_many_there_were() {
    let (cache, _) = cache();
    for number in 0..321 {
        cache.insert(format!("q{number}"), "x".into());
    }
    assert_eq!(cache.clear(), 321);
    assert_eq!(cache.clear(), 0);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.bytes), (0, 0));
}

#[tokio::test]
async fn bytes_stay_under_the_bound_with_a_million_distinct_keys() {
    const BOUND: u64 = 4 << 20;
    let time = Stepped::new();
    let cache = cache_of(BOUND, &time);
    let value = "v".repeat(500);
    for number in 0..1_000_000_u32 {
        cache.insert(number.to_string(), value.clone());
        if number % 50_000 == 0 {
            let stats = cache.stats();
            assert!(stats.bytes <= BOUND, "{stats:?} after {number}");
        }
    }
    let stats = cache.stats();
    assert!(stats.bytes <= BOUND, "{stats:?}");
    assert!(stats.entries > 1_000, "the bound is used: {stats:?}");
    let held = cache.stored.iter().count();
    assert!(held <= 6_000, "{held} entries held in truth");
}

/// A small generator (Steele, Lea and Flood's SplitMix64), so that each run draws the same.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[tokio::test]
async fn a_zipf_workload_with_writes_reaches_the_hit_rate() {
    const QUERIES: usize = 1_000;
    const SEARCHES: u32 = 10_000;
    const SEARCHES_PER_WRITE: u32 = 10;
    let (cache, time) = cache();
    let mut random = SplitMix64(42);
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=QUERIES)
        .map(|rank| {
            total += 1.0 / rank as f64;
            total
        })
        .collect();
    let mut draw = move || {
        let at = random.unit() * total;
        cumulative.partition_point(|&sum| sum < at)
    };
    for search in 0..SEARCHES {
        let query = format!("query {}", draw());
        let hit = cache.get_or_load(query.clone(), answer(&query)).await;
        assert_eq!(*hit.expect("loads").value, query);
        if search % SEARCHES_PER_WRITE == 0 {
            cache.invalidate(&format!("query {}", draw()));
        }
        // 10,000 searches in 1,000 s, so that entries expire too.
        time.step(Duration::from_millis(100));
    }
    let stats = cache.stats();
    assert_eq!(stats.hits + stats.misses, u64::from(SEARCHES));
    let rate = stats.hit_rate();
    #[expect(clippy::print_stdout, reason = "the figure is asked for")]
    {
        println!("hit rate on Zipf(1.0), {SEARCHES} searches over {QUERIES} queries: {rate:.3}");
    }
    assert!(rate >= 0.6, "{rate}");
}
