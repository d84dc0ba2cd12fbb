//! A process, named so that a reused number is not mistaken for it.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use lap_core::id::SandboxId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};

use super::MARKER;
use super::table::{Row, rows};

/// Number and start time: together they name one process for as long as the machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since the machine started.
    pub(crate) started: u64,
}

/// The identity of the process that has this number now; none when there is none or only its remains.
pub(crate) fn identity_of(pid: u32) -> io::Result<Option<Identity>> {
    Ok(Row::read(pid)?.filter(|row| !row.is_over).map(|row| row.identity))
}

/// Changes whenever the machine starts anew, and with it every recorded identity loses its meaning.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// A handle to one process. It keeps meaning that process even after its end.
#[derive(Debug)]
pub(crate) struct Process {
    identity: Identity,
    /// The number by which it knows itself: another one when it is in a process namespace of its own.
    inside: u32,
    handle: OwnedFd,
}

impl Process {
    /// Opens the process, or nothing if it has ended.
    pub(crate) fn open(identity: Identity) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(identity.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            // A thread's number is refused as invalid; it names no process.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            other => other?,
        };
        // The order matters: once the handle is open its number cannot be somebody else's unless it already was.
        match identity_of(identity.pid)? {
            Some(found) if found == identity => Ok(Some(Self {
                identity,
                inside: number_inside(identity.pid),
                handle,
            })),
            _ => Ok(None),
        }
    }

    /// Opens a child that nobody has waited for yet, even if it has ended: until then its number is its own.
    pub(crate) fn of_child(child: &Child) -> io::Result<Self> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let row = Row::read(child.id())?.ok_or_else(gone)?;
        let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        Ok(Self {
            identity: row.identity,
            inside: row.identity.pid,
            handle,
        })
    }

    /// The first process of the namespace that `wrapper` has made around it; nothing as long as there is none.
    pub(crate) fn enclosed_by(wrapper: &Self) -> io::Result<Option<Self>> {
        for row in rows()? {
            if row.parent == wrapper.identity.pid
                && let Some(process) = Self::open(row.identity)?
                && process.leads_namespace()
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    /// The sandbox's process that says this about itself, which it may do from inside of a namespace where numbers are
    /// others. Times are the same everywhere. Only one that carries the sandbox's marker is believed.
    pub(crate) fn self_named(told: Identity, sandbox: SandboxId) -> io::Result<Option<Self>> {
        for row in rows()? {
            if row.identity.started == told.started
                && !row.is_over
                && let Some(process) = Self::open(row.identity)?
                && process.is_called(told)
                && process.has_marker(sandbox)
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    /// Whether this is the process that says this about itself.
    pub(crate) const fn is_called(&self, told: Identity) -> bool {
        self.identity.started == told.started && (self.identity.pid == told.pid || self.inside == told.pid)
    }

    /// Whether it is the first of its process namespace, with which the kernel ends all others in it.
    pub(crate) const fn leads_namespace(&self) -> bool {
        self.inside == 1 && self.identity.pid != 1
    }

    /// Whether it sees other processes and other files than this process does.
    pub(crate) fn is_enclosed(&self) -> bool {
        let differs = |name: &str| {
            let own = fs::read_link(format!("/proc/self/ns/{name}"));
            let other = fs::read_link(format!("/proc/{}/ns/{name}", self.identity.pid));
            matches!((own, other), (Ok(own), Ok(other)) if own != other)
        };
        self.leads_namespace() && differs("pid") && differs("mnt")
    }

    pub(crate) const fn identity(&self) -> Identity {
        self.identity
    }

    /// Sends a signal. A process that has ended takes none, which is not an error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended, at the latest after `within_ms`.
    pub(crate) fn has_ended(&self, within_ms: u32) -> bool {
        let mut poll_fd = [PollFd::new(&self.handle, PollFlags::IN)];
        let wait = Timespec {
            tv_sec: i64::from(within_ms / 1000),
            tv_nsec: i64::from(within_ms % 1000) * 1_000_000,
        };
        matches!(poll(&mut poll_fd, Some(&wait)), Ok(ready) if ready > 0)
    }

    /// Takes the remains away if it was a child of this process and has ended.
    pub(crate) fn reap(&self) -> Option<WaitIdStatus> {
        waitid(
            WaitId::PidFd(self.handle.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        )
        .ok()
        .flatten()
    }

    /// Whether its environment says that it belongs to the sandbox.
    pub(crate) fn has_marker(&self, sandbox: SandboxId) -> bool {
        has_marker(self.identity.pid, sandbox) && !self.has_ended(0)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// The last of the numbers that a process has in its namespace and those around it, as its status tells them.
fn number_inside(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = numbers.and_then(|numbers| numbers.split_whitespace().next_back());
    last.and_then(|number| number.parse().ok()).unwrap_or(pid)
}

/// Whether the environment of this number's process names the sandbox. What cannot be read does not.
pub(super) fn has_marker(pid: u32, sandbox: SandboxId) -> bool {
    // Longer environments exist only where somebody raised the stack limit; the marker is among the first then too.
    const LIMIT: u64 = 4 * 1024 * 1024;
    let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let mut environment = Vec::new();
    if file.take(LIMIT).read_to_end(&mut environment).is_err() {
        return false;
    }
    let wanted = format!("{MARKER}={sandbox}");
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry == wanted.as_bytes())
}
