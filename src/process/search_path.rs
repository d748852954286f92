//! Where programs are searched: the server's own PATH, then the login shell's, then the usual folders of tools.
//!
//! Desktop hosts start servers with a PATH of four folders. The login shell is asked once, in the background, without a
//! terminal and for two seconds at most.

use super::output::Call;
use super::{Ended, Processes, Program};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the login shell may take.
const SHELL_LIMIT: Duration = Duration::from_secs(2);
/// What stands around the PATH in the shell's output, which its start files may write to as well.
const MARK: &[u8] = b"mahavishnu-path-7f3a";
/// The most output that is read of the shell.
const SHELL_BYTES: u64 = 1 << 20;

/// Folders of tools below the home.
const IN_HOME: &[&str] = &[
    ".local/bin",
    "bin",
    ".cargo/bin",
    "go/bin",
    ".bun/bin",
    ".deno/bin",
    ".volta/bin",
    ".npm-global/bin",
    ".local/share/pnpm",
    ".local/share/mise/shims",
    ".asdf/shims",
    ".pyenv/shims",
    ".rbenv/shims",
    ".nix-profile/bin",
];
/// Folders of tools for all users.
const FOR_ALL: &[&str] = &[
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/snap/bin",
];

/// Where a folder of the search path comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The PATH that the server was started with.
    Server,
    /// The PATH of the user's login shell.
    LoginShell,
    /// The list of usual folders.
    Usual,
}

/// The search path; cloning shares it.
#[derive(Debug, Clone)]
pub struct SearchPath {
    own: Arc<OsStr>,
    known: watch::Sender<Known>,
}

#[derive(Debug)]
struct Known {
    path: Arc<OsStr>,
    folders: Vec<(PathBuf, Origin)>,
    /// Whether nothing more will be found out.
    whole: bool,
}

impl Known {
    /// Joins the folders; each counts where it comes first.
    fn new(own: &OsStr, login: &OsStr, home: Option<&Path>, whole: bool) -> Self {
        let split = |path: &OsStr, origin| -> Vec<(PathBuf, Origin)> {
            let folders = std::env::split_paths(path).filter(|it| !it.as_os_str().is_empty());
            folders.map(|folder| (folder, origin)).collect()
        };
        let usual = usual(home).into_iter().map(|it| (it, Origin::Usual));
        let mut folders: Vec<(PathBuf, Origin)> = Vec::new();
        let all = split(own, Origin::Server).into_iter();
        for (folder, origin) in all.chain(split(login, Origin::LoginShell)).chain(usual) {
            if !folders.iter().any(|(known, _)| *known == folder) {
                folders.push((folder, origin));
            }
        }
        // Folders that hold a colon were not split from a PATH, so joining cannot fail; where it does, the PATH stays.
        let joined = std::env::join_paths(folders.iter().map(|(folder, _)| folder));
        Self {
            path: joined.unwrap_or_else(|_| own.to_owned()).into(),
            folders,
            whole,
        }
    }
}

impl SearchPath {
    /// Returns the search path of a server that was started with `own` as PATH; the login shell is not asked.
    pub fn new(own: &OsStr, home: Option<&Path>) -> Self {
        Self {
            own: own.into(),
            known: watch::Sender::new(Known::new(own, OsStr::new(""), home, true)),
        }
    }

    /// Returns the search path of a server with the environment `env`, and the task that asks the login shell, where
    /// there is one; until its end [`whole`](Self::whole) waits.
    pub fn with_login_shell(
        env: &[(OsString, OsString)],
        home: Option<PathBuf>,
        processes: Processes,
    ) -> (Self, Option<impl Future<Output = ()> + Send + use<>>) {
        let get = |name: &str| {
            let found = env.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (own, shell) = (get("PATH"), PathBuf::from(get("SHELL")));
        let search = Self::new(&own, home.as_deref());
        if !shell.is_absolute() {
            return (search, None);
        }
        search.known.send_modify(|known| known.whole = false);
        let known = search.known.clone();
        let env = env.to_vec();
        let asking = async move {
            let login = ask(&processes, shell, home.as_deref(), env).await;
            let login = login.unwrap_or_default();
            known.send_replace(Known::new(&own, &login, home.as_deref(), true));
        };
        (search, Some(asking))
    }

    /// Returns the PATH that the server was started with.
    pub fn own(&self) -> &OsStr {
        &self.own
    }

    /// Returns the search path as far as it is known.
    pub fn get(&self) -> Arc<OsStr> {
        Arc::clone(&self.known.borrow().path)
    }

    /// Returns the search path after the login shell has answered, or was given up.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn whole(&self) -> Arc<OsStr> {
        let mut changes = self.known.subscribe();
        // The sender lives in `self`, so that it cannot fail.
        let _ = changes.wait_for(|known| known.whole).await;
        self.get()
    }

    /// Returns where the folder of a program that was found comes from.
    pub fn origin(&self, program: &Path) -> Option<Origin> {
        let known = self.known.borrow();
        let found = known
            .folders
            .iter()
            .find(|(it, _)| Some(it.as_path()) == program.parent());
        found.map(|(_, origin)| *origin)
    }
}

/// Asks the user's login shell for its PATH.
async fn ask(
    processes: &Processes,
    shell: PathBuf,
    home: Option<&Path>,
    env: Vec<(OsString, OsString)>,
) -> Option<OsString> {
    let mark = OsStr::from_bytes(MARK).to_string_lossy();
    // `printenv` and `;` are the same in every shell; `$PATH` is not.
    let script = format!("printf %s {mark}; printenv PATH; printf %s {mark}");
    let call = Call {
        program: Program {
            program: shell,
            args: ["-l", "-i", "-c", &script].map(Into::into).to_vec(),
            cwd: home.unwrap_or(Path::new("/")).to_owned(),
            env: env.into(),
        },
        stdin: None,
        stdout_bytes: SHELL_BYTES,
        stderr_bytes: 0,
    };
    let output = processes
        .output(call, tokio::time::sleep(SHELL_LIMIT))
        .await;
    match output {
        Ok(Some(output)) if matches!(output.end, Ended::Exited(_)) => between_marks(&output.stdout),
        other => {
            tracing::debug!(?other, "the login shell did not say its PATH");
            None
        }
    }
}

fn between_marks(output: &[u8]) -> Option<OsString> {
    let find = |bytes: &[u8]| bytes.windows(MARK.len()).position(|it| it == MARK);
    let rest = &output[find(output)? + MARK.len()..];
    let path = rest[..find(rest)?].trim_ascii();
    (!path.is_empty()).then(|| OsString::from_vec(path.to_vec()))
}

/// Returns the usual folders that exist.
fn usual(home: Option<&Path>) -> Vec<PathBuf> {
    let in_home = IN_HOME.iter().filter_map(|folder| Some(home?.join(folder)));
    let node = home.and_then(|home| newest_node(&home.join(".nvm/versions/node")));
    let for_all = FOR_ALL.iter().map(PathBuf::from);
    let all = in_home.chain(node).chain(for_all);
    all.filter(|folder| folder.is_dir()).collect()
}

/// Returns the folder of the newest of nvm's versions, which are named `vMAJOR.MINOR.PATCH`.
fn newest_node(versions: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(versions).ok()?.flatten();
    let numbered = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let numbers: Result<Vec<u32>, _> =
            name.strip_prefix('v')?.split('.').map(str::parse).collect();
        Some((numbers.ok()?, entry.path().join("bin")))
    });
    numbered.max().map(|(_, folder)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_count_once_and_know_their_origin() {
        let home = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(home.path().join(".cargo/bin")).expect("mkdir");
        for version in ["v9.0.0", "v20.1.0", "x"] {
            let folder = home
                .path()
                .join(".nvm/versions/node")
                .join(version)
                .join("bin");
            std::fs::create_dir_all(folder).expect("mkdir");
        }
        let search = SearchPath::new(OsStr::new("/own:/own::/usr/bin"), Some(home.path()));
        let known = Known::new(
            OsStr::new("/own:/both"),
            OsStr::new("/both:/login"),
            Some(home.path()),
            true,
        );
        let folders: Vec<&Path> = known.folders.iter().map(|(it, _)| it.as_path()).collect();
        assert_eq!(
            folders[..3],
            [Path::new("/own"), Path::new("/both"), Path::new("/login")]
        );
        assert!(folders.contains(&home.path().join(".cargo/bin").as_path()));
        assert!(folders.contains(&home.path().join(".nvm/versions/node/v20.1.0/bin").as_path()));
        search.known.send_replace(known);
        let origin = |program: &str| search.origin(Path::new(program));
        assert_eq!(origin("/both/x"), Some(Origin::Server));
        assert_eq!(origin("/login/x"), Some(Origin::LoginShell));
        assert_eq!(origin("/elsewhere/x"), None);
    }

    #[test]
    fn the_path_is_found_in_what_start_files_write() {
        let mark = String::from_utf8_lossy(MARK);
        let output = format!("Welcome!\n{mark}/a:/b\n{mark}bye");
        assert_eq!(between_marks(output.as_bytes()), Some("/a:/b".into()));
        assert_eq!(between_marks(format!("{mark}\n{mark}").as_bytes()), None);
        assert_eq!(between_marks(b"nothing"), None);
    }
}
