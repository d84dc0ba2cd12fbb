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
use super::table::Row;

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
            Some(found) if found == identity => Ok(Some(Self { identity, handle })),
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
            handle,
        })
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
