use async_trait::async_trait;
use serde_json::Value;

use super::Idempotency;
use super::events::{Append, Appended, Events};
use super::work::{Hold, WorkItem};
use crate::error::Result;
use crate::id::{SessionId, TurnId, WorkerId};
use crate::sandbox::Place;
use crate::session::SessionState;
use crate::turn::{Outcome, Turn};

/// A turn to accept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTurn {
    /// Its id, minted by the engine.
    pub id: TurnId,
    /// Message parts.
    pub parts: Vec<Value>,
    /// Another model, for this turn only.
    pub model: Option<String>,
    /// Who sends it.
    pub created_by: String,
}

/// Accepts a turn of a session.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The session.
    pub session: SessionId,
    /// The turn.
    pub turn: NewTurn,
    /// How many turns may be queued behind the open one.
    pub queue_limit: u32,
    /// The process that accepts, and runs the turn when the session's sandbox is in `Place::Cluster` or at `place`.
    pub worker: WorkerId,
    /// The place this process reaches.
    pub place: Place,
    /// Recognises a repetition.
    pub idempotency: Option<Idempotency>,
}

/// The answer to [`Turns::accept`].
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// Nothing else was open and the session is ready: the turn is `sending`. The item is `Some` when it is held
    /// by the accepting process; otherwise it is due for whoever reaches the sandbox, or another process holds it
    /// still and its end re-arms it.
    Started(Turn, Option<WorkItem>),
    /// It waits.
    Queued(Turn),
    /// The same request was accepted before as this turn.
    Replayed(Turn),
    /// Too many wait already.
    Full,
    /// The session has ended.
    Ended(SessionState),
    /// There is no such session.
    NoSession,
    /// The key was used with another body.
    KeyReused,
}

/// Gives a turn its outcome.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The turn.
    pub turn: TurnId,
    /// The held `turn` item of its session.
    pub hold: Hold,
    /// The outcome.
    pub outcome: Outcome,
}

/// The answer to [`Turns::finish`].
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// The turn has its outcome. When another was queued it is `sending` now and the same item is held for it;
    /// otherwise the item is done.
    Done(Turn, Option<Turn>),
    /// The hold is lost or the turn is not open. Nothing changed.
    Stale,
}

/// What an abort did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aborting {
    /// Queued turns that are aborted now.
    pub aborted: Vec<Turn>,
    /// The open turn, whose abort is now requested. Its worker ends it.
    pub open: Option<Turn>,
}

/// Which turns of a session to list, oldest first.
#[derive(Debug, Clone)]
pub struct TurnQuery {
    /// The session.
    pub session: SessionId,
    /// After this number only.
    pub after: u64,
    /// At most this many.
    pub limit: u32,
}

/// Keeps turns. A session has at most one open turn; the others queue.
#[async_trait]
pub trait Turns: Events + Sync {
    /// The turn is accepted with the next number and its event, or refused; see [`Accepted`]. The session was
    /// seen just now. The same turn id is the same request, also without a key.
    async fn accept(&self, accept: Accept) -> Result<Accepted>;

    /// The open turn of the session under this hold, after a take-over; when none is open, the first queued one,
    /// `sending` now. `None` when there is none either or the hold is lost.
    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>>;

    /// The turn has its outcome, exactly once; see [`Finished`]. The session was seen just now.
    ///
    /// # Errors
    /// `Invalid` when the outcome is not a terminal state.
    async fn finish(&self, finish: Finish) -> Result<Finished>;

    /// The last events of a turn and its outcome: as [`Events::append`] of `last` and then
    /// [`Turns::finish`], and `Stale` when either would be refused. A store that can makes it one commit; the answer
    /// here makes two, which is right and slower.
    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        let appended = self.append(vec![last]).await?;
        match appended.as_slice() {
            [Appended::Done(_)] => self.finish(finish).await,
            _ => Ok(Finished::Stale),
        }
    }

    /// Stops one turn, or all open and queued ones of the session. A turn that has its outcome is left alone.
    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting>;

    /// The turn.
    async fn turn(&self, id: TurnId) -> Result<Option<Turn>>;

    /// Turns of a session, oldest first.
    async fn list_turns(&self, query: TurnQuery) -> Result<Vec<Turn>>;
}
