//! The items that a call names, by index, repository name or path.

use super::arguments;
use crate::api::ItemSelector;
use crate::error::Problem;
use crate::model::{ItemIndex, ItemRecord};
use std::borrow::Borrow;
use std::collections::BTreeSet;

/// Returns the items that `selectors` name.
///
/// # Errors
///
/// An index that is too large, a name that no item has, or one that two repositories have.
pub(super) fn items<R: Borrow<ItemRecord>>(
    records: &[R],
    selectors: &[ItemSelector],
) -> Result<BTreeSet<ItemIndex>, Problem> {
    let mut found = BTreeSet::new();
    for selector in selectors {
        match selector {
            ItemSelector::Index(index) if (*index as usize) < records.len() => {
                found.insert(*index);
            }
            ItemSelector::Index(index) => {
                let last = records.len().saturating_sub(1);
                let allowed = format!("0 to {last}, or a repository's name or path");
                let message = format!("there is no item {index}");
                return Err(Problem::argument("items", message, allowed)
                    .with_hint("get_workflow lists the items"));
            }
            ItemSelector::Repo(name) => found.extend(of_repo(records, name)?),
        }
    }
    Ok(found)
}

fn of_repo<R: Borrow<ItemRecord>>(records: &[R], name: &str) -> Result<Vec<ItemIndex>, Problem> {
    let last = |repo: &str| repo.rsplit('/').next().unwrap_or_default().to_owned();
    let fits: Vec<&ItemRecord> = records
        .iter()
        .map(Borrow::borrow)
        .filter(|record| record.repo == name || last(&record.repo) == name)
        .collect();
    let repos: BTreeSet<&str> = fits.iter().map(|record| record.repo.as_str()).collect();
    match repos.len() {
        1 => Ok(fits.iter().map(|record| record.item).collect()),
        0 => {
            let names: BTreeSet<String> = records
                .iter()
                .map(|record| last(&record.borrow().repo))
                .collect();
            Err(arguments::unknown(
                "items",
                "repository in this workflow named",
                name,
                names.iter().map(String::as_str),
                "get_workflow lists the items",
            ))
        }
        _ => Err(Problem::argument(
            "items",
            format!("{name:?} fits several repositories"),
            repos.into_iter().take(5).collect::<Vec<_>>().join(", "),
        )
        .with_hint("give the repository's path, or the item's index")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ItemState;

    #[test]
    fn items_are_named_by_index_name_or_path() {
        let record = |item, repo: &str| ItemRecord::unstarted(item, repo, ItemState::Failed);
        let records = [
            record(0, "/a/api"),
            record(1, "/a/web"),
            record(2, "/b/web"),
        ];
        let named = |selector: ItemSelector| items(&records, &[selector]);
        assert_eq!(named(ItemSelector::Index(2)).expect("there"), [2].into());
        assert_eq!(
            named(ItemSelector::Repo("api".into())).expect("there"),
            [0].into()
        );
        assert_eq!(
            named(ItemSelector::Repo("/b/web".into())).expect("there"),
            [2].into()
        );
        let two = named(ItemSelector::Repo("web".into())).expect_err("ambiguous");
        assert_eq!(two.allowed.as_deref(), Some("/a/web, /b/web"));
        assert!(named(ItemSelector::Index(3)).is_err());
        assert!(
            named(ItemSelector::Repo("apii".into()))
                .expect_err("unknown")
                .hint
                .expect("a hint")
                .contains("api")
        );
    }
}
