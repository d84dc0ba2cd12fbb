//! Messages on the wire, and the parts they become.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::attachment::{Attachment, file_parts};
use crate::problem::Problem;

const MAX_PARTS: usize = 100;

/// A message. One of `text`, `parts` and `attachments` is needed; attachments win over parts, parts over text.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MessageBody {
    text: Option<String>,
    /// Message parts as opencode takes them, e.g. `{"type": "text", "text": "..."}`.
    #[schema(value_type = Option<Vec<Object>>)]
    parts: Option<Vec<Map<String, Value>>>,
    /// At most 10 images.
    attachments: Option<Vec<Attachment>>,
    /// Another model than the agent's, for this turn only.
    pub(crate) model: Option<String>,
}

impl MessageBody {
    /// A message of these parts.
    pub(crate) const fn of_parts(parts: Vec<Map<String, Value>>, model: Option<String>) -> Self {
        Self {
            text: None,
            parts: Some(parts),
            attachments: None,
            model,
        }
    }

    /// The parts that go to the harness.
    pub(crate) fn parts(self) -> Result<Vec<Value>, Problem> {
        let attachments = self.attachments.unwrap_or_default();
        let given = self.parts.unwrap_or_default();
        if attachments.is_empty() && !given.is_empty() {
            return checked(given);
        }
        let parts = said(self.text, attachments, "attachments")?;
        if parts.is_empty() {
            return Err(Problem::invalid(
                "text",
                "a message needs text, parts or attachments",
            ));
        }
        Ok(parts)
    }
}

/// Text and images as parts; none of both gives no parts.
pub(crate) fn said(
    text: Option<String>,
    attachments: Vec<Attachment>,
    field: &str,
) -> Result<Vec<Value>, Problem> {
    let text = text
        .filter(|text| !text.trim().is_empty())
        .map(|text| json!({ "type": "text", "text": text }));
    let files = file_parts(attachments, field)?;
    Ok(text.into_iter().chain(files).collect())
}

fn checked(parts: Vec<Map<String, Value>>) -> Result<Vec<Value>, Problem> {
    if parts.len() > MAX_PARTS {
        return Err(Problem::invalid(
            "parts",
            format!("at most {MAX_PARTS} parts are taken"),
        ));
    }
    for (index, part) in parts.iter().enumerate() {
        let Some(kind) = part.get("type").and_then(Value::as_str) else {
            return Err(Problem::invalid(
                format!("parts[{index}].type"),
                "expected a string",
            ));
        };
        if kind == "text" && !part.get("text").is_some_and(Value::is_string) {
            return Err(Problem::invalid(
                format!("parts[{index}].text"),
                "expected a string",
            ));
        }
    }
    Ok(parts.into_iter().map(Value::Object).collect())
}
