//! Work kind `reap`: ends a session that nobody uses. Keyed by session.

use std::sync::Arc;

use super::core::Core;
use super::snapshot;
use super::work::Next;
use crate::error::{Result, chain};
use crate::session::{EndedBy, SessionState};
use crate::store::{End, Ended, WorkItem};

/// Being early is fine: a session in use says when to look again.
pub(super) async fn run(core: &Arc<Core>, item: &WorkItem) -> Result<Next> {
    let session = item.key().parse()?;
    let Some(found) = core.parts.store.session(session).await? else {
        return Ok(Next::Done);
    };
    let unused = core.parts.clock.now().since(found.last_seen_at);
    if found.state == SessionState::Ready && unused >= core.config.idle_timeout {
        // Taken first, because the end dismisses the sandbox. If somebody comes meanwhile it is just replaced later.
        if let Err(error) = snapshot::take(core, &found).await {
            tracing::warn!(lap.session.id = %session, error = %chain(&error), "an idle session has no snapshot");
        }
    }
    let minutes = core.config.idle_timeout.as_secs().div_ceil(60);
    let end = End {
        session,
        by: EndedBy::Idle,
        reason: Some(format!("nobody used the session for {minutes} minutes")),
        only_if_idle_for: Some(core.config.idle_timeout),
    };
    match core.parts.store.end(end).await? {
        Ended::Done(_) => {
            core.changed(session);
            core.work_is_due();
            metrics::counter!("reconcile_idle_killed_total").increment(1);
            Ok(Next::Done)
        }
        Ended::InUse(after) => Ok(Next::Again(after)),
        Ended::Already(_) | Ended::Missing => Ok(Next::Done),
    }
}
