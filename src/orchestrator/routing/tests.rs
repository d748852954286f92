//! The router against a naive model: a linear scan over plain records, in the words of the rule.

use super::load::Load;
use super::router::Placement;
use super::*;
use crate::model::{Filter, PoolName};
use proptest::prelude::*;
use proptest::sample::Index as Pick;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Mutex;

#[derive(Debug, Clone)]
struct Scanned {
    key: PoolKey,
    spec: PoolSpec,
    in_flight: u32,
    queued: u32,
    availability: Availability,
    /// When it was routed to last; pools never routed to come first, in the order they were made.
    routed: Option<u64>,
    made: u64,
}

impl Scanned {
    fn matches(&self, filter: &Filter) -> bool {
        (filter.pools.is_empty() || filter.pools.contains(&self.spec.name))
            && (filter.workers.is_empty() || filter.workers.contains(&self.spec.worker))
            && filter
                .labels
                .iter()
                .all(|label| self.spec.labels.contains(label))
    }

    fn takes(&self, filter: &Filter) -> bool {
        self.availability == Availability::Open && self.spec.max_workers > 0 && self.matches(filter)
    }

    fn free(&self, filter: &Filter) -> bool {
        self.takes(filter) && self.in_flight < self.spec.max_workers
    }

    fn waiting(&self, filter: &Filter) -> bool {
        self.takes(filter)
            && self.in_flight >= self.spec.max_workers
            && self.queued < self.spec.queue
    }

    fn load(&self) -> Load {
        Load {
            in_flight: self.in_flight,
            queued: self.queued,
            max_workers: self.spec.max_workers,
            queue: self.spec.queue,
        }
    }

    /// `a/b < c/d` by way of a common denominator, which all `max_workers` used here divide.
    fn order(&self) -> (u64, u32, Option<u64>, u64) {
        const COMMON: u64 = 2 * 3 * 4 * 5 * 7 * 1_000;
        let outstanding = self.in_flight + self.queued;
        let max = u64::from(self.spec.max_workers);
        assert_eq!(COMMON % max, 0);
        let load = u64::from(outstanding) * (COMMON / max);
        (load, outstanding, self.routed, self.made)
    }
}

#[derive(Debug, Default)]
struct Model {
    pools: Vec<Scanned>,
    clock: u64,
}

impl Model {
    fn best(&self, candidate: impl Fn(&Scanned) -> bool) -> Option<usize> {
        (0..self.pools.len())
            .filter(|&at| candidate(&self.pools[at]))
            .min_by_key(|&at| self.pools[at].order())
    }

    fn route(&mut self, at: usize) -> &mut Scanned {
        self.clock += 1;
        self.pools[at].routed = Some(self.clock);
        &mut self.pools[at]
    }

    fn get(&mut self, key: PoolKey) -> Option<&mut Scanned> {
        self.pools.iter_mut().find(|pool| pool.key == key)
    }

    fn ranked(&self, filter: &Filter) -> Vec<(PoolName, Load)> {
        let all = |candidate: &dyn Fn(&Scanned) -> bool| -> Vec<&Scanned> {
            self.pools.iter().filter(|pool| candidate(pool)).collect()
        };
        let mut ranked = all(&|pool| pool.free(filter));
        if ranked.is_empty() {
            ranked = all(&|pool| pool.waiting(filter));
        }
        ranked.sort_by_key(|pool| pool.order());
        ranked
            .iter()
            .map(|pool| (pool.spec.name.clone(), pool.load()))
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(PoolSpec),
    Remove(Pick),
    Rescale(Pick, u32),
    Relabel(Pick, Vec<String>),
    Set(Pick, Availability),
    Acquire(Filter),
    AcquireOrQueue(Filter),
    Promote(Pick),
    Unqueue(Pick),
    /// Gives back one of the slots taken, whichever pool's, removed ones included.
    Release(Pick),
    /// Gives back the one taken first, so that pools come back out of turn.
    ReleaseOldest,
    Explain(Filter, usize),
}

fn name(number: u32) -> PoolName {
    format!("p{number}").parse().expect("a pool name")
}

fn max_workers() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 10, 20, 1_000])
}

/// Up to 512 combinations, so that groups grow past what is scanned.
fn labels() -> impl Strategy<Value = Vec<String>> {
    let all: Vec<String> = ('a'..='h').map(String::from).collect();
    prop::sample::subsequence(all, 0..=8)
}

fn filter() -> impl Strategy<Value = Filter> {
    let pools = prop::collection::vec((0..60_u32).prop_map(name), 1..6);
    let labels = prop::collection::vec(
        prop::sample::select(vec!["a", "b", "c", "d", "nobody's"]).prop_map(String::from),
        1..3,
    );
    let workers = prop::collection::vec(
        prop::sample::select(vec!["command", "agent", "unknown"]).prop_map(String::from),
        1..3,
    );
    let or_none = |odds, some: BoxedStrategy<Vec<String>>| {
        prop::option::weighted(odds, some).prop_map(Option::unwrap_or_default)
    };
    (
        prop::option::weighted(0.15, pools).prop_map(Option::unwrap_or_default),
        or_none(0.5, labels.boxed()),
        or_none(0.3, workers.boxed()),
    )
        .prop_map(|(pools, labels, workers)| Filter {
            pools,
            labels,
            workers,
        })
}

fn spec() -> impl Strategy<Value = PoolSpec> {
    let worker = prop::sample::select(vec!["command", "agent", "mcp"]);
    (0..60_u32, worker, max_workers(), 0..4_u32, labels()).prop_map(
        |(number, worker, max_workers, queue, labels)| PoolSpec {
            name: name(number),
            worker: worker.into(),
            max_workers,
            queue,
            labels,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<Pick>;
    let availability = prop::sample::select(vec![
        Availability::Open,
        Availability::Open,
        Availability::Draining,
        Availability::Closing,
        Availability::Unhealthy,
    ]);
    prop_oneof![
        5 => spec().prop_map(Step::Insert),
        1 => pick().prop_map(Step::Remove),
        1 => (pick(), max_workers()).prop_map(|(at, max)| Step::Rescale(at, max)),
        1 => (pick(), labels()).prop_map(|(at, labels)| Step::Relabel(at, labels)),
        2 => (pick(), availability).prop_map(|(at, to)| Step::Set(at, to)),
        6 => filter().prop_map(Step::Acquire),
        4 => filter().prop_map(Step::AcquireOrQueue),
        4 => Just(Step::Acquire(Filter::default())),
        2 => pick().prop_map(Step::Promote),
        1 => pick().prop_map(Step::Unqueue),
        4 => pick().prop_map(Step::Release),
        2 => Just(Step::ReleaseOldest),
        1 => (filter(), 0..80_usize).prop_map(|(filter, limit)| Step::Explain(filter, limit)),
    ]
}

/// Both, side by side, and the slots taken from both.
#[derive(Debug, Default)]
struct Pair {
    router: Router,
    model: Model,
    taken: VecDeque<PoolKey>,
    /// Keys of pools that have been removed.
    gone: Vec<PoolKey>,
}

impl Pair {
    /// Picks a live pool, or now and then one that is gone.
    fn pick(&self, pick: Pick) -> Option<PoolKey> {
        let all = self.model.pools.len() + self.gone.len().min(3);
        let at = pick.index(all.max(1));
        let live = self.model.pools.get(at).map(|pool| pool.key);
        live.or_else(|| {
            self.gone
                .get(self.gone.len() - 1 - (at - self.model.pools.len()))
                .copied()
        })
    }

    fn change(
        &mut self,
        pick: Pick,
        router: impl FnOnce(&mut Router, PoolKey),
        model: impl FnOnce(&mut Scanned),
    ) {
        if self.model.pools.is_empty() {
            return;
        }
        if let Some(key) = self.pick(pick) {
            router(&mut self.router, key);
            self.model.get(key).map(model);
        }
    }

    fn release(&mut self, at: usize) {
        if let Some(key) = self.taken.remove(at) {
            self.router.release(key);
            if let Some(pool) = self.model.get(key) {
                pool.in_flight -= 1;
            }
        }
    }

    fn insert(&mut self, mut spec: PoolSpec) {
        let expected = !self
            .model
            .pools
            .iter()
            .any(|pool| pool.spec.name == spec.name);
        let inserted = self.router.insert(spec.clone());
        assert_eq!(inserted.is_some(), expected);
        spec.labels.sort_unstable();
        if let Some(key) = inserted {
            self.model.clock += 1;
            self.model.pools.push(Scanned {
                key,
                spec,
                in_flight: 0,
                queued: 0,
                availability: Availability::Open,
                routed: None,
                made: self.model.clock,
            });
        }
    }

    fn acquire(&mut self, filter: &Filter) {
        let expected = self.model.best(|pool| pool.free(filter));
        let peeked = self.router.peek(filter);
        let got = self.router.acquire(filter);
        assert_eq!(peeked, got, "acquire takes what peek returns");
        assert_eq!(got, expected.map(|at| self.model.pools[at].key));
        if let Some(at) = expected {
            self.model.route(at).in_flight += 1;
        }
        self.taken.extend(got);
    }

    fn acquire_or_queue(&mut self, filter: &Filter) {
        let got = self.router.acquire_or_queue(filter);
        if let Some(at) = self.model.best(|pool| pool.free(filter)) {
            let pool = self.model.route(at);
            pool.in_flight += 1;
            assert_eq!(got, Some(Placement::Slot(pool.key)));
            self.taken.push_back(pool.key);
        } else if let Some(at) = self.model.best(|pool| pool.waiting(filter)) {
            let pool = self.model.route(at);
            pool.queued += 1;
            assert_eq!(got, Some(Placement::Queued(pool.key)));
        } else {
            assert_eq!(got, None);
        }
    }

    fn promote(&mut self, pick: Pick) {
        if self.model.pools.is_empty() {
            return;
        }
        let Some(key) = self.pick(pick) else { return };
        let promoted = self.router.promote(key);
        let expected = self.model.get(key).is_some_and(|pool| {
            let can = pool.queued > 0 && pool.in_flight < pool.spec.max_workers;
            if can {
                pool.queued -= 1;
                pool.in_flight += 1;
            }
            can
        });
        assert_eq!(promoted, expected);
        self.taken.extend(promoted.then_some(key));
    }

    fn explain(&self, filter: &Filter, limit: usize) {
        let why = self.router.explain(filter, limit);
        let mut ranked = self.model.ranked(filter);
        let others = self.model.pools.len() - ranked.len();
        ranked.truncate(limit);
        assert_eq!(why.candidates, ranked);
        assert_eq!(why.excluded.len(), others.min(limit));
        for (name, reason) in why.excluded {
            let mut pools = self.model.pools.iter();
            let pool = pools
                .find(|pool| pool.spec.name == name)
                .expect("a live pool");
            assert_eq!(reason, reason_by_the_rule(pool, filter), "{name}");
        }
    }

    fn kinds(&self, filter: &Filter) {
        let matching = self.model.pools.iter().filter(|pool| pool.matches(filter));
        let kinds: BTreeSet<&str> = matching.map(|pool| pool.spec.worker.as_str()).collect();
        assert_eq!(self.router.kinds_in(filter), kinds);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert(spec) => self.insert(spec),
            Step::Remove(pick) if !self.model.pools.is_empty() => {
                if let Some(key) = self.pick(pick) {
                    let known = self.model.pools.iter().position(|pool| pool.key == key);
                    assert_eq!(self.router.remove(key), known.is_some());
                    if let Some(at) = known {
                        self.model.pools.remove(at);
                        self.gone.push(key);
                    }
                }
            }
            Step::Remove(_) => {}
            Step::Rescale(pick, max) => self.change(
                pick,
                |router, key| router.rescale(key, max),
                |pool| pool.spec.max_workers = max,
            ),
            Step::Relabel(pick, labels) => self.change(
                pick,
                |router, key| router.relabel(key, &labels),
                |pool| pool.spec.labels = labels.clone(),
            ),
            Step::Set(pick, to) => self.change(
                pick,
                |router, key| router.set_availability(key, to),
                |pool| pool.availability = to,
            ),
            Step::Acquire(filter) => self.acquire(&filter),
            Step::AcquireOrQueue(filter) => self.acquire_or_queue(&filter),
            Step::Promote(pick) => self.promote(pick),
            Step::Unqueue(pick) => self.change(pick, Router::unqueue, |pool| {
                pool.queued = pool.queued.saturating_sub(1);
            }),
            Step::Release(pick) if !self.taken.is_empty() => {
                self.release(pick.index(self.taken.len()));
            }
            Step::Release(_) | Step::ReleaseOldest => self.release(0),
            Step::Explain(filter, limit) => {
                self.explain(&filter, limit);
                self.kinds(&filter);
            }
        }
    }

    fn check_all(&self) {
        assert_eq!(self.router.len(), self.model.pools.len());
        for pool in &self.model.pools {
            assert_eq!(self.router.key(pool.spec.name.as_str()), Some(pool.key));
            assert_eq!(self.router.spec(pool.key), Some(&pool.spec));
            assert_eq!(self.router.load(pool.key), Some(pool.load()));
            assert_eq!(self.router.availability(pool.key), Some(pool.availability));
        }
        for &key in &self.gone {
            assert_eq!(self.router.load(key), None, "a stale key names no pool");
        }
    }
}

fn reason_by_the_rule(pool: &Scanned, filter: &Filter) -> Exclusion {
    let missing = || {
        filter
            .labels
            .iter()
            .find(|label| !pool.spec.labels.contains(label))
    };
    if !filter.pools.is_empty() && !filter.pools.contains(&pool.spec.name) {
        Exclusion::NotNamed
    } else if !filter.workers.is_empty() && !filter.workers.contains(&pool.spec.worker) {
        Exclusion::Worker
    } else if let Some(missing) = missing() {
        Exclusion::Label(missing.clone())
    } else {
        match pool.availability {
            Availability::Draining | Availability::Closing => Exclusion::Draining,
            Availability::Unhealthy => Exclusion::Unhealthy,
            Availability::Open => Exclusion::Full,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_router_does_as_a_linear_scan_does(
        steps in prop::collection::vec(step(), 1..400)
    ) {
        let mut pair = Pair::default();
        for step in steps {
            pair.step(step);
        }
        pair.check_all();
        pair.explain(&Filter::default(), usize::MAX);
    }
}

fn plain(number: u32, max_workers: u32) -> PoolSpec {
    PoolSpec {
        name: name(number),
        worker: "command".into(),
        max_workers,
        queue: 0,
        labels: Vec::new(),
    }
}

fn labelled(label: &str) -> Filter {
    Filter {
        labels: vec![label.into()],
        ..Filter::default()
    }
}

#[test]
fn two_routes_in_a_row_go_to_two_pools() {
    let mut router = Router::default();
    let a = router.insert(plain(1, 2)).expect("a new name");
    let b = router.insert(plain(2, 2)).expect("a new name");
    let any = Filter::default();
    assert_eq!(router.acquire(&any), Some(a));
    assert_eq!(router.acquire(&any), Some(b));
    router.release(a);
    router.release(b);
    assert_eq!(
        router.acquire(&any),
        Some(a),
        "a was routed to less recently"
    );
}

#[test]
fn load_is_relative_to_size_and_exact() {
    let mut router = Router::default();
    let small = router.insert(plain(1, 3)).expect("a new name");
    let large = router.insert(plain(2, u32::MAX)).expect("a new name");
    let any = Filter::default();
    assert_eq!(router.acquire(&any), Some(small));
    for _ in 0..100 {
        assert_eq!(
            router.acquire(&any),
            Some(large),
            "1/3 is more than 99/(2^32-1)"
        );
    }
}

#[test]
fn a_thousand_concurrent_routes_over_ten_equal_pools_land_a_hundred_on_each() {
    let mut router = Router::default();
    for number in 0..10 {
        router.insert(plain(number, 100)).expect("a new name");
    }
    let router = Mutex::new(router);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..125 {
                    let mut router = router.lock().expect("no panic while locked");
                    router.acquire(&Filter::default()).expect("there is room");
                }
            });
        }
    });
    let router = router.into_inner().expect("no panic while locked");
    for key in router.keys_after("") {
        assert_eq!(router.load(key).expect("live").in_flight, 100);
    }
    assert_eq!(router.peek(&Filter::default()), None, "all are full");
}

#[test]
fn a_removed_pools_slots_come_back_harmlessly() {
    let mut router = Router::default();
    let old = router.insert(plain(1, 1)).expect("a new name");
    assert_eq!(router.acquire(&Filter::default()), Some(old));
    assert!(router.remove(old));
    let new = router.insert(plain(1, 1)).expect("the name is free again");
    assert_ne!(old, new);
    assert_eq!(router.acquire(&Filter::default()), Some(new));
    router.release(old);
    assert_eq!(router.load(new).expect("live").in_flight, 1);
    assert!(!router.remove(old), "it is gone already");
}

#[test]
fn a_name_is_taken_until_its_pool_is_removed() {
    let mut router = Router::default();
    let key = router.insert(plain(1, 1)).expect("a new name");
    assert_eq!(router.insert(plain(1, 5)), None);
    assert_eq!(router.load(key).expect("live").max_workers, 1);
}

#[test]
fn memory_stays_with_the_pools_however_long_it_runs() {
    let mut router = Router::default();
    for round in 0..20_000_u32 {
        let mut spec = plain(round % 50, 1 + round % 97);
        spec.labels = vec![format!("host-{round}"), "all".into()];
        let key = router.insert(spec).expect("a new name");
        for _ in 0..=round % 7 {
            router.acquire(&labelled("all"));
        }
        router.rescale(key, 1 + round % 89);
        if round >= 49 {
            let oldest = router.key(name((round + 1) % 50).as_str());
            assert!(router.remove(oldest.expect("one of the last fifty")));
        }
    }
    assert_eq!(router.len(), 49);
    assert_eq!(
        (router.heaps.kind_count(), router.heaps.label_count()),
        (1, 49 + 1),
        "labels go with their pools"
    );
}

#[test]
fn ten_thousand_pools_are_chosen_once_each() {
    let mut router = Router::default();
    for number in 0..10_000 {
        let mut spec = plain(number, 4);
        spec.labels = vec![if number == 9_999 { "rare" } else { "common" }.into()];
        router.insert(spec).expect("a new name");
    }
    assert_eq!(router.peek(&labelled("rare")), router.key("p9999"));
    let drained = router.key("p7777").expect("live");
    router.set_availability(drained, Availability::Draining);
    let why = router.explain(&labelled("common"), 10);
    assert_eq!(why.candidates.len(), 10);
    assert_eq!(why.excluded[0], (name(7_777), Exclusion::Draining));
    assert_eq!(why.excluded[1].1, Exclusion::Label("common".into()));
    let any = Filter::default();
    let mut seen = HashSet::new();
    for _ in 0..9_999 {
        assert!(
            seen.insert(router.acquire(&any).expect("room")),
            "each pool once"
        );
    }
}
