//! Messages, as the original has them: send one and wait for the reply, send one and watch, read the thread.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use lap_core::caller::Caller;
use lap_core::engine::{SendTurn, StreamItem};
use lap_core::id::{SessionId, TurnId};
use lap_core::turn::{Turn, TurnState};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Authenticated;
use crate::body::JsonBody;
use crate::events::{frames_until, sse_response};
use crate::idempotency::IdempotencyKey;
use crate::path::SessionPath;
use crate::problem::Problem;
use crate::request::RECONNECT;
use crate::wire::frame::{Frame, is_ours};
use crate::wire::message::MessageBody;

/// Sends a message and waits for the reply, which is the harness's `{info, parts}` as it is. A client that leaves changes
/// nothing; one that comes back with the same `Idempotency-Key` gets the same reply. Longer than 30 minutes: 504 with
/// the turn's id, and the turn goes on.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/message", tag = "messages",
    params(("session_id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is one message")),
    request_body = MessageBody,
    responses((status = 200, body = Object), (status = 409, description = "The turn was aborted (`turn_aborted`)"),
        (status = 502, description = "The turn failed (`turn_failed`) or was lost (`turn_unknown`)")))]
pub(crate) async fn send(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(session): SessionPath,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<MessageBody>,
) -> Result<Json<Value>, Problem> {
    let turn = accept(&app, &caller, session, key, body).await?;
    wait(&app, session, turn.id).await.map(Json)
}

/// The reply of a turn once it is over.
pub(crate) async fn wait(app: &App, session: SessionId, turn: TurnId) -> Result<Value, Problem> {
    let turn = app.engine.wait_turn(session, turn, app.options.turn_wait).await?;
    if !turn.state.is_terminal() && app.engine.ready().await.is_err() {
        let detail = "the server is shutting down and the turn goes on; read it at /turns/{turn_id} of the session, or repeat the request if it had an Idempotency-Key";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        return Err(problem.about_turn(turn.id).with_retry_after(RECONNECT));
    }
    reply(turn)
}

/// Sends a message and streams what happens until its turn ends: `{type: "ready"}`, `{type: "harness_event", event}`,
/// then `{type: "done"}` or `{type: "error", message}`.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/message_stream", tag = "messages",
    params(("session_id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is one message")),
    request_body = MessageBody,
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(crate) async fn send_and_stream(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(session): SessionPath,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<MessageBody>,
) -> Result<Response, Problem> {
    // The stream comes first, so that it misses nothing of the turn.
    let items = app.in_time(app.engine.stream(session, None)).await?;
    let turn = accept(&app, &caller, session, key, body).await?;
    if turn.state.is_terminal() {
        return Ok(sse_response(&app, stream::iter(told(turn))));
    }
    let id = turn.id;
    let of_turn = items.filter(move |item| std::future::ready(belongs(item, id)));
    let frames = stream::iter([Frame::ready()]).chain(frames_until(of_turn, Frame::wrapped, outcome));
    Ok(sse_response(&app, frames))
}

/// The conversation as `[{info, parts}]`.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/messages", tag = "messages",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn thread(
    State(app): State<App>,
    SessionPath(session): SessionPath,
) -> Result<Json<Vec<Value>>, Problem> {
    Ok(Json(app.engine.messages(session).await?))
}

/// Hands a message to the engine.
pub(crate) async fn accept(
    app: &App,
    caller: &Caller,
    session: SessionId,
    idempotency_key: Option<String>,
    mut body: MessageBody,
) -> Result<Turn, Problem> {
    let model = body.model.take();
    let send = SendTurn {
        session,
        parts: body.parts()?,
        model,
        idempotency_key,
    };
    app.in_time(app.engine.send_turn(caller, send)).await
}

fn reply(turn: Turn) -> Result<Value, Problem> {
    let id = turn.id;
    let (status, code) = match turn.state {
        TurnState::Completed => return Ok(turn.reply.unwrap_or_else(|| json!({ "parts": [] }))),
        TurnState::Failed => (StatusCode::BAD_GATEWAY, "turn_failed"),
        TurnState::Unknown => (StatusCode::BAD_GATEWAY, "turn_unknown"),
        TurnState::Aborted => (StatusCode::CONFLICT, "turn_aborted"),
        TurnState::Queued | TurnState::Sending | TurnState::Running => {
            let detail = "the turn is not over yet; it goes on, read it under its id";
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "turn_not_over", detail).about_turn(id));
        }
    };
    let detail = turn
        .failure
        .unwrap_or_else(|| format!("the turn is {}", turn.state.as_str()));
    Err(Problem::new(status, code, detail).about_turn(id))
}

/// What a stream of this turn would have ended with, for a client that comes back after its end.
fn told(turn: Turn) -> Vec<Frame> {
    let mut frames = vec![Frame::ready()];
    match reply(turn) {
        Ok(mut message) => {
            let parts = message.get_mut("parts").map(Value::take);
            if let Some(info) = message.get_mut("info").map(Value::take) {
                frames.push(Frame::harness_event("message.updated", json!({ "info": info })));
            }
            let parts = parts.and_then(|parts| match parts {
                Value::Array(parts) => Some(parts),
                _ => None,
            });
            let part = |part| Frame::harness_event("message.part.updated", json!({ "part": part }));
            frames.extend(parts.unwrap_or_default().into_iter().map(part));
            frames.push(Frame::done());
        }
        Err(problem) => frames.push(Frame::error(problem.detail(), problem.code())),
    }
    frames
}

fn belongs(item: &lap_core::Result<StreamItem>, id: TurnId) -> bool {
    let Ok(item) = item else { return true };
    match item {
        StreamItem::Event(event) => event.turn == Some(id),
        StreamItem::Live { turn, .. } => *turn == Some(id),
        StreamItem::Passed { .. } | StreamItem::Reset { .. } | StreamItem::Draining { .. } => true,
    }
}

/// The last frame, once the turn is over.
fn outcome(item: &StreamItem) -> Option<Frame> {
    let StreamItem::Event(event) = item else {
        return None;
    };
    if event.kind != "turn.finished" || !is_ours(event) {
        return None;
    }
    let outcome = event
        .body
        .get("outcome")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if outcome == TurnState::Completed.as_str() {
        return Some(Frame::done());
    }
    let failure = event.body.get("failure").and_then(Value::as_str);
    Some(Frame::error(
        failure.unwrap_or(outcome),
        &format!("turn_{outcome}"),
    ))
}
