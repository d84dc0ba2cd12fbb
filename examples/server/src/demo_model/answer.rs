//! The chat completion of a plan, whole or streamed.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::MODEL;
use super::plan::Plan;

/// Identity and usage of one completion.
struct Completion {
    id: String,
    created: i64,
    model: String,
    usage: Value,
}

/// Answers a call as the plan says.
pub(super) fn answer(call: &Value, plan: Plan, number: u64, created: i64) -> Response {
    let completion = Completion {
        id: format!("chatcmpl-demo-{number}"),
        created,
        model: call["model"].as_str().unwrap_or(MODEL).to_owned(),
        usage: usage(call, &plan),
    };
    if call["stream"] == true {
        let with_usage = call["stream_options"]["include_usage"] == true;
        return streamed(&completion, plan, with_usage, number);
    }
    whole(&completion, plan, number)
}

/// About four characters make a token; the numbers are there to be added up, not to be right.
fn usage(call: &Value, plan: &Plan) -> Value {
    let tokens = |characters: usize| characters.div_ceil(4).max(1);
    let asked = tokens(call["messages"].to_string().len());
    let said = match plan {
        Plan::Say { pieces, .. } => tokens(pieces.iter().map(String::len).sum()),
        Plan::Call { arguments, .. } => tokens(arguments.to_string().len()),
        Plan::Fail(_) => 0,
    };
    json!({ "prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said })
}

fn tool_call(tool: &str, arguments: &Value, number: u64) -> Value {
    let function = json!({ "name": tool, "arguments": arguments.to_string() });
    json!({ "index": 0, "id": format!("call_demo_{number}"), "type": "function", "function": function })
}

fn whole(completion: &Completion, plan: Plan, number: u64) -> Response {
    let (message, finish) = match plan {
        Plan::Call { tool, arguments } => {
            let call = tool_call(&tool, &arguments, number);
            (
                json!({ "role": "assistant", "content": null, "tool_calls": [call] }),
                "tool_calls",
            )
        }
        Plan::Say { pieces, .. } => (json!({ "role": "assistant", "content": pieces.concat() }), "stop"),
        Plan::Fail(_) => (json!({ "role": "assistant", "content": "" }), "stop"),
    };
    let document = json!({
        "id": completion.id, "object": "chat.completion", "created": completion.created, "model": completion.model,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish }], "usage": completion.usage,
    });
    Json(document).into_response()
}

fn streamed(completion: &Completion, plan: Plan, with_usage: bool, number: u64) -> Response {
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": completion.id, "object": "chat.completion.chunk", "created": completion.created,
            "model": completion.model, "choices": choices, "usage": usage,
        })
    };
    let delta = |delta: Value, finish: Value| {
        chunk(
            json!([{ "index": 0, "delta": delta, "finish_reason": finish }]),
            Value::Null,
        )
    };
    let (deltas, finish, pause) = match plan {
        Plan::Call { tool, arguments } => {
            let call = tool_call(&tool, &arguments, number);
            (
                vec![json!({ "tool_calls": [call] })],
                "tool_calls",
                Duration::ZERO,
            )
        }
        Plan::Say { pieces, pause } => (
            pieces
                .into_iter()
                .map(|piece| json!({ "content": piece }))
                .collect(),
            "stop",
            pause,
        ),
        Plan::Fail(_) => (Vec::new(), "stop", Duration::ZERO),
    };
    let begin = delta(json!({ "role": "assistant", "content": "" }), Value::Null);
    let mut events = vec![(Duration::ZERO, begin)];
    // The first piece follows at once and the pause comes after it, as with a model that is slow to go on.
    events.extend(deltas.into_iter().enumerate().map(|(piece, content)| {
        (
            if piece == 0 { Duration::ZERO } else { pause },
            delta(content, Value::Null),
        )
    }));
    events.push((pause, delta(json!({}), json!(finish))));
    if with_usage {
        events.push((Duration::ZERO, chunk(json!([]), completion.usage.clone())));
    }
    sse(events)
}

/// Server-sent events with a pause before each. A client that leaves ends it, because the stream is dropped.
fn sse(events: Vec<(Duration, Value)>) -> Response {
    let lines = events
        .into_iter()
        .map(|(pause, event)| (pause, format!("data: {event}\n\n")));
    let lines = lines.chain([(Duration::ZERO, "data: [DONE]\n\n".to_owned())]);
    let body = stream::iter(lines).then(|(pause, line)| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(body)).into_response()
}
