//! Files below a folder, reached without following any symlink: what an agent linked to somewhere else is seen as the
//! link it is.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A folder. Paths are relative to it and have normal components only; `""` is the folder itself.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file of this size.
    File(u64),
    Link,
    Folder,
    /// A pipe, a socket, a device.
    Special,
}

impl Place {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Self { folder })
    }

    /// What is at the path; `None` when nothing is.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Kind>> {
        let found = match self.parent(path, false) {
            Ok(parent) => rustix::fs::statat(&parent, name(path), AtFlags::SYMLINK_NOFOLLOW),
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Kind::File(u64::try_from(found.st_size).unwrap_or(0)),
            FileType::Symlink => Kind::Link,
            FileType::Directory => Kind::Folder,
            _ => Kind::Special,
        }))
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let folder = if path.as_os_str().is_empty() {
            rustix::fs::openat(&self.folder, ".", folder_flags(), Mode::empty())?
        } else {
            rustix::fs::openat(
                self.parent(path, false)?,
                name(path),
                folder_flags(),
                Mode::empty(),
            )?
        };
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(OsString::from_vec(name)));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, path: &Path) -> io::Result<File> {
        // NONBLOCK: opening a named pipe must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let parent = self.parent(path, false)?;
        let file = File::from(rustix::fs::openat(parent, name(path), flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    }

    /// Where a symlink points.
    pub(super) fn target(&self, path: &Path) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(self.parent(path, false)?, name(path), Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Moves a file here. What is at the path already stays, which is an error.
    pub(super) fn receive(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.look(to)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(rustix::fs::renameat(
            rustix::fs::CWD,
            from,
            self.parent(to, true)?,
            name(to),
        )?)
    }

    /// Makes a symlink. What is at the path already stays, which is an error.
    pub(super) fn link(&self, target: &Path, at: &Path) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, self.parent(at, true)?, name(at))?)
    }

    /// The folder that holds the path, with missing ones made on request.
    fn parent(&self, path: &Path, make: bool) -> Result<OwnedFd, Errno> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0)?;
        for name in path.parent().unwrap_or(Path::new("")) {
            if make {
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            at = rustix::fs::openat(&at, name, folder_flags(), Mode::empty())?;
        }
        Ok(at)
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn name(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_symlink_is_followed_in_any_direction() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "canary").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), root.path().join("link")).unwrap();
        let place = Place::open(root.path()).unwrap();
        assert_eq!(place.look(Path::new("link")).unwrap(), Some(Kind::Link));
        assert_eq!(place.look(Path::new("out/secret")).unwrap(), None);
        assert!(place.file(Path::new("link")).is_err());
        assert!(place.file(Path::new("out/secret")).is_err());
        assert!(place.names(Path::new("out")).is_err());
        let staged = root.path().join("staged");
        std::fs::write(&staged, "x").unwrap();
        assert!(place.receive(&staged, Path::new("out/planted")).is_err());
        assert!(place.receive(&staged, Path::new("link")).is_err());
        assert!(place.link(Path::new("x"), Path::new("out/planted")).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        place.receive(&staged, Path::new("a/b/c")).unwrap();
        assert_eq!(std::fs::read(root.path().join("a/b/c")).unwrap(), b"x");
    }
}
