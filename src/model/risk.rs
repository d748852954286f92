//! What an item did beside plain work on files, which a person should look at before it is applied.

use super::words::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds of such changes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RiskKind {
    /// A git hook was added or changed.
    Hook,
    /// The repository's git configuration was changed.
    GitConfig,
    /// A file that a CI service runs was added or changed.
    CiDefinition,
    /// A submodule was added, moved or removed.
    Submodule,
    /// A symbolic link points out of the repository.
    SymlinkOut,
    /// A merge, rebase or cherry-pick was begun and not finished.
    UnfinishedMerge,
    /// A file outside the item's own worktree was written.
    WroteOutside,
}

words!(RiskKind {
    Hook => "hook",
    GitConfig => "git_config",
    CiDefinition => "ci_definition",
    Submodule => "submodule",
    SymlinkOut => "symlink_out",
    UnfinishedMerge => "unfinished_merge",
    WroteOutside => "wrote_outside",
});

/// One such change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Risk {
    /// What kind of change it is.
    pub kind: RiskKind,
    /// The file, from the repository's top, or absolute where it lies outside.
    pub path: String,
}
