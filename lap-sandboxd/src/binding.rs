//! Which session holds the sandbox, and the newest fence seen.

use std::io;
use std::path::{Path, PathBuf};

use lap_harness::OpenRequest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::layout::replace_file;

/// What a session bound, and the conversation it got.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) opening: OpenRequest,
    pub(crate) conversation: String,
}

/// Kept on disk, so that a restarted sandboxd still refuses strangers and stale owners.
#[derive(Debug)]
pub(crate) struct Binding {
    folder: PathBuf,
    bound: Option<Bound>,
    fence: u64,
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Another session holds the sandbox.
    Bound,
    /// No session holds it.
    Unbound,
    /// A newer owner was here.
    StaleFence,
}

impl Binding {
    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        let bound = read(&folder.join("binding.json"))?;
        let fence = read(&folder.join("fence.json"))?.unwrap_or(0);
        Ok(Self {
            folder: folder.to_owned(),
            bound,
            fence,
        })
    }

    pub(crate) const fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    /// The newest fence seen.
    pub(crate) const fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether this session may open the sandbox.
    pub(crate) fn check_open(&self, session: Uuid, fence: u64) -> Result<(), Conflict> {
        if self
            .bound
            .as_ref()
            .is_some_and(|bound| bound.opening.session != session)
        {
            return Err(Conflict::Bound);
        }
        if fence < self.fence {
            Err(Conflict::StaleFence)
        } else {
            Ok(())
        }
    }

    /// Takes the sandbox for the session, or renews what it bound.
    pub(crate) fn bind(&mut self, bound: Bound) -> io::Result<()> {
        self.raise(bound.opening.fence)?;
        replace_file(&self.folder.join("binding.json"), &serde_json::to_vec(&bound)?)?;
        self.bound = Some(bound);
        Ok(())
    }

    /// Whether a turn with this fence may run.
    pub(crate) fn check_turn(&self, fence: u64) -> Result<(), Conflict> {
        if self.bound.is_none() {
            return Err(Conflict::Unbound);
        }
        if fence < self.fence {
            Err(Conflict::StaleFence)
        } else {
            Ok(())
        }
    }

    /// Whether somebody with this fence may prepare the sandbox.
    pub(crate) const fn check_fence(&self, fence: u64) -> Result<(), Conflict> {
        if fence < self.fence {
            Err(Conflict::StaleFence)
        } else {
            Ok(())
        }
    }

    /// Remembers a fence; older ones are refused from now on.
    pub(crate) fn raise(&mut self, fence: u64) -> io::Result<()> {
        if fence > self.fence {
            replace_file(&self.folder.join("fence.json"), &serde_json::to_vec(&fence)?)?;
            self.fence = fence;
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
