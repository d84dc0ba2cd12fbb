//! Activity of sessions, written together every few seconds.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::core::Core;
use crate::error::chain;
use crate::id::SessionId;

const EVERY: Duration = Duration::from_secs(5);

/// Sessions used since the last write. A crash loses at most the last few seconds of activity.
#[derive(Debug, Default)]
pub(super) struct Touched {
    sessions: Mutex<HashSet<SessionId>>,
}

impl Touched {
    pub(super) fn touch(&self, session: SessionId) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session);
    }

    fn drain(&self) -> Vec<SessionId> {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .collect()
    }
}

/// Writes until the engine stops.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        let stopping = tokio::select! {
            biased;
            () = core.stopped.cancelled() => true,
            () = tokio::time::sleep(EVERY) => false,
        };
        let touched = core.touched.drain();
        if !touched.is_empty()
            && let Err(error) = core.parts.store.touch(&touched).await
        {
            tracing::warn!(error = %chain(&error), "activity of sessions could not be written; trying again");
            for session in touched {
                core.touched.touch(session);
            }
        }
        if stopping {
            return;
        }
    }
}
