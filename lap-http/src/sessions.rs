//! Sessions: open, list, get, close.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode};
use lap_core::engine::{Closed, OpenSession};
use lap_core::id::{AgentId, SessionId};
use lap_core::secret::Secret;
use lap_core::session::{Session, SessionState};
use lap_core::store::SessionQuery;

use crate::app::App;
use crate::auth::Authenticated;
use crate::body::JsonBody;
use crate::idempotency::IdempotencyKey;
use crate::path::{AgentPath, SessionPath};
use crate::problem::Problem;
use crate::query::Parameters;
use crate::wire::message::said;
use crate::wire::session::{ApiSession, OpenSessionBody, SessionClosed};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;
/// How long a restart is waited for.
const RESTART: Duration = Duration::from_secs(5 * 60);

/// Where a list of sessions goes on: the value for `before`.
const NEXT_BEFORE: HeaderName = HeaderName::from_static("x-next-before");

/// Opens a session. It answers at once with a session that is `creating`; the bring-up goes on.
#[utoipa::path(post, path = "/api/v1/managed_agents/agents/{agent_id}/session", tag = "sessions",
    params(("agent_id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body opens one session")),
    request_body = OpenSessionBody,
    responses((status = 200, body = ApiSession)))]
pub(crate) async fn open(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    AgentPath(agent): AgentPath,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<OpenSessionBody>,
) -> Result<Json<ApiSession>, Problem> {
    no_skills(body.skill_ids.as_deref())?;
    let parts = said(
        body.initial_prompt,
        body.initial_attachments.unwrap_or_default(),
        "initial_attachments",
    )?;
    let env = body.env_vars.unwrap_or_default();
    let open = OpenSession {
        agent,
        title: body.title,
        prompt: (!parts.is_empty()).then_some(parts),
        env: env
            .into_iter()
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
        skills: Vec::new(),
        idempotency_key,
    };
    let session = app.in_time(app.engine.open_session(&caller, open)).await?;
    Ok(Json(shown(&app, session)))
}

/// Lists sessions, newest first.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions", tag = "sessions",
    params(
        ("agent_id" = Option<String>, Query, description = "Of this agent only"),
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent or wrong"),
        ("before" = Option<String>, Query, description = "Older than this session only; see the answer's `x-next-before`")),
    responses((status = 200, body = Vec<ApiSession>)))]
pub(crate) async fn list(State(app): State<App>, parameters: Parameters) -> Result<Response, Problem> {
    let limit = parameters
        .lenient("limit")
        .filter(|limit| *limit > 0)
        .unwrap_or(DEFAULT_LIMIT)
        .min(MAX_LIMIT);
    let query = SessionQuery {
        agent: parameters.strict::<AgentId>("agent_id", "the id of an agent")?,
        before: parameters.strict::<SessionId>("before", "the id of a session")?,
        limit,
        ..SessionQuery::default()
    };
    let sessions = app.engine.list_sessions(query).await?;
    let full = sessions.len() >= limit as usize;
    let next = sessions
        .last()
        .filter(|_| full)
        .map(|last| [(NEXT_BEFORE, last.id.to_string())]);
    let shown: Vec<_> = sessions.into_iter().map(|session| shown(&app, session)).collect();
    Ok((next, Json(shown)).into_response())
}

/// Shows a session, with the reply to its first message.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path)), responses((status = 200, body = ApiSession)))]
pub(crate) async fn get(
    State(app): State<App>,
    SessionPath(id): SessionPath,
) -> Result<Json<ApiSession>, Problem> {
    let session = app.engine.session(id).await?;
    let first = app.engine.list_turns(id, 0, 1).await?;
    let response = first.into_iter().next().and_then(|turn| turn.reply);
    Ok(Json(shown(&app, session).with_response(response)))
}

/// Ends a session: its turns are aborted and its sandbox is stopped.
#[utoipa::path(delete, path = "/api/v1/managed_agents/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path)), responses((status = 200, body = SessionClosed)))]
pub(crate) async fn close(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(id): SessionPath,
) -> Result<Json<SessionClosed>, Problem> {
    let status = match app.engine.close_session(&caller, id).await? {
        Closed::Now(_) => "deleted",
        Closed::Already(session) => session.state.as_str(),
    };
    Ok(Json(SessionClosed {
        id: id.to_string(),
        status: status.to_owned(),
    }))
}

/// Brings a session up again, in a fresh sandbox, with what the platform kept of it; answers when it is ready, or
/// after five minutes with the session as it is then.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/restart", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = ApiSession), (status = 502, description = "It could not be brought up (`bring_up_failed`)")))]
pub(crate) async fn restart(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(id): SessionPath,
) -> Result<Json<ApiSession>, Problem> {
    app.in_time(app.engine.restart(&caller, id)).await?;
    let session = app.engine.wait_session(id, RESTART).await?;
    if session.state == SessionState::Failed {
        let reason = session
            .failure
            .unwrap_or_else(|| "the session could not be brought up".to_owned());
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "bring_up_failed", reason));
    }
    Ok(Json(shown(&app, session)))
}

fn shown(app: &App, session: Session) -> ApiSession {
    ApiSession::new(session, app.engine.settings().idle_timeout)
}

/// The library of skills does not exist yet, so every id in it is unknown.
pub(crate) fn no_skills(ids: Option<&[String]>) -> Result<(), Problem> {
    match ids {
        Some([_, ..]) => Err(Problem::not_found("there is no such skill").about_field("skill_ids[0]")),
        _ => Ok(()),
    }
}
