//! A starter's arguments, checked: the work, the settings of the workflow and the texts for single repositories.

use super::arguments::{self, MAX_SECONDS};
use super::command_lines;
use crate::api::StartOptions;
use crate::error::Problem;
use crate::model::{BaseRef, Filter, Isolation, Settings, Work};
use crate::orchestrator::Core;
use crate::redact::{Redacted, redact};
use crate::repo::{RepoPath, is_inside};
use globset::{Glob, GlobMatcher};

/// The longest title, in characters.
const TITLE_CHARS: usize = 80;

/// Checked options of a start.
pub(super) struct Plan {
    pub(super) work: Work,
    pub(super) settings: Settings,
    pub(super) dry_run: bool,
    /// What is added to the task of repositories that a glob matches.
    per_repo: Vec<(GlobMatcher, String)>,
}

impl Plan {
    /// Returns a line for people: the start of the task or of the command, without secrets.
    pub(super) fn title(&self) -> Redacted {
        let line = match &self.work {
            Work::Task(task) => task.lines().next().unwrap_or_default().to_owned(),
            Work::Command(argv) => shell_words::join(argv),
        };
        redact(&line).cut(TITLE_CHARS)
    }

    /// Returns the work on one repository.
    pub(super) fn work_on(&self, repo: &RepoPath) -> Work {
        let Work::Task(task) = &self.work else {
            return self.work.clone();
        };
        let mut task = task.clone();
        for (glob, text) in &self.per_repo {
            if glob.is_match(repo.name()) || glob.is_match(repo.as_str()) {
                task.push_str("\n\n");
                task.push_str(text);
            }
        }
        Work::Task(task)
    }
}

impl Core {
    /// Checks all options that can be checked without looking for repositories.
    ///
    /// # Errors
    ///
    /// A refusal of the first argument that is wrong.
    pub(super) async fn plan(&self, options: StartOptions) -> Result<Plan, Problem> {
        let work = arguments::work(options.task, options.command)?;
        let setup = command_lines::read("setup", &options.setup)?;
        let verify = command_lines::read("verify", &options.verify)?;
        let asked = Filter {
            pools: options.pools,
            labels: options.labels,
            workers: options.workers,
        };
        let filter = self.narrow(asked.clone(), &work, &setup, &verify).await?;
        let per_repo = per_repo(&options.per_repo, &work)?;
        let isolation = options.isolation.unwrap_or(match work {
            Work::Task(_) => Isolation::Worktree,
            Work::Command(_) => Isolation::InPlace,
        });
        let base_is_given = options.base_ref.is_some();
        let base_ref = base_ref(options.base_ref)?;
        needs_worktree("base_ref", base_is_given, isolation)?;
        needs_worktree("copy_files", !options.copy_files.is_empty(), isolation)?;
        copied_files(&options.copy_files)?;
        let seconds = |field, value| arguments::seconds(field, value, 0.001..=MAX_SECONDS);
        let settings = Settings {
            filter,
            asked: Some(asked),
            isolation,
            isolation_by_default: options.isolation.is_none(),
            base_ref,
            setup,
            verify,
            copy_files: options.copy_files,
            max_parallel: arguments::count("max_parallel", options.max_parallel, 1..=1_000_000)?,
            timeout: seconds("timeout_s", options.timeout_s)?,
            stall: seconds("stall_s", options.stall_s)?,
            run_timeout: seconds("run_timeout_s", options.run_timeout_s)?,
            retries: arguments::count("retries", options.retries, 0..=10)?.unwrap_or(0),
            repeat: arguments::count("repeat", options.repeat, 1..=20)?.unwrap_or(1),
            max_failures: arguments::count("max_failures", options.max_failures, 1..=1_000_000)?,
            on_interrupt: options.on_interrupt.unwrap_or_default(),
        };
        Ok(Plan {
            work,
            settings,
            dry_run: options.dry_run,
            per_repo,
        })
    }
}

fn base_ref(text: Option<String>) -> Result<BaseRef, Problem> {
    match text.as_deref() {
        None | Some("head") => Ok(BaseRef::Head),
        Some("default_branch") => Ok(BaseRef::DefaultBranch),
        Some("working_copy") => Ok(BaseRef::WorkingCopy),
        Some(name) if name.is_empty() || name.starts_with('-') || name.contains(['\0', '\n']) => {
            Err(Problem::argument(
                "base_ref",
                format!("{name:?} cannot be a ref"),
                "head, default_branch, working_copy, or a branch, tag or commit",
            ))
        }
        Some(name) => Ok(BaseRef::Ref(name.to_owned())),
    }
}

/// Refuses an argument that has no effect where an item works in the user's own working copy.
fn needs_worktree(field: &str, given: bool, isolation: Isolation) -> Result<(), Problem> {
    if !given || isolation != Isolation::InPlace {
        return Ok(());
    }
    Err(Problem::argument(
        field,
        format!("{field} has no effect with isolation in_place, which works in the working copy as it is"),
        format!("{field} with isolation worktree or read_only"),
    )
    .with_hint("a command runs in_place by default; give isolation worktree"))
}

/// Refuses paths and globs of `copy_files` that lead out of the repository.
fn copied_files(files: &[String]) -> Result<(), Problem> {
    match files.iter().position(|file| !is_inside(file)) {
        None => Ok(()),
        Some(at) => Err(Problem::argument(
            format!("copy_files[{at}]"),
            format!("{:?} is not a path inside the repository", files[at]),
            "paths or globs from the repository's top, without a leading '/', '..' or '.git'",
        )),
    }
}

/// Reads the lines of `per_repo`.
fn per_repo(lines: &[String], work: &Work) -> Result<Vec<(GlobMatcher, String)>, Problem> {
    const ALLOWED: &str = "\"GLOB: text\", such as \"web-*: also update the lock file\"";
    if let (false, Work::Command(_)) = (lines.is_empty(), work) {
        return Err(Problem::argument(
            "per_repo",
            "per_repo adds to a `task`, and this is a `command`",
            "per_repo with `task` only",
        ));
    }
    let parse = |(number, line): (usize, &String)| {
        let refuse = |why| Problem::argument(format!("per_repo[{number}]"), why, ALLOWED);
        let (glob, text) = line
            .split_once(": ")
            .ok_or_else(|| refuse(format!("{line:?} has no \": \"")))?;
        let glob = Glob::new(glob.trim()).map_err(|error| refuse(error.to_string()))?;
        Ok((glob.compile_matcher(), text.trim().to_owned()))
    };
    lines.iter().enumerate().map(parse).collect()
}
