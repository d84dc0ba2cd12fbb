//! An OpenAI-compatible model in this process that keeps every request it saw. The last user text steers it:
//! `TOOL: <command>` one bash call and then the result, `CALL <tool> <json>` the same with any tool, `SLOW <n>` n chunks 250 ms apart, `FAIL <status>` an
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
    cut_off: Arc<Mutex<Vec<String>>>,
}

impl Model {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let model = Self {
            base,
            ..Self::default()
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

    /// Whether whoever asked this went away before the answer was complete.
    pub(crate) fn was_cut_off(&self, text: &str) -> bool {
        self.cut_off.lock().unwrap().iter().any(|cut| cut == text)
    }

    /// How many requests had this as their last user text.
    pub(crate) fn asked(&self, text: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| last_user_text(&seen.body) == text)
            .count()
    }
}

/// Notes an answer that is dropped before its end.
struct Watch {
    model: Model,
    text: String,
    complete: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.complete {
            self.model
                .cut_off
                .lock()
                .unwrap()
                .push(std::mem::take(&mut self.text));
        }
    }
}

async fn complete(State(model): State<Model>, headers: HeaderMap, body: Bytes) -> Response {
    let text = last_user_text(&serde_json::from_slice(&body).unwrap());
    let response = reply(&model, headers, body);
    let (parts, body) = response.into_parts();
    let watch = Watch {
        model,
        text,
        complete: false,
    };
    let watched = stream::unfold(
        (body.into_data_stream(), watch),
        |(mut body, mut watch)| async move {
            match body.next().await {
                Some(piece) => Some((piece, (body, watch))),
                None => {
                    watch.complete = true;
                    drop(watch);
                    None
                }
            }
        },
    );
    Response::from_parts(parts, Body::from_stream(watched))
}

fn reply(model: &Model, headers: HeaderMap, body: Bytes) -> Response {
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
        return call("bash", &json!({ "command": command }).to_string());
    }
    if let Some((tool, input)) = text.strip_prefix("CALL ").and_then(|call| call.split_once(' ')) {
        return call(tool, input);
    }
    if let Some(count) = text
        .strip_prefix("SLOW ")
        .and_then(|count| count.parse::<usize>().ok())
    {
        return answer((0..count).map(|number| format!("chunk{number} ")).collect(), 250);
    }
    answer(vec![format!("PONG {text}")], 0)
}

fn call(tool: &str, input: &str) -> Response {
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": tool, "arguments": input}});
    let said = json!({"index": 0, "delta": {"tool_calls": [call]}});
    chunks(
        vec![
            said,
            json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"}),
        ],
        0,
    )
}

fn answer(texts: Vec<String>, pause: u64) -> Response {
    let mut all: Vec<_> = texts
        .into_iter()
        .map(|text| json!({"index": 0, "delta": {"content": text}}))
        .collect();
    all.push(json!({"index": 0, "delta": {}, "finish_reason": "stop"}));
    chunks(all, pause)
}

fn chunks(choices: Vec<Value>, pause: u64) -> Response {
    let lines = stream::iter(choices).then(move |choice| async move {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        format!("data: {}\n\n", chunk(&json!([choice]), &Value::Null))
    });
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18});
    let usage = chunk(&json!([]), &usage);
    let end = stream::iter([format!("data: {usage}\n\n"), "data: [DONE]\n\n".to_owned()]);
    let body = Body::from_stream(lines.chain(end).map(Ok::<_, std::io::Error>));
    ([("content-type", "text/event-stream")], body).into_response()
}

fn chunk(choices: &Value, usage: &Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "test-model", "choices": choices, "usage": usage})
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
