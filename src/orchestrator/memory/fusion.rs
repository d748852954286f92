//! Merging ranked lists into one: reciprocal rank fusion.
//!
//! Scores of different searches do not compare (BM25 here, whatever the peer has there), their ranks do. Not
//! responsible for searching, for snippets or for pages.

use std::collections::HashMap;
use std::hash::Hash;

/// Dampens how much the first ranks outweigh the next ones; 60 is the value of the paper (see [`fuse`]).
const K: f64 = 60.0;

/// One result with its fused score.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused<T> {
    /// The sum of `1 / (60 + rank)` over the lists that have it; above 0, at most `lists / 61`.
    pub score: f64,
    /// The result, as first seen, with its duplicates merged in.
    pub item: T,
}

/// Fuses lists, each best first, into one, best first.
///
/// Two results that share any of their `keys` are one: the later one goes into the earlier one by `merge`. In each list
/// a result counts once, with its best rank. Equal scores keep the order in which they were first seen, list by list,
/// so equal input gives equal output.
///
/// After Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
/// methods", SIGIR 2009.
pub fn fuse<T, K, Keys>(
    lists: impl IntoIterator<Item = Vec<T>>,
    keys: impl Fn(&T) -> Keys,
    mut merge: impl FnMut(&mut T, T),
) -> Vec<Fused<T>>
where
    K: Hash + Eq,
    Keys: IntoIterator<Item = K>,
{
    let mut fused: Vec<Seen<T>> = Vec::new();
    let mut known: HashMap<K, usize> = HashMap::new();
    for (list, items) in lists.into_iter().enumerate() {
        let mut rank = 0_u32;
        for item in items {
            let keys: Vec<K> = keys(&item).into_iter().collect();
            let same = keys.iter().find_map(|key| known.get(key).copied());
            let at = same.unwrap_or(fused.len());
            for key in keys {
                known.entry(key).or_insert(at);
            }
            if same.is_some_and(|at| fused[at].last_list == list) {
                // A duplicate within its list takes no rank, or it would push back those that follow.
                merge(&mut fused[at].result.item, item);
                continue;
            }
            rank += 1;
            let score = 1.0 / (self::K + f64::from(rank));
            match fused.get_mut(at) {
                Some(seen) => {
                    seen.result.score += score;
                    seen.last_list = list;
                    merge(&mut seen.result.item, item);
                }
                None => fused.push(Seen {
                    result: Fused { score, item },
                    last_list: list,
                }),
            }
        }
    }
    let mut results: Vec<Fused<T>> = fused.into_iter().map(|seen| seen.result).collect();
    results.sort_by(|a, b| b.score.total_cmp(&a.score));
    results
}

struct Seen<T> {
    result: Fused<T>,
    /// The list that has counted for it last.
    last_list: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fuse_names(lists: &[&[&str]]) -> Vec<(String, f64)> {
        let lists = lists
            .iter()
            .map(|list| list.iter().map(|name| (*name).to_owned()).collect());
        fuse(lists, |name: &String| [name.clone()], |_, _| {})
            .into_iter()
            .map(|fused| (fused.item, fused.score))
            .collect()
    }

    fn order(lists: &[&[&str]]) -> Vec<String> {
        fuse_names(lists)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn what_several_lists_have_comes_before_what_one_has() {
        assert_eq!(
            order(&[&["a", "b", "c"], &["d", "c", "b"]]),
            ["b", "c", "a", "d"],
            "b and c are equal, so b, seen first, leads; a and d likewise"
        );
    }

    #[test]
    fn scores_are_those_of_the_paper() {
        let fused = fuse_names(&[&["a", "b"], &["b"]]);
        assert_eq!(fused[0], ("b".into(), 1.0 / 62.0 + 1.0 / 61.0));
        assert_eq!(fused[1], ("a".into(), 1.0 / 61.0));
    }

    #[test]
    fn a_duplicate_within_a_list_counts_once_and_takes_no_rank() {
        let fused = fuse_names(&[&["a", "a", "b"]]);
        assert_eq!(fused, [("a".into(), 1.0 / 61.0), ("b".into(), 1.0 / 62.0)]);
    }

    #[test]
    fn any_shared_key_makes_two_results_one() {
        let lists = vec![
            vec![
                (vec!["marker-1", "text x"], "local"),
                (vec!["marker-2"], "other"),
            ],
            vec![(vec!["text x"], "remote")],
        ];
        let lists = lists.into_iter().map(|list| {
            list.into_iter()
                .map(|(keys, name)| (keys, vec![name]))
                .collect()
        });
        let fused = fuse(
            lists,
            |(keys, _): &(Vec<&str>, Vec<&str>)| keys.clone(),
            |kept, more| kept.1.extend(more.1),
        );
        let origins: Vec<_> = fused.iter().map(|fused| fused.item.1.clone()).collect();
        assert_eq!(origins, [vec!["local", "remote"], vec!["other"]]);
    }

    #[test]
    fn nothing_fuses_to_nothing() {
        assert!(order(&[]).is_empty());
        assert!(order(&[&[], &[]]).is_empty());
    }
}
