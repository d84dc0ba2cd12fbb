//! Attachments: images that a message carries, and the message parts they become.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::problem::Problem;

const MAX_ATTACHMENTS: usize = 10;
const MAX_BYTES: usize = 5 * 1024 * 1024;
const MAX_NAME: usize = 255;
const MIME_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// An image.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Attachment {
    /// At most 255 characters.
    name: Option<String>,
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    mime_type: String,
    /// The image; at most 5 MiB once decoded.
    base64: String,
}

/// The message parts of `attachments`; `field` is where they stand in the request.
pub(crate) fn file_parts(attachments: Vec<Attachment>, field: &str) -> Result<Vec<Value>, Problem> {
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(Problem::invalid(
            field,
            format!("at most {MAX_ATTACHMENTS} attachments are taken"),
        ));
    }
    let parts = attachments.into_iter().enumerate();
    parts
        .map(|(index, attachment)| file_part(attachment, &format!("{field}[{index}]")))
        .collect()
}

fn file_part(attachment: Attachment, field: &str) -> Result<Value, Problem> {
    let Attachment {
        name,
        mime_type,
        base64,
    } = attachment;
    if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME) {
        return Err(Problem::invalid(
            format!("{field}.name"),
            format!("at most {MAX_NAME} characters are taken"),
        ));
    }
    if !MIME_TYPES.contains(&mime_type.as_str()) {
        let detail = format!("expected one of {}", MIME_TYPES.join(", "));
        return Err(Problem::invalid(format!("{field}.mime_type"), detail));
    }
    let decoded = STANDARD
        .decode(&base64)
        .map_err(|_| Problem::invalid(format!("{field}.base64"), "this is not base64 with padding"))?;
    if decoded.is_empty() || decoded.len() > MAX_BYTES {
        return Err(Problem::invalid(
            format!("{field}.base64"),
            "an image has between 1 byte and 5 MiB",
        ));
    }
    let mut part =
        json!({ "type": "file", "mime": mime_type, "url": format!("data:{mime_type};base64,{base64}") });
    if let Some(name) = name {
        part["filename"] = Value::String(name);
    }
    Ok(part)
}
