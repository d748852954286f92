//! The server's handle on its programs: starts the guardian with the first one, and outlasts its loss.

use super::cgroup::Cgroup;
use super::channel::Channel;
use super::error::SpawnError;
use super::guardian::SUBCOMMAND;
use super::leftovers;
use parking_lot::Mutex;
use rustix::net::Shutdown;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

/// How long [`Processes::close`] waits; a little above what the guardian takes for the killing.
const CLOSE_LIMIT: Duration = Duration::from_secs(12);

/// What the programs of one server share.
#[derive(Debug)]
pub struct Options {
    /// The program that runs [`guardian::main`](super::guardian::main) when its first argument is `guardian`; on Linux
    /// best `/proc/self/exe`, which stays the same when an update replaces the file.
    pub guardian_program: PathBuf,
    /// The server's ownership lock.
    pub hold: Option<Hold>,
}

/// A locked file (`flock`): as long as the lock is held, its server counts as alive.
///
/// The guardian holds it too, and no program does, so that the lock is free only after the server's end and the end of
/// every program.
#[derive(Debug)]
pub struct Hold {
    /// The locked file.
    pub lock: OwnedFd,
    /// Its path, which programs carry in their environment, so that [`end_leftovers`](super::end_leftovers) finds them.
    pub path: PathBuf,
}

/// The programs of one server: all are started through it, and none outlives it. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Processes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// What the marks of all programs begin with; no other server has the same.
    mark: String,
    /// Held for a look, or for the start of the guardian.
    state: Mutex<State>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    link: Option<Link>,
    /// How many guardians were started.
    generation: u32,
}

/// Keeps the guardian; dropping it ends the guardian.
#[derive(Debug)]
struct Link(Arc<Channel>);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.hang_up(Shutdown::Write);
    }
}

impl Processes {
    /// Returns a handle that has started nothing yet; the guardian starts with the first program.
    pub fn new(options: Options) -> Self {
        let mark = match &options.hold {
            Some(hold) => leftovers::mark_of(&hold.path),
            None => ulid::Ulid::generate().to_string(),
        };
        Self {
            shared: Arc::new(Shared {
                options,
                mark,
                state: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Ends the guardian, and with it every program that still runs; bounded by some seconds. Nothing can be run after.
    pub async fn close(&self) {
        {
            let mut state = self.shared.state.lock();
            state.closed = true;
            state.link = None;
        }
        self.shared.tasks.close();
        let ended = tokio::time::timeout(CLOSE_LIMIT, self.shared.tasks.wait());
        if ended.await.is_err() {
            tracing::warn!(
                "the guardian did not end within {CLOSE_LIMIT:?}; it goes on killing what is left"
            );
        }
    }

    /// Returns the channel to the guardian; starts one where there is none.
    pub(super) fn channel(&self) -> Result<Arc<Channel>, SpawnError> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(SpawnError::Closed);
        }
        if let Some(Link(channel)) = &state.link
            && channel.is_open()
        {
            return Ok(Arc::clone(channel));
        }
        state.generation += 1;
        let mark = format!("{}:{}", self.shared.mark, state.generation);
        let channel = self
            .start_guardian(mark)
            .map_err(|source| SpawnError::Guardian {
                program: self.shared.options.guardian_program.clone(),
                source,
            })?;
        state.link = Some(Link(Arc::clone(&channel)));
        Ok(channel)
    }

    fn start_guardian(&self, mark: String) -> io::Result<Arc<Channel>> {
        let options = &self.shared.options;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let lock = match &options.hold {
            Some(hold) => Stdio::from(hold.lock.try_clone()?),
            None => Stdio::null(),
        };
        let cgroup = Cgroup::make();
        let folder = cgroup.as_ref().map_or(Path::new(""), Cgroup::folder);
        if let Some(hold) = &options.hold {
            leftovers::note_cgroup(&hold.lock, folder)?;
        }
        let guardian = tokio::process::Command::new(&options.guardian_program)
            .arg0("mahavishnu")
            .args([SUBCOMMAND, &mark])
            .arg(folder)
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(lock)
            .stderr(Stdio::null())
            .spawn()
            .inspect_err(|_| cgroup.iter().for_each(Cgroup::remove))?;
        let channel = Arc::new(Channel::new(UnixStream::from_std(ours)?));
        let serving = serve(Arc::clone(&channel), guardian, mark, cgroup);
        self.shared.tasks.spawn(serving);
        Ok(channel)
    }
}

/// Owns the channel until the guardian has ended and its programs are dead, then fails what still waits for their ends.
async fn serve(
    channel: Arc<Channel>,
    mut guardian: tokio::process::Child,
    mark: String,
    cgroup: Option<Cgroup>,
) {
    if let Err(error) = channel.exchange().await {
        tracing::warn!(%error, "the guardian is lost");
    }
    // Whatever ended the exchange, the guardian ends by this.
    channel.hang_up(Shutdown::Both);
    let left_none = match guardian.wait().await {
        Ok(status) => status.success(),
        Err(error) => {
            tracing::warn!(%error, "the guardian could not be reaped");
            false
        }
    };
    let all_dead = leftovers::end_of_guardian(mark, cgroup, left_none).await;
    channel.fail_all(all_dead);
}
