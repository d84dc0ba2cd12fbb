//! Files of the workspace and no others.
//!
//! The kernel resolves a path beneath the workspace's own descriptor, so neither `..` nor a symlink leads out, even
//! when something else changes the tree at the same moment. Kernels without `openat2` get a walk that follows
//! no symlink at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The workspace as a place to open files in.
#[derive(Debug)]
pub(super) struct Beneath {
    root: PathBuf,
    folder: OwnedFd,
}

impl Beneath {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let folder = rustix::fs::open(
            root,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            root: root.to_owned(),
            folder,
        })
    }

    /// Where the workspace is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path relative to the workspace. A model may also write the workspace's absolute path.
    pub(super) fn relative(&self, path: &str) -> Result<PathBuf, String> {
        let path = Path::new(path);
        let inside = if path.is_absolute() {
            path.strip_prefix(&self.root).ok()
        } else {
            Some(path)
        };
        let inside = inside.ok_or_else(|| outside(path))?;
        if inside.components().any(|part| part == Component::ParentDir) {
            return Err(outside(path));
        }
        Ok(if inside.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            inside.to_owned()
        })
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, path: &Path) -> Result<File, String> {
        self.regular(path, OFlags::RDONLY)
    }

    /// Opens a regular file for reading and writing.
    pub(super) fn file_to_change(&self, path: &Path) -> Result<File, String> {
        self.regular(path, OFlags::RDWR)
    }

    /// Opens a regular file for writing, making it and its folders when they are missing.
    pub(super) fn file_to_write(&self, path: &Path) -> Result<File, String> {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.make_folders(parent)
            .map_err(|error| message(error, parent))?;
        self.regular(path, OFlags::WRONLY | OFlags::CREATE)
    }

    /// Opens a folder.
    pub(super) fn folder(&self, path: &Path) -> Result<OwnedFd, String> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| message(error, path))
    }

    fn regular(&self, path: &Path, flags: OFlags) -> Result<File, String> {
        // NONBLOCK: opening a named pipe must not wait for its other end.
        let file = self
            .resolve(path, flags | OFlags::NONBLOCK)
            .map_err(|error| message(error, path))?;
        let file = File::from(file);
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            Ok(metadata) if metadata.is_dir() => Err(format!("{} is a folder; use list", path.display())),
            Ok(_) => Err(format!("{} is not a regular file", path.display())),
            Err(error) => Err(format!("{} cannot be opened: {error}", path.display())),
        }
    }

    fn make_folders(&self, path: &Path) -> Result<(), Errno> {
        let mut at = self.resolve(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut so_far = PathBuf::new();
        for name in path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
        {
            so_far.push(name);
            match rustix::fs::mkdirat(&at, Path::new(name.as_os_str()), Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            at = self.resolve(&so_far, OFlags::RDONLY | OFlags::DIRECTORY)?;
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        use rustix::fs::ResolveFlags;
        let mode = if flags.contains(OFlags::CREATE) {
            Mode::from_raw_mode(0o666)
        } else {
            Mode::empty()
        };
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.folder, path, flags | OFlags::CLOEXEC, mode, within) {
            // Old kernels, and container profiles that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags),
            opened => opened,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.walk(path, flags)
    }

    /// Opens one name after the other and follows no symlink.
    fn walk(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let plain = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let names: Vec<&OsStr> = path.components().map(Component::as_os_str).collect();
        let (last, folders) = names.split_last().ok_or(Errno::NOENT)?;
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0)?;
        for name in folders {
            at = rustix::fs::openat(
                &at,
                Path::new(name),
                OFlags::RDONLY | OFlags::DIRECTORY | plain,
                Mode::empty(),
            )?;
        }
        rustix::fs::openat(
            at.as_fd(),
            Path::new(last),
            flags | plain,
            Mode::from_raw_mode(0o666),
        )
    }
}

fn outside(path: &Path) -> String {
    format!(
        "{} is outside the workspace; use bash for files elsewhere",
        path.display()
    )
}

fn message(error: Errno, path: &Path) -> String {
    match error {
        Errno::XDEV | Errno::LOOP => outside(path),
        Errno::NOENT => format!("{} does not exist", path.display()),
        Errno::NOTDIR => format!("{} is not a folder", path.display()),
        error => format!("{} cannot be opened: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_walk_for_old_kernels_follows_no_symlink() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "canary").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/file"), "x").unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), root.path().join("a/link")).unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        assert!(beneath.walk(Path::new("a/file"), OFlags::RDONLY).is_ok());
        assert!(beneath.walk(Path::new("out/secret"), OFlags::RDONLY).is_err());
        assert!(beneath.walk(Path::new("a/link"), OFlags::RDONLY).is_err());
        // What the walk would follow is refused before it.
        assert!(beneath.relative("a/../../secret").is_err());
    }

    #[test]
    fn folders_are_not_made_through_a_symlink() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        assert!(beneath.file_to_write(Path::new("out/new/file")).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        beneath
            .file_to_write(Path::new("in/new/file"))
            .unwrap()
            .write_all(b"x")
            .unwrap();
        assert!(root.path().join("in/new/file").is_file());
    }
}
