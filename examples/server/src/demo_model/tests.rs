use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lap_core::id::SystemEntropy;
use lap_core::time::SystemClock;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

async fn start() -> DemoModel {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    DemoModel::start(address, &SystemEntropy::new(), Arc::new(SystemClock))
        .await
        .unwrap()
}

async fn call(model: &DemoModel, key: &str, body: Value) -> axum::http::Response<hyper::body::Incoming> {
    let client =
        Client::builder(TokioExecutor::new()).build_http::<http_body_util::Full<axum::body::Bytes>>();
    let request = axum::http::Request::post(format!("{}/v1/chat/completions", model.base))
        .header("authorization", format!("Bearer {key}"))
        .body(body.to_string().into())
        .unwrap();
    client.request(request).await.unwrap()
}

async fn text(response: axum::http::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn bash() -> Value {
    json!([{ "type": "function", "function": { "name": "bash", "parameters": { "properties": { "command": {} } } } }])
}

fn content_of(stream: &str) -> String {
    let chunks = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]");
    let chunks = chunks.map(|data| serde_json::from_str::<Value>(data).unwrap());
    chunks
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_request_leads_to_one_tool_call_and_a_streamed_answer() {
    let model = start().await;
    let key = model.key.expose();
    let mut messages = vec![json!({ "role": "user", "content": "What is here?" })];
    let first = call(&model, key, json!({ "messages": messages, "tools": bash() })).await;
    let first: Value = serde_json::from_str(&text(first).await).unwrap();
    assert_eq!(first["choices"][0]["finish_reason"], "tool_calls");
    assert!(first["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let asked = &first["choices"][0]["message"];
    assert!(
        asked["tool_calls"][0]["function"]["arguments"]
            .as_str()
            .unwrap()
            .contains("What is here?")
    );
    messages.push(asked.clone());
    messages.push(json!({ "role": "tool", "tool_call_id": "x", "content": "main.rs" }));
    let options = json!({ "include_usage": true });
    let second = json!({ "messages": messages, "tools": bash(), "stream": true, "stream_options": options });
    let answer = text(call(&model, key, second).await).await;
    assert!(
        answer.ends_with("data: [DONE]\n\n") && answer.contains("\"total_tokens\""),
        "{answer}"
    );
    assert!(answer.matches("\"content\"").count() > 5, "{answer}");
    assert!(content_of(&answer).contains("main.rs"));
}

#[tokio::test]
async fn it_is_a_test_double() {
    let model = start().await;
    let key = model.key.expose();
    let said =
        |content: &str| json!({ "messages": [{ "role": "user", "content": content }], "stream": true });
    assert_eq!(call(&model, key, said("FAIL 429")).await.status(), 429);
    assert_eq!(
        content_of(&text(call(&model, key, said("PING")).await).await),
        "PONG PING"
    );
    let started = Instant::now();
    assert_eq!(
        content_of(&text(call(&model, key, said("SLOW 3")).await).await),
        "chunk0 chunk1 chunk2 "
    );
    assert!(started.elapsed().as_millis() >= 500);
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    let model = start().await;
    let refused = call(&model, "sk-other", json!({ "messages": [] })).await;
    assert_eq!(refused.status(), 401);
    assert!(!text(refused).await.contains("sk-"));
    let empty = call(&model, model.key.expose(), json!({ "messages": [] })).await;
    assert_eq!(empty.status(), 400);
}
