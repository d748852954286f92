//! The tools about repositories.

use super::{About, Effect, ToolSpec};
use crate::api::Tools;

pub(super) fn finding() -> Vec<ToolSpec> {
    vec![ToolSpec::new(
        About {
            name: "list_repos",
            title: "List the repositories",
            description: "Lists the git repositories that tasks may run in: branch, default branch, uncommitted changes, \
                what they are made of, results not brought home yet. Filters by name, by a file they have, by text in \
                tracked files. Says how to add a folder.",
            search_hint: "find git repositories by name, language, file or text; which repositories are there",
            effect: Effect::Reads,
        },
        <dyn Tools>::list_repos,
    )]
}

pub(super) fn bringing_home() -> Vec<ToolSpec> {
    vec![
        ToolSpec::new(
            About {
                name: "apply_changes",
                title: "Bring changes into the working copies",
                description: "Brings what a workflow's items changed into the user's working copies, merges it, or makes \
                    branches of it. All or nothing per repository, tested before anything is touched, refused where the \
                    user's uncommitted files overlap, and undoable with the `undo` it returns.",
                search_hint: "apply, merge or undo the changes that workflow items made",
                effect: Effect::Destroys,
            },
            <dyn Tools>::apply_changes,
        ),
        ToolSpec::new(
            About {
                name: "clean_worktrees",
                title: "Remove worktrees that are done with",
                description: "Removes worktrees and branches of workflows that are no longer needed and says what stays \
                    and why. By default it only says what it would remove. Changes that were never brought home stay \
                    unless `include_unapplied` is given.",
                search_hint: "clean up or delete worktrees and branches of finished workflows, free disk space",
                effect: Effect::Destroys,
            },
            <dyn Tools>::clean_worktrees,
        ),
    ]
}
