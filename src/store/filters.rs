//! The filters of a search: as conditions on a row, and as the few rows that one of them leaves.

use super::StoreError;
use crate::model::{MemoryId, MemoryKind, MemoryQuery, PoolName};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// The most repositories of the same name that a filter by name is looked up for.
const NAMESAKES: i64 = 1_000;

/// A query's filters.
pub(super) struct Filters {
    /// Behind a `WHERE` with at least one condition.
    pub(super) sql: String,
    /// What stands in `sql`, in the same order.
    pub(super) values: Vec<Value>,
    /// Whether there is a filter by time that leaves out the newest.
    pub(super) until: bool,
    /// Which rows of which table each one leaves; an index alone tells their numbers.
    indexed: Vec<(&'static str, String, Vec<Value>)>,
}

impl Filters {
    pub(super) fn of(db: &Connection, query: &MemoryQuery) -> Result<Self, StoreError> {
        let mut filters = Self {
            sql: String::new(),
            values: Vec::new(),
            until: query.until.is_some(),
            indexed: Vec::new(),
        };
        filters.one_of("id", query.ids.iter().map(MemoryId::to_string), true);
        for tag in &query.tags {
            let tag = [Value::from(tag.clone())];
            let tagged = ("memory_tags", "tag = ?".to_owned(), tag.to_vec());
            filters.indexed.push(tagged);
            filters.add(
                "EXISTS (SELECT 1 FROM memory_tags WHERE memory_tags.m = memories.m AND tag = ?)",
                tag,
            );
        }
        if let Some(repo) = &query.repo {
            let repos = if repo.starts_with('/') {
                vec![repo.clone()]
            } else {
                named(db, repo)?
            };
            filters.one_of("repo", repos.into_iter(), true);
        }
        let kept = !query.kinds.contains(&MemoryKind::Outcome);
        let kinds = query.kinds.iter().map(|kind| kind.as_str().to_owned());
        filters.one_of("kind", kinds, kept);
        filters.one_of("pool", query.pools.iter().map(PoolName::to_string), true);
        let range = [
            (">=", query.since.map(|since| since.unix_ms())),
            ("<=", query.until.map(|until| until.unix_ms())),
        ];
        for (than, at) in range {
            if let Some(at) = at {
                filters.add(
                    &format!("memories.created_at_ms {than} ?"),
                    [Value::from(at)],
                );
            }
        }
        let (since, until) = (range[0].1, range[1].1);
        if since.is_some() || until.is_some() {
            filters.indexed(
                "created_at_ms BETWEEN ? AND ?",
                [
                    Value::from(since.unwrap_or(i64::MIN)),
                    Value::from(until.unwrap_or(i64::MAX)),
                ],
            );
        }
        Ok(filters)
    }

    /// Returns the rows that one of the filters leaves, in their order, where that is at most `most`.
    pub(super) fn few(&self, db: &Connection, most: usize) -> Result<Option<Vec<i64>>, StoreError> {
        for (table, condition, values) in &self.indexed {
            let mut statement = db.prepare_cached(&format!(
                "SELECT m FROM {table} WHERE {condition} LIMIT {}",
                most + 1
            ))?;
            let rows = statement.query_map(params_from_iter(values), |row| row.get(0))?;
            let mut rows = rows.collect::<Result<Vec<i64>, _>>()?;
            if rows.len() <= most {
                rows.sort_unstable();
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// Returns the newest rows up to `last`, newest first, within the filters by time and by a lone pool.
    pub(super) fn newest(
        &self,
        db: &Connection,
        last: i64,
        most: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let ordered =
            |condition: &str| condition == "pool IN (?)" || condition.starts_with("created");
        let (mut sql, mut values) = (String::new(), vec![Value::from(last)]);
        for (_, condition, of) in self
            .indexed
            .iter()
            .filter(|(_, condition, _)| ordered(condition))
        {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.extend(of.iter().cloned());
        }
        let mut statement = db.prepare_cached(&format!(
            "SELECT m FROM memories WHERE m <= ? {sql} ORDER BY created_at_ms DESC, m DESC LIMIT {most}"
        ))?;
        let rows = statement.query_map(params_from_iter(values), |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn indexed(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        let values = values.into_iter().collect();
        self.indexed
            .push(("memories", condition.to_owned(), values));
    }

    fn one_of(&mut self, column: &str, values: impl Iterator<Item = String>, indexed: bool) {
        let values: Vec<_> = values.map(Value::from).collect();
        if values.is_empty() {
            return;
        }
        let marks = vec!["?"; values.len()].join(", ");
        // The literal condition is what tells SQLite that the partial index will do.
        let partial = match column {
            "kind" => "kind <> 'outcome' AND ",
            _ => "",
        };
        if indexed {
            self.indexed(&format!("{partial}{column} IN ({marks})"), values.clone());
        }
        self.add(&format!("memories.{column} IN ({marks})"), values);
    }
}

/// Returns the repositories whose last component is `name`, found by going from one repository to the next in their
/// index; where there are none, what no repository is called.
fn named(db: &Connection, name: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = db.prepare_cached(
        "WITH RECURSIVE each(repo) AS (
             SELECT min(repo) FROM memories WHERE repo IS NOT NULL
              UNION ALL
             SELECT (SELECT min(repo) FROM memories WHERE repo > each.repo AND repo IS NOT NULL) FROM each
              WHERE each.repo IS NOT NULL)
         SELECT repo FROM each WHERE substr(repo, -length(?1)) = ?1 LIMIT ?2",
    )?;
    let found = statement.query_map((format!("/{name}"), NAMESAKES), |row| row.get(0))?;
    let mut found = found.collect::<Result<Vec<String>, _>>()?;
    if found.is_empty() {
        found.push(String::new());
    }
    Ok(found)
}
