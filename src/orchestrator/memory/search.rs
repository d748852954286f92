//! `cross_pool_search`: live local results fused with the peer's.

use super::answers::Answers;
use super::found::{Found, hit, id_of, keys};
use super::fusion::{Fused, fuse};
use super::handle::Memories;
use super::page::{Position, fit, search_id, short, text_bytes, words};
use super::pools::{PoolNames, unknown_pool};
use super::remote::Told;
use crate::api::{CrossPoolSearch, CrossPoolSearchResult, Hit, SourceAnswer, SourceStatus};
use crate::error::Problem;
use crate::model::{At, Memory, MemoryHit, MemoryId, MemoryPage, MemoryQuery, PoolName};
use crate::orchestrator::instants;
use crate::session_buddy::PeerHit;
use std::collections::HashMap;

const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: i64 = 100;

/// How many local hits take part in the fusion; lower-ranked local hits follow after the fused ones.
const FUSED: u32 = 100;

/// The longest list of pools, tags or kinds.
const MAX_FILTERS: usize = 100;

/// A search with its arguments checked.
struct Search {
    query: MemoryQuery,
    limit: usize,
    words: Vec<String>,
    /// Whether the caller gave a time range; paging also bounds the time in `query`.
    timed: bool,
    refresh: bool,
    position: Position,
}

impl Memories {
    /// Answers `cross_pool_search`; `repo` is what the call names, as a canonical path where it is known.
    ///
    /// # Errors
    ///
    /// A refusal of an argument, or that the store cannot be read. A peer that fails is a row of `sources`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; a request already sent to the peer completes and its answer is cached.
    pub async fn search(
        &self,
        call: CrossPoolSearch,
        repo: Option<String>,
        names: &impl PoolNames,
    ) -> Result<CrossPoolSearchResult, Problem> {
        let Some(key) = Answers::key(&call, repo.as_deref()) else {
            return Ok(self.searched(&call, repo, names).await?.0);
        };
        // If the store cannot be read now, the search itself reports it.
        let Ok(version) = self.0.store.version().await else {
            return Ok(self.searched(&call, repo, names).await?.0);
        };
        let (answers, remote) = (&self.0.answers, self.0.remote.as_ref());
        if let Some(answer) = answers.holding(&key, version, remote, &call.query) {
            return Ok(answer);
        }
        let (answer, told) = self.searched(&call, repo, names).await?;
        answers.keep(key, version, told.as_ref(), &answer);
        Ok(answer)
    }

    /// Runs the search; also returns the peer's answer if it was asked.
    async fn searched(
        &self,
        call: &CrossPoolSearch,
        repo: Option<String>,
        names: &impl PoolNames,
    ) -> Result<(CrossPoolSearchResult, Option<Told>), Problem> {
        let search = self.checked(call, repo, names).await?;
        if !call.ids.is_empty() {
            return Ok((self.whole(&call.ids, search.position).await?, None));
        }
        let remote = self.0.remote.as_ref();
        // The peer has neither filters nor an order by time, so it is asked only for words.
        let asked = remote.filter(|_| !search.words.is_empty() && search.position.store.is_none());
        match asked {
            Some(remote) => {
                // Later pages use the first page's cached answer, so that the pages are consistent.
                let refresh = search.refresh && search.position.skip == 0;
                let told = remote.search(&search.query.text, refresh);
                let mut query = search.query.clone();
                query.limit = FUSED;
                let (told, local) = tokio::join!(told, self.0.store.find_memories(query));
                let local = local?;
                let answer = self.fused(search, local, &told).await?;
                Ok((answer, Some(told)))
            }
            None => Ok((self.local(search, remote.is_none()).await?, None)),
        }
    }

    /// Reads and checks the arguments.
    async fn checked(
        &self,
        call: &CrossPoolSearch,
        repo: Option<String>,
        names: &impl PoolNames,
    ) -> Result<Search, Problem> {
        let limit = limit_of(call.limit)?;
        for (field, length) in [
            ("pools", call.pools.len()),
            ("tags", call.tags.len()),
            ("kind", call.kind.len()),
        ] {
            if length > MAX_FILTERS {
                let message = format!("{field} has {length} entries");
                return Err(Problem::argument(
                    field,
                    message,
                    format!("at most {MAX_FILTERS}"),
                ));
            }
        }
        for name in &call.pools {
            if !names.exists(name.as_str()) && !self.has_memories_of(name).await? {
                return Err(unknown_pool("pools", name, names));
            }
        }
        let now = At::now();
        let (since, until) = instants::range(call.since.as_deref(), call.until.as_deref(), now)?;
        let of = search_id(&CrossPoolSearch {
            cursor: None,
            limit: None,
            refresh: false,
            ..call.clone()
        });
        let position = match &call.cursor {
            Some(cursor) => Position::read(cursor, &of)?,
            None => Position::start(of, now),
        };
        // Later pages leave out memories that are newer than the first page.
        let first = At::from_unix_ms(position.at_ms);
        let until = match call.cursor {
            Some(_) => Some(until.map_or(first, |until| until.min(first))),
            None => until,
        };
        Ok(Search {
            words: words(&call.query),
            timed: call.since.is_some() || call.until.is_some(),
            query: MemoryQuery {
                text: call.query.clone(),
                pools: call.pools.clone(),
                repo,
                tags: call.tags.clone(),
                kinds: call.kind.clone(),
                since,
                until,
                ids: Vec::new(),
                limit: 0,
                cursor: position.store.clone(),
            },
            limit,
            refresh: call.refresh,
            position,
        })
    }

    /// Returns whether a pool, possibly closed, has memories in the store.
    pub(super) async fn has_memories_of(&self, name: &PoolName) -> Result<bool, Problem> {
        let query = MemoryQuery {
            pools: vec![name.clone()],
            limit: 1,
            ..MemoryQuery::default()
        };
        let page = self.0.store.find_memories(query).await;
        Ok(!page?.hits.is_empty())
    }

    /// Answers from the store alone, page by page.
    async fn local(&self, search: Search, off: bool) -> Result<CrossPoolSearchResult, Problem> {
        let mut query = search.query.clone();
        query.limit = u32::try_from(search.position.skip + search.limit).unwrap_or(u32::MAX);
        let page = self.0.store.find_memories(query).await?;
        let mut sources = vec![local_source(&page)];
        if off {
            sources.push(SourceAnswer::new(super::handle::PEER, SourceStatus::Off));
        }
        let ranked = page.hits.into_iter().map(|hit| Fused {
            score: hit.score,
            item: Found {
                memory: Some(hit),
                remote: None,
                fulltext: !search.words.is_empty(),
            },
        });
        let given = |found: &Found| {
            let shown = &search.position.shown;
            !shown.is_empty() && keys(found).iter().any(|key| shown.contains(&short(key)))
        };
        let ranked = ranked.filter(|fused| !given(&fused.item));
        Ok(shown(&search, ranked.collect(), page.next, sources))
    }

    /// Fuses the best local hits with the peer's.
    async fn fused(
        &self,
        mut search: Search,
        local: MemoryPage,
        told: &Told,
    ) -> Result<CrossPoolSearchResult, Problem> {
        let sources = vec![local_source(&local), told.source.clone()];
        let next = local.next;
        let remote = self.known(&search, &told.hits).await?;
        let local = local.hits.into_iter().map(|hit| Found {
            memory: Some(hit),
            remote: None,
            fulltext: true,
        });
        // A peer's hit that is not among the best local hits may be among the later ones, which later pages list.
        if next.is_some() {
            let shown = remote
                .iter()
                .filter_map(|found| keys(found).into_iter().next());
            search.position.shown = shown.map(|key| short(&key)).collect();
        }
        let ranked = fuse([local.collect(), remote], keys, |kept: &mut Found, more| {
            kept.fulltext |= more.fulltext;
            kept.remote = kept.remote.take().or(more.remote);
            kept.memory = kept.memory.take().or(more.memory);
        });
        Ok(shown(&search, ranked, next, sources))
    }

    /// Returns the peer's hits that pass the filters; a hit that the store knows comes with the stored memory.
    async fn known(&self, search: &Search, hits: &[PeerHit]) -> Result<Vec<Found>, Problem> {
        let ids: Vec<MemoryId> = hits.iter().filter_map(id_of).collect();
        let forgotten = self.0.store.forgotten(ids.clone()).await?;
        let mut ours: HashMap<MemoryId, MemoryHit> = HashMap::new();
        for &id in &ids {
            let memory = self.0.store.memory(id).await;
            if let Some(memory) = memory? {
                let hit = MemoryHit {
                    memory,
                    score: 0.0,
                    also: Vec::new(),
                    also_count: 0,
                };
                ours.insert(id, hit);
            }
        }
        let is_forgotten = |hit: &&PeerHit| id_of(hit).is_some_and(|id| forgotten.contains(&id));
        let left = hits.iter().filter(|hit| !is_forgotten(hit));
        let found = left.filter_map(|hit| {
            let memory = id_of(hit).and_then(|id| ours.remove(&id));
            let passes = match &memory {
                Some(ours) => passes(&ours.memory, &search.query),
                None => passes_unknown(hit, search),
            };
            passes.then(|| Found {
                memory,
                remote: Some(hit.clone()),
                fulltext: false,
            })
        });
        Ok(found.collect())
    }
}

fn limit_of(limit: Option<i64>) -> Result<usize, Problem> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MAX_LIMIT) => Ok(usize::try_from(limit).unwrap_or(DEFAULT_LIMIT)),
        Some(limit) => Err(Problem::argument(
            "limit",
            format!("limit is {limit}"),
            format!("1 to {MAX_LIMIT}; the rest comes by cursor"),
        )),
    }
}

/// Returns whether a stored memory passes the search's filters.
fn passes(memory: &Memory, query: &MemoryQuery) -> bool {
    let repo = query.repo.as_deref().is_none_or(|asked| {
        memory.repo.as_deref().is_some_and(|repo| {
            repo == asked || (!asked.starts_with('/') && repo.ends_with(&format!("/{asked}")))
        })
    });
    repo && (query.pools.is_empty() || query.pools.contains(&memory.pool))
        && (query.kinds.is_empty() || query.kinds.contains(&memory.kind))
        && query
            .tags
            .iter()
            .all(|tag| memory.tags.iter().any(|held| **held == **tag))
        && query.since.is_none_or(|since| memory.created_at >= since)
        && query.until.is_none_or(|until| memory.created_at <= until)
}

/// Returns whether a memory that only the peer has passes the filters: only the pool in its marker is known.
fn passes_unknown(hit: &PeerHit, search: &Search) -> bool {
    let query = &search.query;
    let pool = hit.marker.as_ref().map(|marker| &marker.pool);
    let pools = query.pools.is_empty() || pool.is_some_and(|pool| query.pools.contains(pool));
    pools
        && query.repo.is_none()
        && query.kinds.is_empty()
        && query.tags.is_empty()
        && !search.timed
}

/// Returns one page of the ranked results with the cursor of the next page.
fn shown(
    search: &Search,
    ranked: Vec<Fused<Found>>,
    next: Option<String>,
    sources: Vec<SourceAnswer>,
) -> CrossPoolSearchResult {
    let total = ranked.len();
    let skip = search.position.skip;
    let room = text_bytes(search.limit);
    let page = ranked.into_iter().skip(skip).take(search.limit);
    let source = sources.get(1).map_or("peer", |source| source.name.as_str());
    let mut hits: Vec<Hit> = page
        .filter_map(|fused| hit(fused, &search.words, room, source))
        .collect();
    let given = skip + fit(&mut hits);
    let position = Position {
        skip: given,
        ..search.position.clone()
    };
    let cursor = if given < total {
        Some(position.write())
    } else {
        next.map(|store| {
            Position {
                store: Some(store),
                skip: 0,
                ..position
            }
            .write()
        })
    };
    CrossPoolSearchResult {
        hits,
        sources,
        cursor,
    }
}

/// Returns the `sources` row of the local store.
pub(super) fn local_source(page: &MemoryPage) -> SourceAnswer {
    SourceAnswer {
        approximate: page.approximate,
        notes: page.notes.clone(),
        ..SourceAnswer::new("local", SourceStatus::Ok)
    }
}
