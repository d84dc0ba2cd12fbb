//! Limits by the kernel, where an administrator has delegated a part of the control groups (cgroup v2) to the server.
//!
//! The sign of that is the server's own group: it is named `lap-server`, and the group around it, which then holds no
//! process, can be written. systemd makes that from `Delegate=yes` and `DelegateSubgroup=lap-server`. Nothing else is
//! taken for a permission, because moving processes in groups that somebody else manages breaks that somebody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lap_core::id::SandboxId;

use crate::config::ResourceLimits;

const OWN: &str = "lap-server";
const NEEDED: [&str; 2] = ["memory", "pids"];

/// The group below which every sandbox gets one.
#[derive(Debug, Clone)]
pub(crate) struct Delegated {
    root: PathBuf,
}

impl Delegated {
    /// What is delegated to this process, with the controllers turned on.
    pub(crate) fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let root = delegated_root(&own, &mounts)?;
        match Self::at(root) {
            Ok(delegated) => Some(delegated),
            Err(error) => {
                tracing::warn!(%error, "the delegated control group cannot be used; sandboxes are measured instead");
                None
            }
        }
    }

    fn at(root: PathBuf) -> io::Result<Self> {
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        let has = |name: &&str| controllers.split_whitespace().any(|found| found == *name);
        if !NEEDED.iter().all(has) {
            return Err(io::Error::other(format!(
                "{} lacks memory or pids",
                root.display()
            )));
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory +pids")?;
        Ok(Self { root })
    }

    fn path(&self, sandbox: SandboxId) -> PathBuf {
        self.root.join(format!("lap-{sandbox}"))
    }

    /// Makes the sandbox's group and moves these processes into it. They must have started nothing yet.
    pub(crate) fn enclose(
        &self,
        sandbox: SandboxId,
        limits: ResourceLimits,
        tasks: Option<u32>,
        pids: impl IntoIterator<Item = u32>,
    ) -> io::Result<Group> {
        let path = self.path(sandbox);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let group = Group { path };
        if let Some(bytes) = limits.memory_bytes {
            group.set("memory.max", bytes)?;
            // All or none: an agent without its sandboxd is nothing. Older kernels, and those without swap, lack these.
            let _ = group.set("memory.oom.group", 1);
            let _ = group.set("memory.swap.max", 0);
        }
        if let Some(tasks) = tasks {
            group.set("pids.max", u64::from(tasks))?;
        }
        for pid in pids {
            group.set("cgroup.procs", u64::from(pid))?;
        }
        Ok(group)
    }

    /// The group of a sandbox that an earlier server has started, if it has one.
    pub(crate) fn of(&self, sandbox: SandboxId) -> Option<Group> {
        Some(Group {
            path: self.path(sandbox),
        })
        .filter(|group| group.path.is_dir())
    }
}

/// The group of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    fn set(&self, name: &str, value: u64) -> io::Result<()> {
        fs::write(self.path.join(name), value.to_string())
    }

    /// Whether the kernel has killed something in it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let mut kills = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        kills.any(|count| count.trim() != "0")
    }

    /// Kills whatever is in it, whoever has started it. Linux before 5.14 cannot, and then others find the processes.
    pub(crate) fn kill(&self) {
        let _ = self.set("cgroup.kill", 1);
    }

    /// Takes it away when nothing is in it any more.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, group = %self.path.display(), "a control group stays for now");
        }
    }
}

/// The folder of the group around this process's own, if the own one says that it is delegated.
fn delegated_root(own: &str, mounts: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let around = Path::new(own)
        .parent()
        .filter(|_| own.ends_with(&format!("/{OWN}")))?;
    // Fields of a line: id, parent, device, root, place, options, optional ones, "-", type, ...
    let mount = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then_some((root, at))
    });
    let (root, at) = mount?;
    Some(Path::new(at).join(around.strip_prefix(root).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lap_core::id::SystemEntropy;
    use lap_core::time::Timestamp;

    const MOUNTS: &str = "24 1 0:22 / /proc rw - proc proc rw\n\
                          30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn only_a_group_that_is_named_for_it_is_taken() {
        let of = |own| delegated_root(own, MOUNTS);
        assert_eq!(
            of("0::/system.slice/lap.service/lap-server\n"),
            Some("/sys/fs/cgroup/system.slice/lap.service".into())
        );
        assert_eq!(of("0::/system.slice/lap.service\n"), None);
        assert_eq!(of("0::/\n"), None);
        assert_eq!(of("4:memory:/lap-server\n"), None);
        assert_eq!(
            delegated_root("0::/a/lap-server\n", "24 1 0:22 / /proc rw - proc proc rw\n"),
            None
        );
    }

    /// A folder plays the kernel here: it shows what would be written where, not that the kernel obeys.
    #[test]
    fn a_group_gets_its_limits_before_its_processes() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let delegated = Delegated::at(root.path().to_owned()).unwrap();
        let sandbox = SandboxId::fresh(&SystemEntropy::new(), Timestamp::from_unix_millis(0));
        assert!(delegated.of(sandbox).is_none());
        let limits = ResourceLimits {
            memory_bytes: Some(1 << 20),
            processes: None,
        };
        let group = delegated.enclose(sandbox, limits, Some(80), [7]).unwrap();
        let read = |name: &str| fs::read_to_string(group.path.join(name)).unwrap();
        assert_eq!(
            ["memory.max", "pids.max", "memory.oom.group", "cgroup.procs"].map(read),
            ["1048576", "80", "1", "7"]
        );
        assert!(!group.ran_out_of_memory());
        fs::write(
            group.path.join("memory.events"),
            "low 0\noom 1\noom_kill 1\noom_group_kill 1\n",
        )
        .unwrap();
        assert!(delegated.of(sandbox).unwrap().ran_out_of_memory());
        fs::write(root.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert!(Delegated::at(root.path().to_owned()).is_err());
    }
}
