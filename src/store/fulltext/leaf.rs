//! One leaf of the full-text index: varints, words, and the lists of the memories that have them.
//!
//! Format: the head of `fts5_index.c`, "Segment leaves". Everything read here may be damaged: each step says so.

use super::Damage;

/// A leaf's bytes with what its header says.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) bytes: Vec<u8>,
    /// Where the first row's number stands that precedes the leaf's first word; 0 where there is none.
    pub(super) first_row: usize,
    /// Where the words and lists end and the footer begins.
    pub(super) end: usize,
}

impl Leaf {
    /// Takes a block over.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<(), Damage> {
        let header = block.get(..4).ok_or(Damage("a leaf without a header"))?;
        let word = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        (self.first_row, self.end) = (word(0), word(2));
        if self.end < 4 || self.end > block.len() || self.first_row >= self.end {
            return Err(Damage("a leaf whose header points outside"));
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(block);
        Ok(())
    }

    /// Returns the number of the first row of which the list goes on from the leaf before.
    pub(super) fn first_row(&self) -> Result<Option<i64>, Damage> {
        if self.first_row == 0 {
            return Ok(None);
        }
        let mut at = self.first_row;
        varint(&self.bytes[..self.end], &mut at).map(|row| Some(row.cast_signed()))
    }

    /// Writes where each of the leaf's words begins.
    pub(super) fn words(&self, starts: &mut Vec<usize>) -> Result<(), Damage> {
        starts.clear();
        let (mut at, mut start) = (self.end, 0_usize);
        while at < self.bytes.len() {
            let step = size(varint(&self.bytes, &mut at)?)?;
            start = start.saturating_add(step);
            if start < 4 || start >= self.end || (step == 0 && !starts.is_empty()) {
                return Err(Damage("a word outside its leaf"));
            }
            starts.push(start);
        }
        Ok(())
    }

    /// Returns where the list that goes on from the leaf before ends, and whether it ends here.
    pub(super) fn rest(&self) -> Result<(usize, bool), Damage> {
        if self.end == self.bytes.len() {
            return Ok((self.end, false));
        }
        let mut at = self.end;
        let first = size(varint(&self.bytes, &mut at)?)?;
        if first < 4 || first > self.end {
            return Err(Damage("a word outside its leaf"));
        }
        Ok((first, true))
    }

    /// Reads the word that begins at `at`, of which `word` is the one before; leaves `at` at its list.
    pub(super) fn word(
        &self,
        at: &mut usize,
        first: bool,
        word: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let bytes = &self.bytes[..self.end];
        let kept = if first { 0 } else { size(varint(bytes, at)?)? };
        let new = size(varint(bytes, at)?)?;
        let end = at.saturating_add(new);
        let new = bytes.get(*at..end).filter(|_| kept <= word.len());
        let new = new.ok_or(Damage("a word outside its leaf"))?;
        word.truncate(kept);
        word.extend_from_slice(new);
        *at = end;
        Ok(())
    }
}

/// Reads a list over the leaves it spans.
#[derive(Debug, Default)]
pub(super) struct ListReader {
    row: i64,
    /// Whether the next row's number is a whole one, not a difference.
    whole: bool,
    /// The beginning of a row's positions that go on in the next leaf, and how many bytes are missing.
    pending: Vec<u8>,
    missing: usize,
}

impl ListReader {
    /// Begins a list.
    pub(super) fn new() -> Self {
        Self {
            whole: true,
            ..Self::default()
        }
    }

    /// Reads the list's part of one leaf; `visit` gets each row's number and positions.
    pub(super) fn part(
        &mut self,
        part: &[u8],
        visit: &mut impl FnMut(i64, &[u8]) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let mut at = self.missing.min(part.len());
        if self.missing > 0 {
            self.pending.extend_from_slice(&part[..at]);
            self.missing -= at;
            if self.missing > 0 {
                return Ok(());
            }
            visit(self.row, &self.pending)?;
        }
        while at < part.len() {
            let (number, size_and_mark) = match part[at..] {
                // Of frequent words nearly all are like this, and nearly all time goes here.
                [number, size, ..] if number | size < 0x80 => {
                    at += 2;
                    (u64::from(number), u64::from(size))
                }
                _ => (varint(part, &mut at)?, varint(part, &mut at)?),
            };
            let number = number.cast_signed();
            self.row = if self.whole {
                number
            } else {
                self.row.wrapping_add(number)
            };
            self.whole = false;
            // The lowest bit marks a row as deleted; one without positions is as good as none.
            let bytes = size(size_and_mark)? >> 1;
            let end = at.saturating_add(bytes);
            if let Some(positions) = part.get(at..end) {
                if bytes > 0 {
                    visit(self.row, positions)?;
                }
                at = end;
            } else {
                self.pending.clear();
                self.pending.extend_from_slice(&part[at..]);
                self.missing = end - part.len();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says that the next part is of another leaf, on which the first row's number is a whole one.
    pub(super) fn next_leaf(&mut self) {
        self.whole = true;
    }

    /// Says that leaves were left out.
    pub(super) fn jump(&mut self) {
        self.whole = true;
        self.missing = 0;
    }
}

/// Returns how many positions there are, where it can be told at a glance that all are in the first column: each is one
/// byte then, and none changes the column.
#[inline]
pub(super) fn count_in_first_column(list: &[u8]) -> Option<usize> {
    list.iter()
        .all(|byte| (2..0x80).contains(byte))
        .then_some(list.len())
}

/// Calls `visit` with the column and the offset of each position.
#[inline]
pub(super) fn positions(list: &[u8], mut visit: impl FnMut(u64, u64)) -> Result<(), Damage> {
    let (mut at, mut column, mut offset) = (0, 0, 0_u64);
    while at < list.len() {
        match varint(list, &mut at)? {
            1 => {
                column = varint(list, &mut at)?;
                offset = 0;
            }
            step => {
                offset = offset.wrapping_add(step).wrapping_sub(2);
                visit(column, offset);
            }
        }
    }
    Ok(())
}

/// Reads SQLite's number of variable length: big-endian groups of seven bits, the ninth byte whole.
#[inline]
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Damage> {
    match bytes.get(*at) {
        Some(&byte) if byte < 0x80 => {
            *at += 1;
            Ok(u64::from(byte))
        }
        _ => long_varint(bytes, at),
    }
}

fn long_varint(bytes: &[u8], at: &mut usize) -> Result<u64, Damage> {
    let mut value = 0;
    for place in 0..9 {
        let byte = *bytes.get(*at).ok_or(Damage("a number that ends early"))?;
        *at += 1;
        if place == 8 {
            return Ok(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Ok(value)
}

fn size(number: u64) -> Result<usize, Damage> {
    usize::try_from(number).map_err(|_| Damage("a size that is none"))
}
