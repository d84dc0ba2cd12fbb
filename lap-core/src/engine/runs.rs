//! The work items that run in this process, and the signals to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::id::{SessionId, TurnId};
use crate::store::{Hold, WorkKind};

/// Signals to a running handler. They are hints: the store has the truth.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals {
    /// The session has ended; the handler's writes would be refused.
    pub(super) ended: CancellationToken,
    /// Something about the session changed elsewhere.
    pub(super) changed: Arc<Notify>,
    /// The open turn that someone asked to stop. A run goes from turn to turn, and only this one is meant.
    stop: watch::Sender<Option<TurnId>>,
}

impl Signals {
    /// Someone asked to stop this turn.
    pub(super) fn stop(&self, turn: TurnId) {
        self.stop.send_replace(Some(turn));
    }

    /// Whether someone asked to stop this turn.
    pub(super) fn is_stopped(&self, turn: TurnId) -> bool {
        *self.stop.borrow() == Some(turn)
    }

    /// Returns when someone asked to stop this turn.
    pub(super) async fn stopped(&self, turn: TurnId) {
        let mut stop = self.stop.subscribe();
        // The sender is in `self`, so it cannot be gone.
        let _ = stop.wait_for(|stop| *stop == Some(turn)).await;
    }
}

#[derive(Debug)]
struct Run {
    fence: u64,
    signals: Signals,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Runs {
    running: Mutex<HashMap<(WorkKind, String), Run>>,
}

impl Runs {
    /// Registers a run; `None` when the same hold runs here already.
    pub(super) fn begin(&self, hold: &Hold) -> Option<Signals> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (hold.kind, hold.key.clone());
        if running.get(&key).is_some_and(|run| run.fence >= hold.fence) {
            return None;
        }
        let signals = Signals::default();
        if let Some(older) = running.insert(
            key,
            Run {
                fence: hold.fence,
                signals: signals.clone(),
            },
        ) {
            older.signals.ended.cancel();
        }
        Some(signals)
    }

    /// The run is over.
    pub(super) fn end(&self, hold: &Hold) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (hold.kind, hold.key.clone());
        if running.get(&key).is_some_and(|run| run.fence == hold.fence) {
            running.remove(&key);
        }
    }

    /// Whether nothing runs here.
    pub(super) fn is_empty(&self) -> bool {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether this very hold runs here.
    pub(super) fn has(&self, hold: &Hold) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .get(&(hold.kind, hold.key.clone()))
            .is_some_and(|run| run.fence == hold.fence)
    }

    /// The session has ended: its handlers stop as soon as they can.
    pub(super) fn end_session(&self, session: SessionId) {
        for kind in [WorkKind::BringUp, WorkKind::Turn] {
            if let Some(signals) = self.signals(kind, &session.to_string()) {
                signals.ended.cancel();
            }
        }
    }

    /// Something about the session changed elsewhere: its turn looks at the store.
    pub(super) fn look(&self, session: SessionId) {
        if let Some(signals) = self.signals(WorkKind::Turn, &session.to_string()) {
            signals.changed.notify_one();
        }
    }

    /// The signals of a run.
    pub(super) fn signals(&self, kind: WorkKind, key: &str) -> Option<Signals> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .get(&(kind, key.to_owned()))
            .map(|run| run.signals.clone())
    }
}
