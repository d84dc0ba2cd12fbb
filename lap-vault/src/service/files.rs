use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lap_core::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

/// Longer socket addresses do not fit into the kernel's structure.
const LONGEST_SOCKET_PATH: usize = 100;

pub(crate) fn failed(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        what,
        format!("{} is not usable", path.display()),
    )
    .with_source(error)
}

/// The folder exists and is open to its owner only.
pub(crate) fn ensure_folder(folder: &Path) -> Result<()> {
    let create = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))
    };
    create().map_err(|error| failed("prepare vault folder", folder, error))
}

/// The file's content is either what it was or `bytes`, and only its owner can read it.
///
/// There is no sync: a state lost with the machine's power belongs to sandboxes that are lost with it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| failed("write vault file", path, error))
}

/// The file's content; nothing when it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read vault file", path, error)),
    }
}

/// Holds the lock on a file until the returned handle is dropped or the process ends, however it ends.
///
/// # Errors
/// `WrongState` when somebody else still holds it after `patience`.
pub(crate) async fn lock(path: &Path, patience: Duration) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed("lock vault folder", path, error))?;
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("another process holds {}", path.display());
                return Err(Error::new(ErrorKind::WrongState, "lock vault folder", message));
            }
            Err(error) => return Err(failed("lock vault folder", path, error.into())),
        }
    }
}

/// A path by which the socket in the folder can be named, however deep the folder is. The handle keeps the
/// path valid.
pub(crate) fn socket_path(folder: &Path) -> Result<(PathBuf, Option<File>)> {
    let path = folder.join("control.sock");
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Ok((path, None));
    }
    let folder = File::open(folder).map_err(|error| failed("open vault folder", folder, error))?;
    Ok((
        PathBuf::from(format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd())),
        Some(folder),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_is_exclusive_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path, Duration::ZERO).await.unwrap();
        assert_eq!(
            lock(&path, Duration::ZERO).await.unwrap_err().kind(),
            ErrorKind::WrongState
        );
        drop(held);
        assert!(lock(&path, Duration::ZERO).await.is_ok());
    }

    #[test]
    fn files_and_folders_are_the_owners_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/vault");
        ensure_folder(&folder).unwrap();
        let file = folder.join("state.json");
        write_atomically(&file, b"one").unwrap();
        write_atomically(&file, b"two").unwrap();
        assert_eq!(read(&file).unwrap().unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(read(&folder.join("none")).unwrap(), None);
    }
}
