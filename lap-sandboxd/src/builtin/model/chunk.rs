//! The pieces of a streamed chat completion.

use lap_harness::{TurnFailure, Usage};
use serde::Deserialize;
use serde_json::Value;

/// Part of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::builtin) struct CallPiece {
    pub(in crate::builtin) index: usize,
    pub(in crate::builtin) id: Option<String>,
    pub(in crate::builtin) name: Option<String>,
    pub(in crate::builtin) arguments: String,
}

/// What arrived.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::builtin) enum Piece {
    Text(String),
    Reasoning(String),
    Call(CallPiece),
    Finish(String),
    Usage(Usage),
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<RawUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<RawCall>>,
}

#[derive(Deserialize)]
struct RawCall {
    index: Option<usize>,
    id: Option<String>,
    function: Option<RawFunction>,
}

#[derive(Deserialize)]
struct RawFunction {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    cost: Option<f64>,
}

/// Adds the pieces of one event. Text that follows text is joined, so that a slow reader gets fewer, larger deltas.
pub(super) fn of_event(data: &str, pieces: &mut Vec<Piece>) -> Result<(), TurnFailure> {
    let event: Event = serde_json::from_str(data).map_err(|_| {
        failure(
            "the model gateway sent an event that is not a chat completion chunk".to_owned(),
            None,
        )
    })?;
    add(event, pieces)
}

/// The pieces of an answer that was not streamed.
pub(super) fn of_whole(body: &[u8]) -> Result<Vec<Piece>, TurnFailure> {
    let event: Event = serde_json::from_slice(body).map_err(|_| {
        failure(
            "the model gateway's answer is not a chat completion".to_owned(),
            None,
        )
    })?;
    let mut pieces = Vec::new();
    add(event, &mut pieces)?;
    Ok(pieces)
}

fn add(event: Event, pieces: &mut Vec<Piece>) -> Result<(), TurnFailure> {
    if let Some(error) = event.error.filter(|error| !error.is_null()) {
        let message = super::error_message(error.to_string().as_bytes());
        let status = error
            .get("code")
            .and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
        let status = status
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (400..600).contains(status));
        return Err(failure(format!("the model gateway broke off: {message}"), status));
    }
    // One answer is asked for, so there is one choice.
    if let Some(choice) = event.choices.into_iter().next() {
        if let Some(delta) = choice.delta {
            add_delta(delta, pieces);
        }
        pieces.extend(choice.finish_reason.map(Piece::Finish));
    }
    if let Some(usage) = event.usage {
        pieces.push(Piece::Usage(Usage {
            input_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            cost: usage.cost,
        }));
    }
    Ok(())
}

fn add_delta(delta: Delta, pieces: &mut Vec<Piece>) {
    if let Some(reasoning) = delta.reasoning_content.filter(|text| !text.is_empty()) {
        match pieces.last_mut() {
            Some(Piece::Reasoning(before)) => before.push_str(&reasoning),
            _ => pieces.push(Piece::Reasoning(reasoning)),
        }
    }
    if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
        match pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(&text),
            _ => pieces.push(Piece::Text(text)),
        }
    }
    for (position, call) in delta.tool_calls.unwrap_or_default().into_iter().enumerate() {
        let function = call.function;
        let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
        pieces.push(Piece::Call(CallPiece {
            index: call.index.unwrap_or(position),
            id: call.id.filter(|id| !id.is_empty()),
            name: name.filter(|name| !name.is_empty()),
            arguments: arguments.unwrap_or_default(),
        }));
    }
}

fn failure(message: String, status: Option<u16>) -> TurnFailure {
    TurnFailure { message, status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_joins_and_calls_keep_their_index() {
        let mut pieces = Vec::new();
        for data in [
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"c","function":{"name":"bash","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
        ] {
            of_event(data, &mut pieces).unwrap();
        }
        let call = CallPiece {
            index: 1,
            id: Some("c".into()),
            name: Some("bash".into()),
            arguments: String::new(),
        };
        let usage = Usage {
            input_tokens: 3,
            output_tokens: 4,
            cost: None,
        };
        let expected = [
            Piece::Text("ab".into()),
            Piece::Call(call),
            Piece::Finish("tool_calls".into()),
            Piece::Usage(usage),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn an_error_in_the_stream_is_the_gateways_message() {
        let error = of_event(
            r#"{"error":{"message":"no money","code":"402"}}"#,
            &mut Vec::new(),
        )
        .unwrap_err();
        assert_eq!(error.message, "the model gateway broke off: no money");
        assert_eq!(error.status, Some(402));
    }
}
