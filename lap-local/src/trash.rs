//! Folders on their way out.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lap_core::id::SandboxId;

use crate::files::{open_folder_at, restore_access};
use crate::folder::{Attempt, FolderLock, put_in_place};
use crate::removal::remove_tree;

/// How names of folders end that are being made.
const DRAFT: &str = ".new";

/// A folder leaves its place in one step and is taken apart afterwards, so nobody ever sees half of one.
#[derive(Debug)]
pub(crate) struct Trash {
    folder: PathBuf,
    made: AtomicU64,
}

impl Trash {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            made: AtomicU64::new(0),
        }
    }

    /// A free name for a folder that is being made. What a crash leaves of it is swept at the next start; whoever makes
    /// it holds its lock, and what is locked is not swept.
    pub(crate) fn draft(&self, sandbox: SandboxId) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.folder
            .join(format!("{sandbox}.{}.{number}{DRAFT}", std::process::id()))
    }

    /// Moves the folder here.
    pub(crate) fn take(&self, path: &Path, sandbox: SandboxId) -> io::Result<()> {
        // Moving a folder changes its "..", which its own mode can forbid.
        restore_access(rustix::fs::CWD, path)?;
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let target = self
                .folder
                .join(format!("{sandbox}.{}.{number}", std::process::id()));
            // Names of an earlier process with the same number may still be here.
            if put_in_place(path, &target)? {
                return Ok(());
            }
        }
    }

    /// Removes what is here of the sandbox. Blocking.
    pub(crate) fn empty_of(&self, sandbox: SandboxId) -> io::Result<()> {
        let prefix = format!("{sandbox}.");
        self.remove(|name| name.starts_with(&prefix) && !name.ends_with(DRAFT))
    }

    /// Removes everything that is here now. Blocking.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        self.remove(|_| true)
    }

    fn remove(&self, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        let top = open_folder_at(&self.folder)?;
        let mut failure = None;
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if !name.to_str().is_some_and(&wanted) {
                continue;
            }
            let is_draft = name.to_str().is_some_and(|name| name.ends_with(DRAFT));
            let _lock = match is_draft
                .then(|| FolderLock::attempt(&self.folder.join(&name)))
                .transpose()?
            {
                Some(Attempt::Busy | Attempt::Absent) => continue,
                Some(Attempt::Locked(lock)) => Some(lock),
                None => None,
            };
            if let Err(error) = remove_tree(&top, &CString::new(name.as_bytes())?) {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::lay_out;
    use lap_core::id::SystemEntropy;
    use lap_core::time::Timestamp;

    #[test]
    fn a_draft_is_swept_only_when_nobody_works_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let trash = Trash::new(folder.path().to_owned());
        let sandbox = SandboxId::fresh(&SystemEntropy::new(), Timestamp::from_unix_millis(0));
        let draft = trash.draft(sandbox);
        let lock = lay_out(&draft).unwrap().unwrap();
        trash.sweep().unwrap();
        trash.empty_of(sandbox).unwrap();
        assert!(draft.join("workspace").is_dir());
        drop(lock);
        trash.sweep().unwrap();
        assert!(!draft.exists());
    }
}
