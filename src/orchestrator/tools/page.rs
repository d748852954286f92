//! Pages of rows: as many as fit into a budget of JSON bytes, and the row that the next page begins with.

use crate::error::Problem;
use serde::Serialize;

/// The budget of an answer that is mostly rows. The server allows 9,000 bytes in all; the rest is for the fields beside
/// the rows, notices and paths that are longer than usual.
pub(super) const PAGE_BYTES: usize = 7_000;

/// Bytes of JSON that are left for rows.
pub(super) struct Budget(usize);

impl Budget {
    /// Returns a budget of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Splits one part in `parts` off; [`Self::join`] returns what is left of it.
    pub(super) fn split(&mut self, parts: usize) -> Self {
        let share = self.0 / parts;
        self.0 -= share;
        Self(share)
    }

    /// Adds what is left of another budget.
    pub(super) fn join(&mut self, rest: Self) {
        self.0 += rest.0;
    }

    /// Takes what `row` needs with its comma, if that is left; returns whether it was.
    pub(super) fn take(&mut self, row: &impl Serialize) -> bool {
        let rest = self.0.checked_sub(json_bytes(row));
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Takes rows while they fit; returns them and the first one that does not.
    ///
    /// The first row is always taken, so that every page makes progress: `shrink` is given it with the bytes it may
    /// take.
    pub(super) fn fill<T: Serialize>(
        &mut self,
        rows: impl IntoIterator<Item = T>,
        shrink: impl FnOnce(&mut T, usize),
    ) -> (Vec<T>, Option<T>) {
        let mut rows = rows.into_iter();
        let Some(mut first) = rows.next() else {
            return (Vec::new(), None);
        };
        if !self.take(&first) {
            shrink(&mut first, self.0);
            self.0 = self.0.saturating_sub(json_bytes(&first));
        }
        let mut taken = vec![first];
        for row in rows {
            if !self.take(&row) {
                return (taken, Some(row));
            }
            taken.push(row);
        }
        (taken, None)
    }
}

/// Returns how many bytes of JSON a row takes with its comma, without building the JSON.
pub(super) fn json_bytes(row: &impl Serialize) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(1);
    serde_json::to_writer(&mut count, row).map_or(usize::MAX, |()| count.0)
}

/// Returns the refusal of a cursor that no answer of this tool gave.
pub(super) fn bad_cursor() -> Problem {
    Problem::argument(
        "cursor",
        "this is not a cursor of this tool",
        "the `cursor` of an earlier answer, unchanged",
    )
    .with_hint("leave `cursor` out to begin with the first page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_while_they_fit_and_the_first_always() {
        let rows = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let keep = |_: &mut String, _| panic!("nothing to shrink");
        let (taken, next) = Budget::new(10).fill(rows(&["ab", "cd", "e"]), keep);
        assert_eq!((taken, next), (rows(&["ab", "cd"]), Some("e".to_owned())));
        let cut = |row: &mut String, bytes| row.truncate(bytes - 3);
        let (taken, next) = Budget::new(10).fill(rows(&["0123456789", "x"]), cut);
        assert_eq!((taken, next), (rows(&["0123456"]), Some("x".to_owned())));
        assert_eq!(Budget::new(0).fill(rows(&[]), keep), (vec![], None));
    }
}
