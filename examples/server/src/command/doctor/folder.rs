//! Is the data folder writable, private and roomy?

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::{Finding, bytes};

const MIB: u64 = 1024 * 1024;
const SCARCE: u64 = 1024 * MIB;
const TOO_LITTLE: u64 = 100 * MIB;

pub(super) fn look(folder: &Path) -> Vec<Finding> {
    let mut findings = vec![writable(folder)];
    if let Some(existing) = nearest_existing(folder) {
        findings.extend(free_space(existing));
    }
    findings
}

fn writable(folder: &Path) -> Finding {
    let shown = folder.display();
    let Some(existing) = nearest_existing(folder) else {
        return Finding::bad("data folder", format!("{shown} cannot be made"));
    };
    let advice =
        "give this user the right to write there, or choose another folder with LAP_DATA_DIR or --data-dir";
    if !existing.is_dir() {
        return Finding::bad("data folder", format!("{} is not a folder", existing.display())).advise(advice);
    }
    if access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::bad("data folder", format!("{} is not writable", existing.display())).advise(advice);
    }
    if existing != folder {
        return Finding::good("data folder", format!("{shown} will be made"));
    }
    if std::fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
        return Finding::note(
            "data folder",
            format!("{shown} is writable, but other users may look into it"),
        )
        .advise(format!("chmod 700 {shown}"));
    }
    Finding::good("data folder", format!("{shown} is writable"))
}

fn free_space(existing: &Path) -> Option<Finding> {
    let space = statvfs(existing).ok()?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let text = format!("{} free", bytes(free));
    Some(match free {
        0..TOO_LITTLE => {
            Finding::bad("free space", text).advise("make room: sandboxes hold clones of repositories")
        }
        TOO_LITTLE..SCARCE => {
            Finding::note("free space", text).advise("sandboxes hold clones of repositories")
        }
        _ => Finding::good("free space", text),
    })
}

/// The folder itself, or the parent in which it would be made.
pub(super) fn nearest_existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.symlink_metadata().is_ok())
}
