//! One search result: its local and remote parts, what makes two results equal, and its form in the answer.

use super::fusion::Fused;
use super::page::snippet;
use crate::api::{Hit, Matched};
use crate::model::{Memory, MemoryHit, MemoryId};
use crate::session_buddy::PeerHit;
use sha2::{Digest, Sha256};

/// How many ids of equal texts a hit lists; `also_count` counts all.
const ALSO_LISTED: usize = 3;

/// One result, with both parts if the store and the peer returned it.
pub(super) struct Found {
    pub(super) memory: Option<MemoryHit>,
    pub(super) remote: Option<PeerHit>,
    pub(super) fulltext: bool,
}

pub(super) fn id_of(hit: &PeerHit) -> Option<MemoryId> {
    hit.marker.as_ref()?.id.to_string().parse().ok()
}

/// Returns the keys of a result: two results are equal if they share a marker's id, or a text that is known in full.
pub(super) fn keys(found: &Found) -> Vec<String> {
    let mut keys = Vec::new();
    if let Some(hit) = &found.memory {
        keys.push(hit.memory.id.to_string());
        keys.extend(hit.also.iter().map(|origin| origin.id.to_string()));
        keys.push(folded(&hit.memory.text));
    }
    if let Some(hit) = &found.remote {
        keys.extend(id_of(hit).map(|id| id.to_string()));
        if !hit.truncated {
            keys.push(folded(&hit.text));
        }
    }
    keys
}

/// Returns the text as a peer stores it, on one line, with a prefix so that it cannot equal an id.
fn folded(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    format!("text {}", words.join(" "))
}

/// Returns a memory as a hit with its whole text.
pub(super) fn hit_of(memory: &Memory) -> Hit {
    Hit {
        id: memory.id.to_string(),
        kind: Some(memory.kind),
        score: 0.0,
        text: memory.text.to_string(),
        pool: Some(memory.pool.clone()),
        repo: memory.repo.clone(),
        workflow_id: memory.workflow,
        item: memory.item,
        worker: memory.worker.clone(),
        commit: memory.commit.clone(),
        source: memory.source.clone(),
        matched: Vec::new(),
        created_at: Some(memory.created_at),
        also_count: None,
        also: Vec::new(),
        truncated: false,
    }
}

/// Returns the result in the answer's form; none if it has neither part.
pub(super) fn hit(fused: Fused<Found>, words: &[String], room: usize, peer: &str) -> Option<Hit> {
    let Found {
        memory,
        remote,
        fulltext,
    } = fused.item;
    let matched = [
        (fulltext, Matched::Fulltext),
        (remote.is_some(), Matched::Remote),
    ];
    let matched = matched
        .into_iter()
        .filter_map(|(by, how)| by.then_some(how));
    let ours = memory.map(|found| {
        let mut hit = hit_of(&found.memory);
        let also = found.also.iter().take(ALSO_LISTED);
        hit.also = also.map(|origin| origin.id.to_string()).collect();
        hit.also_count = (found.also_count > 0).then_some(u64::from(found.also_count));
        hit
    });
    let mut hit = ours.or_else(|| remote.map(|theirs| foreign(&theirs, peer)))?;
    let (text, cut) = snippet(&hit.text, words, room);
    hit.text = text;
    hit.truncated |= cut;
    hit.matched = matched.collect();
    hit.score = (fused.score * 1e6).round() / 1e6;
    Some(hit)
}

/// Returns a hit that only the peer has, as much of it as it shows.
fn foreign(theirs: &PeerHit, peer: &str) -> Hit {
    let id = match id_of(theirs) {
        Some(id) => id.to_string(),
        // The peer tells no id, so the text stands for it.
        None => {
            let hash: [u8; 32] = Sha256::digest(theirs.text.as_bytes()).into();
            let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{peer}:{hex}")
        }
    };
    Hit {
        id,
        kind: None,
        score: 0.0,
        text: theirs.text.clone(),
        pool: theirs.marker.as_ref().map(|marker| marker.pool.clone()),
        repo: None,
        workflow_id: None,
        item: None,
        worker: None,
        commit: None,
        source: peer.to_owned(),
        matched: Vec::new(),
        created_at: None,
        also_count: None,
        also: Vec::new(),
        truncated: theirs.truncated,
    }
}
