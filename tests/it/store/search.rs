//! Every search gives what FTS5 itself would, in its order, as far as it says that it is exact.

use super::{clean, open};
use mahavishnu::model::{MemoryKind, MemoryQuery, NewMemory, PoolName};
use mahavishnu::store::Store;
use rusqlite::{Connection, params_from_iter, types::Value};
use std::path::Path;

/// A stream of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).expect("less than a size")
    }

    /// Returns one of 300 words, the first ones more often.
    fn word(&mut self) -> String {
        let number = self.below(300).min(self.below(300)).min(self.below(300));
        let syllables = ["ba", "bé", "cu", "dö", "é", "日", "x"];
        let mut word = syllables[number % 7].to_owned();
        word.push_str(syllables[number / 7 % 7]);
        word.push_str(syllables[number / 49 % 7]);
        word
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| self.word() + " ").collect()
    }

    fn memory(&mut self, n: usize) -> NewMemory {
        let words = match n % 400 {
            // Longer than a leaf, and than two.
            7 => 3_000,
            9 => 9_000,
            _ => 1 + self.below(40),
        };
        let kind = [MemoryKind::Outcome, MemoryKind::Lesson, MemoryKind::Note][self.below(3)];
        let pool: PoolName = ["one", "two"][self.below(2)].parse().expect("a name");
        NewMemory {
            source_id: Some(n.to_string()),
            tags: (0..self.below(3)).map(|_| clean(self.word())).collect(),
            repo: (self.below(2) == 0).then(|| format!("/repos/{}", self.word())),
            // Equal texts would be one hit.
            ..NewMemory::new(
                kind,
                clean(self.text(words) + &format!("n{n}")),
                pool,
                "worker",
            )
        }
    }

    /// Returns a query and the same for FTS5.
    fn query(&mut self) -> (String, Vec<String>) {
        let (mut query, mut terms) = (String::new(), Vec::new());
        for _ in 0..1 + self.below(4) {
            let phrase = self.below(3) == 0;
            let count = if phrase { 2 + self.below(2) } else { 1 };
            let text = self.text(count).trim().to_owned();
            if phrase {
                query.push_str(&format!("\"{text}\" "));
                terms.push(format!("\"{text}\""));
            } else if self.below(3) == 0 {
                let length = 1 + self.below(5);
                let beginning: String = text.chars().take(length).collect();
                // Several words in one, of which the last is a beginning.
                let lead = if self.below(3) == 0 {
                    self.word() + "-"
                } else {
                    String::new()
                };
                query.push_str(&format!("{lead}{beginning}* "));
                terms.push(format!("\"{lead}{beginning}\" *"));
            } else {
                query.push_str(&format!("{text} "));
                terms.push(format!("\"{text}\""));
            }
        }
        let mut once: Vec<String> = Vec::new();
        for term in terms {
            if !once.contains(&term) {
                once.push(term);
            }
        }
        (query, once)
    }
}

/// Returns what FTS5 finds, best first: ids and scores.
fn expected(db: &Connection, expression: &str, pool: Option<&str>) -> Vec<(String, f64)> {
    let condition = pool.map_or("", |_| "AND pool = ?");
    let mut statement = db
        .prepare_cached(&format!(
            "SELECT id, -bm25(memories_fts, 1.0, 2.0, 0.5) * iif(kind = 'outcome', 1.0, 2.0) AS score
               FROM memories_fts JOIN memories ON m = memories_fts.rowid
              WHERE memories_fts MATCH ? {condition} ORDER BY score DESC, m DESC"
        ))
        .expect("prepared");
    let values = [Some(expression), pool].into_iter().flatten();
    let values = values.map(|value| Value::from(value.to_owned()));
    let rows = statement.query_map(params_from_iter(values), |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    rows.expect("asked")
        .collect::<Result<_, _>>()
        .expect("read")
}

async fn compare(store: &Store, db: &Connection, random: &mut Random, queries: usize) {
    let (mut found_any, mut fell_back) = (0, 0);
    for _ in 0..queries {
        let (text, terms) = random.query();
        let pool = (random.below(4) == 0).then_some("one");
        let query = MemoryQuery {
            text: text.clone(),
            pools: pool
                .iter()
                .map(|pool| pool.parse().expect("a name"))
                .collect(),
            limit: 10_000,
            ..MemoryQuery::default()
        };
        let page = store.find_memories(query).await.expect("found");
        assert!(!page.approximate && page.next.is_none(), "{text}");
        let mut expected_hits = expected(db, &terms.join(" AND "), pool);
        if expected_hits.is_empty() && terms.len() > 1 {
            fell_back += 1;
            expected_hits = expected(db, &terms.join(" OR "), pool);
        }
        found_any += usize::from(!expected_hits.is_empty());
        let hits: Vec<_> = page
            .hits
            .iter()
            .map(|hit| hit.memory.id.to_string())
            .collect();
        let ids: Vec<_> = expected_hits.iter().map(|hit| hit.0.clone()).collect();
        assert_eq!(hits, ids, "{text}");
        for (hit, (_, score)) in page.hits.iter().zip(&expected_hits) {
            assert!(
                (hit.score - score).abs() < 1e-9,
                "{text}: {} {score}",
                hit.score
            );
        }
    }
    assert!(
        found_any > queries / 2 && fell_back > 0,
        "{found_any} {fell_back}"
    );
}

fn file(dir: &Path) -> Connection {
    Connection::open(dir.join("mahavishnu.db")).expect("opened")
}

#[tokio::test]
async fn every_answer_is_bm25s_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut random = Random(7);
    let mut ids = Vec::new();
    while ids.len() < 420 {
        let batch = 1 + random.below(120);
        let new = (0..batch).map(|at| random.memory(ids.len() + at)).collect();
        ids.extend(store.insert_memories(new, None).await.expect("stored").ids);
    }
    let db = file(dir.path());
    compare(&store, &db, &mut random, 150).await;

    for _ in 0..80 {
        let id = ids.swap_remove(random.below(ids.len()));
        assert!(store.forget(id).await.expect("forgotten").is_some());
    }
    compare(&store, &db, &mut random, 100).await;

    // One segment, then newer ones beside it.
    db.execute_batch("INSERT INTO memories_fts (memories_fts) VALUES ('optimize')")
        .expect("merged");
    compare(&store, &db, &mut random, 100).await;
    for n in 0..100 {
        let new = vec![random.memory(10_000 + n)];
        ids.extend(store.insert_memories(new, None).await.expect("stored").ids);
    }
    for _ in 0..100 {
        let id = ids.swap_remove(random.below(ids.len()));
        assert!(store.forget(id).await.expect("forgotten").is_some());
    }
    // A merge that is not finished.
    db.execute_batch("INSERT INTO memories_fts (memories_fts, rank) VALUES ('merge', 5)")
        .expect("merged");
    compare(&store, &db, &mut random, 100).await;
}

#[tokio::test]
async fn as_many_matches_as_are_ranked_are_ranked_exactly() {
    const RANKED: usize = 500;
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let pool: PoolName = "local".parse().expect("a name");
    let new = |n: usize| {
        let text = format!("alpha {} n{n}", "beta ".repeat(n * 7 % 31));
        NewMemory::new(MemoryKind::Outcome, clean(text), pool.clone(), "worker")
    };
    store
        .insert_memories((0..RANKED).map(new).collect(), None)
        .await
        .expect("stored");
    let db = file(dir.path());
    let query = || MemoryQuery {
        text: "alpha".to_owned(),
        limit: 10_000,
        ..MemoryQuery::default()
    };
    let page = store.find_memories(query()).await.expect("found");
    let ids: Vec<_> = page
        .hits
        .iter()
        .map(|hit| hit.memory.id.to_string())
        .collect();
    let all: Vec<_> = expected(&db, "alpha", None)
        .into_iter()
        .map(|hit| hit.0)
        .collect();
    assert!(
        !page.approximate && page.notes.is_empty(),
        "{:?}",
        page.notes
    );
    assert_eq!(ids, all);

    store
        .insert_memories(vec![new(RANKED)], None)
        .await
        .expect("stored");
    let page = store.find_memories(query()).await.expect("found");
    assert!(page.approximate && page.hits.len() == RANKED);
    assert!(
        page.notes[0].contains("501 memories match"),
        "{:?}",
        page.notes
    );
}

#[tokio::test]
async fn a_filter_that_leaves_few_finds_them_among_very_many_matches() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let new = |n: usize| {
        let small = n % 2_000 == 3;
        let pool: PoolName = if small { "small" } else { "large" }
            .parse()
            .expect("a name");
        let kind = if n % 2_000 == 5 {
            MemoryKind::Lesson
        } else {
            MemoryKind::Outcome
        };
        NewMemory {
            repo: (n % 2_000 == 9).then(|| "/repos/rare".to_owned()),
            tags: if n % 2_000 == 11 {
                vec!["rare".into()]
            } else {
                Vec::new()
            },
            // Those that are asked for have the word least often.
            ..NewMemory::new(
                kind,
                clean(format!("{} n{n}", "alpha ".repeat(1 + n % 2_000 / 20))),
                pool,
                "worker",
            )
        }
    };
    for batch in 0..10 {
        let new = (batch * 1_000..(batch + 1) * 1_000).map(new);
        store
            .insert_memories(new.collect(), None)
            .await
            .expect("stored");
    }
    let base = MemoryQuery {
        limit: 10,
        ..MemoryQuery::default()
    };
    let narrowed = [
        MemoryQuery {
            pools: vec!["small".parse().expect("a name")],
            ..base.clone()
        },
        MemoryQuery {
            kinds: vec![MemoryKind::Lesson],
            ..base.clone()
        },
        MemoryQuery {
            repo: Some("/repos/rare".to_owned()),
            ..base.clone()
        },
        MemoryQuery {
            repo: Some("rare".to_owned()),
            ..base.clone()
        },
        MemoryQuery {
            tags: vec!["rare".into()],
            ..base.clone()
        },
    ];
    for query in narrowed {
        for text in ["alpha", ""] {
            let query = MemoryQuery {
                text: text.to_owned(),
                ..query.clone()
            };
            let page = store.find_memories(query.clone()).await.expect("found");
            assert!(!page.approximate, "{query:?} {:?}", page.notes);
            assert_eq!(page.hits.len(), 5, "{query:?}");
        }
    }
}
