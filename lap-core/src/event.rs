//! Events: the durable log of a session, and the one source of its streams.
//!
//! Ids are 1, 2, 3, ... within a session, without gaps and never reused. Stores append the events of the
//! platform's own transitions with the constructors here, so that every store writes the same log.

use serde_json::{Value, json};

use crate::id::{SessionId, TurnId};
use crate::session::{EndedBy, Phase};
use crate::time::Timestamp;
use crate::turn::Turn;

/// An event to append.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What happened, e.g. `turn.finished` or `message.part.updated`.
    pub kind: String,
    /// The turn it belongs to.
    pub turn: Option<TurnId>,
    /// Details. Never a secret.
    pub body: Value,
    /// For an event of a harness: its number in the journal of the sandbox (the last one when several deltas
    /// were joined). A reader who has seen that number live need not see the event again.
    pub origin: Option<u64>,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its session.
    pub session: SessionId,
    /// Its number within the session.
    pub id: u64,
    /// What happened.
    pub kind: String,
    /// The turn it belongs to.
    pub turn: Option<TurnId>,
    /// Details.
    pub body: Value,
    /// Its number in the journal it came from, if it came from one.
    pub origin: Option<u64>,
    /// When it was appended.
    pub at: Timestamp,
}

impl NewEvent {
    fn new(kind: &str, turn: Option<TurnId>, body: Value) -> Self {
        Self {
            kind: kind.to_owned(),
            turn,
            body,
            origin: None,
        }
    }

    /// The session exists.
    pub fn session_created(created_by: &str) -> Self {
        Self::new("session.created", None, json!({ "created_by": created_by }))
    }

    /// The bring-up has reached a phase.
    pub fn session_phase(phase: Phase, detail: Option<&str>) -> Self {
        Self::new(
            "session.phase",
            None,
            json!({ "phase": phase.as_str(), "detail": detail }),
        )
    }

    /// The session takes turns.
    pub fn session_ready() -> Self {
        Self::new("session.ready", None, json!({}))
    }

    /// The session could not be brought up.
    pub fn session_failed(reason: &str) -> Self {
        Self::new("session.failed", None, json!({ "reason": reason }))
    }

    /// The session has ended.
    pub fn session_ended(by: EndedBy, reason: Option<&str>) -> Self {
        Self::new(
            "session.ended",
            None,
            json!({ "ended_by": by.as_str(), "reason": reason }),
        )
    }

    /// Someone asked for the session to be brought up again.
    pub fn session_restarted(attempt: u32, by: &str) -> Self {
        Self::new("session.restarted", None, json!({ "attempt": attempt, "by": by }))
    }

    /// The agent remembers less than it did: what was lost and why.
    pub fn memory_degraded(lost: &[&str], reason: &str) -> Self {
        Self::new("memory.degraded", None, json!({ "lost": lost, "reason": reason }))
    }

    /// A turn was accepted.
    pub fn turn_accepted(turn: TurnId, number: u64, parts: &[Value], created_by: &str) -> Self {
        let body =
            json!({ "turn": turn.to_string(), "number": number, "parts": parts, "created_by": created_by });
        Self::new("turn.accepted", Some(turn), body)
    }

    /// The harness works on a turn.
    pub fn turn_running(turn: TurnId) -> Self {
        Self::new("turn.running", Some(turn), json!({ "turn": turn.to_string() }))
    }

    /// Someone asked to stop a turn that is open.
    pub fn turn_abort_requested(turn: TurnId) -> Self {
        Self::new(
            "turn.abort_requested",
            Some(turn),
            json!({ "turn": turn.to_string() }),
        )
    }

    /// A turn has its outcome. `turn` is the turn after the transition.
    pub fn turn_finished(turn: &Turn) -> Self {
        let usage = json!({
            "input_tokens": turn.usage.input_tokens,
            "output_tokens": turn.usage.output_tokens,
            "cost": turn.usage.cost,
        });
        let body = json!({
            "turn": turn.id.to_string(),
            "number": turn.number,
            "outcome": turn.state.as_str(),
            "failure": turn.failure,
            "usage": usage,
        });
        Self::new("turn.finished", Some(turn.id), body)
    }
}
