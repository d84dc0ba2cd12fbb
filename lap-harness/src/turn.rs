//! One message to the agent and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The body of `POST /lap/turns`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRequest {
    /// The turn's id. Sandboxd runs an id at most once.
    pub turn: Uuid,
    /// The caller's fence.
    pub fence: u64,
    /// What the person said: opencode input parts, at least one.
    pub parts: Vec<Value>,
    /// Another model for this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// After this long the turn fails.
    pub deadline_ms: u64,
}

/// Where a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// The harness works on it.
    Running,
    /// The agent answered.
    Completed,
    /// It ended with an error.
    Failed,
    /// It was stopped on request.
    Aborted,
}

/// The answer of `GET /lap/turns/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnStatus {
    /// The turn's id.
    pub turn: Uuid,
    /// Where it is.
    pub state: TurnState,
    /// The journal sequence of its first event.
    pub first_seq: u64,
    /// The journal sequence of its last event so far.
    pub last_seq: u64,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The agent answered.
    Completed,
    /// It ended with an error.
    Failed,
    /// It was stopped on request.
    Aborted,
}

impl From<Outcome> for TurnState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::Aborted => Self::Aborted,
        }
    }
}

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnFailure {
    /// For people: the gateway's own message where there is one.
    pub message: String,
    /// The gateway's HTTP status, when it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// What a turn cost, summed over its model calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read by the model.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens written by the model.
    #[serde(default)]
    pub output_tokens: u64,
    /// In the gateway's currency, when it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

/// The properties of the one `turn.finished` event that ends every turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnFinished {
    /// The turn's id.
    pub turn: Uuid,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TurnFailure>,
    /// The last assistant message, `{info, parts}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Value>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}
