//! Turns: one accepted message and its outcome.

use serde_json::Value;

use crate::id::{SessionId, TurnId};
use crate::time::Timestamp;

/// The states of a turn.
///
/// ```text
/// queued -> sending -> running -> completed | failed | aborted | unknown
/// queued -> aborted | failed    sending -> failed | unknown | aborted | completed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TurnState {
    /// It waits for the session or for the turn before it.
    Queued,
    /// It was given to a worker. Whether the harness has it is not known yet.
    Sending,
    /// The harness works on it.
    Running,
    /// The harness finished it.
    Completed,
    /// It ended with an error.
    Failed,
    /// Someone stopped it.
    Aborted,
    /// The sandbox was lost while it may have been running. Nothing is resent.
    Unknown,
}

impl TurnState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Sending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Aborted,
        Self::Unknown,
    ];

    /// The stored and wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether it has its one outcome.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Aborted | Self::Unknown
        )
    }

    /// Whether a worker has it. At most one turn of a session is open.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Sending | Self::Running)
    }
}

/// Tokens and money a turn used, as far as the harness says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in US dollars.
    pub cost: f64,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// A terminal state.
    pub state: TurnState,
    /// Why, unless it completed.
    pub failure: Option<String>,
    /// The assistant's message as `{info, parts}`.
    pub reply: Option<Value>,
    /// What it used.
    pub usage: Usage,
}

impl Outcome {
    /// Ended by an error.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self {
            state: TurnState::Failed,
            failure: Some(reason.into()),
            reply: None,
            usage: Usage::default(),
        }
    }

    /// Ended by someone.
    pub fn aborted(reason: impl Into<String>) -> Self {
        Self {
            state: TurnState::Aborted,
            ..Self::failed(reason)
        }
    }

    /// Nobody can say how it ended.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            state: TurnState::Unknown,
            ..Self::failed(reason)
        }
    }
}

/// A stored turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Its id; it travels to the harness, so a delivery can be recognised.
    pub id: TurnId,
    /// Its session.
    pub session: SessionId,
    /// 1, 2, 3, ... within the session, in order of acceptance.
    pub number: u64,
    /// Its state.
    pub state: TurnState,
    /// The message parts, as the harness takes them.
    pub parts: Vec<Value>,
    /// Another model than the agent's, for this turn only.
    pub model: Option<String>,
    /// Whether someone asked to stop it while it was open.
    pub abort_requested: bool,
    /// Why it did not complete.
    pub failure: Option<String>,
    /// The assistant's message as `{info, parts}`.
    pub reply: Option<Value>,
    /// What it used.
    pub usage: Usage,
    /// Who sent it.
    pub created_by: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was given to a worker.
    pub started_at: Option<Timestamp>,
    /// When it got its outcome.
    pub finished_at: Option<Timestamp>,
}

/// The first text among message parts, with white space folded, at most 60 characters: for lists.
pub fn preview(parts: &[Value]) -> Option<String> {
    let text = parts
        .iter()
        .find_map(|part| part.get("text").and_then(Value::as_str))?;
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if folded.is_empty() {
        return None;
    }
    if folded.chars().count() <= 60 {
        return Some(folded);
    }
    Some(folded.chars().take(59).chain(['…']).collect())
}
