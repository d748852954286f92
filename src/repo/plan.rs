//! What an apply would do, found out in memory: merged trees, files in the way, and the list of changes.
//!
//! Every change is merged three-way (`git merge-tree`) over its own base, each upon the one before. "Ours" is HEAD; for
//! [`How::WorkingCopy`], where a dirty file still is what the item started from (base `working_copy`), ours is that
//! file. A file overlaps where its content now, hashed by git, is neither.

use super::apply::{ApplyRequest, Change, How, Obstacles};
use super::files::{Glance, State, files_below, obstacle, reach};
use super::git::{Git, Mode};
use super::head::{self, Head};
use super::journal::RefMove;
use super::layout::bytes_path;
use super::plumbing::{Delta, Entry, GITLINK, Merged, Name, Side, Spot, TempIndex};
use super::{Layout, RepoError, RepoPath};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What a person may be in the middle of, by the file that says so.
const OPERATIONS: [(&str, &str); 6] = [
    ("MERGE_HEAD", "merge"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("BISECT_START", "bisect"),
];

/// What an apply would do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What stands in the way, per change.
    pub(super) items: Vec<Obstacles>,
    /// What changes, from ours to the result.
    pub(super) deltas: BTreeMap<Name, Delta>,
    /// Those of them that a sparse checkout leaves out of the working copy: only their entries in the index change.
    pub(super) skipped: BTreeSet<Name>,
    /// How the files looked before git judged them.
    pub(super) glances: BTreeMap<Name, Glance>,
    /// The ref to move.
    pub(super) moved: Option<RefMove>,
    /// The commit that the ref will be at.
    pub(super) tip: Option<String>,
}

impl Plan {
    /// Returns whether nothing stands in the way.
    pub(super) fn is_free(&self) -> bool {
        self.items
            .iter()
            .all(|item| item.conflicts.is_empty() && item.overlaps_dirty.is_empty())
    }

    /// Returns whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.moved.is_none()
    }
}

/// Returns the folders that `name` lies in.
fn folders_of(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &name[..at])
}

/// Returns a name for people.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Returns the ref that a commit on HEAD moves.
pub(super) fn head_ref(head: &Head) -> String {
    match &head.branch {
        Some(branch) => format!("refs/heads/{branch}"),
        None => "HEAD".to_owned(),
    }
}

/// Finds out what `request` would do. No file, index or ref is touched; objects are written.
pub(super) async fn make(
    git: &Git,
    layout: &Layout,
    request: &ApplyRequest,
    scratch: &Path,
) -> Result<Plan, RepoError> {
    let spot = Spot::user(git, layout);
    for change in &request.changes {
        for commit in [&change.base, &change.commit] {
            if spot.commit(commit).await?.is_none() {
                return Err(RepoError::NoSuchCommit {
                    repo: request.repo.clone(),
                    commit: commit.clone(),
                });
            }
        }
    }
    let head = head::of(git, layout).await?;
    let planner = Planner {
        spot,
        layout,
        head,
        scratch,
        request,
    };
    match request.how {
        How::Branch => planner.branch().await,
        How::Merge => {
            refuse_in_progress(layout, &request.repo)?;
            planner.files().await
        }
        How::WorkingCopy => planner.files().await,
    }
}

fn refuse_in_progress(layout: &Layout, repo: &RepoPath) -> Result<(), RepoError> {
    match OPERATIONS
        .iter()
        .find(|(file, _)| layout.git_dir.join(file).exists())
    {
        None => Ok(()),
        Some((_, operation)) => Err(RepoError::InProgress {
            repo: repo.clone(),
            operation,
        }),
    }
}

struct Planner<'a> {
    spot: Spot<'a>,
    layout: &'a Layout,
    head: Head,
    scratch: &'a Path,
    request: &'a ApplyRequest,
}

/// The working copy as far as it was looked at.
struct Seen {
    /// An index that holds HEAD, with the files looked at as they are now.
    index: TempIndex,
    /// HEAD's tree, or the empty one.
    head_tree: String,
    glances: BTreeMap<Name, Glance>,
    /// Tracked files that a sparse checkout leaves out.
    skipped: BTreeSet<Name>,
    /// Files that differ from HEAD.
    dirty: BTreeSet<Name>,
    /// The tree of `index`.
    tree: String,
}

impl Planner<'_> {
    fn obstacles(&self) -> Vec<Obstacles> {
        self.request
            .changes
            .iter()
            .map(|change| Obstacles {
                item: change.item,
                ..Obstacles::default()
            })
            .collect()
    }

    /// Plans [`How::WorkingCopy`] and [`How::Merge`].
    async fn files(&self) -> Result<Plan, RepoError> {
        let mut plan = Plan {
            items: self.obstacles(),
            ..Plan::default()
        };
        let mut touched = Vec::new();
        for change in &self.request.changes {
            touched.push(self.spot.diff(&change.base, &change.commit).await?);
        }
        let names: BTreeSet<Name> = touched.iter().flat_map(BTreeMap::keys).cloned().collect();
        let mut seen = self.look().await?;
        self.look_at(&mut seen, &names).await?;
        let ours = self.ours(&seen, &touched, &mut plan).await?;
        if !plan.is_free() {
            return Ok(plan);
        }
        let Some((tree, tip)) = self.merge_all(&ours, &mut plan).await? else {
            return Ok(plan);
        };
        plan.deltas = self.spot.diff(&ours, &tree).await?;
        // A file that was renamed on one side only is touched under a name that no change has.
        let more: BTreeSet<Name> = plan
            .deltas
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect();
        let dirty_before = seen.dirty.clone();
        self.look_at(&mut seen, &more).await?;
        let mut in_the_way: BTreeSet<Name> =
            seen.dirty.difference(&dirty_before).cloned().collect();
        plan.skipped = self.left_out(&seen, &plan.deltas)?;
        in_the_way.extend(self.blocked(&plan.deltas)?);
        if self.request.how == How::Merge {
            in_the_way.extend(self.staged(&plan.deltas).await?);
            plan.tip = Some(tip.clone());
            plan.moved = (self.head.commit.as_ref() != Some(&tip)).then(|| RefMove {
                name: head_ref(&self.head),
                old: self.head.commit.clone(),
                new: tip,
            });
        } else {
            self.refuse_submodules(&mut plan);
            refuse_left_out(&mut plan);
        }
        blame(&mut plan.items, &touched, &in_the_way);
        plan.glances = seen.glances;
        plan.glances
            .retain(|name, _| plan.deltas.contains_key(name));
        Ok(plan)
    }

    /// Begins to look: HEAD in an index of its own.
    async fn look(&self) -> Result<Seen, RepoError> {
        let index = TempIndex::in_dir(self.scratch)?;
        let apart = self.spot.with_index(index.path());
        if let Some(commit) = &self.head.commit {
            apart
                .cmd(Mode::Write, "read-tree")
                .arg(commit)
                .run()
                .await?;
        }
        let tree = apart.write_tree().await?;
        let is_sparse = self.layout.git_dir.join("info/sparse-checkout").exists();
        let skipped = match is_sparse {
            true => self.spot.skipped().await?,
            false => BTreeSet::new(),
        };
        Ok(Seen {
            index,
            head_tree: tree.clone(),
            skipped,
            glances: BTreeMap::new(),
            dirty: BTreeSet::new(),
            tree,
        })
    }

    /// Looks at more files: has git hash them as they are now, and notes which differ from HEAD.
    async fn look_at(&self, seen: &mut Seen, names: &BTreeSet<Name>) -> Result<(), RepoError> {
        if names.is_empty() {
            return Ok(());
        }
        let top = &self.layout.dir;
        let mut files: Vec<&Name> = Vec::new();
        let mut gone: BTreeMap<Name, Delta> = BTreeMap::new();
        for name in names {
            let failed = || RepoError::io("read", &top.join(bytes_path(name)));
            // First the glance, then git's look: what is written in between is seen by one of them.
            seen.glances
                .insert(name.clone(), Glance::of(top, name).map_err(failed())?);
            let path = reach(top, name).map_err(failed())?;
            let meta = path
                .as_ref()
                .and_then(|path| fs::symlink_metadata(path).ok());
            let is_repository = path.as_ref().is_some_and(|path| path.join(".git").exists());
            match meta {
                Some(meta) if !meta.is_dir() || is_repository => files.push(name),
                // What is left out on purpose is as HEAD has it.
                _ if seen.skipped.contains(name) => {}
                _ => {
                    gone.insert(name.clone(), absence(&seen.head_tree));
                }
            }
        }
        let apart = self.spot.with_index(seen.index.path());
        if !gone.is_empty() {
            apart.set_entries(&gone, Side::New).await?;
        }
        apart.take_files(&files).await?;
        seen.tree = apart.write_tree().await?;
        let differing = self.spot.diff(&seen.head_tree, &seen.tree).await?;
        // A submodule that is not checked out is an empty folder: nobody's change.
        seen.dirty = differing
            .into_iter()
            .filter(|(_, delta)| {
                !(delta.new.is_none() && delta.old.as_ref().is_some_and(|old| old.mode == GITLINK))
            })
            .map(|(name, _)| name)
            .collect();
        Ok(())
    }

    /// Returns the commit that the work is merged into, and notes the files that overlap.
    async fn ours(
        &self,
        seen: &Seen,
        touched: &[BTreeMap<Name, Delta>],
        plan: &mut Plan,
    ) -> Result<String, RepoError> {
        let mut as_started = BTreeSet::new();
        if self.request.how == How::WorkingCopy && !seen.dirty.is_empty() {
            for (change, touched) in self.request.changes.iter().zip(touched) {
                let differing = self.spot.diff(&change.base, &seen.tree).await?;
                as_started.extend(
                    touched
                        .keys()
                        .filter(|name| seen.dirty.contains(*name) && !differing.contains_key(*name))
                        .cloned(),
                );
            }
        }
        let overlaps = seen.dirty.difference(&as_started).cloned().collect();
        blame(&mut plan.items, touched, &overlaps);
        match &self.head.commit {
            Some(commit) if as_started.is_empty() => Ok(commit.clone()),
            head => {
                let parents: Vec<&str> = head.as_deref().into_iter().collect();
                self.spot.commit_tree(&seen.tree, &parents, "Ours\n").await
            }
        }
    }

    /// Merges change upon change; none where one conflicts. Returns the tree and the commit that holds it.
    async fn merge_all(
        &self,
        ours: &str,
        plan: &mut Plan,
    ) -> Result<Option<(String, String)>, RepoError> {
        let mut tip = ours.to_owned();
        for (change, item) in self.request.changes.iter().zip(&mut plan.items) {
            match self.spot.merge(&change.base, &tip, &change.commit).await? {
                Merged::Clean(tree) => tip = self.commit_upon(&tip, change, &tree).await?,
                Merged::Conflicts(names) => {
                    item.conflicts = names.iter().map(|name| shown(name)).collect();
                }
            }
        }
        if !plan.is_free() {
            return Ok(None);
        }
        Ok(Some((self.spot.tree_of(&tip).await?, tip)))
    }

    /// Returns the commit that brings `change` onto `tip`: the work itself, a merge of it, or one commit with its tree.
    async fn commit_upon(
        &self,
        tip: &str,
        change: &Change,
        tree: &str,
    ) -> Result<String, RepoError> {
        if self.spot.tree_of(tip).await? == tree {
            return Ok(tip.to_owned());
        }
        // A base that the user never committed must not come in as history.
        let true_history = self.request.how != How::WorkingCopy
            && self.spot.is_ancestor(&change.base, tip).await?
            && self.spot.is_ancestor(&change.base, &change.commit).await?;
        if true_history && self.spot.is_ancestor(tip, &change.commit).await? {
            return Ok(change.commit.clone());
        }
        let mut parents = Vec::new();
        // Before the first commit "ours" is a stand-in for nothing.
        if self.head.commit.is_some() || self.request.how == How::WorkingCopy {
            parents.push(tip);
        }
        if true_history {
            parents.push(&change.commit);
        }
        self.spot.commit_tree(tree, &parents, &change.message).await
    }

    /// Returns those of `deltas` whose files a sparse checkout leaves out.
    fn left_out(
        &self,
        seen: &Seen,
        deltas: &BTreeMap<Name, Delta>,
    ) -> Result<BTreeSet<Name>, RepoError> {
        let top = &self.layout.dir;
        let mut left_out = BTreeSet::new();
        for name in deltas.keys().filter(|name| seen.skipped.contains(*name)) {
            let at =
                State::of(top, name).map_err(RepoError::io("read", &top.join(bytes_path(name))))?;
            if at == State::Absent {
                left_out.insert(name.clone());
            }
        }
        Ok(left_out)
    }

    /// Returns the names at which something stands in the way of a new file: a folder with more in it than the
    /// change removes, or a file in the place of a folder.
    fn blocked(&self, deltas: &BTreeMap<Name, Delta>) -> Result<Vec<Name>, RepoError> {
        let top = &self.layout.dir;
        let mut blocked = Vec::new();
        let leaves = |name: &Name| deltas.get(name).is_some_and(|delta| delta.new.is_none());
        for (name, delta) in deltas {
            let Some(new) = &delta.new else { continue };
            let path = top.join(bytes_path(name));
            let failed = || RepoError::io("read", &path);
            if let Some(obstacle) = obstacle(top, name).map_err(failed())? {
                if !leaves(&obstacle) {
                    blocked.push(obstacle);
                }
                continue;
            }
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            if is_folder && new.mode != GITLINK {
                let mut inside = Vec::new();
                files_below(top, &path, &mut inside).map_err(failed())?;
                blocked.extend(inside.into_iter().filter(|name| !leaves(name)));
            }
        }
        Ok(blocked)
    }

    /// Returns the names that the user has staged something for and that the index cannot hold beside `deltas`: the
    /// same names, and files where the other side has a folder.
    async fn staged(&self, deltas: &BTreeMap<Name, Delta>) -> Result<Vec<Name>, RepoError> {
        let Some(commit) = &self.head.commit else {
            return Ok(Vec::new());
        };
        let staged = self.spot.staged(commit).await?;
        let folders: BTreeSet<&[u8]> = deltas.keys().flat_map(|name| folders_of(name)).collect();
        let clashes = |name: &Name| {
            deltas.contains_key(name)
                || folders.contains(name.as_slice())
                || folders_of(name).any(|folder| deltas.contains_key(folder))
        };
        Ok(staged.into_keys().filter(clashes).collect())
    }

    /// A submodule's new commit cannot be told to the working copy without committing or staging it.
    fn refuse_submodules(&self, plan: &mut Plan) {
        let is_link =
            |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| entry.mode == GITLINK);
        let names: Vec<String> = plan
            .deltas
            .iter()
            .filter(|(_, delta)| is_link(&delta.old) || is_link(&delta.new))
            .map(|(name, _)| format!("{} (a submodule: use how merge or branch)", shown(name)))
            .collect();
        if let Some(item) = plan.items.first_mut() {
            item.conflicts.extend(names);
        }
    }

    /// Plans [`How::Branch`].
    async fn branch(&self) -> Result<Plan, RepoError> {
        let mut plan = Plan {
            items: self.obstacles(),
            ..Plan::default()
        };
        let [change] = self.request.changes.as_slice() else {
            // One branch per call keeps one undo per branch.
            return Err(RepoError::OneBranchPerCall);
        };
        let name = format!("refs/heads/{}", change.branch);
        let well_formed = self
            .spot
            .cmd(Mode::Read, "check-ref-format")
            .args(["--branch", &change.branch])
            .accept(&[1, 128])
            .run()
            .await?;
        if well_formed.code != 0 || change.branch.starts_with('-') {
            return Err(RepoError::BadBranch {
                branch: change.branch.clone(),
            });
        }
        let Some(tip) = self.branch_tip(change, &mut plan).await? else {
            return Ok(plan);
        };
        plan.tip = Some(tip.clone());
        match self.spot.commit(&name).await? {
            Some(at) if at == tip => {}
            Some(_) => {
                return Err(RepoError::BranchExists {
                    repo: self.request.repo.clone(),
                    branch: change.branch.clone(),
                });
            }
            None => {
                plan.moved = Some(RefMove {
                    name,
                    old: None,
                    new: tip,
                });
            }
        }
        Ok(plan)
    }

    /// Returns the commit for a branch: the work itself where its base is a commit of the user's, else the work put
    /// upon HEAD.
    async fn branch_tip(
        &self,
        change: &Change,
        plan: &mut Plan,
    ) -> Result<Option<String>, RepoError> {
        let Some(head) = &self.head.commit else {
            return Ok(Some(change.commit.clone()));
        };
        if self.spot.is_ancestor(&change.base, head).await? || self.is_users(&change.base).await? {
            return Ok(Some(change.commit.clone()));
        }
        match self.spot.merge(&change.base, head, &change.commit).await? {
            Merged::Clean(tree) => self
                .spot
                .commit_tree(&tree, &[head], &change.message)
                .await
                .map(Some),
            Merged::Conflicts(names) => {
                plan.items[0].conflicts = names.iter().map(|name| shown(name)).collect();
                Ok(None)
            }
        }
    }

    /// Returns whether a ref of the user's holds `commit`.
    async fn is_users(&self, commit: &str) -> Result<bool, RepoError> {
        Ok(!refs_with(&self.spot, commit).await?.is_empty())
    }
}

/// A change to a file that is not there cannot be told without committing or staging it.
fn refuse_left_out(plan: &mut Plan) {
    let names = plan.skipped.iter();
    let names = names.map(|name| {
        format!(
            "{} (outside your sparse checkout: use how merge or branch)",
            shown(name)
        )
    });
    if let Some(item) = plan.items.first_mut() {
        item.conflicts.extend(names);
    }
}

/// Returns the refs of the user's that hold `commit`: all but ours.
pub(super) async fn refs_with(spot: &Spot<'_>, commit: &str) -> Result<Vec<String>, RepoError> {
    let answer = spot
        .cmd(Mode::Read, "for-each-ref")
        .args(["--format=%(refname)", "--contains", commit])
        .args(["refs/heads", "refs/remotes", "refs/tags"])
        .run()
        .await?;
    let refs = String::from_utf8_lossy(&answer.stdout).into_owned();
    Ok(refs
        .lines()
        .filter(|name| !is_item_branch(name))
        .map(str::to_owned)
        .collect())
}

/// Returns whether `name` is the branch of an item's attempt: `mahavishnu/WORKFLOW/ITEM-ATTEMPT`, or one more such.
fn is_item_branch(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("refs/heads/mahavishnu/") else {
        return false;
    };
    let Some((workflow, attempt)) = rest.split_once('/') else {
        return false;
    };
    workflow.parse::<crate::model::WorkflowId>().is_ok()
        && attempt.contains('-')
        && attempt
            .split('-')
            .all(|number| number.parse::<u32>().is_ok())
}

/// Returns the entry change that takes a path out of an index of the repository that `object` belongs to.
fn absence(object: &str) -> Delta {
    Delta {
        old: Some(Entry {
            mode: "100644".to_owned(),
            object: object.to_owned(),
        }),
        new: None,
    }
}

/// Notes `names` at the items that touch them; at all where none does.
fn blame(items: &mut [Obstacles], touched: &[BTreeMap<Name, Delta>], names: &BTreeSet<Name>) {
    for name in names {
        let is_ones = touched.iter().any(|touched| touched.contains_key(name));
        for (item, touched) in items.iter_mut().zip(touched) {
            if !is_ones || touched.contains_key(name) {
                item.overlaps_dirty.push(shown(name));
            }
        }
    }
}
