//! Finds the files of a folder that are worth keeping.

use std::path::{Path, PathBuf};

use super::archive::MAX_ENTRIES;
use super::lost::Lost;
use super::place::{Kind, Place};

/// Deeper folders are a loop of somebody's making.
const MAX_DEPTH: usize = 64;

/// A file or symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// `None` for a symlink.
    pub(super) size: Option<u64>,
}

/// Collects candidates.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    place: &'a Place,
    pub(super) found: Vec<Candidate>,
    pub(super) lost: Lost,
    is_full: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(place: &'a Place) -> Self {
        Self {
            place,
            found: Vec::new(),
            lost: Lost::default(),
            is_full: false,
        }
    }

    /// Takes the file, link or folder at the path. Pipes, sockets and devices have no content to keep.
    pub(super) fn take(&mut self, path: &Path) {
        match self.place.look(path) {
            Ok(Some(Kind::File(size))) => self.add(path, Some(size)),
            Ok(Some(Kind::Link)) => self.add(path, None),
            Ok(Some(Kind::Folder)) => self.folder(path, path.components().count()),
            Ok(Some(Kind::Special) | None) => {}
            Err(error) => self.lost.file(path, error),
        }
    }

    /// Takes what is in a folder, except what tools make again, which is named.
    pub(super) fn folder(&mut self, folder: &Path, depth: usize) {
        let names = match self.place.names(folder) {
            Ok(names) => names,
            Err(error) => return self.lost.file(folder, error),
        };
        if depth > MAX_DEPTH {
            return self.lost.file(folder, "too deep");
        }
        if depth > 0 && is_made_by_tools(folder, &names) {
            return self.lost.add(format!(
                "the folder {}, which tools can make again",
                folder.display()
            ));
        }
        for name in names {
            let path = folder.join(&name);
            if name.as_os_str().eq_ignore_ascii_case(".git") {
                self.lost
                    .add(format!("the history of the repository in {}", shown(folder)));
            } else if !self.is_full {
                self.take(&path);
            }
        }
    }

    fn add(&mut self, path: &Path, size: Option<u64>) {
        if self.found.len() < MAX_ENTRIES {
            self.found.push(Candidate {
                path: path.to_owned(),
                size,
            });
        } else if !self.is_full {
            self.is_full = true;
            self.lost.add(format!("all files beyond the first {MAX_ENTRIES}"));
        }
    }
}

/// Dependencies and build output: large, and one command away. Tools mark their caches with `CACHEDIR.TAG`.
fn is_made_by_tools(folder: &Path, names: &[PathBuf]) -> bool {
    let name = folder.file_name().unwrap_or_default();
    let has = |marker: &str| names.iter().any(|name| name == Path::new(marker));
    name == "node_modules" || name == "__pycache__" || has("CACHEDIR.TAG") || has("pyvenv.cfg")
}

fn shown(folder: &Path) -> std::path::Display<'_> {
    if folder.as_os_str().is_empty() {
        Path::new(".").display()
    } else {
        folder.display()
    }
}
