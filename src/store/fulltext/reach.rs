//! Which part of the index a search reads.

use std::ops::RangeInclusive;

/// Which part of the lists is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct Reach {
    /// The oldest memory that is looked at.
    pub(in crate::store) from: i64,
    /// The newest one.
    pub(in crate::store) to: i64,
    /// Which part of all memories that is, above 0 and up to 1.
    pub(in crate::store) part: f64,
}

impl Reach {
    /// Returns whether all memories are looked at.
    pub(in crate::store) fn is_all(&self) -> bool {
        (self.from, self.to) == (i64::MIN, i64::MAX)
    }

    /// Returns which part of the `wanted` memories is looked at, up to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share of a span of rows")]
    pub(in crate::store) fn share_of(&self, wanted: &RangeInclusive<i64>) -> f64 {
        let rows = |from: i64, to: i64| to.saturating_sub(from).max(0) as f64 + 1.0;
        rows(self.from.max(*wanted.start()), self.to.min(*wanted.end()))
            / rows(*wanted.start(), *wanted.end())
    }

    pub(super) fn has(&self, m: i64) -> bool {
        (self.from..=self.to).contains(&m)
    }
}
