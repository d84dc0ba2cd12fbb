//! Reading and writing inside a sandbox's folder, whose content is not to be trusted: no link is followed, no pipe is
//! waited for, no size is believed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a folder that is not a link, restoring its owner's access if somebody took it away.
pub(crate) fn open_folder(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    match openat(&parent, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            restore_access(&parent, name)?;
            Ok(openat(&parent, name, FOLDER, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Gives a folder back to its owner.
pub(crate) fn restore_access(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    let handle = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(parent, name, handle, Mode::empty())?;
    // A handle to a path cannot be given to fchmod, but its entry in /proc can, and that is never a link.
    let entry = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    Ok(chmod(entry, Mode::RWXU)?)
}

/// Opens a folder by path; links on the way to it are the administrator's and are followed.
pub(crate) fn open_folder_at(path: &Path) -> io::Result<OwnedFd> {
    open_folder(CWD, path)
}

/// Opens the regular file `folder/parts…`.
pub(crate) fn open_file(folder: &Path, parts: &[&str], flags: OFlags) -> io::Result<File> {
    let Some((name, folders)) = parts.split_last() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut at = open_folder_at(folder)?;
    for part in folders {
        at = open_folder(&at, *part)?;
    }
    // Without NONBLOCK a named pipe put here would hold the caller for ever.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&at, *name, flags, Mode::RUSR | Mode::WUSR)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other(format!("{name} is not a regular file")));
    }
    Ok(File::from(file))
}

/// The content of a small file, or nothing when there is no such file.
pub(crate) fn read_small(folder: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    const LIMIT: u64 = 256 * 1024;
    let file = match open_file(folder, &[name], OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut content = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("{name} is larger than {LIMIT} bytes")));
    }
    Ok(Some(content))
}

/// Puts a whole file in place: readers see the old content or the new, never a part.
pub(crate) fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let draft = format!(".{name}.new");
    let at = open_folder_at(folder)?;
    // Callers hold the folder's lock, so a draft that is there belongs to nobody.
    match unlinkat(&at, &draft, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    open_file(folder, &[&draft], flags)?.write_all(content)?;
    Ok(renameat(&at, &draft, &at, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_pipes_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), folder.path().join("link")).unwrap();
        rustix::fs::mknodat(CWD, folder.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        symlink("/etc", folder.path().join("log")).unwrap();
        assert!(read_small(folder.path(), "link").is_err());
        assert!(read_small(folder.path(), "pipe").is_err());
        assert!(open_file(folder.path(), &["log", "hostname"], OFlags::RDONLY).is_err());
        assert!(read_small(folder.path(), "absent").unwrap().is_none());
    }

    #[test]
    fn a_replaced_link_leaves_its_target_alone() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), folder.path().join("labels.json")).unwrap();
        symlink(outside.path(), folder.path().join(".labels.json.new")).unwrap();
        replace(folder.path(), "labels.json", b"{}").unwrap();
        assert_eq!(read_small(folder.path(), "labels.json").unwrap().unwrap(), b"{}");
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
    }
}
