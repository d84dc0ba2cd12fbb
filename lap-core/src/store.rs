//! The contract of a store: role traits, and [`Store`], their sum.
//!
//! Rules that hold for every role:
//! - A method is one atomic commit. After an error of kind `Unavailable` or `TimedOut` it happened or it did not;
//!   the caller repeats it, and a repetition changes nothing that the first call changed.
//! - Dropping a future leaves the same two possibilities.
//! - The store's clock decides what is due, lapsed or idle. Callers pass durations.
//! - A write that takes a [`Hold`] happens only if the work item is still held under that fence; the check and
//!   the write are one commit. Otherwise nothing changes and the answer says so.
//! - A read after an acknowledged write sees it.
//! - Whoever ends a session ends its open and queued turns and dismisses its sandbox in the same commit, and leaves
//!   a `cleanup` item keyed by the sandbox, at its place. The session's `bring_up`, `turn` and `reap` items are gone, so
//!   every hold on them is lost. The events of its turns come first; its own is the last of the transition.
//! - A request with an idempotency key is looked up before anything else. One that was refused is not remembered.

mod agents;
mod events;
mod hints;
mod installation;
mod records;
mod sandboxes;
mod sessions;
mod turns;
mod work;

use std::fmt;

pub use agents::{AgentOrder, AgentPage, AgentQuery, AgentUpdate, Agents, Created, NewAgent, Updated};
pub use events::{Append, Appended, EventPage, Events, Ingest};
pub use hints::{Hint, HintBus, HintStream, Hints};
pub use installation::{Installation, Instance};
pub use records::{NewRecord, Put, Record, RecordQuery, Records};
pub use sandboxes::{NewSandbox, PoolCount, Replace, Replaced, Sandboxes};
pub use sessions::{
    Advance, Advanced, BringUp, End, Ended, Open, Opened, OpenedSession, Revive, Revived, SessionQuery,
    Sessions, Step,
};
pub use turns::{Aborting, Accept, Accepted, Finish, Finished, NewTurn, TurnQuery, Turns};
pub use work::{Hold, NewWork, Take, Work, WorkItem, WorkKind, Worker};

/// Remembers a request, so that a repetition is recognised.
///
/// Unique on (principal, operation, parent, key), kept for 24 hours. The same key with another body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Who asked.
    pub principal: String,
    /// The verb, e.g. `open`.
    pub operation: &'static str,
    /// What the verb is applied to, e.g. the agent's id.
    pub parent: String,
    /// The client's key.
    pub key: String,
    /// Hash of the request's body.
    pub body_hash: String,
}

/// How long a request is remembered.
pub const IDEMPOTENCY_TTL: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// How long a worker may be silent before its work is taken.
pub const WORKER_LAPSE: std::time::Duration = std::time::Duration::from_secs(10);

/// Everything the engine keeps. Implement the roles; the sum follows.
pub trait Store:
    Agents
    + Sessions
    + Sandboxes
    + Turns
    + Events
    + Work
    + Records
    + Hints
    + Installation
    + Send
    + Sync
    + fmt::Debug
    + 'static
{
}

impl<S> Store for S where
    S: Agents
        + Sessions
        + Sandboxes
        + Turns
        + Events
        + Work
        + Records
        + Hints
        + Installation
        + Send
        + Sync
        + fmt::Debug
        + 'static
{
}
