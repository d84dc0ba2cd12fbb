//! An OpenAI-compatible model that says what a script tells it to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the model does with one request.
#[derive(Clone)]
pub(crate) enum Line {
    /// Says these pieces, each as a chunk of its own.
    Say(Vec<String>),
    /// Calls tools: name and arguments.
    Call(Vec<(String, Value)>),
    /// Refuses with a status and a body.
    Refuse(u16, String),
    /// Says this, then nothing, for ever.
    Hang(String),
    /// Says this, then breaks the connection off.
    Break(String),
    /// Says this and ends the answer as if it were complete, without having said why it stops.
    Cut(String),
    /// Accepts the request and never answers.
    Silence,
    /// Answers in one JSON body, as gateways do that cannot stream.
    Whole(String),
}

pub(crate) fn say(text: &str) -> Line {
    Line::Say(vec![text.to_owned()])
}

pub(crate) fn bash(command: &str) -> Line {
    Line::Call(vec![("bash".to_owned(), json!({"command": command}))])
}

pub(crate) struct Model {
    pub(crate) base: String,
    state: Arc<Inner>,
}

struct Inner {
    script: Mutex<VecDeque<Line>>,
    requests: Mutex<Vec<(HeaderMap, Value)>>,
    dropped: watch::Sender<usize>,
}

impl Model {
    pub(crate) async fn start(script: impl IntoIterator<Item = Line>) -> Self {
        let state = Arc::new(Inner {
            script: Mutex::new(script.into_iter().collect()),
            requests: Mutex::new(Vec::new()),
            dropped: watch::Sender::new(0),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // Without this the kernel would hold small chunks back, and every measurement would show it.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, state }
    }

    pub(crate) fn requests(&self) -> Vec<(HeaderMap, Value)> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Waits until a client gave up an answer.
    pub(crate) async fn dropped(&self) {
        let mut dropped = self.state.dropped.subscribe();
        let seen = dropped.wait_for(|count| *count > 0);
        tokio::time::timeout(super::PATIENCE, seen)
            .await
            .expect("the model still answers")
            .unwrap();
    }
}

/// Counts when the server drops an answer that had no end.
struct Dropped(Arc<Inner>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.send_modify(|count| *count += 1);
    }
}

async fn answer(State(state): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let request = serde_json::from_slice(&body).unwrap();
    state.requests.lock().unwrap().push((headers, request));
    let line = state
        .script
        .lock()
        .unwrap()
        .pop_front()
        .expect("the model has no more lines");
    match line {
        Line::Say(pieces) => {
            let chunks = pieces.iter().map(|text| chunk(json!({"content": text}), None));
            stream_of(chunks.collect(), "stop")
        }
        Line::Call(calls) => stream_of(call_chunks(&calls), "tool_calls"),
        Line::Refuse(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Line::Hang(text) => {
            let guard = Dropped(state);
            let first =
                stream::once(async move { Ok::<_, Infallible>(chunk(json!({"content": text}), None)) });
            let rest = stream::once(async move {
                let _guard = guard;
                std::future::pending::<Result<String, Infallible>>().await
            });
            sse(Body::from_stream(first.chain(rest)))
        }
        Line::Break(text) => {
            let first = stream::once(async move { Ok(chunk(json!({"content": text}), None)) });
            // The pause lets the piece leave before the connection ends.
            let end = stream::once(async {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            });
            sse(Body::from_stream(first.chain(end)))
        }
        Line::Cut(text) => sse(Body::from(chunk(json!({"content": text}), None))),
        Line::Silence => {
            let _guard = Dropped(state);
            std::future::pending().await
        }
        Line::Whole(text) => axum::Json(json!({
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5}
        }))
        .into_response(),
    }
}

fn chunk(delta: Value, finish: Option<&str>) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    )
}

fn usage() -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    )
}

/// Arguments come in two pieces, as real models send them.
fn call_chunks(calls: &[(String, Value)]) -> Vec<String> {
    let mut chunks = Vec::new();
    for (index, (name, arguments)) in calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        let head =
            json!({"index": index, "id": format!("call_{index}"), "type": "function", "function": function});
        chunks.push(chunk(json!({"tool_calls": [head]}), None));
        let arguments = arguments.to_string();
        let (first, second) = arguments.split_at(arguments.len() / 2);
        for piece in [first, second] {
            let more = json!({"index": index, "function": {"arguments": piece}});
            chunks.push(chunk(json!({"tool_calls": [more]}), None));
        }
    }
    chunks
}

/// One chunk per write, with a pause, so that each arrives alone.
fn stream_of(mut chunks: Vec<String>, reason: &str) -> Response {
    chunks.extend([
        chunk(json!({}), Some(reason)),
        usage(),
        "data: [DONE]\n\n".to_owned(),
    ]);
    let paced = stream::iter(chunks.into_iter().enumerate()).then(|(index, chunk)| async move {
        if index > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        Ok::<_, Infallible>(chunk)
    });
    sse(Body::from_stream(paced))
}

fn sse(body: Body) -> Response {
    ([("content-type", "text/event-stream")], body).into_response()
}
