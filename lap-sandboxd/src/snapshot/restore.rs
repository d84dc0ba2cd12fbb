//! Gives a snapshot to a fresh sandbox.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lap_harness::names::BUILTIN;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Refused;
use super::apply::{self, Site};
use super::git::Git;
use super::lost::Lost;
use super::stage::{Staged, stage};
use crate::binding::Conflict;
use crate::layout::{Layout, replace_file};
use crate::sandbox::Sandbox;

/// How long git may take altogether.
const PATIENCE: Duration = Duration::from_secs(60);
const MARKER: &str = "restored.json";
const STAGING: &str = "restoring";
const CONVERSATION: &str = "restored-conversation.jsonl";
const REJECTED: &str = "rejected.patch";

/// What is known about a restoration. It is written before the workspace changes and again when all is done, so that a
/// repetition after a crash begins with a clean workspace and one after the end does nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Marker {
    /// Of the archive.
    digest: String,
    /// Where the fresh clone stood.
    tip: Option<String>,
    branch: Option<String>,
    /// `None` until all is done.
    lost: Option<Vec<String>>,
}

/// The sandbox has the workspace and the conversation of the archive; returns what could not be restored.
///
/// # Cancel safety
/// If dropped, the restoration goes on; repeat the call to learn its end.
///
/// # Errors
/// `NotReady`; `Conflict` for an old fence, or when a session holds the sandbox that was not opened on this very
/// archive; `Invalid` when it is not a snapshot, and then nothing was changed; `Broken`.
pub(crate) async fn restore(
    sandbox: &Arc<Sandbox>,
    fence: u64,
    archive: Bytes,
) -> Result<Vec<String>, Refused> {
    let sandbox = Arc::clone(sandbox);
    // A caller that goes away must not leave half of it to the next.
    let restoring = tokio::spawn(async move { restore_alone(&sandbox, fence, archive).await });
    restoring
        .await
        .map_err(|error| Refused::broken("the restoration broke off", error))?
}

async fn restore_alone(sandbox: &Sandbox, fence: u64, archive: Bytes) -> Result<Vec<String>, Refused> {
    if sandbox.adapter.get().is_none() {
        return Err(Refused::NotReady);
    }
    let _alone = sandbox.snapshots.lock().await;
    let state = sandbox.layout.state();
    let broken = |error: io::Error| Refused::broken("the sandbox's state cannot be used", error);
    let earlier = read_marker(&state).map_err(broken)?;
    let digest = digest(&archive);
    let done = earlier
        .as_ref()
        .filter(|marker| marker.digest == digest)
        .and_then(|marker| marker.lost.clone());
    {
        let mut binding = sandbox.binding.lock().await;
        binding.check_fence(fence).map_err(Refused::Conflict)?;
        if let Some(lost) = done {
            return Ok(lost);
        }
        if binding.bound().is_some() {
            return Err(Refused::Conflict(Conflict::Bound));
        }
        binding.raise(fence).map_err(broken)?;
    }
    let folder = state.join(STAGING);
    let staged = tokio::task::spawn_blocking(move || stage(&archive, &folder))
        .await
        .map_err(|error| Refused::broken("the restoration broke off", error))?
        .map_err(Refused::Invalid)?;
    let workspace = sandbox.layout.workspace();
    let git = Git::new(
        &workspace,
        sandbox.environment.base(),
        &sandbox.processes,
        PATIENCE,
    );
    let mut marker = begin(&git, &workspace, earlier, digest).await;
    write_marker(&state, &marker).map_err(broken)?;
    let lost = put_back(sandbox, &git, staged).await.map_err(broken)?;
    marker.lost = Some(lost.clone());
    write_marker(&state, &marker).map_err(broken)?;
    Ok(lost)
}

/// The workspace is as the clone left it.
async fn begin(git: &Git, workspace: &Path, earlier: Option<Marker>, digest: String) -> Marker {
    let Some(earlier) = earlier else {
        let fresh = Git::exists(workspace);
        return Marker {
            digest,
            tip: if fresh {
                git.ask(["rev-parse", "--verify", "-q", "HEAD^{commit}"]).await
            } else {
                None
            },
            branch: if fresh {
                git.ask(["symbolic-ref", "-q", "HEAD"]).await
            } else {
                None
            },
            lost: None,
        };
    };
    match &earlier.tip {
        Some(tip) => {
            if let Some(branch) = &earlier.branch {
                let _ = git.run(["symbolic-ref", "HEAD", branch]).await;
            }
            let _ = git.run(["reset", "-q", "--hard", tip]).await;
            let _ = git.run(["clean", "-q", "-ffdx"]).await;
        }
        None => {
            let _ = fs::remove_dir_all(workspace);
            let _ = fs::create_dir(workspace);
        }
    }
    Marker {
        digest,
        lost: None,
        ..earlier
    }
}

async fn put_back(sandbox: &Sandbox, git: &Git, staged: Staged) -> io::Result<Vec<String>> {
    let mut lost = Lost::default();
    let (workspace, state) = (sandbox.layout.workspace(), sandbox.layout.state());
    let site = Site {
        git,
        workspace: &workspace,
        rejected: &state.join(REJECTED),
    };
    if let Err(reason) = apply::repository(&site, &staged, &mut lost).await {
        lost.add(format!("uncommitted changes: git cannot restore them: {reason}"));
    }
    let conversation = state.join(CONVERSATION);
    match &staged.conversation {
        Some(from) => {
            fs::rename(from, conversation)?;
            // Only the built-in harness goes on where it was; others are told what was said.
            if sandbox.launch.harness != BUILTIN {
                lost.add("details of the conversation, such as tool calls: the agent knows it as a text");
            }
        }
        None => match fs::remove_file(conversation) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        },
    }
    let placed = tokio::task::spawn_blocking(move || {
        apply::files(&staged, &workspace, &mut lost);
        lost.into_entries()
    });
    placed.await.map_err(io::Error::other)
}

/// The messages that were restored into this sandbox, if any were.
pub(crate) fn conversation(layout: &Layout) -> io::Result<Option<Vec<Value>>> {
    match fs::read_to_string(layout.state().join(CONVERSATION)) {
        // Whatever is not a message is no memory; the harness decides what it understands of the rest.
        Ok(lines) => Ok(Some(
            lines
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_marker(state: &Path) -> io::Result<Option<Marker>> {
    match fs::read(state.join(MARKER)) {
        Ok(marker) => Ok(serde_json::from_slice(&marker).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_marker(state: &Path, marker: &Marker) -> io::Result<()> {
    replace_file(&state.join(MARKER), &serde_json::to_vec(marker)?)
}

fn digest(archive: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, archive);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
