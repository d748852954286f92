//! `git add` of everything that can be added.

use super::RepoError;
use super::plumbing::{Name, Plumbing};
use std::collections::BTreeSet;

const ADD_ALL: &str =
    "-c advice.addEmbeddedRepo=false -c core.safecrlf=false add --sparse --ignore-errors -A -- .";
/// The most calls of git that are made to find the files that it cannot add.
const MOST_TRIES: usize = 1_000;

impl Plumbing<'_> {
    /// Adds all tracked and new, not ignored files to the index, also those outside a sparse checkout; what is absent
    /// because it lies outside stays as it is. Returns what git could not add: repositories without a commit, files that
    /// cannot be read or are not files, files whose required filter fails.
    ///
    /// # Errors
    ///
    /// git fails for another reason than one of the files.
    pub(super) async fn add_all(&self) -> Result<Vec<Name>, RepoError> {
        let whole = self.write(ADD_ALL).accept(&[1, 128]).run().await?;
        match whole.code {
            0 => Ok(Vec::new()),
            1 => self.not_added().await,
            // git has given up at a file, and added none.
            _ => self.add_by_parts().await,
        }
    }

    /// Returns the files that still differ from the index.
    async fn not_added(&self) -> Result<Vec<Name>, RepoError> {
        let listed = self.status().await?.into_iter();
        // `XY NAME`: X compares index and HEAD, Y compares file and index.
        let differing = listed.filter(|record| record.get(1).is_some_and(|state| *state != b' '));
        Ok(differing.map(|record| name_of(&record[3..])).collect())
    }

    /// Adds files in halves until those are found that make git give up.
    async fn add_by_parts(&self) -> Result<Vec<Name>, RepoError> {
        let listed = self
            .read("ls-files -z --modified --deleted --others --exclude-standard")
            .run()
            .await?;
        let names: BTreeSet<Name> = listed.records().map(<[u8]>::to_vec).collect();
        let mut parts = vec![names.into_iter().collect::<Vec<_>>()];
        let (mut refused, mut tries) = (Vec::new(), 0);
        while let Some(mut part) = parts.pop()
            && tries < MOST_TRIES
        {
            tries += 1;
            match (self.adds(&part).await?, part.len()) {
                (true, _) => {}
                (false, 1) => refused.append(&mut part),
                (false, len) => {
                    parts.push(part.split_off(len / 2));
                    parts.push(part);
                }
            }
        }
        if refused.is_empty() || !parts.is_empty() {
            // No file is at fault (a full disk, a broken index), or too many are: git's own error is the best answer.
            self.write(ADD_ALL).done().await?;
        }
        Ok(refused.iter().map(|name| name_of(name)).collect())
    }

    async fn adds(&self, names: &[Name]) -> Result<bool, RepoError> {
        let listed = names.iter().flat_map(|name| [name.as_slice(), b"\0"]);
        let answer = self
            .write("-c advice.addEmbeddedRepo=false -c core.safecrlf=false add --sparse -A --pathspec-from-file=- --pathspec-file-nul")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .stdin(listed.flatten().copied().collect())
            .accept(&[1, 128])
            .run()
            .await?;
        Ok(answer.code == 0)
    }
}

/// Returns the name of a listed entry: a folder is listed with a slash behind it.
fn name_of(listed: &[u8]) -> Name {
    listed.strip_suffix(b"/").unwrap_or(listed).to_vec()
}
