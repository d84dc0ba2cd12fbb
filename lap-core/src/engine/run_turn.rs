//! Work kind `turn`: delivers the open turn of a session, stores what the harness says, gives the turn its
//! outcome, and goes on with the next. Keyed by session.
//!
//! `sending` was committed before this runs. A turn is delivered at most once per life of a sandbox: after a
//! take-over the harness is asked whether it has the turn, and the harness refuses a turn it knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::pump::{ABORT_GRACE, Pump, UNCONFIRMED};
use super::runs::Signals;
use super::watch;
use super::work::Next;
use crate::error::{ErrorKind, Result, chain};
use crate::harness::{Delivery, HarnessEvents, Sent};
use crate::id::{SandboxId, SessionId};
use crate::runtime::Endpoint;
use crate::session::SessionState;
use crate::store::{Append, Finish, Finished, WorkItem};
use crate::turn::{Outcome, Turn};

/// What the platform waits beyond the deadline that the harness keeps itself.
const GRACE: Duration = Duration::from_secs(10);
/// How often a worker looks whether someone asked to stop its turn, when no hint says so.
const LOOK: Duration = Duration::from_secs(15);
/// How long a harness may still be busy with an earlier turn.
const BUSY: Duration = Duration::from_secs(15);

/// How the work on one turn ended.
pub(super) enum End {
    /// It has this outcome, which is still to be stored, after the last events if there are any.
    Outcome(Box<Outcome>, Option<Append>),
    /// The hold is lost or the session has ended: the outcome is somebody else's.
    NotOurs,
}

pub(super) fn outcome(outcome: Outcome) -> Result<End> {
    Ok(End::Outcome(Box::new(outcome), None))
}

pub(super) async fn run(
    core: &Arc<Core>,
    item: &WorkItem,
    given: Option<Turn>,
    signals: &Signals,
) -> Result<Next> {
    let session: SessionId = item.key().parse()?;
    let mut fresh = given;
    loop {
        let (turn, is_fresh) = match fresh.take() {
            Some(turn) => (turn, true),
            None => match core.parts.store.begin(session, &item.hold).await? {
                Some(turn) => (turn, false),
                None => return Ok(Next::Done),
            },
        };
        let started = Instant::now();
        let end = tokio::select! {
            biased;
            end = deliver(core, item, &turn, is_fresh, signals) => end?,
            () = signals.ended.cancelled() => End::NotOurs,
            end = heed(core, &turn, signals) => end,
        };
        let End::Outcome(outcome, last) = end else {
            return Ok(Next::Settled);
        };
        metrics::histogram!("turn_duration_seconds").record(started.elapsed());
        let finish = Finish {
            turn: turn.id,
            hold: item.hold.clone(),
            outcome: *outcome,
        };
        let finished = match last {
            Some(last) => core.parts.store.conclude(last, finish).await?,
            None => core.parts.store.finish(finish).await?,
        };
        match finished {
            Finished::Done(_, next) => {
                core.changed(session);
                match next {
                    Some(next) => fresh = Some(next),
                    None => return Ok(Next::Settled),
                }
            }
            Finished::Stale => return Ok(Next::Settled),
        }
    }
}

/// Heeds what was asked for in another process: its hint may be lost, and the process too. Returns when the turn has
/// its outcome from elsewhere.
async fn heed(core: &Core, turn: &Turn, signals: &Signals) -> End {
    loop {
        tokio::select! {
            biased;
            () = signals.changed.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        match core.parts.store.turn(turn.id).await {
            Ok(Some(stored)) if stored.state.is_terminal() => return End::NotOurs,
            Ok(Some(stored)) if stored.abort_requested => signals.stop(turn.id),
            // The next look finds out.
            Ok(_) | Err(_) => {}
        }
    }
}

/// One turn on its way through one sandbox.
pub(super) struct Run<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) item: &'a WorkItem,
    pub(super) turn: &'a Turn,
    pub(super) sandbox: SandboxId,
    pub(super) address: String,
    /// When the platform gives up on the harness.
    pub(super) deadline: Instant,
}

async fn deliver(
    core: &Arc<Core>,
    item: &WorkItem,
    turn: &Turn,
    fresh: bool,
    signals: &Signals,
) -> Result<End> {
    let session = core.session(turn.session).await?;
    let (SessionState::Ready, Some(sandbox), Some(address)) =
        (session.state, session.sandbox, session.address)
    else {
        return Ok(End::NotOurs);
    };
    let spent = core
        .parts
        .clock
        .now()
        .since(turn.started_at.unwrap_or(turn.created_at));
    let deadline = Instant::now() + (core.config.turn_timeout + GRACE).saturating_sub(spent);
    let run = Run {
        core,
        item,
        turn,
        sandbox,
        address,
        deadline,
    };
    let cursor = core.parts.store.cursor(turn.session, sandbox).await?;
    if turn.abort_requested {
        signals.stop(turn.id);
    }
    match run.begin(fresh, cursor, signals).await? {
        Ok(events) => Pump::new(&run, cursor, signals).run(events).await,
        Err(end) => Ok(end),
    }
}

/// Errors that a repetition of the same call would meet again.
const fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Forbidden | ErrorKind::WrongState
    )
}

enum Begun {
    Stream(HarnessEvents),
    Known(bool),
    Stale,
    Busy,
}

impl Run<'_> {
    /// The harness works on the turn, or the turn has ended before it could.
    async fn begin(&self, fresh: bool, cursor: u64, signals: &Signals) -> Result<Result<HarnessEvents, End>> {
        let mut known = if fresh { Some(false) } else { None };
        let (mut busy_until, mut stop_by) = (None, None);
        let mut pause = Duration::from_millis(50);
        let ended = |reason: Outcome| Ok(Err(End::Outcome(Box::new(reason), None)));
        loop {
            let begun = match known {
                Some(false) if signals.is_stopped(self.turn.id) => {
                    return ended(Outcome::aborted("the turn was stopped before it was sent"));
                }
                Some(false) => self.send().await,
                Some(true) => self.attach(cursor).await.map(Begun::Stream),
                None => self.has_turn().await.map(Begun::Known),
            };
            match begun {
                Ok(Begun::Stream(events)) => return Ok(Ok(events)),
                Ok(Begun::Known(is_known)) => known = Some(is_known),
                Ok(Begun::Stale) => return Ok(Err(End::NotOurs)),
                Ok(Begun::Busy) => {
                    if Instant::now() >= *busy_until.get_or_insert(Instant::now() + BUSY) {
                        return ended(Outcome::failed("the harness is still busy with an earlier turn"));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) if is_final(error.kind()) => return ended(Outcome::failed(chain(&error))),
                Err(error) => {
                    // It is unknown now whether the harness has the turn.
                    known = None;
                    if let Some(end) = self.unreachable(&error).await? {
                        return Ok(Err(end));
                    }
                    if signals.is_stopped(self.turn.id)
                        && Instant::now() >= *stop_by.get_or_insert(Instant::now() + ABORT_GRACE)
                    {
                        return ended(Outcome::aborted(UNCONFIRMED));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    async fn send(&self) -> Result<Begun> {
        let delivery = Delivery {
            turn: self.turn.id,
            fence: self.item.hold.fence,
            parts: self.turn.parts.clone(),
            model: self.turn.model.clone(),
            deadline: self.core.config.turn_timeout,
        };
        let contact = self.core.contact(self.sandbox, &self.address);
        Ok(match self.core.parts.harness.send(&contact, &delivery).await? {
            Sent::Started(events) => Begun::Stream(events),
            Sent::Known => Begun::Known(true),
            Sent::Stale => Begun::Stale,
            Sent::Busy => Begun::Busy,
        })
    }

    pub(super) async fn attach(&self, after: u64) -> Result<HarnessEvents> {
        let contact = self.core.contact(self.sandbox, &self.address);
        self.core
            .parts
            .harness
            .attach(&contact, after, self.turn.id)
            .await
    }

    async fn has_turn(&self) -> Result<bool> {
        let contact = self.core.contact(self.sandbox, &self.address);
        self.core.parts.harness.has_turn(&contact, self.turn.id).await
    }

    pub(super) async fn abort(&self) {
        let contact = self.core.contact(self.sandbox, &self.address);
        if let Err(error) = self.core.parts.harness.abort(&contact, self.turn.id).await {
            tracing::warn!(error = %chain(&error), "the harness was not reached to stop a turn");
        }
    }

    /// The harness was not reached. The runtime says whether that is the end; when it cannot say, the turn's
    /// deadline decides.
    pub(super) async fn unreachable(&self, error: &crate::error::Error) -> Result<Option<End>> {
        if let Ok(Endpoint::Gone { reason }) = self
            .core
            .parts
            .runtime
            .endpoint(self.sandbox, Duration::ZERO)
            .await
        {
            watch::lose(self.core, self.sandbox, &reason).await?;
            return Ok(Some(End::NotOurs));
        }
        if Instant::now() < self.deadline {
            return Ok(None);
        }
        let reason = format!(
            "the sandbox was not reached before the turn's deadline: {}",
            chain(error)
        );
        outcome(Outcome::unknown(reason)).map(Some)
    }
}
