//! The index's segments: which there are, and reading what they have under a key.

use super::Damage;
use super::leaf::{Leaf, ListReader, varint};
use super::reach::Reach;
use crate::store::StoreError;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use std::cmp::Ordering;

/// Rows of the index's `data` table that are no leaves.
const FIGURES_ROW: i64 = 1;
const STRUCTURE_ROW: i64 = 10;
/// A leaf's row is its segment's number, shifted by this, plus its own.
const SEGMENT_SHIFT: u32 = 37;
/// Versions of the format that are read here; the second one adds deleting in place.
const KNOWN_FORMATS: [i64; 2] = [4, 5];

/// A run of leaves in the order of their words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    id: i64,
    first: i64,
    last: i64,
}

/// What to look for: one entry of the index, or all that begin alike. The first byte tells the sort of entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    One(Vec<u8>),
    Beginning(Vec<u8>),
}

impl Key {
    fn bytes(&self) -> &[u8] {
        let (Self::One(bytes) | Self::Beginning(bytes)) = self;
        bytes
    }

    /// Returns where `word` lies as seen from what is looked for.
    fn place(&self, word: &[u8]) -> Ordering {
        match self {
            Self::Beginning(bytes) if word.starts_with(bytes) => Ordering::Equal,
            _ => word.cmp(self.bytes()),
        }
    }

    /// Returns what is greater than all that is looked for, and less than the rest.
    fn end(&self) -> Vec<u8> {
        let mut end = self.bytes().to_vec();
        match (self, end.last_mut()) {
            // Words are UTF-8, so that their last byte is never the greatest.
            (Self::Beginning(_), Some(last)) => *last = last.saturating_add(1),
            _ => end.push(0),
        }
        end
    }
}

/// The counts that BM25 needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct Figures {
    /// Memories.
    pub(in crate::store) rows: f64,
    /// Words in all of their columns.
    pub(in crate::store) words: f64,
}

/// The index as one read transaction sees it.
pub(in crate::store) struct Index<'db> {
    segments: Vec<Segment>,
    block: CachedStatement<'db>,
    seek: CachedStatement<'db>,
    after: CachedStatement<'db>,
    leaf: Leaf,
    starts: Vec<usize>,
    /// Leaves that may still be read.
    left: u32,
}

impl<'db> Index<'db> {
    /// Opens the index; at most `leaves` of it are read.
    pub(in crate::store) fn open(db: &'db Connection, leaves: u32) -> Result<Self, StoreError> {
        let format: i64 = db
            .prepare_cached("SELECT v FROM memories_fts_config WHERE k = 'version'")?
            .query_row([], |row| row.get(0))?;
        if !KNOWN_FORMATS.contains(&format) {
            return Err(Damage("an unknown format").into());
        }
        let mut block = db.prepare_cached("SELECT block FROM memories_fts_data WHERE id = ?1")?;
        let segments = block.query_row([STRUCTURE_ROW], |row| {
            Ok(segments(row.get_ref(0)?.as_blob()?))
        })??;
        Ok(Self {
            segments,
            block,
            seek: db.prepare_cached(
                "SELECT pgno FROM memories_fts_idx WHERE segid = ?1 AND term <= ?2 ORDER BY term DESC LIMIT 1",
            )?,
            after: db.prepare_cached(
                "SELECT pgno FROM memories_fts_idx WHERE segid = ?1 AND term >= ?2 ORDER BY term LIMIT 1",
            )?,
            leaf: Leaf::default(),
            starts: Vec::new(),
            left: leaves,
        })
    }

    /// Returns the counts.
    pub(in crate::store) fn figures(&mut self) -> Result<Figures, StoreError> {
        let numbers = self.block.query_row([FIGURES_ROW], |row| {
            let bytes = row.get_ref(0)?.as_blob()?;
            let (mut at, mut numbers) = (0, Vec::new());
            while at < bytes.len() {
                match varint(bytes, &mut at) {
                    Ok(number) => numbers.push(number),
                    Err(damage) => return Ok(Err(damage)),
                }
            }
            Ok(Ok(numbers))
        })??;
        let (rows, words) = numbers.split_first().unwrap_or((&0, &[]));
        #[expect(clippy::cast_precision_loss, reason = "as FTS5's bm25() does")]
        Ok(Figures {
            rows: *rows as f64,
            words: words.iter().sum::<u64>() as f64,
        })
    }

    /// Returns the segments, the one with the newest rows last.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.segments.clone()
    }

    /// Returns whether there was more to read than was allowed.
    pub(in crate::store) fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// Returns how many leaves what `key` has fills, beside those that it shares with others.
    pub(super) fn spread(&mut self, key: &Key) -> Result<u64, StoreError> {
        let mut spread = 0;
        for segment in self.segments() {
            let first = self.leaf_of(segment, key.bytes())?;
            let last = self.leaf_after(segment, &key.end())?;
            if last - first <= 1 {
                continue;
            }
            // What lies between may be the list of a word before.
            let begins = match self.last_word(segment, first)?.map(|word| key.place(&word)) {
                Some(Ordering::Equal) => first,
                Some(Ordering::Less) if matches!(key, Key::Beginning(_)) => {
                    self.leaf_after(segment, key.bytes())?
                }
                _ => last,
            };
            spread += (last - begins - 1).max(0).unsigned_abs();
        }
        Ok(spread)
    }

    /// Returns the word whose list may go on behind a leaf.
    fn last_word(&mut self, segment: Segment, leaf: i64) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(segment, leaf)?;
        self.leaf.words(&mut self.starts)?;
        let mut word = Vec::new();
        for (number, &start) in self.starts.iter().enumerate() {
            self.leaf.word(&mut start.clone(), number == 0, &mut word)?;
        }
        Ok((!self.starts.is_empty()).then_some(word))
    }

    /// Returns the leaf on which `word` stands, if any does.
    fn leaf_of(&mut self, segment: Segment, word: &[u8]) -> Result<i64, StoreError> {
        let found = self
            .seek
            .query_row(params![segment.id, word], |row| row.get::<_, i64>(0))
            .optional()?;
        // The lowest bit tells of an index over the list's leaves.
        Ok(found
            .map_or(segment.first, |found| found >> 1)
            .max(segment.first))
    }

    /// Returns the last leaf that may hold anything less than `word`.
    fn leaf_after(&mut self, segment: Segment, word: &[u8]) -> Result<i64, StoreError> {
        let found = self
            .after
            .query_row(params![segment.id, word], |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(found
            .map_or(segment.last, |found| found >> 1)
            .min(segment.last))
    }

    fn read(&mut self, segment: Segment, leaf: i64) -> Result<(), StoreError> {
        self.left = self.left.saturating_sub(1);
        let row = (segment.id << SEGMENT_SHIFT).wrapping_add(leaf);
        let target = &mut self.leaf;
        let read = self
            .block
            .query_row([row], |row| Ok(target.read(row.get_ref(0)?.as_blob()?)))
            .optional()?;
        read.unwrap_or(Err(Damage("a leaf less than its segment says")))?;
        Ok(())
    }

    /// Calls `visit` with the rows within `reach` that have what `key` names, word by word, each word's in their order,
    /// and some before and behind; stops early when no leaf may be read any more.
    pub(super) fn visit(
        &mut self,
        segment: Segment,
        key: &Key,
        reach: Reach,
        visit: &mut impl FnMut(i64, &[u8]) -> Result<(), Damage>,
    ) -> Result<(), StoreError> {
        let mut at = self.leaf_of(segment, key.bytes())?;
        let mut word = Vec::new();
        while at <= segment.last && self.left > 0 {
            self.read(segment, at)?;
            loop {
                let mut starts = std::mem::take(&mut self.starts);
                self.leaf.words(&mut starts)?;
                let found = self.on_leaf(&starts, key, &mut word, visit);
                self.starts = starts;
                match found? {
                    OnLeaf::Passed => return Ok(()),
                    OnLeaf::Before => break,
                    OnLeaf::GoesOn(list) => {
                        let last = self.follow(segment, at, (key, &word, reach), list, visit)?;
                        if last <= at || matches!(key, Key::One(_)) {
                            return Ok(());
                        }
                        at = last;
                    }
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// Reads what the leaf at hand has under `key`.
    fn on_leaf(
        &self,
        starts: &[usize],
        key: &Key,
        word: &mut Vec<u8>,
        visit: &mut impl FnMut(i64, &[u8]) -> Result<(), Damage>,
    ) -> Result<OnLeaf, Damage> {
        for (number, &start) in starts.iter().enumerate() {
            let mut at = start;
            self.leaf.word(&mut at, number == 0, word)?;
            match key.place(word) {
                Ordering::Less => continue,
                Ordering::Greater => return Ok(OnLeaf::Passed),
                Ordering::Equal => {}
            }
            let next = starts.get(number + 1);
            let end = next.copied().unwrap_or(self.leaf.end);
            let part = self
                .leaf
                .bytes
                .get(at..end)
                .ok_or(Damage("a list outside its leaf"))?;
            let mut list = ListReader::new();
            list.part(part, visit)?;
            if next.is_none() {
                return Ok(OnLeaf::GoesOn(list));
            }
        }
        Ok(OnLeaf::Before)
    }

    /// Reads on in the leaves behind `at` until the list ends; returns the leaf on which that is, which is at hand. Of one
    /// entry nothing is read behind the reach.
    fn follow(
        &mut self,
        segment: Segment,
        at: i64,
        (key, word, reach): (&Key, &[u8], Reach),
        mut list: ListReader,
        visit: &mut impl FnMut(i64, &[u8]) -> Result<(), Damage>,
    ) -> Result<i64, StoreError> {
        let mut at = at + 1;
        if reach.from > i64::MIN {
            let begin = self.leaf_with(segment, at, word, reach.from)?;
            if begin > at {
                list.jump();
                at = begin;
                self.read(segment, at)?;
                let (end, ends) = self.leaf.rest()?;
                let begin = self.leaf.first_row.min(end);
                list.part(&self.leaf.bytes[begin..end], visit)?;
                if ends {
                    return Ok(at);
                }
                at += 1;
            }
        }
        while at <= segment.last && self.left > 0 {
            self.read(segment, at)?;
            let first = self.leaf.first_row()?;
            if matches!(key, Key::One(_)) && first.is_some_and(|first| first > reach.to) {
                break;
            }
            list.next_leaf();
            let (end, ends) = self.leaf.rest()?;
            list.part(&self.leaf.bytes[4..end], visit)?;
            if ends {
                return Ok(at);
            }
            at += 1;
        }
        // Nothing is behind it that could be read.
        Ok(i64::MIN)
    }

    /// Returns the leaf from which on, `at` or later, the list of `word` has all its rows from `from` on.
    fn leaf_with(
        &mut self,
        segment: Segment,
        at: i64,
        word: &[u8],
        from: i64,
    ) -> Result<i64, StoreError> {
        let end = self.leaf_after(segment, &Key::One(word.to_vec()).end())?;
        if at >= end {
            return Ok(at);
        }
        let (mut low, mut high) = (at, end);
        while low < high {
            let middle = low + (high - low).div_euclid(2);
            self.read(segment, middle + 1)?;
            match self.leaf.first_row()? {
                Some(row) if row <= from => low = middle + 1,
                _ => high = middle,
            }
        }
        self.read(segment, low)?;
        // Without a row at its beginning it may be in the middle of one: that is read from the list's beginning.
        Ok(if self.leaf.first_row == 0 { at } else { low })
    }
}

/// What a leaf had.
enum OnLeaf {
    /// Nothing more of it comes.
    Passed,
    /// More may come on the next leaf.
    Before,
    /// Its last word's list, which may go on.
    GoesOn(ListReader),
}

/// Reads the structure record.
fn segments(block: &[u8]) -> Result<Vec<Segment>, Damage> {
    const COOKIE_BYTES: usize = 4;
    /// Begins a structure of tables that this store does not have.
    const OTHER_SORT: [u8; 4] = [0xff, 0, 0, 1];
    let mut at = COOKIE_BYTES;
    if block.get(at..at + 4) == Some(&OTHER_SORT) {
        return Err(Damage("an unknown format"));
    }
    let mut next = || varint(block, &mut at);
    let (levels, _segments, _writes) = (next()?, next()?, next()?);
    let mut by_level = Vec::new();
    for _ in 0..levels {
        let (_merging, count) = (next()?, next()?);
        let mut level = Vec::new();
        for _ in 0..count {
            let [id, first, last] = [next()?, next()?, next()?].map(u64::cast_signed);
            if !(1..1 << 16).contains(&id) || first < 1 || last < first || last >= 1 << 31 {
                return Err(Damage("a segment that is none"));
            }
            level.push(Segment { id, first, last });
        }
        by_level.push(level);
    }
    // Level 0 has the newest ones.
    Ok(by_level.into_iter().rev().flatten().collect())
}

/// Returns how many words a memory has, from its row in the index's `docsize` table.
pub(in crate::store) fn words_of(sizes: &[u8]) -> Result<f64, Damage> {
    let (mut at, mut words) = (0, 0);
    while at < sizes.len() {
        words += varint(sizes, &mut at)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "as FTS5's bm25() does")]
    Ok(words as f64)
}
