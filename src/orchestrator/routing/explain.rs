//! Why a choice falls as it does: the best candidates and some of those that were left out.

use super::classes::EVERYONE;
use super::node::{Availability, Home, LoadOf, NONE};
use super::{Router, Wanted};
use crate::model::{Filter, PoolName};

/// How many pools or classes are looked at for one part of an answer, so that a million pools cost no more.
const LOOKED_AT: usize = 4_096;

/// Why a pool is no candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclusion {
    /// It takes nothing new.
    Draining,
    /// Its worker cannot be used.
    Unhealthy,
    /// Its slots are all taken.
    Full,
    /// It lacks this label.
    Label(String),
    /// Others were named.
    NotNamed,
    /// It is of another worker kind.
    Worker,
}

/// A choice's grounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    /// The best candidates, best first: pools with a free slot or, where there is none, with room in their queue.
    pub candidates: Vec<(PoolName, LoadOf)>,
    /// Some of the other pools: first those that match but cannot take the task, then those that do not match.
    pub excluded: Vec<(PoolName, Exclusion)>,
}

impl Router {
    /// Returns up to `limit` candidates, as [`Router::acquire_or_queue`] would choose among them, and up to `limit` pools
    /// that are none.
    ///
    /// The work is bounded whatever the number of pools: where thousands of pools do not match, rows may be missing.
    pub fn explain(&self, filter: &Filter, limit: usize) -> Why {
        let wanted = self.wanted(filter);
        let mut why = Why::default();
        // Where no pool has a free slot, those with room in their queue are the candidates.
        let home = match self.best(Home::Free, filter) {
            Some(_) => Home::Free,
            None => Home::Waiting,
        };
        if let Some(wanted) = &wanted {
            let slots = self.ranked(home, filter, wanted, limit);
            why.candidates = self.rows(slots, |slot| self.nodes[slot as usize].load());
        }
        let slots = self.left_out(filter, wanted.as_ref(), home, limit);
        why.excluded = slots
            .into_iter()
            .filter_map(|slot| {
                Some((
                    self.names[slot as usize].clone()?,
                    self.exclusion(slot, filter, home)?,
                ))
            })
            .collect();
        why
    }

    fn rows<T>(&self, slots: Vec<u32>, tell: impl Fn(u32) -> T) -> Vec<(PoolName, T)> {
        slots
            .into_iter()
            .filter_map(|slot| Some((self.names[slot as usize].clone()?, tell(slot))))
            .collect()
    }

    /// Returns the slots of the best matching pools of a set, best first.
    fn ranked(&self, home: Home, filter: &Filter, wanted: &Wanted, limit: usize) -> Vec<u32> {
        let admits = |class| self.classes.admits(class, wanted);
        let Some(index) = self.index(home) else {
            return Vec::new();
        };
        if !filter.pools.is_empty() {
            let mut slots: Vec<u32> = self.named(filter).collect();
            slots.retain(|&slot| {
                let node = &self.nodes[slot as usize];
                node.home == home && admits(node.class)
            });
            slots.sort_unstable_by_key(|&slot| self.nodes[slot as usize].rank());
            slots.dedup();
            slots.truncate(limit);
            return slots;
        }
        let groups = match self.rarest(&filter.labels) {
            Some(rarest) => vec![rarest],
            None if wanted.workers.is_empty() => vec![EVERYONE],
            None => {
                let mut kinds = wanted.workers.clone();
                kinds.sort_unstable();
                kinds.dedup();
                kinds
            }
        };
        index
            .walk(&self.nodes, &groups, admits, LOOKED_AT)
            .take(limit)
            .collect()
    }

    /// Returns slots of pools that are no candidates, the most telling first, each once.
    fn left_out(
        &self,
        filter: &Filter,
        wanted: Option<&Wanted>,
        home: Home,
        limit: usize,
    ) -> Vec<u32> {
        let excluded = |slot: &u32| self.exclusion(*slot, filter, home).is_some();
        let mut slots: Vec<u32> = Vec::new();
        let mut add = |more: &mut dyn Iterator<Item = u32>| {
            for slot in more {
                if slots.len() >= limit {
                    return;
                }
                if !slots.contains(&slot) {
                    slots.push(slot);
                }
            }
        };
        add(&mut self.named(filter).filter(excluded));
        if let Some(wanted) = wanted {
            let matches = |slot: &u32| {
                let class = self.nodes[*slot as usize].class;
                filter.pools.is_empty() && self.classes.admits(class, wanted)
            };
            add(&mut self.set_aside().take(LOOKED_AT).filter(matches));
            add(&mut self
                .ranked(Home::Waiting, filter, wanted, limit)
                .into_iter()
                .filter(excluded));
        }
        let everyone = self.by_name.values().copied();
        add(&mut everyone.take(LOOKED_AT).filter(excluded));
        slots
    }

    fn named(&self, filter: &Filter) -> impl Iterator<Item = u32> {
        let names = filter.pools.iter();
        names.filter_map(|name| self.by_name.get(name).copied())
    }

    fn set_aside(&self) -> impl Iterator<Item = u32> {
        let at = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(at(self.aside.0), move |&slot| {
            at(self.nodes[slot as usize].next)
        })
    }

    /// Returns why a pool is no candidate, where those in the set `home` are.
    fn exclusion(&self, slot: u32, filter: &Filter, home: Home) -> Option<Exclusion> {
        let node = &self.nodes[slot as usize];
        let name = self.names[slot as usize].as_ref()?;
        if !filter.pools.is_empty() && !filter.pools.contains(name) {
            return Some(Exclusion::NotNamed);
        }
        let kind = self.classes.text(self.classes.worker_of(node.class));
        if !filter.workers.is_empty() && !filter.workers.iter().any(|wanted| wanted == kind) {
            return Some(Exclusion::Worker);
        }
        let labels = self.classes.labels_of(node.class);
        let has = |label: &str| {
            self.classes
                .label(label)
                .is_some_and(|id| labels.contains(&id))
        };
        if let Some(missing) = filter.labels.iter().find(|label| !has(label)) {
            return Some(Exclusion::Label(missing.clone()));
        }
        match (node.availability, node.home) {
            (Availability::Draining, _) => Some(Exclusion::Draining),
            (Availability::Unhealthy, _) => Some(Exclusion::Unhealthy),
            (Availability::Open, known) if known == home => None,
            (Availability::Open, _) => Some(Exclusion::Full),
        }
    }
}
