//! The repository layer on real git.

mod apply;
mod checkout;
mod clean;
mod copies;
mod crash;
mod find;
mod full_disk;
mod leftovers;
mod list;
mod random;
mod risks;
mod states;
mod support;
mod twice;
mod worktree;
