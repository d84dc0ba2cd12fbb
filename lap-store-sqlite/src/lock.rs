//! One process per database file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lap_core::error::{Error, ErrorKind, Result};

/// How often a held lock is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// An exclusive lock on a file next to the database. The operating system frees it when the process ends,
/// however it ends. The file itself stays.
#[derive(Debug)]
pub(crate) struct FileLock {
    // Held open for the lock; nobody reads it again.
    _file: File,
}

impl FileLock {
    /// Takes the lock, waiting at most `patience` for a process that is about to end. Blocks the thread.
    pub(crate) fn take(database: &Path, patience: Duration) -> Result<Self> {
        let path = lock_path(database);
        let refused = |error: std::io::Error| {
            let message = format!("the lock file {} cannot be used: {error}", path.display());
            Error::invalid("open store", "path", message).with_source(error)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(refused)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < patience => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(in_use(database, &path, &mut file)),
                Err(TryLockError::Error(error)) => return Err(refused(error)),
            }
        }
        // Only for the message that another process shows; the lock does not depend on it.
        let _ = file
            .set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn in_use(database: &Path, lock: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let known = file
        .rewind()
        .and_then(|()| file.read_to_string(&mut holder))
        .is_ok();
    let holder = match holder.trim() {
        pid if known && !pid.is_empty() => format!(" (process {pid})"),
        _ => String::new(),
    };
    let message = format!(
        "the database {} is in use by another server{holder}, which holds {}; stop it or choose another path",
        database.display(),
        lock.display(),
    );
    Error::new(ErrorKind::WrongState, "open store", message)
}
