//! Search over memories: ranking under a bound on the work, the filters, and pages.
//!
//! A query of words reads their lists ([`super::fulltext`]), as far back as [`LEAVES`] reach, ranks what it finds by how
//! often the words are there, and looks at the rows of the best [`LOOKED_AT`] for what BM25 needs beside: their length.
//! Where all lists were read and all matches looked at, which is told, the order is exactly BM25's.

use super::StoreError;
use super::column::Text;
use super::filters::Filters;
use super::fulltext::{Index, Lists, words_of};
use super::memory::row_of;
use super::rank::{Match, Ranker, boost, keep_best, keep_of};
use super::tokens;
use super::words::Words;
use crate::model::{MemoryHit, MemoryId, MemoryPage, MemoryQuery, Origin, PoolName, WorkflowId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The most memories that are looked at one by one: each is two pages somewhere in a file of gigabytes.
const LOOKED_AT: usize = 500;
/// About how many leaves of the index a query reads. A leaf holds a word for about 800 memories.
const LEAVES: u64 = 250;
/// The most, with those that only hold an end of a list.
const MOST_LEAVES: u32 = 500;
/// The most memories that are taken for the few that a filter leaves: reading their numbers from an index costs little.
const MOST_FEW: usize = 10_000;
/// The most lessons and notes that are preferred where not all matches are looked at.
const MOST_KEPT: i64 = 10_000;
/// What a lesson or a note counts more than an outcome: enough that a log full of the word (whose BM25 term frequency
/// part ends at 2.2 times the idf) ranks below a short text that has it once (1.7 times).
const KEPT_BOOST: f64 = 2.0;

/// One match, before its row is read.
struct Candidate {
    m: i64,
    score: f64,
    text_digest: i64,
}

/// Equal texts, the best ranked first.
struct Group {
    best: i64,
    score: f64,
    also: Vec<i64>,
}

pub(super) fn find(db: &Connection, query: &MemoryQuery) -> Result<MemoryPage, StoreError> {
    let mut page = MemoryPage::default();
    let Some(cursor) = Cursor::of(db, query)? else {
        return Ok(page);
    };
    let filters = Filters::of(db, query)?;
    let candidates = if query.text.trim().is_empty() {
        newest(db, &cursor, &filters, &mut page)?
    } else {
        ranked(db, &cursor, &filters, &query.text, &mut page)?
    };
    let groups = grouped(candidates);
    let end = cursor.offset.saturating_add(query.limit as usize);
    for group in groups.iter().take(end).skip(cursor.offset) {
        page.hits.push(hit(db, group)?);
    }
    page.next = (groups.len() > end).then(|| cursor.at(end));
    Ok(page)
}

fn ranked(
    db: &Connection,
    cursor: &Cursor,
    filters: &Filters,
    text: &str,
    page: &mut MemoryPage,
) -> Result<Vec<Candidate>, StoreError> {
    let words = Words::parse(text);
    if words.cut {
        page.notes
            .push("the query was cut: only its first words were looked for".to_owned());
    }
    let terms = tokens::terms(db, &words)?;
    if terms.is_empty() {
        page.notes
            .push("the query has no word to look for".to_owned());
        return Ok(Vec::new());
    }
    let mut index = Index::open(db, MOST_LEAVES)?;
    let figures = index.figures()?;
    let Lists { lists, reach } = Lists::read(&mut index, &terms, LEAVES, &cursor.stored)?;
    if !reach.is_all() || index.is_exhausted() {
        page.approximate = true;
        page.notes.push(format!(
            "words this frequent were looked for in the newest {:.0}% of the memories only",
            reach.part * 100.0
        ));
    }
    let ranker = Ranker::new(&lists, reach, figures);
    let few = filters.few(db, MOST_FEW)?;
    let matching = |which| {
        let mut found = ranker.candidates(which);
        found.retain(|candidate| candidate.m <= *cursor.stored.end());
        if let Some(few) = &few {
            keep_of(&mut found, few);
        }
        let count = found.len();
        if count > LOOKED_AT {
            boost(&mut found, &kept(db)?, KEPT_BOOST);
            keep_best(&mut found, LOOKED_AT);
        }
        let scored = scored(db, filters, &ranker, &found)?;
        Ok::<_, StoreError>((count, scored))
    };
    let (mut count, mut found) = matching(Match::All)?;
    if found.is_empty() && terms.len() > 1 {
        (count, found) = matching(Match::Any)?;
        if !found.is_empty() {
            let all = match reach.is_all() {
                true => "no memory has all of the words",
                false => "none of the memories that were looked at has all of the words",
            };
            page.notes.push(format!("{all}; these have some of them"));
        }
    }
    if count > LOOKED_AT {
        page.approximate = true;
        page.notes.push(format!(
            "{count} memories match: the {LOOKED_AT} that have the words most often were ranked"
        ));
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.m.cmp(&a.m)));
    Ok(found)
}

/// Returns the lessons and notes, so many at most that finding them costs no more than the rest, in their order.
fn kept(db: &Connection) -> Result<Vec<i64>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT m FROM memories WHERE kind <> 'outcome' LIMIT ?1")?;
    let rows = statement.query_map([MOST_KEPT], |row| row.get(0))?;
    let mut rows = rows.collect::<Result<Vec<i64>, _>>()?;
    rows.sort_unstable();
    Ok(rows)
}

/// Looks at the rows of `found`, which are in their order.
fn scored(
    db: &Connection,
    filters: &Filters,
    ranker: &Ranker<'_>,
    found: &[super::rank::Candidate],
) -> Result<Vec<Candidate>, StoreError> {
    let mut row = db.prepare_cached(&format!(
        "SELECT sz, kind = 'outcome', text_digest
           FROM memories_fts_docsize JOIN memories ON memories.m = memories_fts_docsize.id
          WHERE memories_fts_docsize.id = ? {}",
        filters.sql
    ))?;
    let mut values = vec![Value::Null];
    values.extend(filters.values.iter().cloned());
    let mut scores = ranker.scores();
    let mut candidates = Vec::with_capacity(found.len());
    for &super::rank::Candidate { m, .. } in found {
        values[0] = Value::from(m);
        let read = row.query_row(params_from_iter(&values), |row| {
            let words = words_of(row.get_ref(0)?.as_blob()?);
            let boost = if row.get(1)? { 1.0 } else { KEPT_BOOST };
            Ok((words, boost, row.get(2)?))
        });
        if let Some((words, boost, text_digest)) = read.optional()? {
            let score = scores.of(m, words?) * boost;
            candidates.push(Candidate {
                m,
                score,
                text_digest,
            });
        }
    }
    Ok(candidates)
}

/// Returns the newest that the filters let through, of a bounded number.
fn newest(
    db: &Connection,
    cursor: &Cursor,
    filters: &Filters,
    page: &mut MemoryPage,
) -> Result<Vec<Candidate>, StoreError> {
    let source = match filters.few(db, MOST_FEW)? {
        Some(few) => few.into_iter().rev().collect(),
        None => filters.newest(db, *cursor.stored.end(), LOOKED_AT + 1)?,
    };
    if source.len() > LOOKED_AT {
        page.approximate = true;
        page.notes.push(format!(
            "only the newest {LOOKED_AT} memories were looked at: an `until` leads to older ones"
        ));
    }
    let mut row = db.prepare_cached(&format!(
        "SELECT created_at_ms, text_digest FROM memories WHERE m = ? AND m <= ? {}",
        filters.sql
    ))?;
    let mut values = vec![Value::Null, Value::from(*cursor.stored.end())];
    values.extend(filters.values.iter().cloned());
    let mut found = Vec::new();
    for m in source.into_iter().take(LOOKED_AT) {
        values[0] = Value::from(m);
        let read = row.query_row(params_from_iter(&values), |row| {
            let text_digest = row.get(1)?;
            Ok((
                row.get::<_, i64>(0)?,
                Candidate {
                    m,
                    score: 0.0,
                    text_digest,
                },
            ))
        });
        found.extend(read.optional()?);
    }
    found
        .sort_by_key(|(created_at_ms, candidate)| std::cmp::Reverse((*created_at_ms, candidate.m)));
    Ok(found.into_iter().map(|(_, candidate)| candidate).collect())
}

/// Merges equal texts, in the candidates' order.
fn grouped(candidates: Vec<Candidate>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for Candidate {
        m,
        score,
        text_digest,
    } in candidates
    {
        match places.get(&text_digest) {
            Some(&place) => groups[place].also.push(m),
            None => {
                places.insert(text_digest, groups.len());
                groups.push(Group {
                    best: m,
                    score,
                    also: Vec::new(),
                });
            }
        }
    }
    groups
}

fn hit(db: &Connection, group: &Group) -> Result<MemoryHit, StoreError> {
    let mut also = Vec::new();
    for &m in group.also.iter().take(MemoryHit::MAX_ORIGINS) {
        also.push(origin(db, m)?);
    }
    Ok(MemoryHit {
        memory: row_of(db, group.best)?,
        score: group.score,
        also,
        also_count: u32::try_from(group.also.len()).unwrap_or(u32::MAX),
    })
}

fn origin(db: &Connection, m: i64) -> Result<Origin, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, pool, repo, workflow, item, source FROM memories WHERE m = ?1",
    )?;
    Ok(statement.query_row([m], |row| {
        Ok(Origin {
            id: row.get::<_, Text<MemoryId>>(0)?.0,
            pool: row.get::<_, Text<PoolName>>(1)?.0,
            repo: row.get(2)?,
            workflow: row.get::<_, Option<Text<WorkflowId>>>(3)?.map(|id| id.0),
            item: row.get(4)?,
            source: row.get(5)?,
        })
    })?)
}

/// Where a page begins. Only memories up to the newest of `stored` are seen, so that new ones do not move the pages
/// behind them.
struct Cursor {
    stored: RangeInclusive<i64>,
    offset: usize,
}

impl Cursor {
    /// Returns the query's cursor, or nothing where there is no memory at all.
    fn of(db: &Connection, query: &MemoryQuery) -> Result<Option<Self>, StoreError> {
        // Two statements: SQLite looks up one end of an index, but for both it reads all of it.
        let end = |sql| {
            let mut statement = db.prepare_cached(sql)?;
            statement.query_row([], |row| row.get::<_, Option<i64>>(0))
        };
        let oldest = end("SELECT min(m) FROM memories")?;
        let newest = end("SELECT max(m) FROM memories")?;
        let (Some(oldest), Some(newest)) = (oldest, newest) else {
            return Ok(None);
        };
        let Some(text) = &query.cursor else {
            let stored = oldest..=newest;
            return Ok(Some(Self { stored, offset: 0 }));
        };
        let cursor = text.split_once('-').and_then(|(newest, offset)| {
            Some(Self {
                stored: oldest..=i64::from_str_radix(newest, 16).ok()?,
                offset: usize::from_str_radix(offset, 16).ok()?,
            })
        });
        cursor.map(Some).ok_or_else(|| StoreError::Argument {
            field: "cursor",
            message: "this cursor is not of a search".to_owned(),
            allowed: "the `cursor` of the page before, with the same query".to_owned(),
        })
    }

    fn at(&self, offset: usize) -> String {
        format!("{:x}-{offset:x}", self.stored.end())
    }
}
