//! What a snapshot says about itself, and the names of its entries.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The form of snapshots; another number is another form.
pub(super) const VERSION: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const CONVERSATION: &str = "conversation.jsonl";
pub(super) const COMMITS: &str = "commits.bundle";
pub(super) const CHANGES: &str = "changes";
pub(super) const SQUASHED: &str = "squashed";
pub(super) const FILES: &str = "files";

/// The entry [`MANIFEST`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) version: u32,
    /// `None` for a workspace without a repository.
    pub(super) git: Option<Position>,
}

/// Where a repository stood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The commit the [`CHANGES`] are relative to; `None` before the first commit.
    pub(super) head: Option<String>,
    /// `None` when no branch was checked out.
    pub(super) branch: Option<String>,
    /// How many commits the remote does not have. They are in [`COMMITS`], and their changes together with the
    /// uncommitted ones in [`SQUASHED`].
    pub(super) own_commits: u64,
}

impl Position {
    /// Values that go into git's arguments are what they claim to be.
    pub(super) fn is_plain(&self) -> bool {
        let hex =
            |id: &String| matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = |name: &String| {
            !name.starts_with('-')
                && name.len() <= 255
                && !name.contains(|c: char| c.is_control() || c == ' ')
        };
        self.head.iter().all(hex) && self.branch.iter().all(name)
    }
}

/// The name of the n-th entry of a list.
pub(super) fn numbered(list: &str, number: usize) -> PathBuf {
    Path::new(list).join(format!("{number:06}"))
}
