//! A cache of answers: bounded in bytes, an expiry per entry, and at most one load per key at a time (single-flight).
//!
//! `mini-moka` stores and evicts; expiry follows a clock that the caller passes in, and single-flight is implemented here,
//! since `mini-moka` has none. Not responsible for the key: it must contain everything that changes the answer.

use mini_moka::sync::{Cache as Moka, ConcurrentCacheExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The source of the present time; tests pass a clock that they advance.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The default time to live of an entry.
pub const DEFAULT_TTL: Duration = Duration::from_secs(5 * 60);

/// What an entry costs in addition to its key and value: the map's slot, queue nodes and sketch, rounded up.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was in the cache.
    Hit,
    /// This call loaded it.
    Loaded,
    /// Another call was loading it; this one waited for it.
    Coalesced,
}

/// A cached or freshly loaded answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Hit<V> {
    /// The answer, shared and never changed.
    pub value: Arc<V>,
    /// How long ago it was stored.
    pub age: Duration,
    /// Where it came from.
    pub how: How,
}

/// The cache's figures since it was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// Entries that are there now, expired ones left out.
    pub entries: u64,
    /// What they weigh, in bytes.
    pub bytes: u64,
    /// How long ago the oldest of them was stored.
    pub oldest: Option<Duration>,
    /// Calls answered from the cache.
    pub hits: u64,
    /// Calls that found nothing and loaded or gave up.
    pub misses: u64,
    /// Calls that found nothing and shared another call's load.
    pub coalesced: u64,
}

impl Stats {
    /// Returns the share of calls that loaded nothing themselves, from 0 to 1; 0 before the first call.
    pub fn hit_rate(&self) -> f64 {
        let saved = self.hits + self.coalesced;
        match saved + self.misses {
            0 => 0.0,
            calls => saved as f64 / calls as f64,
        }
    }
}

/// A cache from `K` to `V` whose loads fail with `E`.
pub struct SearchCache<K, V, E> {
    stored: Moka<K, Stored<V>>,
    clock: Clock,
    ttl: Duration,
    /// The loads under way. The lock is held for a map operation only, never across an await.
    flights: Mutex<HashMap<K, Arc<Flight<V, E>>>>,
    /// When expired entries are removed next. The lock is held to compare two instants.
    next_sweep: Mutex<Instant>,
    hits: AtomicU64,
    misses: AtomicU64,
    coalesced: AtomicU64,
}

struct Stored<V> {
    value: Arc<V>,
    stored: Instant,
    expires: Instant,
}

impl<V> Clone for Stored<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            ..*self
        }
    }
}

/// One load in progress (single-flight): the holder of the permit leads it; the semaphore closes when it has an outcome.
struct Flight<V, E> {
    lead: Semaphore,
    outcome: OnceLock<Result<Stored<V>, E>>,
}

impl<K, V, E> fmt::Debug for SearchCache<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchCache")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl<K, V, E> SearchCache<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Clone,
{
    /// Returns an empty cache of at most `max_bytes`: the bytes that `weigh` returns for a key and value, plus a fixed
    /// overhead per entry.
    pub fn new(
        max_bytes: u64,
        ttl: Duration,
        clock: Clock,
        weigh: impl Fn(&K, &V) -> usize + Send + Sync + 'static,
    ) -> Self {
        let weigher = move |key: &K, stored: &Stored<V>| {
            let bytes = weigh(key, &stored.value).saturating_add(ENTRY_OVERHEAD_BYTES);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let next_sweep = Mutex::new(clock() + ttl);
        Self {
            stored: Moka::builder()
                .max_capacity(max_bytes)
                .weigher(weigher)
                .build(),
            clock,
            ttl,
            flights: Mutex::default(),
            next_sweep,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
        }
    }

    /// Returns the answer for `key`, and loads it if there is none or it has expired.
    ///
    /// Of any number of calls for one key only one runs its `load`; the others wait and share what it returns.
    ///
    /// # Errors
    ///
    /// What `load` returned, to all calls that waited for it. It is not kept: the next call loads again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call that loads hands leadership to a waiting call, which runs its own `load` from the beginning;
    /// dropping a waiting call changes nothing.
    pub async fn get_or_load(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<Hit<V>, E> {
        if let Some(hit) = self.get(&key) {
            return Ok(hit);
        }
        let call = match self.join(key) {
            Joined::Stored(hit) => return Ok(hit),
            Joined::Flight(call) => call,
        };
        // The semaphore is closed once the flight has an outcome.
        if let Ok(_lead) = call.flight.lead.acquire().await {
            self.misses.fetch_add(1, Ordering::Relaxed);
            let outcome = load.await.map(|value| self.stamp(value, self.ttl));
            self.land(&call, outcome.clone());
            return outcome.map(|stored| self.hit(stored, How::Loaded));
        }
        let outcome = call.flight.outcome.get();
        let outcome = outcome.expect("a flight is closed after its outcome is set");
        self.coalesced.fetch_add(1, Ordering::Relaxed);
        outcome
            .clone()
            .map(|stored| self.hit(stored, How::Coalesced))
    }

    /// Returns the answer for `key` if there is one that has not expired. Counts as a hit if so.
    pub fn get(&self, key: &K) -> Option<Hit<V>> {
        let stored = self.stored.get(key)?;
        let now = (self.clock)();
        if now >= stored.expires {
            return None;
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(Hit {
            age: now.saturating_duration_since(stored.stored),
            value: stored.value,
            how: How::Hit,
        })
    }

    /// Stores an answer for the cache's own time to live.
    pub fn insert(&self, key: K, value: V) {
        self.insert_for(key, value, self.ttl);
    }

    /// Stores an answer that expires after `ttl`; one that is being loaded now will not replace it.
    pub fn insert_for(&self, key: K, value: V, ttl: Duration) {
        let stored = self.stamp(value, ttl);
        let mut flights = self.flights.lock();
        flights.remove(&key);
        self.stored.insert(key, stored);
        drop(flights);
        self.sweep_if_due();
    }

    /// Removes the answer for `key`; one that is being loaded now will not be kept.
    pub fn invalidate(&self, key: &K) {
        let mut flights = self.flights.lock();
        flights.remove(key);
        self.stored.invalidate(key);
    }

    /// Removes all answers, those being loaded now too, and returns how many there were.
    pub fn clear(&self) -> u64 {
        let mut flights = self.flights.lock();
        flights.clear();
        let removed = self.remove_where(|_| true);
        self.stored.sync();
        removed
    }

    /// Returns the figures of now.
    pub fn stats(&self) -> Stats {
        let now = (self.clock)();
        self.remove_expired(now);
        self.stored.sync();
        let ages = self.stored.iter();
        let oldest = ages
            .map(|entry| now.saturating_duration_since(entry.value().stored))
            .max();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            entries: self.stored.entry_count(),
            bytes: self.stored.weighted_size(),
            oldest,
            hits: count(&self.hits),
            misses: count(&self.misses),
            coalesced: count(&self.coalesced),
        }
    }

    fn join(&self, key: K) -> Joined<'_, K, V, E> {
        let mut flights = self.flights.lock();
        let flight = match flights.get(&key) {
            Some(flight) => Arc::clone(flight),
            None => {
                // A load may have finished since the first lookup; finishing takes this lock.
                if let Some(hit) = self.get(&key) {
                    return Joined::Stored(hit);
                }
                let flight = Arc::new(Flight {
                    lead: Semaphore::new(1),
                    outcome: OnceLock::new(),
                });
                flights.insert(key.clone(), Arc::clone(&flight));
                flight
            }
        };
        Joined::Flight(Call {
            flights: &self.flights,
            key,
            flight,
        })
    }

    /// Hands the outcome to all waiting calls; stores an answer unless it was invalidated during the load.
    fn land(&self, call: &Call<'_, K, V, E>, outcome: Result<Stored<V>, E>) {
        let mut flights = self.flights.lock();
        if is_current(&flights, call) {
            if let Ok(stored) = &outcome {
                self.stored.insert(call.key.clone(), stored.clone());
            }
            flights.remove(&call.key);
        }
        drop(flights);
        let set = call.flight.outcome.set(outcome);
        debug_assert!(set.is_ok(), "only the leader lands, and once");
        call.flight.lead.close();
        self.sweep_if_due();
    }

    fn stamp(&self, value: V, ttl: Duration) -> Stored<V> {
        let stored = (self.clock)();
        Stored {
            value: Arc::new(value),
            stored,
            expires: stored + ttl,
        }
    }

    fn hit(&self, stored: Stored<V>, how: How) -> Hit<V> {
        Hit {
            age: (self.clock)().saturating_duration_since(stored.stored),
            value: stored.value,
            how,
        }
    }

    /// Removes expired entries once per time to live, so that an entry nobody asks for again does not stay.
    fn sweep_if_due(&self) {
        let now = (self.clock)();
        let mut next = self.next_sweep.lock();
        if now < *next {
            return;
        }
        *next = now + self.ttl;
        drop(next);
        self.remove_expired(now);
    }

    fn remove_expired(&self, now: Instant) {
        self.remove_where(|stored| now >= stored.expires);
    }

    fn remove_where(&self, unwanted: impl Fn(&Stored<V>) -> bool) -> u64 {
        // The keys are collected first: removing while the iterator holds a shard's lock would deadlock.
        let entries = self.stored.iter();
        let keys: Vec<K> = entries
            .filter(|entry| unwanted(entry.value()))
            .map(|entry| entry.key().clone())
            .collect();
        for key in &keys {
            self.stored.invalidate(key);
        }
        keys.len() as u64
    }
}

/// The start of a call that found nothing in the cache.
enum Joined<'a, K: Hash + Eq, V, E> {
    Stored(Hit<V>),
    Flight(Call<'a, K, V, E>),
}

/// One call waiting for a flight or leading it. The last call to drop a flight without an outcome removes it from the map.
struct Call<'a, K: Hash + Eq, V, E> {
    flights: &'a Mutex<HashMap<K, Arc<Flight<V, E>>>>,
    key: K,
    flight: Arc<Flight<V, E>>,
}

impl<K: Hash + Eq, V, E> Drop for Call<'_, K, V, E> {
    fn drop(&mut self) {
        if self.flight.outcome.get().is_some() {
            return;
        }
        let mut flights = self.flights.lock();
        // Calls join under this lock, so a count of two means the map and this call.
        if is_current(&flights, self) && Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.key);
        }
    }
}

/// Returns whether new calls would join this call's flight, that is, whether it was not invalidated.
fn is_current<K: Hash + Eq, V, E>(
    flights: &HashMap<K, Arc<Flight<V, E>>>,
    call: &Call<'_, K, V, E>,
) -> bool {
    flights
        .get(&call.key)
        .is_some_and(|flight| Arc::ptr_eq(flight, &call.flight))
}

#[cfg(test)]
mod tests;
