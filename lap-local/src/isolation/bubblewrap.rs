//! The words of bubblewrap.

use std::ffi::OsString;

use super::view::{Step, View};

/// Of `/dev/shm`, in bytes; as much as containers get.
pub(super) const SHARED_MEMORY: u64 = 64 * 1024 * 1024;

/// What setpriv needs to become another user, and to enter that user's folder before.
const KEPT: [&str; 4] = ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_OVERRIDE"];

/// Everything after the program's name. It is not asked to die with its parent: sandboxes outlive the server.
pub(super) fn arguments(view: &View, is_root: bool, inner: Vec<OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |parts: &[&std::ffi::OsStr]| words.extend(parts.iter().map(|part| (*part).to_owned()));
    for word in [
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--new-session",
    ] {
        add(&[word.as_ref()]);
    }
    // The program itself is the first of its namespace, so that the kernel ends everything with it.
    add(&["--as-pid-1".as_ref(), "--cap-drop".as_ref(), "ALL".as_ref()]);
    if is_root {
        for capability in KEPT {
            add(&["--cap-add".as_ref(), capability.as_ref()]);
        }
    } else {
        add(&["--unshare-user".as_ref()]);
    }
    for step in &view.steps {
        match step {
            Step::ReadOnly(from, at) => add(&["--ro-bind".as_ref(), from.as_ref(), at.as_ref()]),
            Step::Writable(from, at) => add(&["--bind".as_ref(), from.as_ref(), at.as_ref()]),
            Step::Link(target, at) => add(&["--symlink".as_ref(), target.as_ref(), at.as_ref()]),
            Step::Folder(at) => add(&["--dir".as_ref(), at.as_ref()]),
            Step::Cover(at) => add(&["--tmpfs".as_ref(), at.as_ref()]),
        }
    }
    let size = SHARED_MEMORY.to_string();
    add(&[
        "--proc".as_ref(),
        "/proc".as_ref(),
        "--dev".as_ref(),
        "/dev".as_ref(),
    ]);
    add(&[
        "--perms".as_ref(),
        "1777".as_ref(),
        "--size".as_ref(),
        size.as_ref(),
    ]);
    add(&["--tmpfs".as_ref(), "/dev/shm".as_ref()]);
    add(&[
        "--remount-ro".as_ref(),
        "/dev".as_ref(),
        "--remount-ro".as_ref(),
        "/".as_ref(),
    ]);
    add(&["--chdir".as_ref(), view.start.as_ref(), "--".as_ref()]);
    words.extend(inner);
    words
}
