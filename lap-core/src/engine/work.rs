//! Taking work, running its handlers and settling the items.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::core::Core;
use super::runs::Signals;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::sandbox::Place;
use crate::store::{Hint, Take, WorkItem, WorkKind};
use crate::turn::Turn;

/// How often a process shows that it lives. Five times within [`crate::store::WORKER_LAPSE`].
const BEAT: Duration = Duration::from_secs(2);
/// How often due work is looked for without a wake-up.
const LOOK: Duration = Duration::from_secs(1);
/// Items taken at once.
const BATCH: u32 = 32;

const KINDS: [WorkKind; 4] = [
    WorkKind::BringUp,
    WorkKind::Turn,
    WorkKind::Reap,
    WorkKind::Cleanup,
];

/// How a handler leaves its item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is finished.
    Done,
    /// It was early.
    Again(Duration),
    /// It was settled in another commit, or is no longer held.
    Settled,
}

/// Shows that the process lives, and finds items it was given without learning so, until the engine stops.
pub(super) async fn beat(core: Arc<Core>) {
    let mut unknown: Vec<WorkItem> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep(BEAT) => {}
        }
        match core.parts.store.beat(&core.worker).await {
            Ok(0) => {}
            Ok(freed) => {
                tracing::info!(freed, "took over work of a process that has ended");
                core.work_is_due();
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the heartbeat was not written"),
        }
        unknown = recover(&core, unknown).await;
    }
}

/// Runs items that are held here, do not run here, and did not run here at the last beat either: their
/// assignment was committed and its answer lost.
async fn recover(core: &Arc<Core>, before: Vec<WorkItem>) -> Vec<WorkItem> {
    let Ok(held) = core.parts.store.held(core.worker.id).await else {
        return before;
    };
    let idle: Vec<_> = held
        .into_iter()
        .filter(|item| !core.runs.has(&item.hold))
        .collect();
    let (lost, fresh): (Vec<_>, Vec<_>) = idle
        .into_iter()
        .partition(|item| before.iter().any(|seen| seen.hold == item.hold));
    for item in lost {
        tracing::info!(kind = %item.hold.kind, key = item.key(), "running work whose assignment was not answered");
        start(core, item, None);
    }
    fresh
}

/// Takes due work until the engine drains.
pub(super) async fn take(core: Arc<Core>) {
    let places = match core.worker.place {
        Place::Cluster => vec![Place::Cluster],
        host @ Place::Host(_) => vec![Place::Cluster, host],
    };
    loop {
        let take = Take {
            worker: core.worker.id,
            kinds: KINDS.to_vec(),
            places: places.clone(),
            limit: BATCH,
        };
        match core.parts.store.take(take).await {
            Ok(items) => {
                let full = items.len() == BATCH as usize;
                for item in items {
                    start(&core, item, None);
                }
                if full {
                    continue;
                }
            }
            Err(error) => tracing::warn!(error = %chain(&error), "no work could be taken"),
        }
        tokio::select! {
            biased;
            () = core.draining.cancelled() => return,
            () = core.wake.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Follows hints of other processes until the engine stops.
pub(super) async fn listen(core: Arc<Core>) {
    let mut hints = core.parts.store.hints();
    loop {
        let hint = tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            hint = hints.next() => hint,
        };
        match hint {
            Some(Hint::Work) => core.wake.notify_one(),
            Some(Hint::Session { from, .. }) if from == core.worker.id => {}
            Some(Hint::Session { session, .. }) => {
                core.live.look(session);
                core.runs.look(session);
            }
            Some(Hint::Missed) => {
                core.wake.notify_one();
                core.live.look_everywhere();
            }
            None => return,
        }
    }
}

/// Starts the handler of a held item, unless it runs here already. `turn` is the open turn of a `turn` item
/// when the commit that gave the item also gave the turn.
pub(super) fn start(core: &Arc<Core>, item: WorkItem, turn: Option<Turn>) {
    let Some(signals) = core.runs.begin(&item.hold) else {
        return;
    };
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        // The handler has a task of its own, so that a defect in it fails the item and not the process.
        let (shared, held) = (Arc::clone(&core), item.clone());
        let mut handler = tokio::spawn(async move { handle(&shared, &held, turn, signals).await });
        let outcome = tokio::select! {
            biased;
            joined = &mut handler => joined.unwrap_or_else(|panic| {
                Err(Error::new(ErrorKind::Internal, "run work", "the handler broke off").with_source(panic))
            }),
            () = leave(&core, item.hold.kind) => {
                handler.abort();
                // Only after its end is it certain that it writes nothing more.
                let _ = handler.await;
                Ok(Next::Again(Duration::ZERO))
            }
        };
        settle(&core, &item, outcome).await;
        core.runs.end(&item.hold);
    });
}

/// When a draining process gives an item back. Turns go on in their sandboxes and are given back at once; other
/// work may come to its end first.
async fn leave(core: &Core, kind: WorkKind) {
    core.draining.cancelled().await;
    if kind != WorkKind::Turn {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

async fn handle(core: &Arc<Core>, item: &WorkItem, turn: Option<Turn>, signals: Signals) -> Result<Next> {
    match item.hold.kind {
        WorkKind::BringUp => super::bring_up::run(core, item, &signals).await,
        WorkKind::Turn => super::run_turn::run(core, item, turn, &signals).await,
        WorkKind::Reap => super::reap::run(core, item).await,
        WorkKind::Cleanup => super::cleanup::run(core, item).await,
        kind => Err(Error::unsupported(
            "run work",
            format!("this process, for work of kind {kind},"),
        )),
    }
}

/// Settles the item, repeating while the store does not answer: an item that this process holds while it
/// lives would otherwise stay held by nobody in particular.
async fn settle(core: &Core, item: &WorkItem, outcome: Result<Next>) {
    if let Err(error) = &outcome {
        let (kind, key, attempts) = (item.hold.kind, item.key(), item.attempts);
        tracing::warn!(%kind, key, attempts, error = %chain(error), "work failed; it will be repeated");
    }
    let mut pause = Duration::from_millis(100);
    loop {
        let settled = match &outcome {
            Ok(Next::Settled) => return,
            Ok(Next::Done) => core.parts.store.done(item).await,
            Ok(Next::Again(after)) => core.parts.store.again(item, *after).await,
            Err(_) => core.parts.store.fail(item, backoff(item.attempts)).await,
        };
        match settled {
            Ok(_) => return,
            Err(error) if error.is_retryable() => {
                tokio::select! {
                    biased;
                    () = core.stopped.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), key = item.key(), "work could not be settled");
                return;
            }
        }
    }
}

/// 0.2 s, doubled with each attempt, at most 30 s.
fn backoff(attempts: u32) -> Duration {
    Duration::from_millis(200)
        .saturating_mul(1 << attempts.saturating_sub(1).min(8))
        .min(Duration::from_secs(30))
}
