//! What outlives a sandbox: the uncommitted work of the workspace and the conversation.
//!
//! A snapshot holds the conversation first, then commits nobody else has, then changes to files of the repository,
//! then other files, the smallest first. What has no room is named. Restoring takes the whole archive apart in a folder
//! of its own before it touches the workspace.

mod apply;
mod archive;
mod git;
mod lost;
mod manifest;
mod pack;
mod place;
mod restore;
mod stage;
mod survey;
mod take;
mod walk;

use crate::binding::Conflict;

pub(crate) use restore::{conversation, restore};
pub(crate) use take::take;

/// Why a snapshot is not taken or not restored.
#[derive(Debug)]
pub(crate) enum Refused {
    NotReady,
    /// A turn is running.
    Busy,
    Conflict(Conflict),
    /// The request or the archive is wrong.
    Invalid(String),
    /// The disk is full or broken.
    Broken(String),
}

impl Refused {
    fn broken(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{what}: {error}"))
    }
}
