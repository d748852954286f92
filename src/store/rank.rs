//! BM25, exactly as FTS5's `bm25()` computes it, and its bounds: which matches are worth a look at their rows.

use super::fulltext::{Entry, Figures, Reach, gallop};
use std::cmp::Ordering;

/// The constants of the formula.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// What a word that stands in more than half of all memories still counts.
const LEAST_IDF: f64 = 1e-6;
/// Memories whose scores are added up at a time; a block of sums stays in the processor's cache.
const BLOCK: usize = 1 << 15;

/// How many of the terms a memory must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    All,
    Any,
}

/// A memory with what its words' frequencies alone promise: its score, were it of average length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) m: i64,
    promise: f64,
}

/// The terms' lists with how much each counts.
pub(super) struct Ranker<'a> {
    lists: &'a [Vec<Entry>],
    idf: Vec<f64>,
    average_words: f64,
}

impl<'a> Ranker<'a> {
    #[expect(clippy::cast_precision_loss, reason = "counts of memories")]
    pub(super) fn new(lists: &'a [Vec<Entry>], reach: Reach, figures: Figures) -> Self {
        let idf = |list: &Vec<Entry>| {
            // Beyond the reach a term is taken to be as frequent as within it.
            let having = list.len() as f64 / reach.part;
            let idf = ((figures.rows - having + 0.5) / (having + 0.5)).ln();
            if idf <= 0.0 { LEAST_IDF } else { idf }
        };
        Self {
            lists,
            idf: lists.iter().map(idf).collect(),
            average_words: figures.words / figures.rows,
        }
    }

    /// Returns the memories that have the terms, in their order.
    pub(super) fn candidates(&self, which: Match) -> Vec<Candidate> {
        let mut some = (0..self.lists.len()).filter(|&list| !self.lists[list].is_empty());
        match (some.next(), some.next(), which) {
            (Some(list), None, Match::Any) => self.only(list),
            _ if self.lists.len() == 1 => self.only(0),
            (_, _, Match::All) => self.all(),
            (_, _, Match::Any) => self.any(),
        }
    }

    fn only(&self, list: usize) -> Vec<Candidate> {
        let candidate = |entry: &Entry| Candidate {
            m: entry.m,
            promise: self.promise(list, entry.frequency),
        };
        self.lists[list].iter().map(candidate).collect()
    }

    fn promise(&self, list: usize, frequency: f32) -> f64 {
        let frequency = f64::from(frequency);
        self.idf[list] * (frequency * (K1 + 1.0)) / (frequency + K1)
    }

    fn all(&self) -> Vec<Candidate> {
        let mut order: Vec<usize> = (0..self.lists.len()).collect();
        order.sort_by_key(|&list| self.lists[list].len());
        let Some((&rarest, others)) = order.split_first() else {
            return Vec::new();
        };
        let mut places = vec![0; self.lists.len()];
        let mut found = Vec::new();
        'entries: for entry in &self.lists[rarest] {
            let mut promise = self.promise(rarest, entry.frequency);
            for &list in others {
                match seek(&self.lists[list], &mut places[list], entry.m) {
                    Some(frequency) => promise += self.promise(list, frequency),
                    None => continue 'entries,
                }
            }
            found.push(Candidate {
                m: entry.m,
                promise,
            });
        }
        found
    }

    fn any(&self) -> Vec<Candidate> {
        let mut rests: Vec<&[Entry]> = self.lists.iter().map(Vec::as_slice).collect();
        let mut sums = vec![0.0; BLOCK];
        let mut found = Vec::new();
        while let Some(first) = rests
            .iter()
            .filter_map(|rest| rest.first())
            .map(|entry| entry.m)
            .min()
        {
            // No entry precedes the first.
            let place = |entry: &Entry| entry.m.wrapping_sub(first).cast_unsigned();
            for (list, rest) in rests.iter_mut().enumerate() {
                let end = rest.partition_point(|entry| place(entry) < BLOCK as u64);
                let (here, behind) = rest.split_at(end);
                for entry in here {
                    // Less than the block's length, as just found.
                    #[expect(clippy::cast_possible_truncation, reason = "less than a block")]
                    let sum = &mut sums[place(entry) as usize];
                    *sum += self.promise(list, entry.frequency);
                }
                *rest = behind;
            }
            for (place, sum) in (0..).zip(&mut sums) {
                if *sum > 0.0 {
                    let m = first.wrapping_add(place);
                    found.push(Candidate { m, promise: *sum });
                    *sum = 0.0;
                }
            }
        }
        found
    }

    /// Returns the score of memories, given in their order, by the numbers of their words.
    pub(super) fn scores(&self) -> Scores<'_> {
        Scores {
            ranker: self,
            places: vec![0; self.lists.len()],
        }
    }
}

/// Scores memories one after the other, in their order.
pub(super) struct Scores<'a> {
    ranker: &'a Ranker<'a>,
    places: Vec<usize>,
}

impl Scores<'_> {
    /// Returns the score of `m`, which has `words` words.
    pub(super) fn of(&mut self, m: i64, words: f64) -> f64 {
        let length = K1 * (1.0 - B + B * words / self.ranker.average_words);
        let mut score = 0.0;
        for (list, place) in self.places.iter_mut().enumerate() {
            let frequency = seek(&self.ranker.lists[list], place, m).map_or(0.0, f64::from);
            score += self.ranker.idf[list] * ((frequency * (K1 + 1.0)) / (frequency + length));
        }
        score
    }
}

/// Keeps the `most` candidates that promise most, the newer of equal ones, in the memories' order.
pub(super) fn keep_best(candidates: &mut Vec<Candidate>, most: usize) {
    if candidates.len() <= most {
        return;
    }
    let better = |a: &Candidate, b: &Candidate| -> Ordering {
        b.promise.total_cmp(&a.promise).then(b.m.cmp(&a.m))
    };
    let mut best: Vec<Candidate> = Vec::with_capacity(2 * most);
    let mut least = f64::NEG_INFINITY;
    // The newest first: of equal ones the later come too late, and most are left out at a glance.
    for candidate in candidates.iter().rev() {
        if candidate.promise <= least {
            continue;
        }
        best.push(*candidate);
        if best.len() == 2 * most {
            least = best.select_nth_unstable_by(most - 1, better).1.promise;
            best.truncate(most);
        }
    }
    if best.len() > most {
        best.select_nth_unstable_by(most - 1, better);
        best.truncate(most);
    }
    best.sort_unstable_by_key(|candidate| candidate.m);
    *candidates = best;
}

/// Keeps the candidates that are in `few`; both are in the memories' order.
pub(super) fn keep_of(candidates: &mut Vec<Candidate>, few: &[i64]) {
    let mut place = 0;
    candidates.retain(|candidate| stands_in(few, &mut place, candidate.m));
}

/// Counts the candidates that are in `few` `times` as much; both are in the memories' order.
pub(super) fn boost(candidates: &mut [Candidate], few: &[i64], times: f64) {
    let mut place = 0;
    for candidate in candidates {
        if stands_in(few, &mut place, candidate.m) {
            candidate.promise *= times;
        }
    }
}

fn stands_in(few: &[i64], place: &mut usize, m: i64) -> bool {
    gallop(few, place, |few| *few < m);
    few.get(*place) == Some(&m)
}

/// Goes on in `list` to memory `m`; returns how frequent the term is there.
fn seek(list: &[Entry], place: &mut usize, m: i64) -> Option<f32> {
    gallop(list, place, |entry| entry.m < m);
    let entry = list.get(*place).filter(|entry| entry.m == m)?;
    Some(entry.frequency)
}
