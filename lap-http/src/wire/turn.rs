//! Turns on the wire. The original had none; its blocking message is a wait for one.

use lap_core::turn::Turn;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One accepted message and its outcome.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Turn)]
pub(crate) struct ApiTurn {
    /// UUID.
    id: String,
    session_id: String,
    /// 1, 2, 3, ... within the session.
    number: u64,
    /// `queued`, `sending`, `running`, or one of the outcomes `completed`, `failed`, `aborted`, `unknown`.
    status: String,
    parts: Vec<Value>,
    model: Option<String>,
    /// Whether someone asked to stop it.
    abort_requested: bool,
    /// Why it did not complete.
    failure_reason: Option<String>,
    /// The assistant's message as `{info, parts}`.
    reply: Option<Value>,
    usage: ApiUsage,
    created_by: String,
    /// ISO 8601, UTC.
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
}

/// What a turn used, as far as the harness says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(crate) struct ApiUsage {
    input_tokens: u64,
    output_tokens: u64,
    /// In US dollars.
    cost: f64,
}

impl From<Turn> for ApiTurn {
    fn from(turn: Turn) -> Self {
        Self {
            id: turn.id.to_string(),
            session_id: turn.session.to_string(),
            number: turn.number,
            status: turn.state.as_str().to_owned(),
            parts: turn.parts,
            model: turn.model,
            abort_requested: turn.abort_requested,
            failure_reason: turn.failure,
            reply: turn.reply,
            usage: ApiUsage {
                input_tokens: turn.usage.input_tokens,
                output_tokens: turn.usage.output_tokens,
                cost: turn.usage.cost,
            },
            created_by: turn.created_by,
            created_at: turn.created_at.to_iso8601(),
            started_at: turn.started_at.map(|at| at.to_iso8601()),
            finished_at: turn.finished_at.map(|at| at.to_iso8601()),
        }
    }
}

/// Some turns of a session, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TurnList {
    pub(crate) data: Vec<ApiTurn>,
    /// Give it as `after` to read on; absent when this was all.
    pub(crate) next_after: Option<u64>,
}

/// What an abort did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AbortDone {
    /// Always true.
    pub(crate) ok: bool,
    /// Queued turns that are aborted now.
    pub(crate) aborted: Vec<String>,
    /// The turn the harness is asked to stop.
    pub(crate) stopping: Option<String>,
}
