use super::leaf::{Leaf, ListReader, positions, varint};
use super::segments::Index;
use super::{Damage, Lists, Term};
use crate::model::{MemoryKind, NewMemory};
use crate::redact::Redacted;
use crate::store::files::{Durability, Files};
use crate::store::{locks, memories, word_index};
use proptest::prelude::*;
use rusqlite::Connection;

/// Returns a store's file of `count` memories, of which all have `all`, and every seventh `some of it`.
fn filled(dir: &std::path::Path, count: usize) -> Connection {
    let locks = dir.join("locks");
    locks::make_private_dir(&locks).expect("made");
    let files = Files::new(dir, locks.clone(), locks.join("none"));
    let db = files.writer(Durability::Normal).expect("opened");
    let pool = "local".parse::<crate::model::PoolName>().expect("a name");
    let all: Vec<_> = (0..count)
        .map(|n| {
            let some = if n % 7 == 0 {
                "some of it"
            } else {
                "of it some"
            };
            let text = Redacted::from_store(format!("all word{n} {some}"));
            NewMemory::new(MemoryKind::Note, text, pool.clone(), "test")
        })
        .collect();
    for some in all.chunks(1_500) {
        db.execute_batch("BEGIN").expect("begun");
        memories::insert(&db, some, None).expect("stored");
        word_index::index_new(&db).expect("indexed");
        db.execute_batch("COMMIT").expect("committed");
    }
    db
}

fn term(tokens: &[&str], prefix: bool) -> Term {
    Term {
        tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
        prefix,
    }
}

#[test]
fn lists_that_are_too_long_are_read_from_their_newest_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let count = 9_000;
    let db = filled(dir.path(), count);
    let stored = 1..=9_000;
    let terms = [
        term(&["all"], false),
        term(&["some", "of", "it"], false),
        term(&["al"], true),
        term(&["wor"], true),
    ];
    let read = |leaves| {
        let mut index = Index::open(&db, u32::MAX).expect("opened");
        Lists::read(&mut index, &terms, leaves, &stored, &stored).expect("read")
    };
    for way in ["several segments", "one segment"] {
        let whole = read(u64::MAX);
        assert!(whole.reach.is_all());
        let lengths: Vec<_> = whole.lists.iter().map(Vec::len).collect();
        assert_eq!(lengths, [count, count.div_ceil(7), count, count], "{way}");
        for leaves in [0, 1, 2, 5] {
            let part = read(leaves);
            assert!(
                !part.reach.is_all() && part.reach.part < 1.0,
                "{way} {leaves}"
            );
            for (part_of, list) in part.lists.iter().zip(&whole.lists) {
                let newest: Vec<_> = list
                    .iter()
                    .filter(|entry| entry.m >= part.reach.from)
                    .copied()
                    .collect();
                assert_eq!(part_of, &newest, "{way} {leaves}");
            }
        }
        db.execute_batch("INSERT INTO memories_fts (memories_fts) VALUES ('optimize')")
            .expect("merged");
    }
}

#[test]
fn what_is_wanted_is_read_wherever_it_lies() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = filled(dir.path(), 9_000);
    db.execute_batch("INSERT INTO memories_fts (memories_fts) VALUES ('optimize')")
        .expect("merged");
    let read = |terms: &[Term], leaves, wanted| {
        let mut index = Index::open(&db, u32::MAX).expect("opened");
        Lists::read(&mut index, terms, leaves, &(1..=9_000), &wanted).expect("read")
    };
    let whole = read(&[term(&["all"], false)], u64::MAX, 1..=9_000);
    for terms in [[term(&["all"], false)], [term(&["al"], true)]] {
        for wanted in [1..=700, 3_000..=3_000, 4_000..=4_500] {
            let part = read(&terms, 4, wanted.clone());
            assert!(!part.reach.is_all());
            assert!(wanted.contains(&part.reach.from) && part.reach.to == *wanted.end());
            let expected: Vec<_> = whole.lists[0]
                .iter()
                .filter(|entry| (part.reach.from..=part.reach.to).contains(&entry.m))
                .copied()
                .collect();
            assert!(!expected.is_empty());
            assert_eq!(part.lists[0], expected, "{wanted:?}");
        }
    }
}

#[test]
fn what_is_stored_together_is_one_segment() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = filled(dir.path(), 1_000);
    let index = Index::open(&db, 1).expect("opened");
    assert_eq!(index.segments().len(), 1);
}

#[test]
fn no_more_leaves_are_read_than_are_allowed() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = filled(dir.path(), 6_000);
    let mut index = Index::open(&db, 8).expect("opened");
    // All words begin alike: there are more leaves than rows of a list tell.
    let read = Lists::read(
        &mut index,
        &[term(&["word"], true)],
        u64::MAX,
        &(1..=6_000),
        &(1..=6_000),
    )
    .expect("read");
    assert!(index.is_exhausted());
    assert!(!read.lists[0].is_empty() && read.lists[0].len() < 6_000);
}

#[test]
fn a_damaged_index_is_an_error_or_a_wrong_answer_but_no_panic() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = filled(dir.path(), 2_000);
    let ids: Vec<i64> = db
        .prepare("SELECT id FROM memories_fts_data WHERE id > 1")
        .and_then(|mut all| all.query_map([], |row| row.get(0))?.collect())
        .expect("read");
    let terms = [
        term(&["all"], false),
        term(&["some", "of"], false),
        term(&["w"], true),
        term(&["word1"], true),
    ];
    let mut refused = 0;
    for round in 0..400_usize {
        let id = ids[round * 7 % ids.len()];
        db.execute_batch("SAVEPOINT damage").expect("begun");
        let block: Vec<u8> = db
            .query_row(
                "SELECT block FROM memories_fts_data WHERE id = ?1",
                [id],
                |row| row.get(0),
            )
            .expect("read");
        let mut damaged = block;
        let at = round * 131
            % damaged
                .len()
                .min(if round % 2 == 0 { 16 } else { usize::MAX });
        match round % 3 {
            0 => damaged[at] ^= 0xff,
            1 => damaged[at] = damaged[at].wrapping_add(1),
            _ => damaged.truncate(at),
        }
        db.execute(
            "UPDATE memories_fts_data SET block = ?2 WHERE id = ?1",
            (id, damaged),
        )
        .expect("damaged");
        let read = Index::open(&db, 1_000).and_then(|mut index| {
            index.figures()?;
            Lists::read(&mut index, &terms, 100, &(1..=2_000), &(1..=2_000))
        });
        refused += usize::from(read.is_err());
        db.execute_batch("ROLLBACK TO damage; RELEASE damage")
            .expect("undone");
    }
    assert!(refused > 0);
}

#[test]
fn numbers_of_variable_length_are_sqlites() {
    for (bytes, value) in [
        (&[0x00][..], 0),
        (&[0x7f], 0x7f),
        (&[0x81, 0x00], 0x80),
        (&[0xff, 0x7f], 0x3fff),
        (&[0xff; 9], u64::MAX),
    ] {
        let mut at = 0;
        assert_eq!(varint(bytes, &mut at), Ok(value));
        assert_eq!(at, bytes.len());
        let mut at = 0;
        assert!(varint(&bytes[..bytes.len() - 1], &mut at).is_err());
    }
}

proptest! {
    #[test]
    fn no_block_panics(block in proptest::collection::vec(any::<u8>(), 0..200), at in 0..200_usize) {
        let mut leaf = Leaf::default();
        if leaf.read(&block).is_ok() {
            let (mut starts, mut word) = (Vec::new(), Vec::new());
            let _: Result<_, Damage> = (leaf.first_row(), leaf.rest()).1;
            if leaf.words(&mut starts).is_ok() {
                for (number, start) in starts.into_iter().enumerate() {
                    let _: Result<(), Damage> = leaf.word(&mut start.clone(), number == 0, &mut word);
                }
            }
        }
        let (begin, end) = block.split_at(at.min(block.len()));
        let mut list = ListReader::new();
        let mut visit = |_: i64, list: &[u8]| positions(list, |_, _| {});
        let _: Result<(), Damage> = list.part(begin, &mut visit).and_then(|()| {
            list.next_leaf();
            list.part(end, &mut visit)
        });
    }
}
