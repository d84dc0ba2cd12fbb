//! A small HTTP client over hyper.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Generous: the machine may be loaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    pub(crate) base: String,
    pub(crate) key: String,
}

/// A status and a body.
pub(crate) type Answer = (u16, Value);

impl Client {
    pub(crate) fn new(base: &str, key: &str) -> Self {
        let http = HyperClient::builder(TokioExecutor::new()).build_http();
        Self {
            http,
            base: base.to_owned(),
            key: key.to_owned(),
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let path = if path.starts_with("/api/") || path.starts_with("/healthz") || path.starts_with("/readyz")
        {
            path.to_owned()
        } else {
            format!("/api/v1/managed_agents{path}")
        };
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
    }

    /// The answer without its body, for streams.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<hyper::body::Incoming> {
        self.http.request(request).await.unwrap()
    }

    pub(crate) async fn try_send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_send(self.request("GET", path).body(Full::default()).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body, None).await.unwrap()
    }

    pub(crate) async fn try_post(
        &self,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<Answer, String> {
        let mut request = self.request("POST", path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.try_send(request.body(Full::from(body.to_string())).unwrap())
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.try_send(self.request("DELETE", path).body(Full::default()).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn agent(&self, definition: Value) -> String {
        let (status, agent) = self.post("/agents", &definition).await;
        assert_eq!(status, 200, "{agent}");
        agent["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn session(&self, agent: &str, body: Value) -> String {
        let (status, session) = self.post(&format!("/agents/{agent}/session"), &body).await;
        assert_eq!(status, 200, "{session}");
        session["id"].as_str().unwrap().to_owned()
    }

    /// Sends a message and waits for its end.
    pub(crate) async fn message(&self, session: &str, text: &str) -> Answer {
        self.post(&format!("/sessions/{session}/message"), &json!({ "text": text }))
            .await
    }

    /// The states of a session's turns, oldest first.
    pub(crate) async fn turn_states(&self, session: &str) -> Vec<String> {
        let (status, turns) = self.get(&format!("/sessions/{session}/turns")).await;
        assert_eq!(status, 200, "{turns}");
        let turns = turns["data"].as_array().unwrap();
        turns
            .iter()
            .map(|turn| turn["status"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the session's turns are in these states.
    pub(crate) async fn turns_are(&self, session: &str, states: &[&str]) {
        eventually("the turns have their states", async || {
            let found = self.turn_states(session).await;
            if found == states {
                Ok(())
            } else {
                Err(format!("{found:?} instead of {states:?}"))
            }
        })
        .await;
    }

    /// The SSE data of the session's log after an id, until `last` says that an entry was the last one.
    pub(crate) async fn events_until(
        &self,
        session: &str,
        after: u64,
        mut last: impl FnMut(&Frame) -> bool,
    ) -> Vec<Frame> {
        let path = format!("/sessions/{session}/events?after={after}");
        let response = self
            .http
            .request(self.request("GET", &path).body(Full::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body().into_data_stream();
        let (mut text, mut frames) = (String::new(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(chunk)) =
            tokio::time::timeout(deadline.saturating_duration_since(Instant::now()), body.next()).await
        {
            let Ok(chunk) = chunk else { break };
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some(end) = text.find("\n\n") {
                let frame = Frame::parse(&text[..end]);
                text.drain(..end + 2);
                let is_last = last(&frame);
                frames.push(frame);
                if is_last {
                    return frames;
                }
            }
        }
        frames
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name).map(str::trim))
        };
        Self {
            id: field("id:").and_then(|id| id.parse().ok()),
            data: field("data:")
                .and_then(|data| serde_json::from_str(data).ok())
                .unwrap_or(Value::Null),
        }
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.data["type"] == kind
    }
}

/// Waits on a predicate; the error is what it said last.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
