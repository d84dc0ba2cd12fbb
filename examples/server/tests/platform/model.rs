//! An OpenAI-compatible model in this process that keeps every request it saw. The last user text steers it:
//! `TOOL: <command>` one bash call and then the result, `SLOW <n>` n chunks 250 ms apart, `FAIL <status>` an
//! error, anything else an echo.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Model {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let model = Self {
            base,
            seen: Arc::default(),
        };
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state(model.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        model
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests had this as their last user text.
    pub(crate) fn asked(&self, text: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| last_user_text(&seen.body) == text)
            .count()
    }
}

async fn complete(State(model): State<Model>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    model.seen.lock().unwrap().push(Seen {
        headers,
        body: body.clone(),
    });
    let text = last_user_text(&body);
    let last = body["messages"]
        .as_array()
        .and_then(|all| all.last())
        .cloned()
        .unwrap_or_default();
    if last["role"] == "tool" {
        return answer(
            vec![format!(
                "TOOL_RESULT_SEEN: {}",
                last["content"].as_str().unwrap_or_default()
            )],
            0,
        );
    }
    if let Some(status) = text.strip_prefix("FAIL ").and_then(|status| status.parse().ok()) {
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        return (
            status,
            axum::Json(json!({"error": {"message": "the model is out of order"}})),
        )
            .into_response();
    }
    if let Some(command) = text.strip_prefix("TOOL: ") {
        let arguments = json!({ "command": command }).to_string();
        let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "bash", "arguments": arguments}});
        return chunks(
            vec![
                json!({"delta": {"tool_calls": [call]}}),
                json!({"delta": {}, "finish_reason": "tool_calls"}),
            ],
            0,
        );
    }
    if let Some(count) = text
        .strip_prefix("SLOW ")
        .and_then(|count| count.parse::<usize>().ok())
    {
        return answer((0..count).map(|number| format!("chunk{number} ")).collect(), 250);
    }
    answer(vec![format!("PONG {text}")], 0)
}

fn answer(texts: Vec<String>, pause: u64) -> Response {
    let mut all: Vec<_> = texts
        .into_iter()
        .map(|text| json!({"delta": {"content": text}}))
        .collect();
    all.push(json!({"delta": {}, "finish_reason": "stop"}));
    chunks(all, pause)
}

fn chunks(choices: Vec<Value>, pause: u64) -> Response {
    let lines = stream::iter(choices).then(move |choice| async move {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        format!(
            "data: {}\n\n",
            json!({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})
        )
    });
    let usage = json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}});
    let end = stream::iter([format!("data: {usage}\n\n"), "data: [DONE]\n\n".to_owned()]);
    let body = Body::from_stream(lines.chain(end).map(Ok::<_, std::io::Error>));
    ([("content-type", "text/event-stream")], body).into_response()
}

fn last_user_text(body: &Value) -> String {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let Some(last) = messages.iter().rev().find(|message| message["role"] == "user") else {
        return String::new();
    };
    match &last["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}
