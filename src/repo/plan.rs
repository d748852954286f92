//! What an apply would do, worked out in memory: merged trees, files in the way, and the list of changes.
//!
//! Every change is merged three-way (`git merge-tree`) over its own base, each upon the one before. "Ours" is HEAD; for
//! [`How::WorkingCopy`], where a dirty file still is what the item started from (base `working_copy`), ours is that
//! file. A file overlaps where its content now, hashed by git, is neither.

use super::change::{ApplyRequest, Change, How, Obstacles};
use super::edits::files_below;
use super::file_state::{FileStamp, FileState, obstacle};
use super::head::{self, Head};
use super::journal::RefMove;
use super::plumbing::{Name, Plumbing, shown};
use super::repos::Context;
use super::scan::Scan;
use super::trees::{Deltas, Merged, folders_of};
use super::{Layout, RepoError};
use crate::error::{ErrorKind, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The unfinished operations of git, by the file in the git directory that marks each.
pub(super) const OPERATIONS: [(&str, &str); 6] = [
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
    /// What is in the way, per change.
    pub(super) items: Vec<Obstacles>,
    /// What changes, from ours to the result.
    pub(super) deltas: Deltas,
    /// The tree of the result; empty where no file changes.
    pub(super) tree: String,
    /// Those of `deltas` that a sparse checkout leaves out of the working copy: only their entries in the index change.
    pub(super) skipped: BTreeSet<Name>,
    /// The stamps of the files, taken before git read them.
    pub(super) stamps: BTreeMap<Name, FileStamp>,
    /// The ref to move.
    pub(super) moved: Option<RefMove>,
    /// The commit that the ref will be at.
    pub(super) tip: Option<String>,
}

impl Plan {
    /// Returns whether nothing is in the way.
    pub(super) fn is_free(&self) -> bool {
        self.items
            .iter()
            .all(|item| item.conflicts.is_empty() && item.overlaps_dirty.is_empty())
    }

    /// Returns whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.moved.is_none()
    }

    /// Notes at the first item that `names` cannot be changed in the working copy alone.
    fn refuse(&mut self, names: &[&Name], why: &str) {
        if let Some(item) = self.items.first_mut() {
            let refused = names
                .iter()
                .map(|name| format!("{} ({why}: use how merge or branch)", shown(name)));
            item.conflicts.extend(refused);
        }
    }
}

struct Planner<'a> {
    git: Plumbing<'a>,
    layout: &'a Layout,
    head: Head,
    scratch: &'a Path,
    request: &'a ApplyRequest,
}

impl Context {
    /// Works out what `request` would do. No file, index or ref is touched; objects are written.
    pub(super) async fn plan(
        &self,
        layout: &Layout,
        request: &ApplyRequest,
    ) -> Result<Plan, RepoError> {
        let git = self.user(layout);
        let repo = &request.repo;
        for commit in request
            .changes
            .iter()
            .flat_map(|change| [&change.base, &change.commit])
        {
            if git.commit(commit).await?.is_none() {
                let message = format!("the commit {commit} is not in {repo}");
                let hint = "fetch it, or run the item again";
                return Err(RepoError::refused(ErrorKind::NotFound, message, hint));
            }
        }
        let unfinished = OPERATIONS
            .iter()
            .find(|(file, _)| layout.git_dir.join(file).exists());
        if let (How::Merge, Some((_, operation))) = (request.how, unfinished) {
            let message = format!("a {operation} is in progress in {repo}");
            let hint = "finish or abort it first, or use how branch";
            return Err(RepoError::refused(ErrorKind::Failed, message, hint));
        }
        let head = head::of(&git, layout).await?;
        let planner = Planner {
            git,
            layout,
            head,
            scratch: &self.scratch,
            request,
        };
        match request.how {
            How::Branch => planner.branch().await,
            How::Merge | How::WorkingCopy => planner.files().await,
        }
    }
}

impl Planner<'_> {
    fn begin(&self) -> Plan {
        let items = self.request.changes.iter().map(|change| Obstacles {
            item: change.item,
            ..Obstacles::default()
        });
        Plan {
            items: items.collect(),
            ..Plan::default()
        }
    }

    /// Plans [`How::WorkingCopy`] and [`How::Merge`].
    async fn files(&self) -> Result<Plan, RepoError> {
        let mut plan = self.begin();
        let mut touched = Vec::new();
        for change in &self.request.changes {
            touched.push(self.git.diff(&change.base, &change.commit).await?);
        }
        let names: BTreeSet<Name> = touched.iter().flat_map(Deltas::keys).cloned().collect();
        let mut scan = Scan::begin(&self.git, self.layout, &self.head, self.scratch).await?;
        scan.files(&self.git, &names).await?;
        let ours = self.ours(&scan, &touched, &mut plan).await?;
        if !plan.is_free() {
            return Ok(plan);
        }
        let Some((tree, tip)) = self.merge_all(&ours, &mut plan).await? else {
            return Ok(plan);
        };
        plan.deltas = self.git.diff(&ours, &tree).await?;
        plan.tree = tree;
        // A file that was renamed on one side only is touched under a name that no change has.
        let more = plan.deltas.keys().filter(|name| !names.contains(*name));
        let more: BTreeSet<Name> = more.cloned().collect();
        let dirty_before = scan.dirty.clone();
        scan.files(&self.git, &more).await?;
        let mut in_the_way: BTreeSet<Name> =
            scan.dirty.difference(&dirty_before).cloned().collect();
        plan.skipped = self.left_out(&scan, &plan.deltas)?;
        in_the_way.extend(self.blocked(&plan.deltas)?);
        if self.request.how == How::Merge {
            in_the_way.extend(self.staged(&plan.deltas).await?);
            plan.tip = Some(tip.clone());
            plan.moved = (self.head.commit.as_ref() != Some(&tip)).then(|| RefMove {
                name: self.head.ref_name(),
                old: self.head.commit.clone(),
                new: tip,
            });
        } else {
            self.refuse_index_only(&mut plan);
        }
        note_overlaps(&mut plan.items, &touched, &in_the_way);
        plan.stamps = scan.stamps;
        plan.stamps.retain(|name, _| plan.deltas.contains_key(name));
        Ok(plan)
    }

    /// Returns the commit that the work is merged into, and notes the files that overlap.
    async fn ours(
        &self,
        scan: &Scan,
        touched: &[Deltas],
        plan: &mut Plan,
    ) -> Result<String, RepoError> {
        let mut as_started = BTreeSet::new();
        if self.request.how == How::WorkingCopy && !scan.dirty.is_empty() {
            for (change, touched) in self.request.changes.iter().zip(touched) {
                let differing = self.git.diff(&change.base, &scan.tree).await?;
                let is_base =
                    |name: &&Name| scan.dirty.contains(*name) && !differing.contains_key(*name);
                as_started.extend(touched.keys().filter(is_base).cloned());
            }
        }
        let overlaps = scan.dirty.difference(&as_started).cloned().collect();
        note_overlaps(&mut plan.items, touched, &overlaps);
        match &self.head.commit {
            Some(commit) if as_started.is_empty() => Ok(commit.clone()),
            head => {
                let parents: Vec<&str> = head.as_deref().into_iter().collect();
                self.git.commit_tree(&scan.tree, &parents, "Ours\n").await
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
            match self.git.merge(&change.base, &tip, &change.commit).await? {
                Merged::Clean(tree) => tip = self.commit_upon(&tip, change, &tree).await?,
                Merged::Conflicts(names) => {
                    item.conflicts = names.iter().map(|name| shown(name)).collect();
                }
            }
        }
        if !plan.is_free() {
            return Ok(None);
        }
        Ok(Some((self.git.tree_of(&tip).await?, tip)))
    }

    /// Returns the commit that brings `change` onto `tip`: the work itself, a merge of it, or one commit with its tree.
    async fn commit_upon(
        &self,
        tip: &str,
        change: &Change,
        tree: &str,
    ) -> Result<String, RepoError> {
        let git = &self.git;
        if git.tree_of(tip).await? == tree {
            return Ok(tip.to_owned());
        }
        // A base that the user never committed must not become part of the user's history.
        let is_history = self.request.how != How::WorkingCopy
            && git.is_ancestor(&change.base, tip).await?
            && git.is_ancestor(&change.base, &change.commit).await?;
        if is_history && git.is_ancestor(tip, &change.commit).await? {
            return Ok(change.commit.clone());
        }
        let mut parents = Vec::new();
        // Before the first commit "ours" is a stand-in for nothing.
        if self.head.commit.is_some() || self.request.how == How::WorkingCopy {
            parents.push(tip);
        }
        if is_history {
            parents.push(&change.commit);
        }
        git.commit_tree(tree, &parents, &change.message).await
    }

    /// Returns those of `deltas` whose files a sparse checkout leaves out.
    fn left_out(&self, scan: &Scan, deltas: &Deltas) -> Result<BTreeSet<Name>, RepoError> {
        let mut left_out = BTreeSet::new();
        for name in deltas.keys().filter(|name| scan.skipped.contains(*name)) {
            let state = FileState::of(&self.layout.dir, name);
            if state.map_err(RepoError::io("read", &self.git.file(name)))? == FileState::Absent {
                left_out.insert(name.clone());
            }
        }
        Ok(left_out)
    }

    /// Returns the names that block a new file: those in a folder with more in it than the change removes, or a file in
    /// the place of a folder.
    fn blocked(&self, deltas: &Deltas) -> Result<Vec<Name>, RepoError> {
        let top = &self.layout.dir;
        let mut blocked = Vec::new();
        let leaves = |name: &Name| deltas.get(name).is_some_and(|delta| delta.new.is_none());
        for (name, delta) in deltas {
            let Some(new) = &delta.new else { continue };
            let path = self.git.file(name);
            let failed = || RepoError::io("read", &path);
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            if let Some(obstacle) = obstacle(top, name).map_err(failed())? {
                blocked.push(obstacle);
            } else if is_folder && !new.is_submodule() {
                blocked.extend(files_below(top, &path).map_err(failed())?);
            }
        }
        blocked.retain(|name| !leaves(name));
        Ok(blocked)
    }

    /// Returns the names that the user has staged something for and that the index cannot hold beside `deltas`: the
    /// same names, and files where the other side has a folder.
    async fn staged(&self, deltas: &Deltas) -> Result<Vec<Name>, RepoError> {
        let Some(commit) = &self.head.commit else {
            return Ok(Vec::new());
        };
        let staged = self.git.staged(commit).await?;
        let folders: BTreeSet<&[u8]> = deltas.keys().flat_map(|name| folders_of(name)).collect();
        let clashes = |name: &Name| {
            deltas.contains_key(name)
                || folders.contains(name.as_slice())
                || folders_of(name).any(|folder| deltas.contains_key(folder))
        };
        Ok(staged.into_keys().filter(clashes).collect())
    }

    /// Refuses changes that the working copy cannot hold without staging or committing them: a submodule's commit, and
    /// files that are not there.
    fn refuse_index_only(&self, plan: &mut Plan) {
        let deltas = std::mem::take(&mut plan.deltas);
        let links = deltas.iter().filter(|(_, delta)| delta.is_submodule());
        let links: Vec<&Name> = links.map(|(name, _)| name).collect();
        plan.refuse(&links, "a submodule");
        let skipped = plan.skipped.clone();
        let skipped: Vec<&Name> = skipped.iter().collect();
        plan.refuse(&skipped, "outside your sparse checkout");
        plan.deltas = deltas;
    }

    /// Plans [`How::Branch`].
    async fn branch(&self) -> Result<Plan, RepoError> {
        let mut plan = self.begin();
        let [change] = self.request.changes.as_slice() else {
            // One branch per call keeps one undo per branch.
            let message = "a branch is made for one item at a time";
            return Err(Problem::new(ErrorKind::InvalidArgument, message).into());
        };
        let (repo, branch) = (&self.request.repo, &change.branch);
        let well_formed = self
            .git
            .read("check-ref-format --branch")
            .arg(branch)
            .accept(&[1, 128])
            .run()
            .await?;
        if well_formed.code != 0 || branch.starts_with('-') {
            let message = format!("{branch:?} cannot be a branch's name");
            return Err(Problem::new(ErrorKind::InvalidArgument, message).into());
        }
        let Some(tip) = self.branch_tip(change, &mut plan).await? else {
            return Ok(plan);
        };
        let name = format!("refs/heads/{branch}");
        plan.tip = Some(tip.clone());
        match self.git.commit(&name).await? {
            Some(at) if at == tip => {}
            Some(_) => {
                let message = format!("the branch {branch:?} exists already in {repo}");
                let hint = "delete or rename that branch";
                return Err(RepoError::refused(ErrorKind::Conflict, message, hint));
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
        let git = &self.git;
        let Some(head) = &self.head.commit else {
            return Ok(Some(change.commit.clone()));
        };
        if git.is_ancestor(&change.base, head).await? || git.is_users(&change.base).await? {
            return Ok(Some(change.commit.clone()));
        }
        match git.merge(&change.base, head, &change.commit).await? {
            Merged::Clean(tree) => {
                let made = git.commit_tree(&tree, &[head], &change.message).await;
                made.map(Some)
            }
            Merged::Conflicts(names) => {
                plan.items[0].conflicts = names.iter().map(|name| shown(name)).collect();
                Ok(None)
            }
        }
    }
}

/// Notes `names` at the items that touch them; at all where none does.
fn note_overlaps(items: &mut [Obstacles], touched: &[Deltas], names: &BTreeSet<Name>) {
    for name in names {
        let is_ones = touched.iter().any(|touched| touched.contains_key(name));
        for (item, touched) in items.iter_mut().zip(touched) {
            if !is_ones || touched.contains_key(name) {
                item.overlaps_dirty.push(shown(name));
            }
        }
    }
}
