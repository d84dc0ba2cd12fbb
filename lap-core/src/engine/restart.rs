//! The verb that brings a session up again, the only way back from an end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::live::Live;
use super::{Engine, open_session, snapshot};
use crate::caller::Caller;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::id::{SandboxId, SessionId};
use crate::session::{Session, SessionState};
use crate::store::{Revive, Revived};

const RESTART: &str = "restart session";
/// How long an open turn may take to stop before the session is restarted without its latest work.
const STOPPING: Duration = Duration::from_secs(8);

impl Engine {
    /// The session is being brought up again, in a fresh sandbox, with its conversation, its uncommitted work as far
    /// as a snapshot has it, its environment, prompt and skills. Turns that were open or queued are aborted. What
    /// could not be kept is told by the event `memory.degraded`.
    ///
    /// # Cancel safety
    /// If dropped, the session was restarted or not; read it to learn which.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` while it is being brought up; `Gone` when its agent was deleted; `Unavailable`.
    pub async fn restart(&self, caller: &Caller, id: SessionId) -> Result<Session> {
        let session = self.core.session(id).await?;
        if session.state == SessionState::Ready
            && let Err(error) = self.keep_work(caller, &session).await
        {
            // The person asked for a restart, which may be just because the sandbox does not answer.
            tracing::warn!(lap.session.id = %id, error = %chain(&error), "restarting without a fresh snapshot");
        }
        let core = Arc::clone(&self.core);
        let revive = Revive {
            session: id,
            by: caller.principal().to_owned(),
            platform_hash: core.worker.platform_hash.clone(),
            cold_sandbox: SandboxId::fresh(&*core.parts.entropy, core.parts.clock.now()),
            place: core.worker.place,
            worker: core.worker.id,
        };
        let committed = tokio::spawn(async move {
            let answer = core.parts.store.revive(revive).await?;
            if let Revived::Warm(opened) | Revived::Cold(opened) = &answer {
                core.runs.end_session(id);
                open_session::begin(&core, opened);
                core.changed(id);
                core.work_is_due();
            }
            Ok(answer)
        });
        let broke =
            |panic| Error::new(ErrorKind::Internal, RESTART, "the restart broke off").with_source(panic);
        match committed.await.map_err(broke)?? {
            Revived::Warm(opened) | Revived::Cold(opened) => Ok(opened.session),
            Revived::Creating(_) => Err(Error::new(
                ErrorKind::WrongState,
                RESTART,
                "the session is being brought up already",
            )),
            Revived::AgentGone => Err(Error::new(
                ErrorKind::Gone,
                RESTART,
                "the agent of this session was deleted",
            )),
            Revived::Missing => Err(Error::not_found(RESTART, "session", id)),
        }
    }

    /// Stops what runs, since a sandbox gives no snapshot in the middle of a turn, and takes one.
    async fn keep_work(&self, caller: &Caller, session: &Session) -> Result<()> {
        let aborting = self.abort(caller, session.id, None).await?;
        if let Some(open) = aborting.open {
            self.wait_turn(session.id, open.id, STOPPING).await?;
        }
        snapshot::take(&self.core, session).await.map(drop)
    }

    /// The session as soon as it is no longer creating, or as it is after `within`.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn wait_session(&self, id: SessionId, within: Duration) -> Result<Session> {
        let deadline = Instant::now() + within;
        let mut live = self.core.live.subscribe(id);
        loop {
            let session = self.core.session(id).await?;
            if session.state != SessionState::Creating {
                return Ok(session);
            }
            loop {
                let heard = tokio::select! {
                    heard = live.recv() => heard,
                    () = tokio::time::sleep_until(deadline) => return Ok(session),
                    () = self.core.draining.cancelled() => return Ok(session),
                };
                match heard {
                    Ok(Live::Said { .. } | Live::Stored(_)) => {}
                    Ok(Live::Look) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => live = self.core.live.subscribe(id),
                }
            }
        }
    }
}
