//! The repository layer on real git.

mod apply;
mod clean;
mod crash;
mod find;
mod list;
mod random;
mod support;
mod worktree;
