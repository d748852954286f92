//! What an item did beside plain work on files, which a person should look at before it is applied.

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

impl RiskKind {
    /// Every kind, in the order of the declaration.
    pub const ALL: [Self; 7] = [
        Self::Hook,
        Self::GitConfig,
        Self::CiDefinition,
        Self::Submodule,
        Self::SymlinkOut,
        Self::UnfinishedMerge,
        Self::WroteOutside,
    ];

    /// Returns the kind as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::GitConfig => "git_config",
            Self::CiDefinition => "ci_definition",
            Self::Submodule => "submodule",
            Self::SymlinkOut => "symlink_out",
            Self::UnfinishedMerge => "unfinished_merge",
            Self::WroteOutside => "wrote_outside",
        }
    }
}

/// One such change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Risk {
    /// What kind of change it is.
    pub kind: RiskKind,
    /// The file, from the repository's top, or absolute where it lies outside.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_the_same_everywhere() {
        for kind in RiskKind::ALL {
            assert_eq!(
                serde_json::to_value(kind).expect("serialises"),
                kind.as_str()
            );
        }
    }
}
