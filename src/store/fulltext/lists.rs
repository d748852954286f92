//! Which memories have a term, and how often: words, beginnings of words, phrases.

use super::Damage;
use super::leaf::{count_in_first_column, positions};
use super::reach::Reach;
use super::segments::{Index, Key};
use crate::store::StoreError;
use std::ops::RangeInclusive;

/// Begins the entries of words; FTS5 has others, for beginnings of words, which this index is without.
const WORDS_SORT: u8 = b'0';
/// What a word counts in text, tags and repository. What somebody chose as a tag says more than one word among many.
pub(in crate::store) const WEIGHTS: [f32; 3] = [1.0, 2.0, 0.5];

/// A word, or several in a row, as the index's tokenizer writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Term {
    /// The words; at least one.
    pub(in crate::store) tokens: Vec<String>,
    /// Whether the last one is only a word's beginning.
    pub(in crate::store) prefix: bool,
}

impl Term {
    /// Returns what to look for in place of each token.
    fn keys(&self) -> Vec<Key> {
        let last = self.tokens.len() - 1;
        let keys = self.tokens.iter().enumerate().map(|(at, token)| {
            let entry = [&[WORDS_SORT], token.as_bytes()].concat();
            if self.prefix && at == last {
                Key::Beginning(entry)
            } else {
                Key::One(entry)
            }
        });
        keys.collect()
    }
}

/// A memory that has a term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct Entry {
    pub(in crate::store) m: i64,
    /// How often, each time by the weight of its column.
    pub(in crate::store) frequency: f32,
}

/// The lists of a query's terms.
pub(in crate::store) struct Lists {
    /// Term by term, each in the order of the memories.
    pub(in crate::store) lists: Vec<Vec<Entry>>,
    pub(in crate::store) reach: Reach,
}

impl Lists {
    /// Reads the lists of `terms`, whole, or where that would be too much from the newest `wanted` memories backwards as
    /// far as about `leaves` reach; `stored` is where the memories' numbers begin and end.
    pub(in crate::store) fn read(
        index: &mut Index<'_>,
        terms: &[Term],
        leaves: u64,
        stored: &RangeInclusive<i64>,
        wanted: &RangeInclusive<i64>,
    ) -> Result<Self, StoreError> {
        let keys: Vec<_> = terms.iter().map(Term::keys).collect();
        let mut spread = 0;
        for words in &keys {
            // The positions in a phrase take as much time again as the rows.
            let times = if words.len() > 1 { 2 } else { 1 };
            for key in words {
                spread += times * index.spread(key)?;
            }
        }
        let reach = reach((spread, leaves), stored, wanted);
        let mut lists = Vec::with_capacity(terms.len());
        for keys in keys {
            lists.push(match keys.as_slice() {
                [word] => one_word(index, word, reach)?,
                words => phrase(index, words, reach)?,
            });
        }
        Ok(Self { lists, reach })
    }
}

/// Returns what one can look at when all would be `spread` leaves and only `leaves` are allowed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a share of a span of rows"
)]
fn reach(
    (spread, leaves): (u64, u64),
    stored: &RangeInclusive<i64>,
    wanted: &RangeInclusive<i64>,
) -> Reach {
    if spread <= leaves {
        return Reach {
            from: i64::MIN,
            to: i64::MAX,
            part: 1.0,
        };
    }
    let span = stored.end().saturating_sub(*stored.start()).max(0) as f64 + 1.0;
    let rows = (span * leaves as f64 / spread as f64).max(1.0).floor();
    let to = *wanted.end().min(stored.end());
    let from = to.saturating_sub(rows as i64 - 1).max(*wanted.start());
    let rows = to.saturating_sub(from).max(0) as f64 + 1.0;
    Reach {
        from,
        to,
        part: (rows / span).min(1.0),
    }
}

fn one_word(index: &mut Index<'_>, key: &Key, reach: Reach) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    let (mut sorted, mut before) = (true, i64::MIN);
    for segment in index.segments() {
        index.visit(segment, key, reach, &mut |m, list| {
            if reach.has(m) {
                let frequency = frequency(list)?;
                sorted &= before < m;
                before = m;
                found.push(Entry { m, frequency });
            }
            Ok(())
        })?;
    }
    if !sorted {
        // Stable: it merges the runs that are in order already.
        found.sort_by_key(|entry| entry.m);
        found.dedup_by(|next, kept| {
            let same = next.m == kept.m;
            if same {
                kept.frequency += next.frequency;
            }
            same
        });
    }
    Ok(found)
}

/// Returns how often a word stands at `list`, each time by the weight of its column.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "no text has as many words")]
fn frequency(list: &[u8]) -> Result<f32, Damage> {
    if let Some(count) = count_in_first_column(list) {
        return Ok(count as f32 * WEIGHTS[0]);
    }
    let mut frequency = 0.0;
    positions(list, |column, _| frequency += weight(column))?;
    Ok(frequency)
}

fn weight(column: u64) -> f32 {
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    WEIGHTS.get(column).copied().unwrap_or(1.0)
}

/// Goes on in `list` from `place` over all that are `before` what is looked for, in steps that double.
pub(in crate::store) fn gallop<T>(list: &[T], place: &mut usize, before: impl Fn(&T) -> bool) {
    let (mut step, mut high) = (1, *place);
    while list.get(high).is_some_and(&before) {
        *place = high + 1;
        high += step;
        step *= 2;
    }
    let end = high.min(list.len());
    *place += list[(*place).min(end)..end].partition_point(before);
}

/// Where a phrase may begin: the memory, then column and offset in one number.
type Start = (i64, u64);

const COLUMN_SHIFT: u32 = 32;

/// Keeps, word by word beginning with the rarest, the places where the phrase may still begin.
fn phrase(index: &mut Index<'_>, words: &[Key], reach: Reach) -> Result<Vec<Entry>, StoreError> {
    let mut order = Vec::new();
    for (at, key) in words.iter().enumerate() {
        order.push((index.spread(key)?, at, key));
    }
    order.sort_by_key(|&(spread, at, _)| (spread, at));
    let mut starts: Option<Vec<Start>> = None;
    for (_, at, key) in order {
        starts = Some(starts_of(index, key, at as u64, reach, starts.as_deref())?);
    }
    let mut found: Vec<Entry> = Vec::new();
    for (m, start) in starts.unwrap_or_default() {
        let frequency = weight(start >> COLUMN_SHIFT);
        match found.last_mut() {
            Some(last) if last.m == m => last.frequency += frequency,
            _ => found.push(Entry { m, frequency }),
        }
    }
    Ok(found)
}

/// Returns where the phrase may begin by where its word `at` stands, of the places in `known` if that is there.
fn starts_of(
    index: &mut Index<'_>,
    key: &Key,
    at: u64,
    reach: Reach,
    known: Option<&[Start]>,
) -> Result<Vec<Start>, StoreError> {
    let mut found: Vec<Start> = Vec::new();
    for segment in index.segments() {
        // Where in `known` the memories of this word have got to.
        let (mut place, mut before) = (0, i64::MIN);
        index.visit(segment, key, reach, &mut |m, list| {
            if !reach.has(m) {
                return Ok(());
            }
            if let Some(known) = known {
                if m < before {
                    place = 0;
                }
                before = m;
                gallop(known, &mut place, |start| start.0 < m);
                if known.get(place).is_none_or(|start| start.0 != m) {
                    return Ok(());
                }
            }
            positions(list, |column, offset| {
                let start = offset.checked_sub(at);
                let start = start.map(|offset| (m, column << COLUMN_SHIFT | offset));
                let fits = |start: &Start| {
                    known.is_none_or(|known| known[place..].binary_search(start).is_ok())
                };
                found.extend(start.filter(fits));
            })
        })?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
