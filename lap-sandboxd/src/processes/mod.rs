//! The processes below sandboxd: started in groups of their own, found again by their marker, all ended at the end.

mod scan;

use std::collections::HashSet;
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lap_core::id::SandboxId;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use crate::environment::SANDBOX_MARKER;
use crate::locked;

pub(crate) use scan::started;

/// How long processes may take to end after SIGTERM before they are killed.
const TERM_GRACE: Duration = Duration::from_millis(500);
/// How long killing may take: the kernel needs moments, a process in an uninterruptible wait needs longer.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// How far below sandboxd the end reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What carries the sandbox's marker.
    Marked,
    /// That, and every descendant of this process even when it hides its environment. For a process that is
    /// sandboxd and nothing else.
    Descendants,
}

/// Starts processes and ends them.
#[derive(Debug)]
pub(crate) struct Processes {
    marker: String,
    reach: Reach,
    owned: Mutex<HashSet<u32>>,
}

impl Processes {
    pub(crate) fn new(sandbox: SandboxId, reach: Reach) -> Self {
        Self {
            marker: format!("{SANDBOX_MARKER}={sandbox}"),
            reach,
            owned: Mutex::new(HashSet::new()),
        }
    }

    /// Starts a command in a process group of its own, without standard input.
    pub(crate) fn spawn(self: &Arc<Self>, command: &mut Command) -> io::Result<Owned> {
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        // The lock keeps the reaper of orphans away until the new process is known as ours.
        let mut owned = locked(&self.owned);
        let child = command.spawn()?;
        let pid = child.id();
        owned.extend(pid);
        drop(owned);
        Ok(Owned {
            child,
            pid,
            processes: Arc::clone(self),
        })
    }

    /// Kills at once what carries `NAME=value` in its environment. Looks again while it finds something, because a
    /// process can start another while it is being killed.
    pub(crate) fn kill_carriers(&self, name: &str, value: &str) {
        for _ in 0..10 {
            let found = scan::carriers(&format!("{name}={value}"));
            if found.is_empty() {
                return;
            }
            found.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
    }

    /// Ends everything of this sandbox but this process and its ancestors. True when nothing is left.
    pub(crate) async fn end_all(&self) -> bool {
        let found = self.find();
        if found.is_empty() {
            return true;
        }
        for pid in found {
            signal(pid, Signal::TERM);
        }
        if self.wait_until_gone(TERM_GRACE, None).await {
            return true;
        }
        self.wait_until_gone(KILL_PATIENCE, Some(Signal::KILL)).await
    }

    /// Kills at once what an earlier life of this sandbox left. Its sandboxd, if it still runs, gets no chance to end
    /// everything below the sandbox in its turn, because that includes this process.
    pub(crate) async fn kill_earlier_life(&self) -> bool {
        self.wait_until_gone(KILL_PATIENCE, Some(Signal::KILL)).await
    }

    /// Looks again and again, because a process that is being killed can still start others.
    async fn wait_until_gone(&self, patience: Duration, repeat: Option<Signal>) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            self.reap_orphans();
            let found = self.find();
            if found.is_empty() {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            if let Some(repeat) = repeat {
                found.into_iter().for_each(|pid| signal(pid, repeat));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn find(&self) -> Vec<u32> {
        let mut found: HashSet<u32> = scan::carriers(&self.marker).into_iter().collect();
        if self.reach == Reach::Descendants {
            found.extend(scan::descendants());
        }
        let ancestors = scan::ancestors();
        found.retain(|pid| !ancestors.contains(pid) && !scan::is_zombie(*pid));
        found.into_iter().collect()
    }

    /// Takes the exit status of children that were inherited as orphans. Those started here are left to their
    /// owners. Only sensible in a process that is sandboxd and nothing else.
    pub(crate) fn reap_orphans(&self) {
        if self.reach != Reach::Descendants {
            return;
        }
        let owned = locked(&self.owned);
        for pid in scan::children() {
            if !owned.contains(&pid) && scan::is_zombie(pid) {
                let _ = rustix::process::waitpid(to_pid(pid), rustix::process::WaitOptions::NOHANG);
            }
        }
    }
}

/// Makes this process the parent of its orphaned descendants, so that none escapes.
pub(crate) fn become_subreaper() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of tools cannot be adopted");
    }
}

/// A process started here. Dropping it kills its whole group while its leader has not been waited for.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) child: Child,
    pid: Option<u32>,
    processes: Arc<Processes>,
}

impl Owned {
    /// Kills the process and its group at once.
    pub(crate) fn kill_group(&self) {
        if let Some(pid) = self.pid.and_then(to_pid) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // A child that was waited for has no id any more; its background children may live on.
        if self.child.id().is_some() {
            self.kill_group();
        }
        if let Some(pid) = self.pid {
            locked(&self.processes.owned).remove(&pid);
        }
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
