//! The full-text index, read under a bound on the work.
//!
//! FTS5 writes and keeps the index; here its tables are only read, in the format that `fts5_index.c` describes at its
//! head, because FTS5's own cursor cannot be bounded: `bm25()` reads the whole list of every word to count it, an AND
//! or a phrase without a match reads on past any range of rows, a prefix without an index of its own merges all its
//! lists first. Here each of these costs at most a number of leaves (pages of about 4,000 bytes) that the caller sets.
//! The tests compare every answer with FTS5's.

mod leaf;
mod lists;
mod reach;
mod segments;

pub(super) use lists::{Entry, Lists, Term, gallop};
pub(super) use reach::Reach;
pub(super) use segments::{Figures, Index, words_of};

#[cfg(test)]
mod tests;

use super::StoreError;

/// What is wrong with the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage(&'static str);

impl From<Damage> for StoreError {
    fn from(damage: Damage) -> Self {
        Self::Damaged {
            detail: format!("the full-text index has {}", damage.0),
        }
    }
}
