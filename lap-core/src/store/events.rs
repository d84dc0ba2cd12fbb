use async_trait::async_trait;

use super::work::Hold;
use crate::error::Result;
use crate::event::{Event, NewEvent};
use crate::id::{SandboxId, SessionId, TurnId};

/// Where events came from, so that none is taken twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingest {
    /// The sandbox whose journal they are from.
    pub source: SandboxId,
    /// The stored cursor must be this (0 at first).
    pub expected: u64,
    /// The cursor afterwards.
    pub cursor: u64,
}

/// Events to append to one session.
#[derive(Debug, Clone)]
pub struct Append {
    /// The session.
    pub session: SessionId,
    /// Append only while this item is held.
    pub hold: Option<Hold>,
    /// Move the cursor of a source in the same commit.
    pub ingest: Option<Ingest>,
    /// This turn is running: sending -> running, with its event before the others. Nothing if it is running already.
    pub running: Option<TurnId>,
    /// In this order.
    pub events: Vec<NewEvent>,
}

/// The answer to one append.
#[derive(Debug, Clone, PartialEq)]
pub enum Appended {
    /// Done; the events as stored, in order (with `turn.running` first when there was one).
    Done(Vec<Event>),
    /// The hold is lost. Nothing changed.
    Stale,
    /// The stored cursor is this one. Nothing changed.
    CursorAt(u64),
    /// There is no such session.
    NoSession,
}

/// Some events of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// In order of their ids.
    pub events: Vec<Event>,
    /// The oldest id that retention has kept; 1 when nothing was removed.
    pub first_kept: u64,
    /// The newest id; 0 when there is none.
    pub head: u64,
}

/// The log. Ids of a session are 1, 2, 3, ... without gaps and never reused.
#[async_trait]
pub trait Events {
    /// Appends to many sessions in one commit; answers in order. One stale entry does not stop the others.
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>>;

    /// Events after this id, at most `limit`. `None` when there is no such session.
    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>>;

    /// The stored cursor of a source; 0 when nothing was taken from it.
    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64>;
}
