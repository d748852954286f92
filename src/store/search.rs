//! Search over memories: ranking under a bound on the work, the filters, and pages.
//!
//! A query of words reads their lists ([`super::fulltext`]), as far back as [`LEAVES`] reach, ranks what it finds by how
//! often the words are there, and looks up for the best [`RANKED`] what BM25 needs beside: their length. Then it reads the
//! rows, best first, until the page is full. Where all lists were read and all matches ranked, which is told, the order
//! is exactly BM25's.

use super::filters::Filters;
use super::fulltext::{Index, Lists, words_of};
use super::memory_row::{COLUMNS, memory_of};
use super::query::Query;
use super::rank::{Candidate, Match, Ranker, boost, keep_best, keep_of};
use super::words::Words;
use super::{Store, StoreError, tokens};
use crate::model::{Memory, MemoryHit, MemoryPage, MemoryQuery, Origin};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The most memories of which the length is looked up; without words, the most whose rows are read.
const RANKED: usize = 500;
/// So many rows are read at least, though the page is full: equal texts of somewhat lower scores are further origins.
const LEAST_READ: usize = 100;
/// About how many leaves of the index a query reads. A leaf holds a word for about 800 memories.
const LEAVES: u64 = 150;
/// The most, with those that only hold an end of a list.
const MOST_LEAVES: u32 = 300;
/// The most memories that are taken for the few that a filter leaves: reading their numbers from an index costs little.
const MOST_FEW: usize = 3_000;
/// The most lessons and notes that are preferred where not all matches are looked at.
const MOST_KEPT: i64 = 10_000;
/// What a lesson or a note counts more than an outcome: enough that a log full of the word (whose BM25 term frequency
/// part ends at 2.2 times the idf) ranks below a short text that has it once (1.7 times).
const KEPT_BOOST: f64 = 2.0;

/// One match, before its row is read.
struct Scored {
    m: i64,
    score: f64,
}

/// Equal texts, the best ranked first.
struct Group {
    best: i64,
    score: f64,
    also: Vec<i64>,
}

/// Merges equal texts that come in their order.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    /// Where the group of a text is.
    places: HashMap<i64, usize>,
}

impl Groups {
    fn add(&mut self, Scored { m, score }: Scored, text_digest: i64) {
        match self.places.get(&text_digest) {
            Some(&place) => self.groups[place].also.push(m),
            None => {
                self.places.insert(text_digest, self.groups.len());
                self.groups.push(Group {
                    best: m,
                    score,
                    also: Vec::new(),
                });
            }
        }
    }
}

impl Store {
    /// Finds memories, best first; equal texts are one hit.
    ///
    /// # Errors
    ///
    /// [`StoreError::Argument`] for a cursor of something else. No text is an error.
    pub async fn find_memories(&self, query: MemoryQuery) -> Result<MemoryPage, StoreError> {
        self.read("search memories", move |db| find(db, &query))
            .await
    }
}

fn find(db: &Connection, query: &MemoryQuery) -> Result<MemoryPage, StoreError> {
    let mut page = MemoryPage::default();
    let Some(cursor) = Cursor::of(db, query)? else {
        return Ok(page);
    };
    let filters = Filters::of(db, query)?;
    let end = cursor.offset.saturating_add(query.limit as usize);
    let groups = if query.text.trim().is_empty() {
        newest(db, &cursor, &filters, &mut page)?
    } else {
        ranked(db, &cursor, &filters, (&query.text, end), &mut page)?
    };
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
    (text, end): (&str, usize),
    page: &mut MemoryPage,
) -> Result<Vec<Group>, StoreError> {
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
    let few = filters.few(db, MOST_FEW)?;
    let Some(wanted) = wanted(db, cursor, filters, few.as_deref())? else {
        return Ok(Vec::new());
    };
    let mut index = Index::open(db, MOST_LEAVES)?;
    let figures = index.figures()?;
    let Lists { lists, reach } = Lists::read(&mut index, &terms, LEAVES, &cursor.stored, &wanted)?;
    if index.is_exhausted() {
        page.approximate = true;
        page.notes
            .push("too many words begin like this to look for all of them".to_owned());
    }
    if !reach.is_all() {
        page.approximate = true;
        let share = reach.share_of(&wanted);
        page.notes.push(if share < 1.0 {
            let percent = share * 100.0;
            format!("words this frequent were looked for in the newest {percent:.0}% of the memories only")
        } else {
            "how much each word counts was estimated from the memories that the filters leave"
                .to_owned()
        });
    }
    let ranker = Ranker::new(&lists, reach, figures);
    let matching = |which| {
        let mut found = ranker.candidates(which);
        found.truncate(found.partition_point(|candidate| candidate.m <= *cursor.stored.end()));
        if let Some(few) = &few {
            keep_of(&mut found, few);
        }
        let count = found.len();
        if count > RANKED {
            boost(&mut found, &kept(db)?, KEPT_BOOST);
            keep_best(&mut found, RANKED);
        }
        let scored = scored(db, &ranker, &found)?;
        Ok::<_, StoreError>((count, shown(db, filters, scored, end)?))
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
    if count > RANKED {
        page.approximate = true;
        page.notes.push(format!(
            "{count} memories match: the {RANKED} that have the words most often were ranked"
        ));
    }
    Ok(found)
}

/// Returns where the memories lie that the filters leave: exactly where those are few, else up to the newest by the filter
/// by time, if there is one (what was stored later than it was learned may lie behind). Nothing where they leave none.
fn wanted(
    db: &Connection,
    cursor: &Cursor,
    filters: &Filters,
    few: Option<&[i64]>,
) -> Result<Option<RangeInclusive<i64>>, StoreError> {
    let (oldest, newest) = cursor.stored.clone().into_inner();
    Ok(match few {
        Some(few) => few
            .first()
            .zip(few.last())
            .map(|(&first, &last)| first..=last),
        None if filters.until => {
            let last = filters.newest(db, newest, 1)?;
            last.first().map(|&last| oldest..=last)
        }
        None => Some(oldest..=newest),
    })
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

/// Scores `found`, which are in their order, without a look at their rows; returns the best first.
fn scored(
    db: &Connection,
    ranker: &Ranker<'_>,
    found: &[Candidate],
) -> Result<Vec<Scored>, StoreError> {
    let mut row = db.prepare_cached(
        "SELECT sz, EXISTS (SELECT 1 FROM memories INDEXED BY memories_kept
                             WHERE kind <> 'outcome' AND kind IN ('lesson', 'note') AND m = ?1)
           FROM memories_fts_docsize WHERE id = ?1",
    )?;
    let mut scores = ranker.scores();
    let mut all = Vec::with_capacity(found.len());
    for &Candidate { m, .. } in found {
        let read = row.query_row([m], |row| {
            let words = words_of(row.get_ref(0)?.as_blob()?);
            let boost = if row.get(1)? { KEPT_BOOST } else { 1.0 };
            Ok((words, boost))
        });
        if let Some((words, boost)) = read.optional()? {
            let score = scores.of(m, words?) * boost;
            all.push(Scored { m, score });
        }
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.m.cmp(&a.m)));
    Ok(all)
}

/// Reads the rows of `scored` until there are the groups up to `end`, and one that tells of a next page.
fn shown(
    db: &Connection,
    filters: &Filters,
    scored: Vec<Scored>,
    end: usize,
) -> Result<Vec<Group>, StoreError> {
    let mut row = db.prepare_cached(&format!(
        "SELECT text_digest FROM memories WHERE m = ? {}",
        filters.sql
    ))?;
    let mut values = vec![Value::Null];
    values.extend(filters.values.iter().cloned());
    let mut groups = Groups::default();
    for (read, scored) in scored.into_iter().enumerate() {
        let last = groups.groups.get(end);
        if read >= LEAST_READ && last.is_some_and(|last| scored.score < last.score) {
            break;
        }
        values[0] = Value::from(scored.m);
        let read = row.query_row(params_from_iter(&values), |row| row.get(0));
        if let Some(text_digest) = read.optional()? {
            groups.add(scored, text_digest);
        }
    }
    Ok(groups.groups)
}

/// Returns the newest that the filters let through, of a bounded number.
fn newest(
    db: &Connection,
    cursor: &Cursor,
    filters: &Filters,
    page: &mut MemoryPage,
) -> Result<Vec<Group>, StoreError> {
    let source = match filters.few(db, MOST_FEW)? {
        Some(few) => few.into_iter().rev().collect(),
        None => filters.newest(db, *cursor.stored.end(), RANKED + 1)?,
    };
    if source.len() > RANKED {
        page.approximate = true;
        page.notes.push(format!(
            "only the newest {RANKED} memories were looked at: an `until` leads to older ones"
        ));
    }
    let mut row = db.prepare_cached(&format!(
        "SELECT created_at_ms, text_digest FROM memories WHERE m = ? AND m <= ? {}",
        filters.sql
    ))?;
    let mut values = vec![Value::Null, Value::from(*cursor.stored.end())];
    values.extend(filters.values.iter().cloned());
    let mut found = Vec::new();
    for m in source.into_iter().take(RANKED) {
        values[0] = Value::from(m);
        let read = row.query_row(params_from_iter(&values), |row| {
            Ok((row.get::<_, i64>(0)?, m, row.get::<_, i64>(1)?))
        });
        found.extend(read.optional()?);
    }
    found.sort_by_key(|&(created_at_ms, m, _)| Reverse((created_at_ms, m)));
    let mut groups = Groups::default();
    for (_, m, text_digest) in found {
        groups.add(Scored { m, score: 0.0 }, text_digest);
    }
    Ok(groups.groups)
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

fn row_of(db: &Connection, m: i64) -> Result<Memory, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM memories WHERE m = ?1");
    let found = db.first(&sql, [m], memory_of)?;
    found.ok_or_else(|| StoreError::decode("a memory", "its row is gone"))
}

fn origin(db: &Connection, m: i64) -> Result<Origin, StoreError> {
    let sql = "SELECT id, pool, repo, workflow, item, source FROM memories WHERE m = ?1";
    let found = db.first(sql, [m], |row| {
        Ok(Origin {
            id: row.get(0)?,
            pool: row.get(1)?,
            repo: row.get(2)?,
            workflow: row.get(3)?,
            item: row.get(4)?,
            source: row.get(5)?,
        })
    })?;
    found.ok_or_else(|| StoreError::decode("a memory", "its row is gone"))
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
