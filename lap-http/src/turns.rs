//! Turns: a message with its outcome as a resource of its own.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use lap_core::caller::Caller;
use lap_core::id::{SessionId, TurnId};

use crate::app::App;
use crate::auth::Authenticated;
use crate::body::JsonBody;
use crate::idempotency::IdempotencyKey;
use crate::messages::accept;
use crate::path::{SessionPath, TurnPath};
use crate::problem::Problem;
use crate::query::Parameters;
use crate::wire::message::MessageBody;
use crate::wire::turn::{AbortDone, ApiTurn, TurnList};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// Sends a message and does not wait for its end, or waits at most `wait` seconds.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/turns", tag = "turns",
    params(("session_id" = String, Path),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for the end, at most 1800"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is one turn")),
    request_body = MessageBody,
    responses((status = 200, body = ApiTurn, description = "It is over"), (status = 202, body = ApiTurn, description = "It is not over yet")))]
pub(crate) async fn send(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(session): SessionPath,
    IdempotencyKey(key): IdempotencyKey,
    parameters: Parameters,
    JsonBody(body): JsonBody<MessageBody>,
) -> Result<Response, Problem> {
    let wait = parameters
        .strict::<u64>("wait", "a number of seconds")?
        .map(Duration::from_secs);
    let mut turn = accept(&app, &caller, session, key, body).await?;
    if let Some(wait) = wait.filter(|_| !turn.state.is_terminal()) {
        turn = app
            .engine
            .wait_turn(session, turn.id, wait.min(app.options.turn_wait))
            .await?;
    }
    let status = if turn.state.is_terminal() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    // Relative, because a host may have mounted the API anywhere.
    let location = format!("turns/{}", turn.id);
    Ok((status, [(header::LOCATION, location)], Json(ApiTurn::from(turn))).into_response())
}

/// Lists turns, oldest first.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/turns", tag = "turns",
    params(("session_id" = String, Path),
        ("after" = Option<u64>, Query, description = "After the turn with this number only"),
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent")),
    responses((status = 200, body = TurnList)))]
pub(crate) async fn list(
    State(app): State<App>,
    SessionPath(session): SessionPath,
    parameters: Parameters,
) -> Result<Json<TurnList>, Problem> {
    let after = parameters.strict("after", "the number of a turn")?.unwrap_or(0);
    let limit = parameters
        .strict("limit", "a number")?
        .unwrap_or(DEFAULT_LIMIT)
        .clamp(1, MAX_LIMIT);
    let turns = app.engine.list_turns(session, after, limit).await?;
    let full = turns.len() >= limit as usize;
    let next_after = turns.last().filter(|_| full).map(|last| last.number);
    Ok(Json(TurnList {
        data: turns.into_iter().map(ApiTurn::from).collect(),
        next_after,
    }))
}

/// Shows a turn.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/turns/{turn_id}", tag = "turns",
    params(("session_id" = String, Path), ("turn_id" = String, Path)), responses((status = 200, body = ApiTurn)))]
pub(crate) async fn get(
    State(app): State<App>,
    TurnPath(session, turn): TurnPath,
) -> Result<Json<ApiTurn>, Problem> {
    Ok(Json(app.engine.turn(session, turn).await?.into()))
}

/// Stops a turn. One that is over stays as it is.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/turns/{turn_id}/abort", tag = "turns",
    params(("session_id" = String, Path), ("turn_id" = String, Path)), responses((status = 200, body = AbortDone)))]
pub(crate) async fn abort(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    TurnPath(session, turn): TurnPath,
) -> Result<Json<AbortDone>, Problem> {
    stop(&app, &caller, session, Some(turn)).await
}

/// Stops the running turn and everything that waits behind it.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/abort", tag = "turns",
    params(("session_id" = String, Path)), responses((status = 200, body = AbortDone)))]
pub(crate) async fn abort_all(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(session): SessionPath,
) -> Result<Json<AbortDone>, Problem> {
    stop(&app, &caller, session, None).await
}

async fn stop(
    app: &App,
    caller: &Caller,
    session: SessionId,
    turn: Option<TurnId>,
) -> Result<Json<AbortDone>, Problem> {
    let aborting = app.engine.abort(caller, session, turn).await?;
    // Someone is there, so the session is not idle.
    app.engine.touch(session);
    Ok(Json(AbortDone {
        ok: true,
        aborted: aborting.aborted.iter().map(|turn| turn.id.to_string()).collect(),
        stopping: aborting.open.map(|turn| turn.id.to_string()),
    }))
}
