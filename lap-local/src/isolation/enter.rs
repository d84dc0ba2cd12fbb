//! The words of util-linux's `unshare`, with a small script that makes the new root. For machines without bubblewrap.

use std::ffi::OsString;
use std::path::Path;

use super::bubblewrap::SHARED_MEMORY;
use super::tenant::Tenant;
use super::view::{Step, View};

const SCRIPT: &str = include_str!("enter.sh");

/// What the script is called among processes.
pub(super) const NAME: &str = "lap-enter";

/// Everything after the program's name.
pub(super) fn arguments(view: &View, tenant: &Tenant, is_root: bool, inner: Vec<OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if !is_root {
        words.extend(["--user", "--map-root-user"].map(OsString::from));
    }
    let namespaces = [
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--cgroup",
        "--fork",
        "--propagation",
        "private",
    ];
    words.extend(namespaces.map(OsString::from));
    words.extend(["/bin/sh", "-c", SCRIPT, NAME].map(OsString::from));
    words.push(view.scaffold.clone().into());
    words.push(view.start.clone().into());
    words.push(SHARED_MEMORY.to_string().into());
    // Root of the namespace is root of nothing, but programs that ask behave as if it were.
    words.push(if is_root {
        "".into()
    } else {
        tenant.uid.to_string().into()
    });
    words.push(tenant.gid.to_string().into());
    for step in &view.steps {
        let (verb, from, at): (&str, &Path, &Path) = match step {
            // Files of /etc are small and many, and a copy takes less than half of the time.
            Step::ReadOnly(from, at) if at.starts_with("/etc") && from.is_file() => ("copy", from, at),
            Step::ReadOnly(from, at) => ("ro", from, at),
            Step::Writable(from, at) => ("rw", from, at),
            Step::Link(target, at) => ("link", target, at),
            Step::Folder(at) => ("folder", Path::new("-"), at),
            Step::Cover(at) => ("cover", Path::new("-"), at),
        };
        words.extend([verb.into(), from.into(), at.into()]);
    }
    words.push("--".into());
    words.extend(inner);
    words
}
