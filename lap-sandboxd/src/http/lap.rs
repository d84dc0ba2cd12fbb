//! The platform's calls: decode, one step, encode.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use lap_harness::limits::{MAX_HEALTH_WAIT, MAX_SNAPSHOT_BYTES};
use lap_harness::opening::OpenAnswer;
use lap_harness::snapshot::Restored;
use lap_harness::{Health, OpenRequest, TurnRequest, TurnStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Refusal, body, events};
use crate::sandbox::{NotOpened, Sandbox};

type App = State<Arc<Sandbox>>;

#[derive(Deserialize)]
pub(super) struct HealthQuery {
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn health(State(sandbox): App, Query(query): Query<HealthQuery>) -> Json<Health> {
    let wait = Duration::from_millis(query.wait_ms).min(MAX_HEALTH_WAIT);
    if !wait.is_zero() {
        let _ = tokio::time::timeout(wait, sandbox.status.settled()).await;
    }
    Json(sandbox.health().await)
}

pub(super) async fn open(State(sandbox): App, body: Body) -> Result<Json<OpenAnswer>, Refusal> {
    let opening: OpenRequest = body::json(body).await?;
    match sandbox.open(opening).await {
        Ok(conversation) => Ok(Json(OpenAnswer { conversation })),
        Err(NotOpened::NotReady) => Err(not_ready(&sandbox)),
        Err(refused) => Err(refused.into()),
    }
}

#[derive(Deserialize)]
pub(super) struct SnapshotQuery {
    limit_bytes: usize,
}

pub(super) async fn snapshot(
    State(sandbox): App,
    Query(query): Query<SnapshotQuery>,
) -> Result<Vec<u8>, Refusal> {
    let limit = query.limit_bytes.min(MAX_SNAPSHOT_BYTES);
    let (archive, lost) = crate::snapshot::take(&sandbox, limit).await?;
    lap_harness::snapshot::join(lost, &archive)
        .map_err(|error| Refusal::broken(format!("the snapshot cannot be written: {error}")))
}

#[derive(Deserialize)]
pub(super) struct RestoreQuery {
    fence: u64,
}

pub(super) async fn restore(
    State(sandbox): App,
    Query(query): Query<RestoreQuery>,
    body: Body,
) -> Result<Json<Restored>, Refusal> {
    let archive = body::bytes(body, MAX_SNAPSHOT_BYTES).await?;
    let lost = crate::snapshot::restore(&sandbox, query.fence, archive).await?;
    Ok(Json(Restored { lost }))
}

pub(super) async fn send(State(sandbox): App, body: Body) -> Result<Response, Refusal> {
    let request: TurnRequest = body::json(body).await?;
    if request.parts.is_empty() {
        return Err(Refusal::invalid("parts: a turn needs at least one part"));
    }
    if sandbox.adapter.get().is_none() {
        return Err(not_ready(&sandbox));
    }
    let turn = request.turn;
    let before = sandbox.start_turn(request).await?;
    Ok(events::response(sandbox, before, Some(turn)))
}

pub(super) async fn turn(State(sandbox): App, Path(turn): Path<Uuid>) -> Result<Json<TurnStatus>, Refusal> {
    sandbox.turns.status(turn).map(Json).ok_or_else(unknown_turn)
}

pub(super) async fn abort(State(sandbox): App, Path(turn): Path<Uuid>) -> Result<Json<Value>, Refusal> {
    if sandbox.turns.abort(turn) {
        Ok(Json(json!({"ok": true})))
    } else {
        Err(unknown_turn())
    }
}

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    #[serde(default)]
    after: u64,
    turn: Option<Uuid>,
}

pub(super) async fn events(
    State(sandbox): App,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Refusal> {
    if query
        .turn
        .is_some_and(|turn| sandbox.turns.status(turn).is_none())
    {
        return Err(unknown_turn());
    }
    Ok(events::response(sandbox, query.after, query.turn))
}

pub(super) async fn messages(State(sandbox): App) -> Json<Vec<Value>> {
    Json(sandbox.messages().await)
}

#[derive(Deserialize)]
struct Answer {
    request: String,
    reply: Value,
}

pub(super) async fn answer(State(sandbox): App, body: Body) -> Result<Json<Value>, Refusal> {
    let answer: Answer = body::json(body).await?;
    let Some(adapter) = sandbox.adapter.get() else {
        return Err(not_ready(&sandbox));
    };
    adapter.answer(&answer.request, &answer.reply).await?;
    Ok(Json(json!({"ok": true})))
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    tail: Option<usize>,
}

pub(super) async fn logs(State(sandbox): App, Query(query): Query<LogsQuery>) -> Result<Response, Refusal> {
    let folder = sandbox.layout.log();
    let tail = query.tail.unwrap_or(200);
    let text = tokio::task::spawn_blocking(move || log_tail(&folder, tail)).await;
    match text {
        Ok(Ok(text)) => Ok(text.into_response()),
        Ok(Err(error)) => Err(Refusal::broken(format!("the logs cannot be read: {error}"))),
        Err(_) => Err(Refusal::broken("the logs cannot be read")),
    }
}

pub(super) async fn stop(State(sandbox): App) -> Json<Value> {
    sandbox.stop.cancel();
    Json(json!({"ok": true}))
}

fn unknown_turn() -> Refusal {
    Refusal::not_found("this sandbox does not know the turn")
}

fn not_ready(sandbox: &Sandbox) -> Refusal {
    let progress = sandbox.status.now();
    let failed = progress.state == lap_harness::Readiness::Failed;
    let detail = if failed {
        progress.detail
    } else {
        format!("the sandbox is at {}", progress.phase)
    };
    Refusal::not_ready(failed, detail)
}

/// The last lines of every file in the log folder, oldest file first, from at most 1 MiB of each.
fn log_tail(folder: &std::path::Path, tail: usize) -> std::io::Result<String> {
    const MAX_BYTES: u64 = 1 << 20;
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(|file| file.metadata().and_then(|metadata| metadata.modified()).ok());
    let mut text = String::new();
    for file in files {
        let mut file = std::fs::File::open(file.path())?;
        let length = file.metadata()?.len();
        std::io::Seek::seek(
            &mut file,
            std::io::SeekFrom::Start(length.saturating_sub(MAX_BYTES)),
        )?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES), &mut bytes)?;
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    let lines: Vec<&str> = text.lines().collect();
    let mut last = lines[lines.len().saturating_sub(tail)..].join("\n");
    if !last.is_empty() {
        last.push('\n');
    }
    Ok(last)
}
