//! `cross_pool_search` with `ids`: whole texts, over as many pages as they need.

use super::found::hit_of;
use super::handle::Memories;
use super::page::{HITS_BYTES, Position};
use super::search::local_source;
use crate::api::{CrossPoolSearchResult, Hit};
use crate::error::{ErrorKind, Problem};
use crate::model::{MemoryId, MemoryPage};

/// How many memories one call may name.
const MAX_IDS: usize = 100;

/// A text is not begun in less room than this, in bytes.
const LEAST_ROOM: usize = 300;

impl Memories {
    /// Gives the memories `ids` with their whole texts from `position` on; a text that does not fit goes on in the next
    /// page's first hit.
    pub(super) async fn whole(
        &self,
        ids: &[String],
        mut position: Position,
    ) -> Result<CrossPoolSearchResult, Problem> {
        let ids = parsed(ids)?;
        let (mut hits, mut room, mut known) = (Vec::new(), HITS_BYTES, position.skip > 0);
        while position.skip < ids.len() && room >= LEAST_ROOM {
            let memory = self.0.store.memory(ids[position.skip]).await;
            if let Some(memory) = memory? {
                known = true;
                let text = memory.text.clone();
                let mut hit = hit_of(&memory);
                let begin = text.floor_char_boundary(position.offset.min(text.len()));
                let end = fill(&mut hit, &text, begin, room);
                room = room.saturating_sub(size_of_hit(&hit));
                hits.push(hit);
                if end < text.len() {
                    position.offset = end;
                    break;
                }
            }
            position.skip += 1;
            position.offset = 0;
        }
        if !known {
            return Err(Problem {
                field: Some("ids".to_owned()),
                ..Problem::new(
                    ErrorKind::NotFound,
                    "there is no memory with any of these ids",
                )
            }
            .with_hint(
                "search by words first; hits of a peer's own memories have no full text here",
            ));
        }
        Ok(CrossPoolSearchResult {
            hits,
            sources: vec![local_source(&MemoryPage::default())],
            cursor: (position.skip < ids.len()).then(|| position.write()),
        })
    }
}

/// Puts as much of `text` from `begin` into the hit as fits into `room` bytes of JSON, a character at least; returns
/// where it ends.
fn fill(hit: &mut Hit, text: &str, begin: usize, room: usize) -> usize {
    hit.text.clear();
    hit.truncated = true;
    let mut left = room.saturating_sub(size_of_hit(hit));
    let mut end = begin;
    for c in text[begin..].chars() {
        let bytes = json_bytes(c);
        if bytes > left && end > begin {
            break;
        }
        left = left.saturating_sub(bytes);
        end += c.len_utf8();
    }
    hit.text.push_str(&text[begin..end]);
    hit.truncated = end < text.len();
    end
}

/// Returns how many bytes a character takes in a JSON text as `serde_json` writes it.
fn json_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

fn size_of_hit(hit: &Hit) -> usize {
    serde_json::to_string(hit).map_or(0, |text| text.len() + 1)
}

fn parsed(ids: &[String]) -> Result<Vec<MemoryId>, Problem> {
    let allowed =
        format!("1 to {MAX_IDS} ids of memories, 26 letters and digits each, as hits give them");
    if ids.len() > MAX_IDS {
        let message = format!("ids has {} entries", ids.len());
        return Err(Problem::argument("ids", message, allowed));
    }
    ids.iter()
        .map(|id| {
            id.parse().map_err(|_| {
                let shown: String = id.chars().take(60).collect();
                let message = format!("ids has {shown:?}, which is no memory's id");
                Problem::argument("ids", message, allowed.clone())
                    .with_hint("a peer's own memories (source other than worker or remember) have no full text here")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{At, Memory, MemoryKind};

    fn empty() -> Hit {
        hit_of(&Memory {
            id: MemoryId::new(),
            kind: MemoryKind::Note,
            text: "".into(),
            pool: "p".parse().expect("a name"),
            repo: None,
            workflow: None,
            item: None,
            attempt: None,
            worker: None,
            commit: None,
            source: "remember".to_owned(),
            tags: Vec::new(),
            created_at: At::now(),
            aggregated: false,
        })
    }

    #[test]
    fn a_text_comes_whole_over_its_pages_whatever_it_holds() {
        for text in [
            "\u{1}".repeat(9_000),
            "é\"\\".repeat(9_000),
            "x".repeat(1 << 20),
            "short".to_owned(),
        ] {
            let (mut read, mut at, mut pages) = (String::new(), 0, 0);
            while at < text.len() {
                let mut hit = empty();
                let end = fill(&mut hit, &text, at, HITS_BYTES);
                assert!(end > at && size_of_hit(&hit) <= HITS_BYTES);
                assert_eq!(hit.truncated, end < text.len());
                read.push_str(&hit.text);
                (at, pages) = (end, pages + 1);
            }
            assert_eq!(read, text);
            let json = serde_json::to_string(&text).expect("a text").len();
            assert!(pages <= 1 + json / (HITS_BYTES - 500), "{pages} pages");
        }
    }
}
