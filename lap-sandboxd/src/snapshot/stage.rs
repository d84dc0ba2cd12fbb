//! Takes an archive apart into a folder of its own, before anything of it is used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::archive::{Found, Invalid, MAX_UNPACKED_BYTES, unpack};
use super::manifest::{
    CHANGES, COMMITS, CONVERSATION, FILES, MANIFEST, Manifest, SQUASHED, VERSION, numbered,
};

const MAX_MANIFEST: u64 = 64 * 1024;

/// A snapshot on the disk. Every file is staged under a number; the paths are checked.
#[derive(Debug)]
pub(super) struct Staged {
    folder: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) conversation: Option<PathBuf>,
    pub(super) commits: Option<PathBuf>,
    pub(super) changes: Vec<PathBuf>,
    pub(super) squashed: Vec<PathBuf>,
    pub(super) files: Vec<StagedFile>,
}

/// What belongs at a path of the workspace.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) path: PathBuf,
    pub(super) content: StagedContent,
}

#[derive(Debug)]
pub(super) enum StagedContent {
    /// Where the file is now.
    File(PathBuf),
    /// A symlink's target.
    Link(PathBuf),
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is removed before the next one is staged.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Stages the archive in a folder that nobody else uses.
///
/// # Errors
/// The reason why it is not a snapshot, or why the disk does not take it.
pub(super) fn stage(archive: &[u8], folder: &Path) -> Result<Staged, Invalid> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
        _ => fs::create_dir(folder).map_err(disk)?,
    }
    let mut staged = Staged {
        folder: folder.to_owned(),
        manifest: Manifest {
            version: 0,
            git: None,
        },
        conversation: None,
        commits: None,
        changes: Vec::new(),
        squashed: Vec::new(),
        files: Vec::new(),
    };
    let mut number = 0;
    unpack(archive, MAX_UNPACKED_BYTES, |path, found| {
        number += 1;
        staged.take(path, found, number)
    })?;
    let Manifest { version, git } = &staged.manifest;
    if *version != VERSION || !git.iter().all(super::manifest::Position::is_plain) {
        return Err("the snapshot has no manifest that can be read".to_owned());
    }
    staged.changes.sort_unstable();
    staged.squashed.sort_unstable();
    Ok(staged)
}

impl Staged {
    fn take(&mut self, path: &Path, found: Found<'_>, number: usize) -> Result<(), Invalid> {
        if let Ok(inside) = path.strip_prefix(FILES) {
            let content = match found {
                Found::Link(target) => StagedContent::Link(target),
                file => StagedContent::File(self.keep(&numbered("", number), file)?),
            };
            self.files.push(StagedFile {
                path: inside.to_owned(),
                content,
            });
            return Ok(());
        }
        match path.to_str() {
            Some(MANIFEST) => self.manifest = manifest(found)?,
            Some(name @ (CONVERSATION | COMMITS)) => {
                let kept = Some(self.keep(Path::new(name), found)?);
                if name == CONVERSATION {
                    self.conversation = kept;
                } else {
                    self.commits = kept;
                }
            }
            _ if path.parent() == Some(Path::new(CHANGES)) => {
                let kept = self.keep(&numbered("", number), found)?;
                self.changes.push(kept);
            }
            _ if path.parent() == Some(Path::new(SQUASHED)) => {
                let kept = self.keep(&numbered("", number), found)?;
                self.squashed.push(kept);
            }
            _ => return Err(format!("the snapshot has the entry {path:?}, which is not known")),
        }
        Ok(())
    }

    fn keep(&self, name: &Path, found: Found<'_>) -> Result<PathBuf, Invalid> {
        let Found::File(mode, size, content) = found else {
            return Err("the snapshot has a symlink in the place of a file".to_owned());
        };
        let path = self.folder.join(name);
        let mut file = File::create_new(&path).map_err(disk)?;
        let copied =
            io::copy(content, &mut file).map_err(|error| format!("the snapshot is damaged: {error}"))?;
        if copied != size {
            return Err("the snapshot is damaged: a file is shorter than it says".to_owned());
        }
        // The owner keeps access, or the sandbox could not read its own file.
        file.set_permissions(fs::Permissions::from_mode(mode | 0o600))
            .map_err(disk)?;
        Ok(path)
    }
}

fn manifest(found: Found<'_>) -> Result<Manifest, Invalid> {
    match found {
        Found::File(_, size, content) if size <= MAX_MANIFEST => serde_json::from_reader(content)
            .map_err(|error| format!("the manifest of the snapshot cannot be read: {error}")),
        _ => Err("the manifest of the snapshot cannot be read".to_owned()),
    }
}

fn disk(error: io::Error) -> Invalid {
    format!("the snapshot cannot be taken apart: {error}")
}
