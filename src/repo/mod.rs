//! Git repositories: which ones a call may touch, their state, worktrees, and changes applied to them.
//!
//! Knows git and the file system. Not responsible for workflows, pools or the journal: callers pass in what to make and
//! keep what is returned. Everything goes through [`Repos`], one cheap handle for the whole process.
//!
//! Locks, in the order in which they are taken: the working copy's ([`Lane::WorkingCopy`]), then git's own data
//! ([`Lane::GitData`]); never two of the same lane.

mod add;
mod apply;
mod base;
mod blocking;
mod change;
mod clean;
mod commit;
mod copy_files;
mod discover;
mod disk_use;
mod edits;
mod error;
mod file_state;
mod git;
mod globs;
mod head;
mod health;
mod hex;
mod in_use;
mod index_lock;
mod journal;
mod json_file;
mod layout;
mod leftovers;
mod list;
mod lock;
mod path;
mod plan;
mod plumbing;
mod record;
mod recover;
mod removable;
mod remove;
mod repos;
mod risks;
mod roots;
mod scan;
mod select;
mod specials;
mod status;
mod submodules;
mod temp_index;
mod trees;
mod undo;
mod worktree;

pub use change::{ApplyOutcome, ApplyRequest, Change, How, Obstacles};
pub use clean::{CleanRequest, Cleaned, Inspected, Kept, Removed};
pub use copy_files::is_inside;
pub use error::RepoError;
pub use head::Head;
pub use health::Health;
pub use journal::{UndoRecord, is_expired};
pub use layout::Layout;
pub use list::{ListRequest, Row};
pub use lock::{Lane, RepoLock};
pub use path::RepoPath;
pub use record::WorktreeRecord;
pub use recover::{Recovered, Recovery};
pub use repos::{Repos, Setup};
pub use roots::Roots;
pub use select::Selection;
pub use status::{Kind, Status};
pub use worktree::{Committed, NewWorktree, SetupRan, Worktree};
