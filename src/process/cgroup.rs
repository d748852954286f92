//! A control group (cgroup v2) around a guardian's programs, where this user may make one.
//!
//! Processes are born into the group of their parent and leave it only on purpose, whatever they do with their session,
//! their environment and their parents. So a group that is killed and then seen empty is proof that nothing is left, even
//! where both guardian processes were killed. systemd gives a user's sessions such a place; containers often do not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the folder of a group is called; its own name follows.
const PREFIX: &str = "mahavishnu-";
/// How long the processes of a killed group may take to end; longer only for what hangs in the kernel.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a killed group is looked at while its processes end.
const PAUSE: Duration = Duration::from_millis(5);

/// A control group, by its folder.
#[derive(Debug, Clone)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a group within this process's own; none where that is not possible.
    pub(super) fn make() -> Option<Self> {
        let folder = own_folder()?.join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        // Since Linux 5.14.
        if group.0.join("cgroup.kill").exists() {
            return Some(group);
        }
        group.remove();
        None
    }

    /// Returns the group with this folder, where it can be one that [`make`](Self::make) made.
    pub(super) fn at(folder: &str) -> Option<Self> {
        let folder = PathBuf::from(folder);
        let name = folder.file_name()?.to_str()?;
        (folder.is_absolute() && name.starts_with(PREFIX)).then_some(Self(folder))
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Moves this process, and what it starts from then on, into the group; removes the group where that is refused, so
    /// that an empty group is never proof of anything.
    pub(super) fn enter(&self) {
        if fs::write(self.0.join("cgroup.procs"), "0").is_err() {
            self.remove();
        }
    }

    /// Kills every process in the group and removes it; returns whether it was seen empty. Blocks.
    pub(super) fn end(&self) -> bool {
        let give_up = Instant::now() + LIMIT;
        loop {
            match self.is_populated() {
                Ok(false) => {
                    self.remove();
                    return true;
                }
                Ok(true) if Instant::now() < give_up => {}
                Ok(true) | Err(_) => return false,
            }
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
            pause();
        }
    }

    fn is_populated(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.0.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    pub(super) fn remove(&self) {
        // Fails where it is gone, or where somebody else works in it.
        let _ = fs::remove_dir(&self.0);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a blocking thread, or a process without a runtime"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Returns the folder of this process's own group (cgroups(7), "/proc files").
fn own_folder() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(mount_point)?;
    Some(Path::new(mount).join(own))
}

/// Returns the mount point of a line of `mountinfo` that is of a whole cgroup v2 hierarchy.
fn mount_point(line: &str) -> Option<&str> {
    let (fields, kind) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (root == "/" && kind.starts_with("cgroup2 ")).then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchys_mount_point_is_found() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mount_point(line), Some("/sys/fs/cgroup/unified"));
        assert_eq!(
            mount_point("41 31 0:38 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu"),
            None
        );
        assert_eq!(
            mount_point("41 31 0:38 /part /mnt rw - cgroup2 cgroup2 rw"),
            None
        );
        assert_eq!(mount_point(""), None);
    }

    #[test]
    fn a_folder_that_is_no_group_is_refused() {
        assert!(Cgroup::at("/home/x").is_none());
        assert!(Cgroup::at("mahavishnu-1").is_none());
        let gone = Cgroup::at("/no/such/mahavishnu-1").expect("it could be one");
        assert!(!gone.end(), "nothing was seen");
    }
}
