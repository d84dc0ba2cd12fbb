//! Removing a folder that somebody else has filled.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::files::{open_folder, restore_access};

/// Folders nested deeper than this are first moved up, so that no nesting exhausts stack or file handles.
const DEPTH: usize = 32;

/// Removes the folder `name` below `top` and everything in it.
///
/// No link is followed and no other file system entered. Takes rights back that were taken from the owner. What
/// cannot be removed stays, everything else goes, and the first reason is the error. What is not there is fine; what is
/// not a folder is removed as well.
pub(crate) fn remove_tree(top: &OwnedFd, name: &CStr) -> io::Result<()> {
    if unlinkat(top, name, AtFlags::empty()).is_ok() {
        return Ok(());
    }
    let mut removal = Removal {
        top,
        name,
        moved: Vec::new(),
        moves: 0,
        failure: None,
    };
    removal.remove_folder(top, name, 0);
    while let Some(next) = removal.moved.pop() {
        removal.remove_folder(top, &next, 0);
    }
    removal.failure.map_or(Ok(()), Err)
}

struct Removal<'a> {
    top: &'a OwnedFd,
    name: &'a CStr,
    moved: Vec<CString>,
    moves: u64,
    failure: Option<io::Error>,
}

impl Removal<'_> {
    fn remove_folder(&mut self, parent: &OwnedFd, name: &CStr, depth: usize) {
        let outcome = self
            .empty(parent, name, depth)
            .and_then(|()| unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(io::Error::from));
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // A folder that is not empty has a reason below it, which came first and says more.
                self.failure.get_or_insert_with(|| {
                    io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()))
                });
            }
            _ => {}
        }
    }

    fn empty(&mut self, parent: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
        let folder = open_below(parent, name)?;
        let mode = Mode::from_raw_mode(fstat(&folder)?.st_mode);
        if !mode.contains(Mode::RWXU) {
            fchmod(&folder, Mode::RWXU)?;
        }
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                self.remove_subfolder(&folder, name, depth);
                continue;
            }
            match unlinkat(&folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Some file systems do not tell kinds while listing.
                Err(Errno::ISDIR) => self.remove_subfolder(&folder, name, depth),
                Err(error) => {
                    self.failure.get_or_insert_with(|| error.into());
                }
            }
        }
        Ok(())
    }

    fn remove_subfolder(&mut self, parent: &OwnedFd, name: &CStr, depth: usize) {
        if depth < DEPTH {
            return self.remove_folder(parent, name, depth + 1);
        }
        if let Err(error) = self.move_up(parent, name) {
            self.failure.get_or_insert(error);
        }
    }

    fn move_up(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        self.moves += 1;
        // The name begins like the whole's, so that what a crash leaves is found together with it.
        let mut target = self.name.to_bytes().to_vec();
        target.extend_from_slice(format!(".deep{}", self.moves).as_bytes());
        let target = CString::new(target)?;
        // Moving a folder changes its "..", which its own mode can forbid.
        restore_access(parent, name)?;
        renameat(parent, name, self.top, &target)?;
        self.moved.push(target);
        Ok(())
    }
}

/// Opens a folder unless something is mounted there.
fn open_below(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(&parent, name, flags, Mode::empty(), resolve) {
        Ok(folder) => Ok(folder),
        Err(Errno::ACCESS) => {
            restore_access(&parent, name)?;
            Ok(openat2(&parent, name, flags, Mode::empty(), resolve)?)
        }
        Err(Errno::XDEV) => Err(io::Error::other("something is mounted there")),
        Err(Errno::NOSYS) => open_on_same_device(parent, name),
        Err(error) => Err(error.into()),
    }
}

/// For kernels without `openat2`: sees every mount but those of the same file system.
fn open_on_same_device(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let folder = open_folder(&parent, name)?;
    if fstat(&folder)?.st_dev == fstat(&parent)?.st_dev {
        return Ok(folder);
    }
    Err(io::Error::other("something is mounted there"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::open_folder_at;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn remove(top: &Path) -> io::Result<()> {
        remove_tree(&open_folder_at(top).unwrap(), c"victim")
    }

    #[test]
    fn links_to_the_outside_are_removed_and_not_followed() {
        let (top, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("precious"), "kept").unwrap();
        fs::create_dir_all(top.path().join("victim/a")).unwrap();
        symlink(outside.path(), top.path().join("victim/a/folder")).unwrap();
        symlink(outside.path().join("precious"), top.path().join("victim/a/file")).unwrap();
        symlink("..", top.path().join("victim/a/up")).unwrap();
        remove(top.path()).unwrap();
        assert!(!top.path().join("victim").exists());
        assert_eq!(
            fs::read_to_string(outside.path().join("precious")).unwrap(),
            "kept"
        );
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_not_followed() {
        let (top, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("precious"), "kept").unwrap();
        symlink(outside.path(), top.path().join("victim")).unwrap();
        remove(top.path()).unwrap();
        assert!(!top.path().join("victim").is_symlink());
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn rights_taken_from_the_owner_are_taken_back() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("victim/locked/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        for path in [
            &inner,
            &top.path().join("victim/locked"),
            &top.path().join("victim"),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove(top.path()).unwrap();
        assert!(!top.path().join("victim").exists());
    }

    #[test]
    fn no_nesting_is_too_deep() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("victim")).unwrap();
        let mut at = open_folder_at(&top.path().join("victim")).unwrap();
        for _ in 0..1200 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = open_folder(&at, c"d").unwrap();
        }
        remove(top.path()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }
}
