//! The folders of a sandbox.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where things are. Everything is below one folder, so removing that folder removes the sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Makes what is missing. Only the sandbox's own user may look inside.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(folder)?;
        // The agent's tools see real paths, so the workspace's name must be real too.
        let layout = Self {
            folder: folder.canonicalize()?,
        };
        for path in [layout.workspace(), layout.home(), layout.state(), layout.log()] {
            private.create(path)?;
        }
        Ok(layout)
    }

    /// The agent's working directory.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    /// The agent's HOME.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Journal, turns, binding, conversation.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Where the runtime finds the address.
    pub(crate) fn endpoint(&self) -> PathBuf {
        self.folder.join("endpoint.json")
    }
}

/// Puts a whole file in place: readers see the old content or the new, never a part.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    io::Write::write_all(&mut file, content)?;
    fs::rename(&temporary, path)
}
