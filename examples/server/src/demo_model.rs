//! The model that answers under `--dev` when no gateway is given, so that a first session does something real.
//!
//! It speaks the chat completions of OpenAI, makes one tool call per request of a person and then tells what it
//! saw. It is deterministic, and as a test double it is steered by the last text of the user:
//!
//! | text | what happens |
//! |---|---|
//! | `TOOL: <command>` | one call of the bash tool, then `TOOL_RESULT_SEEN: <output>` |
//! | `SLOW <n>` | n pieces, 250 ms apart |
//! | `FAIL <status>` | an HTTP error |
//! | `PING` or `PONG` | `PONG <text>` |

mod answer;
mod plan;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lap_core::id::Entropy;
use lap_core::secret::Secret;
use lap_core::time::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use plan::{Plan, plan};

/// The name under which the model is listed. Any other name is answered as well.
pub(crate) const MODEL: &str = "demo-model";

/// Conversations grow; nothing near this is one.
const LARGEST_CALL: usize = 64 << 20;

/// A running demo model. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct DemoModel {
    /// Base URL, as the vault reaches it.
    pub(crate) base: String,
    /// The key it asks for, made at start.
    pub(crate) key: Secret,
    stop: CancellationToken,
}

impl DemoModel {
    /// The model listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn start(
        address: SocketAddr,
        entropy: &dyn Entropy,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let mut random = [0; 24];
        entropy.fill(&mut random);
        let key = Secret::new(format!("sk-demo-{}", URL_SAFE_NO_PAD.encode(random)));
        let stop = CancellationToken::new();
        let (serving_key, end) = (key.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                served = serve(listener, serving_key, clock) => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the demo model ended");
                    }
                }
                () = end.cancelled() => {}
            }
        });
        Ok(Self { base, key, stop })
    }
}

impl Drop for DemoModel {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves the model until the future is dropped.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(listener: TcpListener, key: Secret, clock: Arc<dyn Clock>) -> std::io::Result<()> {
    axum::serve(listener, router(key, clock)).await
}

/// The routes of the model, with and without `/v1`.
pub(crate) fn router(key: Secret, clock: Arc<dyn Clock>) -> Router {
    let model = Arc::new(Model {
        key,
        clock,
        calls: AtomicU64::new(0),
    });
    let routes = Router::new()
        .route("/models", get(models))
        .route("/chat/completions", post(chat));
    Router::new()
        .nest("/v1", routes.clone())
        .merge(routes)
        .layer(DefaultBodyLimit::max(LARGEST_CALL))
        .with_state(model)
}

#[derive(Debug)]
struct Model {
    key: Secret,
    clock: Arc<dyn Clock>,
    calls: AtomicU64,
}

impl Model {
    /// Checks the key as gateways do, in a bearer token or `x-api-key`, and answers a stranger.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match bearer.or_else(|| text("x-api-key")) {
            Some(key) if self.key.matches(key) => None,
            _ => Some(failure(
                StatusCode::UNAUTHORIZED,
                "the key is not the demo model's",
            )),
        }
    }
}

fn failure(status: StatusCode, message: &str) -> Response {
    let code = status.as_u16().to_string();
    let error = json!({ "error": { "message": message, "type": "demo_model", "code": code } });
    (status, Json(error)).into_response()
}

async fn models(State(model): State<Arc<Model>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = model.refusal(&headers) {
        return refusal;
    }
    let entry = json!({ "id": MODEL, "object": "model", "created": 1, "owned_by": "lap" });
    Json(json!({ "object": "list", "data": [entry] })).into_response()
}

async fn chat(State(model): State<Arc<Model>>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    if let Some(refusal) = model.refusal(&headers) {
        return refusal;
    }
    let Ok(call) = serde_json::from_slice::<Value>(&body) else {
        return failure(StatusCode::BAD_REQUEST, "the body is not JSON");
    };
    if call["messages"].as_array().is_none_or(Vec::is_empty) {
        return failure(StatusCode::BAD_REQUEST, "messages: at least one is needed");
    }
    let plan = plan(&call);
    if let Plan::Fail(status) = plan {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return failure(status, "the demo model fails because it was asked to");
    }
    let number = model.calls.fetch_add(1, Ordering::Relaxed);
    let created = model.clock.now().unix_millis() / 1000;
    answer::answer(&call, plan, number, created)
}

#[cfg(test)]
mod tests;
