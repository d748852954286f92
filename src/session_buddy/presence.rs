//! Comparing with the peer: which memories it has, how often.

use super::client::SessionBuddy;
use super::content::Marker;
use super::door::Door;
use super::error::PeerError;
use super::item::Presence;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

type Counts = HashMap<Marker, usize>;

/// How many characters an id has.
const ULID_CHARS: usize = 26;

impl SessionBuddy {
    /// Returns whether the peer has the memory.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by asking.
    pub async fn is_there(&self, marker: &Marker, deadline: Instant) -> Result<bool, PeerError> {
        // Markers inside texts are escaped, so that only the memory itself holds this text; a few more are asked for,
        // because a duplicate or another writer's quote may come first.
        const ENOUGH: usize = 20;
        let door = self.door(deadline).await?;
        let found = self
            .ask(door, &marker.to_string(), ENOUGH, deadline)
            .await?;
        Ok(found
            .iter()
            .any(|item| item.marker.as_ref() == Some(marker)))
    }

    /// Returns which of `markers` the peer lacks or has more than once: by one listing on the default front door, by as
    /// few searches as possible on the full one and where the listing is too large to be had.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by asking.
    pub async fn presence(
        &self,
        markers: &[Marker],
        deadline: Instant,
    ) -> Result<Presence, PeerError> {
        let mut presence = Presence::default();
        if markers.is_empty() {
            return Ok(presence);
        }
        let door = self.door(deadline).await?;
        let counts = match self.count_by_listing(door, deadline).await? {
            Some(counts) => counts,
            None => self.count_by_search(door, markers, deadline).await?,
        };
        for marker in markers {
            match counts.get(marker).copied().unwrap_or(0) {
                0 => presence.missing.push(marker.clone()),
                1 => {}
                many => presence.duplicates.push((marker.clone(), many)),
            }
        }
        Ok(presence)
    }

    /// Counts by the full listing; none where the peer has no listing, or one that cannot be had.
    async fn count_by_listing(
        &self,
        door: Door,
        deadline: Instant,
    ) -> Result<Option<Counts>, PeerError> {
        if door == Door::Full || self.shared.unlistable.load(Ordering::Acquire) {
            return Ok(None);
        }
        match self.list_all(deadline).await {
            Ok(items) => {
                let markers = items.iter().filter_map(|item| Marker::split(&item.content));
                Ok(Some(count(markers.map(|(marker, _)| marker))))
            }
            Err(PeerError::Unclear(_) | PeerError::Retry(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Counts by searching for prefixes of the ids, a longer one wherever an answer is full.
    async fn count_by_search(
        &self,
        door: Door,
        markers: &[Marker],
        deadline: Instant,
    ) -> Result<Counts, PeerError> {
        let mut counts = Counts::new();
        let mut open: Vec<(String, Vec<Marker>)> = vec![(String::new(), markers.to_vec())];
        while let Some((prefix, wanted)) = open.pop() {
            let term = match prefix.as_str() {
                "" => "[mv:".to_owned(),
                prefix => format!(":{prefix}"),
            };
            let found = self.ask(door, &term, door.most(), deadline).await?;
            if found.len() < door.most() || prefix.len() == ULID_CHARS {
                let seen = count(found.into_iter().filter_map(|item| item.marker));
                counts.extend(wanted.into_iter().filter_map(|marker| {
                    let times = seen.get(&marker).copied()?;
                    Some((marker, times))
                }));
                continue;
            }
            let mut branches: HashMap<String, Vec<Marker>> = HashMap::new();
            for marker in wanted {
                let longer = marker.id.to_string()[..=prefix.len()].to_owned();
                branches.entry(longer).or_default().push(marker);
            }
            open.extend(branches);
        }
        if door == Door::Default {
            // Searches are answered, so the listing is too large, now and later: it only grows.
            self.shared.unlistable.store(true, Ordering::Release);
        }
        Ok(counts)
    }
}

fn count(markers: impl Iterator<Item = Marker>) -> Counts {
    let mut counts = Counts::new();
    for marker in markers {
        *counts.entry(marker).or_default() += 1;
    }
    counts
}
