//! A served engine, and requests to it.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use lap_core::backends::Backends;
use lap_core::engine::{Engine, EngineConfig};
use lap_core::secret::Secret;
use lap_http::{HttpOptions, MasterKey};
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const KEY: &str = "test-master-key";
pub(crate) const AGENTS: &str = "/api/v1/managed_agents/agents";
pub(crate) const SESSIONS: &str = "/api/v1/managed_agents/sessions";
pub(crate) const NOBODY: &str = "01900000-0000-7000-8000-000000000000";

/// Texts that steer the harness in memory.
pub(crate) const FAIL: &str = "FAIL the model refused";
pub(crate) const FAILURE: &str = "the model refused";
pub(crate) const HANG: &str = "HANG";
pub(crate) const SLOW: &str = "SLOW 5";

/// How long a test waits for a state. The machine may be loaded.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn options() -> HttpOptions {
    HttpOptions::new(MasterKey::new(Secret::new(KEY)))
}

/// The API under test.
pub(crate) struct Api {
    pub(crate) engine: Engine,
    router: Router,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} {:?} is not JSON", self.status, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON of an answer that must be a 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        self.json()
    }

    /// The JSON of an answer that must be a problem with this status and code.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["request_id"], self.header("x-request-id"));
        for text in ["type", "title", "detail", "error"] {
            assert!(
                body[text].as_str().is_some_and(|text| !text.is_empty()),
                "{text} in {body}"
            );
        }
        body
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(EngineConfig::default(), options()).await
    }

    pub(crate) async fn with(config: EngineConfig, options: HttpOptions) -> Self {
        let engine = Engine::start(Backends::in_memory(), config).await.unwrap();
        Self {
            router: lap_http::router(engine.clone(), options),
            engine,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("the answer ends")
            .unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(request(Method::GET, path, "")).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(request(Method::DELETE, path, "")).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(request(Method::POST, path, body.to_string())).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(request(Method::PATCH, path, body.to_string())).await
    }

    pub(crate) async fn post_with_key(&self, path: &str, key: &str, body: Value) -> Answer {
        let mut request = request(Method::POST, path, body.to_string());
        request
            .headers_mut()
            .insert("idempotency-key", key.parse().unwrap());
        self.call(request).await
    }

    /// Opens a stream that must begin well.
    pub(crate) async fn stream(&self, request: Request<Body>) -> Frames {
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(
            response.headers()[header::CACHE_CONTROL],
            "no-cache, no-transform"
        );
        Frames {
            body: StreamExt::boxed(response.into_body().into_data_stream()),
            text: String::new(),
            raw: String::new(),
        }
    }

    pub(crate) async fn agent(&self) -> String {
        let agent = self.post(AGENTS, json!({ "model": "demo" })).await.ok();
        agent["id"].as_str().unwrap().to_owned()
    }

    /// A new session of a new agent, ready.
    pub(crate) async fn session(&self) -> String {
        let agent = self.agent().await;
        let session = self
            .post(&format!("{AGENTS}/{agent}/session"), json!({}))
            .await
            .ok();
        let id = session["id"].as_str().unwrap().to_owned();
        self.until(&format!("{SESSIONS}/{id}"), |session| {
            session["status"] == "ready"
        })
        .await;
        id
    }

    /// What a resource shows once it fulfils the predicate.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let found = self.get(path).await.ok();
                if wanted(&found) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("the wanted state")
    }
}

pub(crate) fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request
        .header("authorization", format!("Bearer {KEY}"))
        .body(body.into())
        .unwrap()
}

/// One frame of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<u64>,
    pub(crate) data: Option<Value>,
}

impl Frame {
    pub(crate) fn kind(&self) -> &str {
        self.data
            .as_ref()
            .and_then(|data| data["type"].as_str())
            .unwrap_or_default()
    }
}

/// The frames of a stream; comments and the reconnect hint are passed over.
pub(crate) struct Frames {
    body: futures_util::stream::BoxStream<'static, Result<Bytes, axum::Error>>,
    /// What is not taken yet.
    text: String,
    /// Everything that came.
    raw: String,
}

impl Frames {
    /// Everything that came so far, with comments and hints.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// Waits until this text has come.
    pub(crate) async fn until_raw(&mut self, wanted: &str) {
        while !self.raw.contains(wanted) {
            assert!(self.more().await, "the stream goes on");
        }
    }

    async fn more(&mut self) -> bool {
        let chunk = tokio::time::timeout(PATIENCE, self.body.next())
            .await
            .expect("the stream goes on");
        let Some(chunk) = chunk else { return false };
        let chunk = chunk.unwrap();
        let text = std::str::from_utf8(&chunk).unwrap();
        self.text.push_str(text);
        self.raw.push_str(text);
        true
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (id, data) = (field(frame, "id:"), field(frame, "data:"));
                self.text = rest.to_owned();
                if id.is_none() && data.is_none() {
                    continue;
                }
                let id = id.map(|id| id.parse().unwrap());
                return Some(Frame {
                    id,
                    data: data.map(|data| serde_json::from_str(&data).unwrap()),
                });
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Frames up to and with the first one of this type.
    pub(crate) async fn up_to(&mut self, kind: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let last = frame.kind() == kind;
            frames.push(frame);
            if last {
                return frames;
            }
        }
        panic!("no {kind} in {frames:#?}");
    }

    pub(crate) async fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

fn field(frame: &str, name: &str) -> Option<String> {
    frame
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|value| value.trim_start().to_owned())
}
