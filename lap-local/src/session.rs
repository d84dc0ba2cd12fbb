//! Leaving the server's terminal.

use std::io;

use rustix::process::{Pid, setpgid, setsid};

use crate::process::parent_group;

/// Makes the calling process the leader of a session of its own, so that it has no terminal to be interrupted or
/// asked through. Meant as the first step of a program that a [`LocalRuntime`](crate::LocalRuntime) starts.
///
/// The runtime starts sandboxes as leaders of a process group, which keeps them away from a Ctrl-C from their first
/// instruction on. A group's leader cannot open a session, so this returns to the parent's group for a moment.
///
/// # Errors
/// When the parent has ended meanwhile. The process is still in a group of its own then and may go on.
pub fn leave_terminal() -> io::Result<()> {
    if setsid().is_ok() {
        return Ok(());
    }
    // Read from /proc, because the group of a parent outside of this process namespace has no number here, and the
    // system call's wrapper has no way to say so.
    let group = parent_group()?.and_then(|group| Pid::from_raw(i32::try_from(group).ok()?));
    let group = group.ok_or_else(|| io::Error::other("the parent process has ended or is elsewhere"))?;
    setpgid(None, Some(group))?;
    setsid()?;
    Ok(())
}
