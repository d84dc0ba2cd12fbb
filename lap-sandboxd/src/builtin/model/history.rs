//! The conversation as a chat completion request.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::builtin::message::{Content, Message, Role, ToolState};

/// Tool output further back than this many bytes is left out: the model can look again.
const OUTPUT_BUDGET: usize = 400 * 1024;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Value>,
    tools: &'a Value,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// The request's JSON.
pub(in crate::builtin) fn request_body(
    model: &str,
    system: &str,
    messages: &[Message],
    tools: &Value,
) -> Bytes {
    let stream_options = StreamOptions { include_usage: true };
    let body = Body {
        model,
        messages: chat(system, messages),
        tools,
        stream: true,
        stream_options,
    };
    // Text, numbers and maps with text keys always have a JSON form.
    Bytes::from(serde_json::to_vec(&body).unwrap_or_default())
}

fn chat(system: &str, messages: &[Message]) -> Vec<Value> {
    let mut budget = OUTPUT_BUDGET;
    // The newest outputs are kept, so the budget is spent from the end.
    let mut reversed = Vec::new();
    for message in messages.iter().rev() {
        match message.info.role {
            Role::User => reversed.extend(user(message)),
            Role::Assistant => assistant(message, &mut budget, &mut reversed),
        }
    }
    reversed.push(json!({"role": "system", "content": system}));
    reversed.reverse();
    reversed
}

fn user(message: &Message) -> Option<Value> {
    let mut content = Vec::new();
    for part in &message.parts {
        match &part.content {
            Content::Text { text, .. } => content.push(json!({"type": "text", "text": text})),
            Content::File { url, .. } => {
                content.push(json!({"type": "image_url", "image_url": {"url": url}}))
            }
            _ => {}
        }
    }
    match content.as_slice() {
        [] => None,
        // Plain text is what every gateway takes.
        [only] if only["type"] == "text" => Some(json!({"role": "user", "content": only["text"]})),
        _ => Some(json!({"role": "user", "content": content})),
    }
}

/// Pushes the message and the results of its tools, last first.
fn assistant(message: &Message, budget: &mut usize, reversed: &mut Vec<Value>) {
    let mut text = String::new();
    let mut calls = Vec::new();
    let mut results = Vec::new();
    for part in &message.parts {
        match &part.content {
            Content::Text { text: piece, .. } => text.push_str(piece),
            Content::Tool { call_id, tool, state } => {
                let (input, result) = outcome(state);
                let arguments = input.to_string();
                calls.push(json!({"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}));
                results.push((call_id, result));
            }
            _ => {}
        }
    }
    if text.is_empty() && calls.is_empty() {
        return;
    }
    for (call_id, result) in results.into_iter().rev() {
        let left = budget.checked_sub(result.len());
        *budget = left.unwrap_or(0);
        let content = if left.is_some() {
            result
        } else {
            "[this output is too old to be shown again]"
        };
        reversed.push(json!({"role": "tool", "tool_call_id": call_id, "content": content}));
    }
    let mut chat = json!({"role": "assistant", "content": text});
    if !calls.is_empty() {
        chat["tool_calls"] = Value::Array(calls);
    }
    reversed.push(chat);
}

fn outcome(state: &ToolState) -> (&Value, &str) {
    match state {
        ToolState::Completed { input, output, .. } => (input, output),
        ToolState::Error { input, error, .. } => (input, error),
        ToolState::Pending { input } | ToolState::Running { input, .. } => (input, "interrupted"),
    }
}
