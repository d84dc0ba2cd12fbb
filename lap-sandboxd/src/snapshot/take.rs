//! Takes a snapshot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Refused;
use super::git::Git;
use super::lost::Lost;
use super::pack::{Material, RESERVED, pack};
use super::survey::{Survey, survey};
use crate::binding::Conflict;
use crate::sandbox::Sandbox;

/// How long git may take, and then how long files may be read. Whoever asks waits about twice as long.
const PATIENCE: Duration = Duration::from_secs(7);

/// The archive, at most `limit` bytes, and what is not in it.
///
/// # Errors
/// `Busy` when a turn runs or begins meanwhile; `Conflict` when no session holds the sandbox.
pub(crate) async fn take(sandbox: &Arc<Sandbox>, limit: usize) -> Result<(Vec<u8>, Vec<String>), Refused> {
    if limit <= RESERVED {
        return Err(Refused::Invalid(format!(
            "limit_bytes: a snapshot needs more than {RESERVED} bytes"
        )));
    }
    if sandbox.adapter.get().is_none() {
        return Err(Refused::NotReady);
    }
    if sandbox.bound().await.is_none() {
        return Err(Refused::Conflict(Conflict::Unbound));
    }
    let _alone = sandbox.snapshots.lock().await;
    if sandbox.turns.current().is_some() {
        return Err(Refused::Busy);
    }
    let mut lost = Lost::default();
    let messages = sandbox.messages().await;
    let survey = look(sandbox, limit, &mut lost).await;
    let material = Material {
        messages,
        survey,
        workspace: sandbox.layout.workspace(),
        deadline: Instant::now() + PATIENCE,
    };
    let packed = tokio::task::spawn_blocking(move || {
        let archive = pack(material, limit, &mut lost)?;
        Ok::<_, std::io::Error>((archive, lost.into_entries()))
    });
    let packed = packed
        .await
        .map_err(|error| Refused::broken("the snapshot broke off", error))?
        .map_err(|error| Refused::broken("the snapshot cannot be written", error))?;
    // What a turn changed meanwhile would be half of something.
    if sandbox.turns.current().is_some() {
        return Err(Refused::Busy);
    }
    Ok(packed)
}

/// What git tells. A repository it cannot read loses its changes and no more.
async fn look(sandbox: &Sandbox, limit: usize, lost: &mut Lost) -> Option<Survey> {
    let workspace = sandbox.layout.workspace();
    if !Git::exists(&workspace) {
        return None;
    }
    let mut git = Git::new(
        &workspace,
        sandbox.environment.base(),
        &sandbox.processes,
        PATIENCE,
    );
    let launch = &sandbox.launch;
    let surveyed = match git.disarm().await {
        Ok(()) => {
            survey(
                &git,
                launch.repo_url.is_some(),
                launch.branch.as_deref(),
                limit,
                lost,
            )
            .await
        }
        Err(reason) => Err(reason),
    };
    Some(surveyed.unwrap_or_else(|reason| {
        lost.add(format!(
            "uncommitted changes: git cannot read the workspace: {reason}"
        ));
        Survey::default()
    }))
}
