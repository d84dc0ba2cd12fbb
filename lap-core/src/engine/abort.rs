//! The verb that stops turns.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::caller::Caller;
use crate::error::Result;
use crate::id::{SessionId, TurnId};
use crate::session::Session;
use crate::store::{Aborting, WorkKind};
use crate::turn::Turn;

const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// One turn, or every open and queued turn of the session, is stopped or being stopped: queued ones are aborted
    /// at once, the open one ends when its harness says so, at the latest after ten seconds. A turn that has its
    /// outcome is left alone.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn abort(
        &self,
        _caller: &Caller,
        session: SessionId,
        turn: Option<TurnId>,
    ) -> Result<Aborting> {
        let found = self.core.session(session).await?;
        if let Some(id) = turn {
            self.turn(session, id).await?;
        }
        let aborting = self.core.parts.store.abort(session, turn).await?;
        if let Some(open) = &aborting.open {
            self.stop(&found, open);
        }
        self.core.changed(session);
        Ok(aborting)
    }

    /// Tells the handler here, or else the harness itself: its worker then sees the end in the journal. A turn may
    /// be on its way to either, so this is tried for a while.
    fn stop(&self, session: &Session, turn: &Turn) {
        let core = Arc::clone(&self.core);
        let (key, turn) = (session.id.to_string(), turn.id);
        let target = session.sandbox.zip(session.address.clone());
        self.core.tasks.spawn(async move {
            for _ in 0..TRIES {
                if let Some(signals) = core.runs.signals(WorkKind::Turn, &key) {
                    signals.stop(turn);
                    return;
                }
                if let Some((sandbox, address)) = &target
                    && core
                        .parts
                        .harness
                        .abort(&core.contact(*sandbox, address), turn)
                        .await
                        .is_ok()
                {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
            tracing::warn!(lap.turn.id = %turn, "nobody was reached to stop a turn");
        });
    }
}
