//! Sessions on the wire: the original's `ApiSession`, and what opens one.

use std::collections::BTreeMap;
use std::time::Duration;

use lap_core::session::{Session, SessionState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::attachment::Attachment;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct ApiSession {
    /// UUID.
    id: String,
    agent_id: String,
    /// Where its sandbox answers, as the server sees it. Calls there need a token that the platform keeps.
    sandbox_url: Option<String>,
    harness_session_id: Option<String>,
    tty_url: Option<String>,
    tty_token: Option<String>,
    supports_tui: bool,
    /// `creating`, `ready`, `failed` or `dead`.
    status: String,
    /// The id of its sandbox.
    task_arn: Option<String>,
    /// The reply to the first message, as `{info, parts}`; shown when the session is read on its own.
    response: Option<Value>,
    /// ISO 8601, UTC.
    created_at: String,
    /// When it was last used.
    last_seen_at: Option<String>,
    /// After this long without use it is ended.
    idle_timeout_ms: Option<u64>,
    /// Why it failed or died.
    failure_reason: Option<String>,
    /// How far its bring-up is.
    phase: Option<String>,
    phase_detail: Option<String>,
    origin: Option<Value>,
    /// The first user text, at most 60 characters.
    title_preview: Option<String>,
    sandboxes: Option<BTreeMap<String, String>>,
    title: Option<String>,
    /// `user`, `idle`, `error` or `agent_deleted`, once it has ended.
    ended_by: Option<String>,
    /// Since when it has its status.
    state_since: String,
    /// Counts bring-ups; more than 1 after a restart.
    attempt: u32,
    created_by: String,
}

impl ApiSession {
    pub(crate) fn new(session: Session, idle_timeout: Duration) -> Self {
        let live = session.state == SessionState::Ready;
        Self {
            id: session.id.to_string(),
            agent_id: session.agent.to_string(),
            sandbox_url: session
                .address
                .filter(|_| live)
                .map(|address| format!("http://{address}")),
            harness_session_id: session.conversation,
            tty_url: None,
            tty_token: None,
            supports_tui: false,
            status: session.state.as_str().to_owned(),
            task_arn: session.sandbox.map(|sandbox| sandbox.to_string()),
            response: None,
            created_at: session.created_at.to_iso8601(),
            last_seen_at: Some(session.last_seen_at.to_iso8601()),
            idle_timeout_ms: u64::try_from(idle_timeout.as_millis()).ok(),
            failure_reason: session.failure,
            phase: session.phase.map(|phase| phase.as_str().to_owned()),
            phase_detail: session.phase_detail,
            origin: None,
            title_preview: session.preview,
            sandboxes: None,
            title: session.title,
            ended_by: session.ended_by.map(|by| by.as_str().to_owned()),
            state_since: session.state_since.to_iso8601(),
            attempt: session.attempt,
            created_by: session.created_by,
        }
    }

    #[must_use]
    pub(crate) fn with_response(self, response: Option<Value>) -> Self {
        Self { response, ..self }
    }
}

/// How to open a session. The body may be empty.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OpenSessionBody {
    pub(crate) title: Option<String>,
    /// The first message; it is sent as soon as the session is ready.
    pub(crate) initial_prompt: Option<String>,
    /// At most 10 images that go with the first message.
    pub(crate) initial_attachments: Option<Vec<Attachment>>,
    /// Environment of this session. At most 50 names, at most 16384 bytes as JSON.
    pub(crate) env_vars: Option<BTreeMap<String, String>>,
    /// At most 10 skills for this session.
    pub(crate) skill_ids: Option<Vec<String>>,
}

/// The answer to the end of a session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionClosed {
    pub(crate) id: String,
    /// `deleted`, or the status the session had already.
    pub(crate) status: String,
}
