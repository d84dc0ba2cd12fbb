//! What a person sent, as parts of a message.

use serde_json::Value;

use super::message::Content;

/// Reads the input parts of a turn.
///
/// # Errors
/// The reason, when a part is of a kind this harness cannot pass to a model: refused, not ignored.
pub(super) fn contents(parts: &[Value]) -> Result<Vec<Content>, String> {
    parts.iter().map(content).collect()
}

fn content(part: &Value) -> Result<Content, String> {
    let text = |pointer: &str| part.pointer(pointer).and_then(Value::as_str);
    match text("/type") {
        Some("text") => {
            let text = text("/text").ok_or("a text part has no text")?;
            Ok(Content::Text {
                text: text.to_owned(),
                time: None,
            })
        }
        Some("file") => {
            let (mime, url) = (
                text("/mime").unwrap_or_default(),
                text("/url").unwrap_or_default(),
            );
            if !mime.starts_with("image/") || !(url.starts_with("data:") || url.starts_with("https://")) {
                return Err(
                    "the built-in harness takes files only as images in data: or https: addresses".to_owned(),
                );
            }
            let filename = text("/filename").map(str::to_owned);
            Ok(Content::File {
                mime: mime.to_owned(),
                url: url.to_owned(),
                filename,
            })
        }
        Some("image") => {
            let (Some(mime), Some(data)) = (text("/source/media_type"), text("/source/data")) else {
                return Err("an image part has no source.media_type and source.data".to_owned());
            };
            Ok(Content::File {
                mime: mime.to_owned(),
                url: format!("data:{mime};base64,{data}"),
                filename: None,
            })
        }
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(format!(
                "the built-in harness cannot take parts of type {other:?}"
            ))
        }
        None => Err("a part has no type".to_owned()),
    }
}
