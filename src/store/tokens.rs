//! Splits a query's words as the index's own tokenizer does: by that tokenizer, in a table of the connection's own.

use super::StoreError;
use super::fulltext::Term;
use super::words::Words;
use rusqlite::{Connection, params};

/// Makes the table; for each connection that searches. It is in memory, and empty between searches.
pub(super) fn prepare(db: &Connection) -> Result<(), StoreError> {
    Ok(db.execute_batch(
        "PRAGMA temp_store = MEMORY;
         CREATE VIRTUAL TABLE temp.asked USING fts5(word, content = '', tokenize = 'unicode61 remove_diacritics 2');
         CREATE VIRTUAL TABLE temp.asked_tokens USING fts5vocab(temp, asked, instance);",
    )?)
}

/// Returns the terms to look for, each once, in the order of the words.
pub(super) fn terms(db: &Connection, words: &Words) -> Result<Vec<Term>, StoreError> {
    db.prepare_cached("INSERT INTO temp.asked (asked) VALUES ('delete-all')")?
        .execute([])?;
    let mut insert = db.prepare_cached("INSERT INTO temp.asked (rowid, word) VALUES (?1, ?2)")?;
    for (number, word) in (0_i64..).zip(&words.words) {
        insert.execute(params![number, word.text])?;
    }
    let mut tokens = vec![Vec::new(); words.words.len()];
    let mut read =
        db.prepare_cached("SELECT doc, term FROM temp.asked_tokens ORDER BY doc, offset")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let word = usize::try_from(row.get::<_, i64>(0)?).ok();
        if let Some(tokens) = word.and_then(|word| tokens.get_mut(word)) {
            tokens.push(row.get(1)?);
        }
    }
    let mut terms: Vec<Term> = Vec::new();
    for (word, tokens) in words.words.iter().zip(tokens) {
        let prefix = word.prefix;
        let term = Term { tokens, prefix };
        if !term.tokens.is_empty() && !terms.contains(&term) {
            terms.push(term);
        }
    }
    Ok(terms)
}
