//! The sorts of queries, and the same asked of FTS5 itself.

use crate::harness::corpus::word;
use mahavishnu::model::{At, MemoryKind, MemoryQuery};
use rusqlite::{Connection, params_from_iter, types::Value};

/// Queries of one sort, each with its FTS5 expression, empty where there are no words.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) queries: Vec<(MemoryQuery, String)>,
}

fn class(
    name: &'static str,
    texts: impl IntoIterator<Item = String>,
    narrow: impl Fn(&mut MemoryQuery),
) -> Class {
    let query = |text: String| {
        let expression = expression(&text);
        let mut query = MemoryQuery {
            text,
            limit: 10,
            ..MemoryQuery::default()
        };
        narrow(&mut query);
        (query, expression)
    };
    Class {
        name,
        queries: texts.into_iter().map(query).collect(),
    }
}

/// Returns the expression: all of the words, or any where one is `absent`.
fn expression(text: &str) -> String {
    let quoted = text.starts_with('"');
    if quoted {
        return text.to_owned();
    }
    let words: Vec<_> = text
        .split_whitespace()
        .map(|word| match word.strip_suffix('*') {
            Some(beginning) => format!("\"{beginning}\" *"),
            None => format!("\"{word}\""),
        })
        .collect();
    let any = words.len() > 1 && text.contains("absentword");
    words.join(if any { " OR " } else { " AND " })
}

pub(crate) fn classes() -> Vec<Class> {
    let of = |ranks: &[usize]| ranks.iter().map(|&rank| word(rank)).collect::<Vec<_>>();
    let with = |ranks: &[usize], more: &str| {
        ranks
            .iter()
            .map(|&rank| format!("{} {more}", word(rank)))
            .collect::<Vec<_>>()
    };
    let first = word(0);
    let many = |count| {
        let words: Vec<_> = (0..count).map(word).collect();
        vec![words.join(" ") + " absentword"]
    };
    let all = |_: &mut MemoryQuery| {};
    let prefixes = [1, 2, 3, 4].map(|length| format!("{}*", &first[..length]));
    let frequent = || vec![word(0), word(3)];
    let nothing = || vec![String::new()];
    vec![
        class("a word in 61%", of(&[0]), all),
        class("frequent words", of(&[1, 2, 5, 10]), all),
        class("a word in 1%", of(&[600, 700]), all),
        class("rare words", of(&[9_000, 20_000, 40_000]), all),
        class("an absent word", ["absentword".to_owned()], all),
        class("two frequent words", with(&[0, 1, 4], &word(2)), all),
        class(
            "two frequent, hardly together",
            ["passed failed".to_owned()],
            all,
        ),
        class(
            "five frequent words",
            [(0..5).map(word).collect::<Vec<_>>().join(" ")],
            all,
        ),
        class(
            "a rare and a frequent word",
            with(&[9_000, 20_000], &first),
            all,
        ),
        class(
            "a word in 1% and one in 61%",
            with(&[600, 700], &first),
            all,
        ),
        class("beginnings of 1 to 4 letters", prefixes, all),
        class(
            "a phrase of frequent words",
            [format!("\"{} {}\"", word(0), word(1))],
            all,
        ),
        class(
            "a phrase that is nowhere",
            [format!("\"failed {}\"", word(0))],
            all,
        ),
        class(
            "any of: a frequent and an absent",
            with(&[0, 3], "absentword"),
            all,
        ),
        class("any of 8 frequent words", many(8), all),
        class("any of 60 frequent words", many(60), all),
        class("frequent, pool of few", frequent(), |query| {
            query.pools = vec!["small".parse().expect("a name")]
        }),
        class("frequent, pool of many", frequent(), |query| {
            query.pools = vec!["codex".parse().expect("a name")]
        }),
        class("frequent, lessons", frequent(), |query| {
            query.kinds = vec![MemoryKind::Lesson]
        }),
        class("frequent, a repository", frequent(), |query| {
            query.repo = Some("r7".to_owned())
        }),
        class("frequent, a tag", frequent(), |query| {
            query.tags = vec!["flaky".to_owned()]
        }),
        class("frequent, the oldest 2,000", frequent(), |query| {
            query.until = Some(At::from_unix_ms(1_700_002_000_000))
        }),
        class("no words", nothing(), all),
        class("no words, pool of few", nothing(), |query| {
            query.pools = vec!["small".parse().expect("a name")]
        }),
        class("no words, lessons", nothing(), |query| {
            query.kinds = vec![MemoryKind::Lesson]
        }),
        class("no words, a tag and a pool", nothing(), |query| {
            query.tags = vec!["flaky".to_owned()];
            query.pools = vec!["codex".parse().expect("a name")];
        }),
    ]
}

/// Returns the filters as SQL, for the ones that the classes have.
fn filters(query: &MemoryQuery) -> (String, Vec<Value>) {
    let (mut sql, mut values) = (String::new(), Vec::new());
    let mut add = |condition: &str, value: Value| {
        sql.push_str(condition);
        values.push(value);
    };
    for pool in &query.pools {
        add(" AND pool = ?", Value::from(pool.to_string()));
    }
    for kind in &query.kinds {
        add(" AND kind = ?", Value::from(kind.as_str().to_owned()));
    }
    for tag in &query.tags {
        add(
            " AND m IN (SELECT m FROM memory_tags WHERE tag = ?)",
            Value::from(tag.clone()),
        );
    }
    if let Some(repo) = &query.repo {
        add(
            " AND memories.repo LIKE ?",
            Value::from(format!("%/{repo}")),
        );
    }
    if let Some(until) = query.until {
        add(" AND created_at_ms <= ?", Value::from(until.unix_ms()));
    }
    (sql, values)
}

fn ids(db: &Connection, sql: &str, values: Vec<Value>) -> Vec<String> {
    let mut statement = db.prepare_cached(sql).expect("prepared");
    let rows = statement
        .query_map(params_from_iter(values), |row| row.get(0))
        .expect("asked");
    rows.collect::<Result<_, _>>().expect("read")
}

/// Returns the first ten by the exact ranking.
pub(crate) fn exact(db: &Connection, query: &MemoryQuery, expression: &str) -> Vec<String> {
    let (filters, mut values) = filters(query);
    if expression.is_empty() {
        let sql = format!(
            "SELECT id FROM memories WHERE 1 {filters} ORDER BY created_at_ms DESC, m DESC LIMIT 10"
        );
        return ids(db, &sql, values);
    }
    values.insert(0, Value::from(expression.to_owned()));
    let sql = format!(
        "SELECT id FROM memories_fts JOIN memories ON memories.m = memories_fts.rowid
          WHERE memories_fts MATCH ? {filters}
          ORDER BY bm25(memories_fts, 1.0, 2.0, 0.5) * CASE kind WHEN 'outcome' THEN 1.0 ELSE 2.0 END, m DESC LIMIT 10"
    );
    ids(db, &sql, values)
}

/// Returns FTS5's ten best, without filters where there are none.
pub(crate) fn bare(db: &Connection, query: &MemoryQuery, expression: &str) -> Vec<String> {
    let (filters, _) = filters(query);
    if expression.is_empty() || !filters.is_empty() {
        exact(db, query, expression)
    } else {
        ids(
            db,
            "SELECT CAST(rowid AS TEXT) FROM memories_fts WHERE memories_fts MATCH ? ORDER BY bm25(memories_fts) LIMIT 10",
            vec![Value::from(expression.to_owned())],
        )
    }
}
