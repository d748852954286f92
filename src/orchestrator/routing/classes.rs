//! Labels and worker kinds, interned, and the classes of pools that have the same of both.
//!
//! A *group* is all pools, the pools of one worker kind, or the pools that carry one label. A *class* is the pools that
//! are in exactly the same groups. Both live as long as a pool is in them; their numbers are used again.

use std::collections::HashMap;
use std::sync::Arc;

/// The group of all pools.
pub(crate) const EVERYONE: u32 = 0;

/// Where a class's worker kind stands among its groups.
pub(crate) const WORKER: usize = 1;

#[derive(Debug)]
struct Class {
    /// `EVERYONE`, the worker kind, then the labels in ascending order.
    groups: Arc<[u32]>,
    pools: u32,
}

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Arc<str>, u32>,
}

/// The interned classes.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    classes: Vec<Class>,
    vacant: Vec<u32>,
    by_groups: HashMap<Arc<[u32]>, u32>,
    workers: Names,
    labels: Names,
    /// Each group's text and how many classes are in it; group 0 is everyone.
    groups: Vec<(Arc<str>, u32)>,
    vacant_groups: Vec<u32>,
}

/// Whether a class is new, so that the indexes must learn of it.
pub(crate) enum Interned {
    New(u32),
    Known(u32),
}

/// What a filter asks for, in groups.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// All of these.
    pub(crate) labels: Vec<u32>,
    /// Any of these, or any kind if empty.
    pub(crate) workers: Vec<u32>,
}

impl Wanted {
    /// Returns whether pools in these groups are what is wanted.
    pub(crate) fn admits(&self, groups: &[u32]) -> bool {
        let (worker, labels) = (groups[WORKER], &groups[WORKER + 1..]);
        self.labels
            .iter()
            .all(|label| labels.binary_search(label).is_ok())
            && (self.workers.is_empty() || self.workers.contains(&worker))
    }
}

impl Classes {
    /// Returns the class of pools of kind `worker` with `labels`, with one more pool in it.
    pub(crate) fn enter(&mut self, worker: &str, labels: &[String]) -> Interned {
        if self.groups.is_empty() {
            self.groups.push(("".into(), 0));
        }
        let mut ids: Vec<u32> = labels
            .iter()
            .map(|label| {
                intern(
                    &mut self.labels,
                    &mut self.groups,
                    &mut self.vacant_groups,
                    label,
                )
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let worker = intern(
            &mut self.workers,
            &mut self.groups,
            &mut self.vacant_groups,
            worker,
        );
        let key: Arc<[u32]> = [EVERYONE, worker].into_iter().chain(ids).collect();
        if let Some(&class) = self.by_groups.get(&key) {
            self.classes[class as usize].pools += 1;
            return Interned::Known(class);
        }
        for &group in key.iter() {
            self.groups[group as usize].1 += 1;
        }
        let made = Class {
            groups: Arc::clone(&key),
            pools: 1,
        };
        let class = if let Some(class) = self.vacant.pop() {
            self.classes[class as usize] = made;
            class
        } else {
            self.classes.push(made);
            u32::try_from(self.classes.len() - 1).expect("no more classes than pools")
        };
        self.by_groups.insert(key, class);
        Interned::New(class)
    }

    /// Takes one pool out of `class`; returns the class's groups if that was the last one, and forgets it.
    pub(crate) fn leave(&mut self, class: u32) -> Option<Arc<[u32]>> {
        let gone = &mut self.classes[class as usize];
        gone.pools -= 1;
        if gone.pools > 0 {
            return None;
        }
        let groups = std::mem::replace(&mut gone.groups, Arc::new([]));
        self.by_groups.remove(&groups);
        self.vacant.push(class);
        for (at, &group) in groups.iter().enumerate() {
            let (text, classes) = &mut self.groups[group as usize];
            *classes -= 1;
            if *classes == 0 && group != EVERYONE {
                let names = if at == WORKER {
                    &mut self.workers
                } else {
                    &mut self.labels
                };
                names.ids.remove(text);
                *text = "".into();
                self.vacant_groups.push(group);
            }
        }
        Some(groups)
    }

    /// Returns the groups of a live class.
    pub(crate) fn groups(&self, class: u32) -> &[u32] {
        &self.classes[class as usize].groups
    }

    /// Returns how many classes are in `group`.
    pub(crate) fn size(&self, group: u32) -> u32 {
        self.groups[group as usize].1
    }

    pub(crate) fn label(&self, label: &str) -> Option<u32> {
        self.labels.ids.get(label).copied()
    }

    pub(crate) fn worker(&self, worker: &str) -> Option<u32> {
        self.workers.ids.get(worker).copied()
    }

    pub(crate) fn text(&self, group: u32) -> &str {
        &self.groups[group as usize].0
    }

    pub(crate) fn worker_of(&self, class: u32) -> u32 {
        self.groups(class)[WORKER]
    }

    /// Returns a class's labels, in ascending order of their numbers.
    pub(crate) fn labels_of(&self, class: u32) -> &[u32] {
        &self.groups(class)[WORKER + 1..]
    }

    /// Returns whether pools of `class` are what is wanted.
    pub(crate) fn admits(&self, class: u32, wanted: &Wanted) -> bool {
        wanted.admits(self.groups(class))
    }

    /// Returns every live class's groups.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u32]> {
        let live = self.classes.iter().filter(|class| class.pools > 0);
        live.map(|class| &*class.groups)
    }

    /// Returns the names of the worker kinds that pools have, in no order.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &str> {
        self.workers.ids.keys().map(|name| &**name)
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (
            self.by_groups.len(),
            self.labels.ids.len() + self.workers.ids.len(),
        )
    }
}

fn intern(
    names: &mut Names,
    groups: &mut Vec<(Arc<str>, u32)>,
    vacant: &mut Vec<u32>,
    text: &str,
) -> u32 {
    if let Some(&id) = names.ids.get(text) {
        return id;
    }
    let text: Arc<str> = text.into();
    let id = if let Some(id) = vacant.pop() {
        groups[id as usize].0 = Arc::clone(&text);
        id
    } else {
        groups.push((Arc::clone(&text), 0));
        u32::try_from(groups.len() - 1).expect("a pool's labels are few")
    };
    names.ids.insert(text, id);
    id
}
