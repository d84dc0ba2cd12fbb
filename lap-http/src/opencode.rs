//! The opencode dialect of a session, for clients that were written for opencode's own server.
//!
//! Nothing is forwarded: prompts become turns, events come from the session's stream, and every other call of the
//! list below goes to the engine as well. What is not on the list is refused with a reason.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use http::{Method, StatusCode, header};
use lap_core::caller::Caller;
use lap_core::engine::StreamItem;
use lap_core::session::{Session, SessionState};
use lap_core::turn::Turn;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Authenticated;
use crate::body::JsonBody;
use crate::messages::{accept, wait};
use crate::path::{HarnessPath, SessionPath};
use crate::problem::Problem;
use crate::request::log_stream_error;
use crate::wire::message::MessageBody;
use crate::wire::opencode::{
    AnswersBody, PromptBody, ReplyBody, ResponseBody, conversation, on_the_bus, open_requests,
};

/// What is not on the list.
pub(crate) const EVERYTHING_ELSE: &str = "/api/v1/managed_agents/sessions/{session_id}/opencode/{*path}";

/// How long a session that is being brought up is waited for.
const BRING_UP: Duration = Duration::from_secs(25);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events in which open requests are looked for.
const EVENTS: u32 = 10_000;

/// The session's one conversation, in a list.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session", tag = "opencode",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn sessions(State(app): State<App>, path: HarnessPath) -> Result<Json<Vec<Value>>, Problem> {
    let session = ready(&app, &path).await?;
    Ok(Json(vec![conversation(&session)]))
}

/// The session's one conversation.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}", tag = "opencode",
    params(("session_id" = String, Path), ("conversation" = String, Path)), responses((status = 200, body = Object)))]
pub(crate) async fn session(State(app): State<App>, path: HarnessPath) -> Result<Json<Value>, Problem> {
    let session = ready(&app, &path).await?;
    Ok(Json(conversation(&session)))
}

/// The messages. Those of a session that has ended come from its log.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/message", tag = "opencode",
    params(("session_id" = String, Path), ("conversation" = String, Path)), responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn messages(State(app): State<App>, path: HarnessPath) -> Result<Json<Vec<Value>>, Problem> {
    let session = app
        .in_time(app.engine.wait_session(path.session, BRING_UP))
        .await?;
    is_of(&session, &path)?;
    Ok(Json(app.in_time(app.engine.messages(path.session)).await?))
}

/// Sends a prompt as a turn and waits for the reply.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/message", tag = "opencode",
    params(("session_id" = String, Path), ("conversation" = String, Path)), request_body = PromptBody,
    responses((status = 200, body = Object)))]
pub(crate) async fn send(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
    JsonBody(body): JsonBody<PromptBody>,
) -> Result<Json<Value>, Problem> {
    let turn = prompted(&app, &caller, &path, body).await?;
    wait(&app, path.session, turn.id).await.map(Json)
}

/// Sends a prompt as a turn and does not wait.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/prompt_async", tag = "opencode",
    params(("session_id" = String, Path), ("conversation" = String, Path)), request_body = PromptBody,
    responses((status = 204)))]
pub(crate) async fn prompt(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
    JsonBody(body): JsonBody<PromptBody>,
) -> Result<StatusCode, Problem> {
    prompted(&app, &caller, &path, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops the running turn and everything that waits behind it.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/abort", tag = "opencode",
    params(("session_id" = String, Path), ("conversation" = String, Path)), responses((status = 200, body = bool)))]
pub(crate) async fn abort(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
) -> Result<Json<bool>, Problem> {
    is_of(&app.engine.session(path.session).await?, &path)?;
    app.engine.abort(&caller, path.session, None).await?;
    app.engine.touch(path.session);
    Ok(Json(true))
}

/// opencode's event bus, with the events of this session only: `{type, properties}`, `server.connected` first, and
/// `server.heartbeat` every ten seconds. It begins now; to resume, use `/events`.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/event", tag = "opencode",
    params(("session_id" = String, Path)),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(crate) async fn event(State(app): State<App>, SessionPath(id): SessionPath) -> Result<Response, Problem> {
    let session = app.in_time(app.engine.session(id)).await?;
    if !session.state.is_active() {
        return Err(gone(&session));
    }
    let items = app.in_time(app.engine.stream(id, None)).await?;
    let connected = stream::iter([bus_event("server.connected")]);
    let events = connected
        .chain(bus(items))
        .map(|event| Ok::<_, Infallible>(sse::Event::default().data(event.to_string())));
    let headers = [
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Sse::new(events)).into_response())
}

/// The agent's configuration, as far as it is not the platform's. No key, no address.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/config", tag = "opencode",
    params(("session_id" = String, Path)), responses((status = 200, body = Object)))]
pub(crate) async fn config(
    State(app): State<App>,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>, Problem> {
    let session = app.engine.session(id).await?;
    let agent = app.engine.agent(session.agent).await?;
    Ok(Json(json!({ "model": format!("litellm/{}", agent.spec.model) })))
}

/// Permission requests that wait for an answer.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/permission", tag = "opencode",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn permissions(
    State(app): State<App>,
    SessionPath(id): SessionPath,
) -> Result<Json<Vec<Value>>, Problem> {
    Ok(Json(open_requests(
        &app.engine.recent_events(id, EVENTS).await?,
        "permission",
    )))
}

/// Questions that wait for an answer.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/question", tag = "opencode",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn questions(
    State(app): State<App>,
    SessionPath(id): SessionPath,
) -> Result<Json<Vec<Value>>, Problem> {
    Ok(Json(open_requests(
        &app.engine.recent_events(id, EVENTS).await?,
        "question",
    )))
}

/// Answers a permission request.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/permission/{request}/reply", tag = "opencode",
    params(("session_id" = String, Path), ("request" = String, Path)), request_body = ReplyBody,
    responses((status = 200, body = bool)))]
pub(crate) async fn reply_permission(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
    JsonBody(body): JsonBody<ReplyBody>,
) -> Result<Json<bool>, Problem> {
    answer(&app, &caller, &path, &body.checked()?).await
}

/// Answers a permission request, as older clients do.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/permissions/{request}", tag = "opencode",
    params(("session_id" = String, Path), ("conversation" = String, Path), ("request" = String, Path)),
    request_body = ResponseBody, responses((status = 200, body = bool)))]
pub(crate) async fn reply_permission_of_session(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
    JsonBody(body): JsonBody<ResponseBody>,
) -> Result<Json<bool>, Problem> {
    is_of(&app.engine.session(path.session).await?, &path)?;
    let reply = ReplyBody {
        reply: body.response,
        message: None,
    };
    let reply = reply
        .checked()
        .map_err(|problem| problem.about_field("response"))?;
    answer(&app, &caller, &path, &reply).await
}

/// Answers a question.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/question/{request}/reply", tag = "opencode",
    params(("session_id" = String, Path), ("request" = String, Path)), request_body = AnswersBody,
    responses((status = 200, body = bool)))]
pub(crate) async fn reply_question(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
    JsonBody(body): JsonBody<AnswersBody>,
) -> Result<Json<bool>, Problem> {
    answer(&app, &caller, &path, &json!({ "answers": body.answers })).await
}

/// Refuses to answer a question.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/opencode/question/{request}/reject", tag = "opencode",
    params(("session_id" = String, Path), ("request" = String, Path)), responses((status = 200, body = bool)))]
pub(crate) async fn reject_question(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    path: HarnessPath,
) -> Result<Json<bool>, Problem> {
    answer(&app, &caller, &path, &json!({ "reject": true })).await
}

/// Says why a call is not passed on.
pub(crate) async fn not_passed_on(method: Method, SessionPath(_): SessionPath) -> Problem {
    if matches!(method, Method::GET | Method::POST) {
        let detail =
            "this call of opencode is not passed on to the harness; docs/compat.md lists those that are";
        return Problem::new(StatusCode::NOT_FOUND, "not_passed_on", detail);
    }
    let detail =
        "only GET and POST are passed on to the harness, and of them those that docs/compat.md lists";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

async fn prompted(app: &App, caller: &Caller, path: &HarnessPath, body: PromptBody) -> Result<Turn, Problem> {
    body.check()?;
    ready(app, path).await?;
    let model = body.model();
    let message = MessageBody::of_parts(body.parts.unwrap_or_default(), model);
    accept(app, caller, path.session, None, message).await
}

async fn answer(
    app: &App,
    caller: &Caller,
    path: &HarnessPath,
    reply: &Value,
) -> Result<Json<bool>, Problem> {
    app.engine
        .answer(caller, path.session, &path.request, reply)
        .await?;
    Ok(Json(true))
}

/// The session of the path once it has a conversation, which must be the one of the path.
async fn ready(app: &App, path: &HarnessPath) -> Result<Session, Problem> {
    let session = app.engine.wait_session(path.session, BRING_UP).await?;
    match session.state {
        SessionState::Ready => is_of(&session, path).map(|()| session),
        SessionState::Creating => Err(Problem::timed_out(
            "the session is still being brought up; ask again",
        )),
        SessionState::Failed | SessionState::Dead => Err(gone(&session)),
    }
}

/// The path names the session's conversation, by the harness's id or by the platform's.
fn is_of(session: &Session, path: &HarnessPath) -> Result<(), Problem> {
    let Some(named) = &path.conversation else {
        return Ok(());
    };
    if session.conversation.as_ref() == Some(named) || session.id.to_string() == *named {
        return Ok(());
    }
    Err(Problem::not_found(
        "there is no such conversation in this session",
    ))
}

fn gone(session: &Session) -> Problem {
    let detail = format!("the session is {}", session.state.as_str());
    Problem::new(StatusCode::GONE, "gone", detail)
}

fn bus_event(kind: &str) -> Value {
    json!({ "type": kind, "properties": {} })
}

/// Events of the session, with heartbeats between them, until the session or the process ends.
fn bus(
    items: impl Stream<Item = lap_core::Result<StreamItem>> + Send + 'static,
) -> impl Stream<Item = Value> + Send {
    let beat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    let reading = (Box::pin(items), beat);
    stream::unfold(reading, |(mut items, mut beat)| async move {
        loop {
            let item = tokio::select! {
                item = items.next() => item?,
                _ = beat.tick() => return Some((bus_event("server.heartbeat"), (items, beat))),
            };
            match item {
                Ok(item) => {
                    if let Some(event) = on_the_bus(item) {
                        return Some((event, (items, beat)));
                    }
                }
                Err(error) => {
                    log_stream_error(&error);
                    return None;
                }
            }
        }
    })
}
