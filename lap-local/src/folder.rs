//! The folder of a sandbox, and the lock by which its callers take turns.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, RenameFlags, flock, fstat, renameat_with};
use rustix::io::Errno;

use crate::files::open_folder_at;

/// The exclusive right to start or end the sandbox of one folder, among all processes of this machine.
#[derive(Debug)]
pub(crate) struct FolderLock {
    handle: OwnedFd,
}

/// What an attempt to lock found.
pub(crate) enum Attempt {
    Locked(FolderLock),
    Busy,
    /// There is no such folder.
    Absent,
}

impl FolderLock {
    /// Tries once.
    pub(crate) fn attempt(path: &Path) -> io::Result<Attempt> {
        let handle = match open_folder_at(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Absent),
            other => other?,
        };
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(Attempt::Busy),
            other => other?,
        }
        let lock = Self { handle };
        // Whoever had the lock before may have moved the folder away; then this is the lock of nothing.
        if lock.is_of(path)? {
            Ok(Attempt::Locked(lock))
        } else {
            Ok(Attempt::Busy)
        }
    }

    fn is_of(&self, path: &Path) -> io::Result<bool> {
        let held = fstat(&self.handle)?;
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(found.dev() == held.st_dev && found.ino() == held.st_ino),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for the lock; nothing when there is no such folder.
    pub(crate) async fn acquire(path: &Path, within: Duration) -> io::Result<Option<Self>> {
        let deadline = tokio::time::Instant::now() + within;
        let mut pause = Duration::from_millis(1);
        loop {
            match Self::attempt(path)? {
                Attempt::Locked(lock) => return Ok(Some(lock)),
                Attempt::Absent => return Ok(None),
                Attempt::Busy if tokio::time::Instant::now() >= deadline => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another call works on it",
                    ));
                }
                Attempt::Busy => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // A child that is being made right now may still hold a copy of the handle, so closing it is not enough.
        let _ = flock(&self.handle, FlockOperation::Unlock);
    }
}

/// Makes the folders of a sandbox under `draft`, locked from the first moment on, so that nobody who sweeps takes them
/// for leftovers. Nothing when somebody did before the lock was there.
pub(crate) fn lay_out(draft: &Path) -> io::Result<Option<FolderLock>> {
    let mut private = DirBuilder::new();
    private.mode(0o700);
    private.create(draft)?;
    let Attempt::Locked(lock) = FolderLock::attempt(draft)? else {
        return Ok(None);
    };
    for name in ["workspace", "home", "state", "log"] {
        private.create(draft.join(name))?;
    }
    let log = draft.join("log").join(crate::log::NAME);
    fs::OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(log)?;
    Ok(Some(lock))
}

/// Gives the finished draft its name; false when the name is taken.
pub(crate) fn put_in_place(draft: &Path, path: &Path) -> io::Result<bool> {
    match renameat_with(
        rustix::fs::CWD,
        draft,
        rustix::fs::CWD,
        path,
        RenameFlags::NOREPLACE,
    ) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // Some file systems lack the flag. A plain rename never replaces a folder that has something in it.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::rename(draft, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    }
}

/// Where sandboxes and what is on its way out live.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// Makes what is missing. The path is resolved once, because the kernel tells processes' folders without links.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(path)?;
        let data = Self {
            root: path.canonicalize()?,
        };
        private.create(data.sandboxes())?;
        private.create(data.trash())?;
        Ok(data)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
}
