//! Leaving the server's terminal.

use std::io;

use rustix::process::{getpgid, getppid, setpgid, setsid};

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
    let parent =
        getppid().ok_or_else(|| io::Error::other("the parent process is outside of this namespace"))?;
    setpgid(None, Some(getpgid(Some(parent))?))?;
    setsid()?;
    Ok(())
}
