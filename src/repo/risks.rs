//! What an item did beside plain work on files.
//!
//! A worker that is not fenced can change the repository around its worktree. So the files that it must not touch are
//! noted before it starts and compared when its work is committed; the work itself is searched for files that run
//! elsewhere or lead out. What changed outside while the item ran may also be another program's or a person's doing:
//! the two cannot be told apart.

use super::RepoError;
use super::file_state::{FileStamp, FileState};
use super::journal::{ApplyRecord, UndoRecord};
use super::layout::bytes_path;
use super::plumbing::{Name, shown};
use super::record::WorktreeRecord;
use super::repos::Context;
use super::trees::{Deltas, leads_out};
use crate::model::{At, Risk, RiskKind};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The most risks of one kind that are reported.
const MOST_OF_A_KIND: usize = 20;

/// Files in a repository that a CI service runs.
const CI_DEFINITIONS: [&str; 24] = [
    ".github/workflows/**",
    ".github/actions/**",
    ".gitea/workflows/**",
    ".forgejo/workflows/**",
    ".gitlab-ci.yml",
    ".gitlab/ci/**",
    ".circleci/**",
    ".buildkite/**",
    ".teamcity/**",
    ".woodpecker/**",
    ".woodpecker.{yml,yaml}",
    ".semaphore/**",
    ".drone.{yml,yaml,star,jsonnet}",
    ".travis.yml",
    ".cirrus.{yml,star}",
    ".appveyor.yml",
    "appveyor.yml",
    "azure-pipelines*.{yml,yaml}",
    ".azure-pipelines/**",
    "bitbucket-pipelines.yml",
    "buildspec.{yml,yaml}",
    "cloudbuild.{yml,yaml,json}",
    "{,**/}Jenkinsfile*",
    ".tekton/**",
];

/// Files in a repository that hook managers install as git hooks.
const HOOK_DEFINITIONS: [&str; 7] = [
    ".husky/**",
    ".githooks/**",
    ".pre-commit-config.{yml,yaml}",
    ".pre-commit-hooks.{yml,yaml}",
    "lefthook*.{yml,yaml,toml,json}",
    ".lefthook*.{yml,yaml,toml,json}",
    ".overcommit.yml",
];

static CI: LazyLock<GlobSet> = LazyLock::new(|| globs(&CI_DEFINITIONS));
static HOOKS: LazyLock<GlobSet> = LazyLock::new(|| globs(&HOOK_DEFINITIONS));

fn globs(patterns: &[&str]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).expect("the patterns of this file are globs"));
    }
    set.build().expect("the patterns of this file are globs")
}

/// The surroundings of a worktree, as they were before the worker started.
#[derive(Debug)]
pub(super) struct Surroundings {
    taken: At,
    /// Configuration and hooks of the repository.
    watched: BTreeMap<PathBuf, FileState>,
    /// The user's working copy; none where git could not list it.
    working_copy: Option<WorkingCopy>,
}

/// The uncommitted files of the user's working copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WorkingCopy {
    head: Option<String>,
    files: BTreeMap<Name, ([u8; 2], FileStamp)>,
}

impl Context {
    /// Notes the surroundings of the worktree of `record`; `uncommitted` is the status of the user's working copy.
    pub(super) async fn surroundings(
        &self,
        record: &WorktreeRecord,
        uncommitted: Option<&[Vec<u8>]>,
    ) -> Surroundings {
        let working_copy = match uncommitted {
            Some(status) => self.working_copy(record, status).await,
            None => None,
        };
        Surroundings {
            taken: At::now(),
            watched: self.watched(record),
            working_copy,
        }
    }

    /// Notes configuration and hooks again, as they are now.
    pub(super) fn watch_anew(&self, record: &WorktreeRecord, surroundings: &mut Surroundings) {
        surroundings.watched = self.watched(record);
    }

    /// Returns configuration and hooks that belong to the user but are used in the worktree.
    fn watched(&self, record: &WorktreeRecord) -> BTreeMap<PathBuf, FileState> {
        let common = &record.common_dir;
        let mut files = vec![
            common.join("config"),
            common.join("config.worktree"),
            common.join("info/attributes"),
        ];
        files.extend(
            record
                .git_dir
                .as_ref()
                .map(|dir| dir.join("config.worktree")),
        );
        if let Some(home) = self.roots.home() {
            files.extend([home.join(".gitconfig"), home.join(".config/git/config")]);
        }
        let hooks = fs::read_dir(common.join("hooks")).into_iter().flatten();
        let hooks = hooks.flatten().map(|entry| entry.path());
        files.extend(hooks.filter(|path| path.extension().is_none_or(|name| name != "sample")));
        let states = files.into_iter().filter_map(|path| {
            let state = FileState::at(&path).ok()?;
            (state != FileState::Absent).then_some((path, state))
        });
        states.collect()
    }

    async fn working_copy(
        &self,
        record: &WorktreeRecord,
        status: &[Vec<u8>],
    ) -> Option<WorkingCopy> {
        let layout = record.repository()?;
        let head = super::head::of(&self.user(&layout), &layout).await.ok()?;
        let mut files = BTreeMap::new();
        for record in status {
            let (state, name) = record.split_at_checked(3)?;
            let stamp = FileStamp::of(&layout.dir, name).ok()?;
            files.insert(name.to_vec(), ([state[0], state[1]], stamp));
        }
        Some(WorkingCopy {
            head: head.commit,
            files,
        })
    }

    /// Returns the user's working copy as it is after the item, to compare with `before`; none where it cannot be
    /// compared. Reads only, so it may run while the work is committed.
    pub(super) async fn copy_after(
        &self,
        record: &WorktreeRecord,
        before: &Surroundings,
    ) -> Option<WorkingCopy> {
        before.working_copy.as_ref()?;
        let layout = record.repository()?;
        let status = self.uncommitted(&layout).await.inspect_err(|error| {
            tracing::warn!(%error, "the user's working copy cannot be compared");
        });
        self.working_copy(record, &status.ok()?).await
    }

    /// Returns what the item did beside plain work: `deltas` is its work, `before` its surroundings, `after` the user's
    /// working copy now, and the record has what earlier attempts did.
    pub(super) fn risks(
        &self,
        record: &WorktreeRecord,
        deltas: &Deltas,
        unmerged: BTreeSet<String>,
        before: &Surroundings,
        after: Option<WorkingCopy>,
    ) -> Result<Vec<Risk>, RepoError> {
        let mut risks = in_the_work(record, deltas);
        let unmerged = unmerged.into_iter();
        risks.extend(unmerged.map(|path| risk(RiskKind::UnfinishedMerge, path)));
        risks.extend(
            record
                .risks
                .iter()
                .filter(|risk| remains(record, risk))
                .cloned(),
        );
        risks.extend(watched_changes(&before.watched, &self.watched(record)));
        risks.extend(self.written_outside(record, before, after)?);
        let mut counts = BTreeMap::new();
        let mut risks: Vec<Risk> = risks.into_iter().collect();
        risks.retain(|risk| {
            let count: &mut usize = counts.entry(risk.kind).or_default();
            *count += 1;
            *count <= MOST_OF_A_KIND
        });
        Ok(risks)
    }

    /// Returns the files of the user's working copy that changed while the item ran, but for those of an apply.
    fn written_outside(
        &self,
        record: &WorktreeRecord,
        before: &Surroundings,
        after: Option<WorkingCopy>,
    ) -> Result<Vec<Risk>, RepoError> {
        let (Some(before_copy), Some(after)) = (&before.working_copy, after) else {
            return Ok(Vec::new());
        };
        let is_same_head = before_copy.head == after.head;
        let appeared = after
            .files
            .iter()
            .filter(|(name, state)| before_copy.files.get(*name) != Some(state));
        // With another HEAD, files that are clean now were committed; else their changes were thrown away.
        let vanished = before_copy
            .files
            .keys()
            .filter(|name| is_same_head && !after.files.contains_key(*name));
        let mut changed: BTreeSet<&Name> = appeared.map(|(name, _)| name).chain(vanished).collect();
        if !changed.is_empty() {
            let applied = self.applied_since(record, before.taken)?;
            changed.retain(|name| !applied.contains(*name));
        }
        let changed = changed.into_iter().map(|name| {
            let path = Path::new(&record.repo).join(bytes_path(name));
            risk(RiskKind::WroteOutside, path.display().to_string())
        });
        Ok(changed.collect())
    }

    /// Returns the files that applies to the same repository have changed since.
    fn applied_since(
        &self,
        record: &WorktreeRecord,
        since: At,
    ) -> Result<BTreeSet<Name>, RepoError> {
        let journal = self.journal();
        let mut names = BTreeSet::new();
        let is_later = |apply: &UndoRecord| apply.repo == record.repo && apply.at >= since;
        for apply in journal.all()?.into_iter().filter(is_later) {
            if let Ok(apply) = journal.by_token::<ApplyRecord>(&apply.token()) {
                names.extend(apply.edits.into_iter().map(|edit| edit.name));
            }
        }
        Ok(names)
    }
}

fn risk(kind: RiskKind, path: String) -> Risk {
    Risk { kind, path }
}

/// Returns the risks that the committed work itself brings.
fn in_the_work(record: &WorktreeRecord, deltas: &Deltas) -> BTreeSet<Risk> {
    let mut risks = BTreeSet::new();
    for (name, delta) in deltas {
        let path = bytes_path(name);
        let is_link = delta.new.as_ref().is_some_and(|new| new.is_symlink());
        let kinds = [
            (RiskKind::Hook, HOOKS.is_match(path)),
            (RiskKind::CiDefinition, CI.is_match(path)),
            (
                RiskKind::Submodule,
                delta.is_submodule() || name == b".gitmodules",
            ),
            (
                RiskKind::SymlinkOut,
                is_link && link_leads_out(&record.path, name),
            ),
        ];
        let found = kinds.into_iter().filter(|(_, is_it)| *is_it);
        risks.extend(found.map(|(kind, _)| risk(kind, shown(name))));
    }
    risks
}

/// Returns whether the link `name` leads out; one that cannot be read may.
fn link_leads_out(top: &Path, name: &[u8]) -> bool {
    fs::read_link(top.join(bytes_path(name))).is_ok_and(|target| leads_out(name, &target))
}

/// Returns whether a risk of an earlier attempt is one still: what was done outside is, a merge while it is unfinished.
fn remains(record: &WorktreeRecord, risk: &Risk) -> bool {
    let is_outside = Path::new(&risk.path).is_absolute();
    is_outside
        || (risk.kind == RiskKind::UnfinishedMerge && has_markers(&record.path.join(&risk.path)))
}

/// Returns whether the file has the marker that git writes where a conflict begins.
fn has_markers(file: &Path) -> bool {
    fs::read(file).is_ok_and(|text| {
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.any(|line| line.starts_with(b"<<<<<<< "))
    })
}

/// Returns the watched files that differ.
fn watched_changes(
    before: &BTreeMap<PathBuf, FileState>,
    after: &BTreeMap<PathBuf, FileState>,
) -> Vec<Risk> {
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let changed = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path));
    let risks = changed.map(|path| {
        let is_hook = path.parent().is_some_and(|dir| dir.ends_with("hooks"));
        let kind = match is_hook {
            true => RiskKind::Hook,
            false => RiskKind::GitConfig,
        };
        risk(kind, path.display().to_string())
    });
    risks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_ci_and_hook_managers_run_are_recognised() {
        for path in [
            ".github/workflows/ci.yml",
            ".gitlab-ci.yml",
            "Jenkinsfile",
            "deploy/Jenkinsfile.prod",
            "azure-pipelines-release.yml",
        ] {
            assert!(CI.is_match(path), "{path}");
        }
        for path in [".husky/pre-commit", "lefthook.yml", ".lefthook-local.yml"] {
            assert!(HOOKS.is_match(path), "{path}");
        }
        for path in ["src/main.rs", ".github/CODEOWNERS", "docs/lefthook.md"] {
            assert!(!CI.is_match(path) && !HOOKS.is_match(path), "{path}");
        }
    }
}
