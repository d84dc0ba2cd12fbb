//! The eight calls of opencode that plain clients use, on the one conversation of this sandbox.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::StatusCode;
use lap_harness::journal::TURN_FINISHED;
use lap_harness::{OpenRequest, TurnRequest};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Refusal, body, events};
use crate::binding::Conflict;
use crate::journal::Batch;
use crate::sandbox::Sandbox;

type App = State<Arc<Sandbox>>;

/// Plain clients know no deadline; opencode's own users wait half an hour at most.
const DEADLINE_MS: u64 = 30 * 60 * 1000;
/// Names under which clients address the one gateway. The model goes on without them.
const GATEWAY_PROVIDERS: &[&str] = &["litellm", "gateway", "lap", ""];

pub(super) async fn list(State(sandbox): App) -> Json<Value> {
    let sessions: Vec<Value> = sandbox
        .bound()
        .await
        .iter()
        .map(|bound| session(&bound.conversation, &bound.opening))
        .collect();
    Json(Value::Array(sessions))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Create {
    title: Option<String>,
    prompt: Option<String>,
    mcp_servers: Vec<Value>,
    platform_session_id: Option<Uuid>,
}

/// Binds the sandbox when nothing has; else gives the conversation there is, unless another session is named.
pub(super) async fn create(State(sandbox): App, body: Body) -> Result<Json<Value>, Refusal> {
    let create: Create = body::json(body).await?;
    if let Some(bound) = sandbox.bound().await {
        let foreign = create
            .platform_session_id
            .is_some_and(|session| session != bound.opening.session);
        return if foreign {
            Err(Conflict::Bound.into())
        } else {
            Ok(Json(session(&bound.conversation, &bound.opening)))
        };
    }
    let opening = OpenRequest {
        session: create.platform_session_id.unwrap_or_else(|| sandbox.fresh_id()),
        fence: 0,
        title: create.title,
        prompt: create.prompt,
        model: sandbox.environment.default_model().unwrap_or_default().to_owned(),
        skills: Vec::new(),
        mcp_servers: create.mcp_servers,
        env: Default::default(),
        permission: Value::Null,
        answer_timeout_ms: None,
        history: None,
    };
    let conversation = sandbox.open(opening.clone()).await.map_err(Refusal::from)?;
    Ok(Json(session(&conversation, &opening)))
}

pub(super) async fn remove(State(sandbox): App, Path(id): Path<String>) -> Result<Json<bool>, Refusal> {
    abort(State(sandbox), Path(id)).await
}

pub(super) async fn messages(
    State(sandbox): App,
    Path(id): Path<String>,
) -> Result<Json<Vec<Value>>, Refusal> {
    known(&sandbox, &id).await?;
    Ok(Json(sandbox.messages().await))
}

#[derive(Deserialize)]
struct Message {
    parts: Vec<Value>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "providerID", default)]
    provider: String,
    #[serde(rename = "modelID")]
    model: String,
}

/// Runs a turn and answers with its last assistant message.
pub(super) async fn message(
    State(sandbox): App,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    let (turn, mut after) = start(&sandbox, &id, body).await?;
    let mut head = sandbox.journal.watch();
    loop {
        head.mark_unchanged();
        if let Some(end) = sandbox.turns.ended_at(turn) {
            after = after.max(end - 1);
            let finished = sandbox
                .journal
                .look_back(after)
                .into_iter()
                .find(|event| event.kind == TURN_FINISHED);
            let properties = finished.map(|event| event.properties).unwrap_or_default();
            return reply(properties);
        }
        if head.changed().await.is_err() {
            return Err(Refusal::broken("the sandbox is stopping"));
        }
    }
}

pub(super) async fn prompt_async(
    State(sandbox): App,
    Path(id): Path<String>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    start(&sandbox, &id, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn abort(State(sandbox): App, Path(id): Path<String>) -> Result<Json<bool>, Refusal> {
    known(&sandbox, &id).await?;
    if let Some(turn) = sandbox.turns.current() {
        sandbox.turns.abort(turn);
    }
    Ok(Json(true))
}

/// What happens from now on, in opencode's own event shapes.
pub(super) async fn events(State(sandbox): App) -> Response {
    let after = sandbox.journal.head();
    let hello = Bytes::from(format!(
        "data: {}\n\n",
        json!({"type": "server.connected", "properties": {}})
    ));
    let head = sandbox.journal.watch();
    let live = stream::unfold((sandbox, head, after), |(sandbox, mut head, after)| async move {
        loop {
            head.mark_unchanged();
            if let Batch::Frames { frames, last } = sandbox.journal.read(after, None) {
                return Some((Ok(plain_frames(&frames)), (sandbox, head, last)));
            }
            tokio::select! {
                changed = head.changed() => changed.ok()?,
                () = sandbox.close.cancelled() => return None,
                () = tokio::time::sleep(lap_harness::limits::KEEP_ALIVE) => {
                    let beat = json!({"type": "server.heartbeat", "properties": {}});
                    return Some((Ok(Bytes::from(format!("data: {beat}\n\n"))), (sandbox, head, after)));
                }
            }
        }
    });
    events::sse(stream::once(async { Ok::<_, Infallible>(hello) }).chain(live))
}

/// Takes the journal's own fields away: plain clients know `type` and `properties`.
fn plain_frames(frames: &[u8]) -> Bytes {
    let mut plain = String::new();
    let lines = String::from_utf8_lossy(frames);
    for line in lines.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let Ok(Value::Object(mut event)) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        event.remove("seq");
        event.remove("turn");
        plain.push_str(&format!("data: {}\n\n", Value::Object(event)));
    }
    Bytes::from(plain)
}

async fn start(sandbox: &Arc<Sandbox>, id: &str, body: Body) -> Result<(Uuid, u64), Refusal> {
    let message: Message = body::json(body).await?;
    if message.parts.is_empty() {
        return Err(Refusal::invalid("parts: a message needs at least one part"));
    }
    let fence = known(sandbox, id).await?;
    let model = message.model.map(|Model { provider, model }| {
        if GATEWAY_PROVIDERS.contains(&provider.as_str()) {
            model
        } else {
            format!("{provider}/{model}")
        }
    });
    let turn = sandbox.fresh_id();
    let request = TurnRequest {
        turn,
        fence,
        parts: message.parts,
        model,
        deadline_ms: DEADLINE_MS,
    };
    let after = sandbox.start_turn(request).await?;
    Ok((turn, after))
}

/// The newest fence, when the id is that of the conversation.
async fn known(sandbox: &Sandbox, id: &str) -> Result<u64, Refusal> {
    let binding = sandbox.binding.lock().await;
    match binding.bound() {
        Some(bound) if bound.conversation == id => Ok(binding.fence()),
        _ => Err(Refusal::not_found("there is no such session")),
    }
}

fn reply(finished: Value) -> Result<Json<Value>, Refusal> {
    match finished.get("reply") {
        Some(reply) if reply.is_object() => Ok(Json(reply.clone())),
        _ => {
            let message = finished.pointer("/error/message").and_then(Value::as_str);
            Err(Refusal::broken(
                message.unwrap_or("the turn ended without a reply"),
            ))
        }
    }
}

fn session(conversation: &str, opening: &OpenRequest) -> Value {
    json!({"id": conversation, "title": opening.title.clone().unwrap_or_default(), "version": "lap", "platform_session_id": opening.session})
}
