//! Search over memories: the full-text index, the filters, ranking and pages.
//!
//! `bm25()` is smaller-is-better; it is turned round here, once. Up to [`RANKED`] matches are ranked exactly; of more
//! than that only the newest are, and the answer says so.

use super::StoreError;
use super::column::Text;
use super::memory::row_of;
use super::words::{Match, Words};
use crate::model::{MemoryHit, MemoryId, MemoryPage, MemoryQuery, Origin, PoolName, WorkflowId};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::collections::HashMap;

/// The most matches that are ranked. Scoring costs time for every match, so that a word which stands in most memories
/// would otherwise cost a look at most memories.
const RANKED: usize = 10_000;
/// Weights of text, tags and repository. What somebody chose as a tag says more than one word among many.
const WEIGHTS: &str = "1.0, 2.0, 0.5";
/// What a lesson or a note counts more than an outcome: enough that a log full of the word (whose BM25 term frequency
/// part ends at 2.2 times the idf) ranks below a short text that has it once (1.7 times).
const KEPT_BOOST: &str = "2.0";

/// One match, before its row is read.
struct Candidate {
    m: i64,
    score: f64,
    text_hash: i64,
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
    let filters = Filters::of(query);
    let words = Words::parse(&query.text);
    if words.cut {
        page.notes
            .push("the query was cut: only its first words were looked for".to_owned());
    }
    let mut candidates = if query.text.trim().is_empty() {
        newest(db, &cursor, &filters)?
    } else {
        ranked(db, &cursor, &filters, &words, &mut page)?
    };
    page.approximate = candidates.len() > RANKED;
    candidates.truncate(RANKED);
    if words.count() > 0 {
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.m.cmp(&a.m)));
    }
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
    words: &Words,
    page: &mut MemoryPage,
) -> Result<Vec<Candidate>, StoreError> {
    if words.count() == 0 {
        page.notes
            .push("the query has no word to look for".to_owned());
        return Ok(Vec::new());
    }
    let found = matching(db, cursor, filters, &words.expression(Match::All))?;
    if !found.is_empty() || words.count() == 1 {
        return Ok(found);
    }
    let found = matching(db, cursor, filters, &words.expression(Match::Any))?;
    if !found.is_empty() {
        page.notes
            .push("no memory has all of the words; these have some of them".to_owned());
    }
    Ok(found)
}

fn matching(
    db: &Connection,
    cursor: &Cursor,
    filters: &Filters,
    expression: &str,
) -> Result<Vec<Candidate>, StoreError> {
    // CROSS JOIN keeps the index outermost: it gives its rows newest first without sorting.
    let sql = format!(
        "SELECT memories.m,
                -bm25(memories_fts, {WEIGHTS}) * CASE kind WHEN 'outcome' THEN 1.0 ELSE {KEPT_BOOST} END,
                text_hash
           FROM memories_fts CROSS JOIN memories ON memories.m = memories_fts.rowid
          WHERE memories_fts MATCH ? AND memories_fts.rowid <= ? {}
          ORDER BY memories_fts.rowid DESC LIMIT ?",
        filters.sql
    );
    candidates(db, &sql, Some(expression), cursor, filters)
}

fn newest(
    db: &Connection,
    cursor: &Cursor,
    filters: &Filters,
) -> Result<Vec<Candidate>, StoreError> {
    let sql = format!(
        "SELECT m, 0.0, text_hash FROM memories WHERE m <= ? {}
          ORDER BY created_at_ms DESC, m DESC LIMIT ?",
        filters.sql
    );
    candidates(db, &sql, None, cursor, filters)
}

/// Reads one candidate more than are ranked, by which the caller sees that there are more.
fn candidates(
    db: &Connection,
    sql: &str,
    expression: Option<&str>,
    cursor: &Cursor,
    filters: &Filters,
) -> Result<Vec<Candidate>, StoreError> {
    let mut values: Vec<Value> = Vec::new();
    values.extend(expression.map(|text| Value::from(text.to_owned())));
    values.push(Value::from(cursor.newest));
    values.extend(filters.values.iter().cloned());
    values.push(Value::from(i64::try_from(RANKED + 1).unwrap_or(i64::MAX)));
    let mut statement = db.prepare_cached(sql)?;
    let found = statement.query_map(params_from_iter(values), |row| {
        Ok(Candidate {
            m: row.get(0)?,
            score: row.get(1)?,
            text_hash: row.get(2)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Merges equal texts, in the candidates' order.
fn grouped(candidates: Vec<Candidate>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for Candidate {
        m,
        score,
        text_hash,
    } in candidates
    {
        match places.get(&text_hash) {
            Some(&place) => groups[place].also.push(m),
            None => {
                places.insert(text_hash, groups.len());
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

/// Where a page begins. Only memories up to `newest` are seen, so that new ones do not move the pages behind them.
struct Cursor {
    newest: i64,
    offset: usize,
}

impl Cursor {
    /// Returns the query's cursor, or nothing where there is no memory at all.
    fn of(db: &Connection, query: &MemoryQuery) -> Result<Option<Self>, StoreError> {
        if let Some(text) = &query.cursor {
            let cursor = text.split_once('-').and_then(|(newest, offset)| {
                Some(Self {
                    newest: i64::from_str_radix(newest, 16).ok()?,
                    offset: usize::from_str_radix(offset, 16).ok()?,
                })
            });
            return cursor.map(Some).ok_or_else(|| StoreError::Argument {
                field: "cursor",
                message: "this cursor is not of a search".to_owned(),
                allowed: "the `cursor` of the page before, with the same query".to_owned(),
            });
        }
        let newest: Option<i64> = db
            .prepare_cached("SELECT max(m) FROM memories")?
            .query_row([], |row| row.get(0))?;
        Ok(newest.map(|newest| Self { newest, offset: 0 }))
    }

    fn at(&self, offset: usize) -> String {
        format!("{:x}-{offset:x}", self.newest)
    }
}

/// The filters as SQL behind a `WHERE` with at least one condition, and their values in the same order.
struct Filters {
    sql: String,
    values: Vec<Value>,
}

impl Filters {
    fn of(query: &MemoryQuery) -> Self {
        let mut filters = Self {
            sql: String::new(),
            values: Vec::new(),
        };
        filters.one_of("pool", query.pools.iter().map(PoolName::to_string));
        filters.one_of(
            "kind",
            query.kinds.iter().map(|kind| kind.as_str().to_owned()),
        );
        filters.one_of("id", query.ids.iter().map(MemoryId::to_string));
        if let Some(repo) = &query.repo {
            if repo.starts_with('/') {
                filters.add("memories.repo = ?", [Value::from(repo.clone())]);
            } else {
                let end = format!("/{repo}");
                let length = i64::try_from(end.chars().count()).unwrap_or(i64::MAX);
                filters.add(
                    "substr(memories.repo, -?) = ?",
                    [Value::from(length), Value::from(end)],
                );
            }
        }
        for tag in &query.tags {
            filters.add(
                "EXISTS (SELECT 1 FROM memory_tags WHERE memory_tags.m = memories.m AND tag = ?)",
                [Value::from(tag.clone())],
            );
        }
        if let Some(since) = query.since {
            filters.add(
                "memories.created_at_ms >= ?",
                [Value::from(since.unix_ms())],
            );
        }
        if let Some(until) = query.until {
            filters.add(
                "memories.created_at_ms <= ?",
                [Value::from(until.unix_ms())],
            );
        }
        filters
    }

    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn one_of(&mut self, column: &str, values: impl Iterator<Item = String>) {
        let values: Vec<_> = values.map(Value::from).collect();
        if !values.is_empty() {
            let marks = vec!["?"; values.len()].join(", ");
            self.add(&format!("memories.{column} IN ({marks})"), values);
        }
    }
}
