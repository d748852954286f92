//! An item as an answer shows it, its texts cut to what the answer has room for.

use super::page::json_bytes;
use crate::api::{Detail, Item};
use crate::model::{ItemRecord, ItemState};
use crate::text;
use serde::Serialize;

/// An item with its texts cut.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct ItemRow {
    pub(super) item: Item,
    /// Whether a text was cut.
    #[serde(skip)]
    pub(super) is_cut: bool,
}

/// The most bytes that the texts of one item take; `None` leaves a text as it is.
struct Limits {
    output_tail: usize,
    verify_tail: usize,
    message: usize,
    cause: Option<usize>,
}

impl ItemRow {
    /// Returns the row of an item in as much detail as `detail` asks for.
    pub(super) fn new(record: &ItemRecord, detail: Detail) -> Self {
        let (output_tail, verify_tail, message) = match (detail, record.status) {
            (Detail::Full, _) => (2_000, 1_000, 600),
            (Detail::Summary, ItemState::Succeeded) => (200, 0, 200),
            (Detail::Summary, _) => (300, 200, 200),
        };
        let mut item = Item::from(record.clone());
        if let (Detail::Summary, Some(error)) = (detail, &mut item.error) {
            error.hint = None;
        }
        let mut row = Self {
            item,
            is_cut: false,
        };
        row.trim(&Limits {
            output_tail,
            verify_tail,
            message,
            cause: None,
        });
        row
    }

    /// Returns the row of a running item in a short answer: what runs where, and what it does.
    pub(super) fn brief(record: &ItemRecord) -> Self {
        let shown = ItemRecord {
            pool: record.pool.clone(),
            attempt: record.attempt,
            duration_ms: record.duration_ms,
            idle_s: record.idle_s,
            doing: record.doing.clone(),
            ..ItemRecord::unstarted(record.item, record.repo.clone(), record.status)
        };
        Self::new(&shown, Detail::Summary)
    }

    /// Halves the texts until the row takes at most `bytes` of JSON: control characters take six bytes each there.
    pub(super) fn squeeze(&mut self, bytes: usize) {
        for limit in [1_000, 500, 250, 100, 0] {
            if json_bytes(self) <= bytes {
                return;
            }
            let message = limit.max(100);
            self.trim(&Limits {
                output_tail: limit,
                verify_tail: limit,
                message,
                cause: Some(message),
            });
        }
    }

    fn trim(&mut self, limits: &Limits) {
        /// The longest `doing`, in bytes.
        const DOING: usize = 80;
        let item = &mut self.item;
        let mut is_cut = cut_tail(&mut item.output_tail, limits.output_tail);
        if let Some(verify) = &mut item.verify {
            is_cut |= cut_tail(&mut verify.output_tail, limits.verify_tail);
        }
        if let Some(error) = &mut item.error {
            is_cut |= cut_head(&mut error.message, limits.message);
        }
        if let (Some(cause), Some(limit)) = (&mut item.cause, limits.cause) {
            is_cut |= cut_head(cause, limit);
        }
        if let Some(doing) = &mut item.doing {
            is_cut |= cut_head(doing, DOING);
        }
        self.is_cut |= is_cut;
    }
}

/// Keeps the beginning of a text, about `bytes` of it; returns whether it was cut.
pub(super) fn cut_head(whole: &mut String, bytes: usize) -> bool {
    let kept = text::head(whole, bytes).len();
    let is_cut = kept < whole.len();
    if is_cut {
        whole.truncate(kept);
        whole.push('…');
    }
    is_cut
}

/// Keeps the end of a text, about `bytes` of it, and nothing at all with no room; returns whether it was cut.
fn cut_tail(whole: &mut Option<String>, bytes: usize) -> bool {
    let Some(old) = whole.as_deref().filter(|old| old.len() > bytes) else {
        return false;
    };
    *whole = (bytes > 0).then(|| format!("…{}", text::tail(old, bytes)));
    true
}
