//! Reads a JSON body: bounded in size and time, and wrong input is answered with the path of the field.
//!
//! The content type is not looked at, as in the original. Unknown fields are ignored. No message quotes a value,
//! because values can be secrets.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::app::App;
use crate::problem::Problem;

/// Marks routes whose body may be larger than [`HttpOptions::body_limit`](crate::HttpOptions).
#[derive(Debug, Clone, Copy)]
pub(crate) struct CarriesAttachments;

/// A decoded body. An empty one counts as `{}`.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let options = &app.options;
        let large = request.extensions().get::<CarriesAttachments>().is_some();
        let limit = if large {
            options.attachments_limit
        } else {
            options.body_limit
        };
        if announced_length(request.headers()).is_some_and(|length| length > limit) {
            return Err(Problem::too_large(limit));
        }
        let reading = read(request.into_body(), limit, options.body_pause);
        let bytes = tokio::time::timeout(options.body_timeout, reading)
            .await
            .map_err(|_| slow_body())??;
        decode(&bytes).map(Self)
    }
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body, unless it is larger than `limit` or nothing of it comes for `pause`.
async fn read(body: Body, limit: usize, pause: Duration) -> Result<Vec<u8>, Problem> {
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    while let Some(frame) = tokio::time::timeout(pause, body.frame())
        .await
        .map_err(|_| slow_body())?
    {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(error) if error.is::<LengthLimitError>() => return Err(Problem::too_large(limit)),
            Err(_) => return Err(broken_body()),
        }
    }
    Ok(bytes)
}

fn slow_body() -> Problem {
    let detail = "the body came too slowly";
    Problem::new(http::StatusCode::REQUEST_TIMEOUT, "slow_body", detail)
}

fn broken_body() -> Problem {
    let detail = "the body ended before its end";
    Problem::new(http::StatusCode::BAD_REQUEST, "broken_body", detail)
}

/// Decodes a body; the error names the field.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        bytes
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })?;
    json.end().map_err(|error| refusal(".", &error))?;
    Ok(value)
}

fn refusal(path: &str, error: &serde_json::Error) -> Problem {
    if error.classify() != Category::Data {
        let (line, column) = (error.line(), error.column());
        let detail = format!("the body is not valid JSON: see line {line}, column {column}");
        return Problem::new(http::StatusCode::BAD_REQUEST, "malformed_json", detail);
    }
    let text = error.to_string();
    if let Some(name) = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next())
    {
        let field = if path == "." {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        return Problem::invalid(field, "this field is required");
    }
    let detail = without_value(&text);
    if path == "." {
        Problem::new(
            http::StatusCode::BAD_REQUEST,
            "invalid",
            format!("the body: {detail}"),
        )
    } else {
        Problem::invalid(path, detail)
    }
}

/// Keeps the kinds of a decoder's message (`invalid type: string "s3cret", expected a map at line 1 column 9`)
/// and drops the value.
fn without_value(text: &str) -> String {
    let text = text.rsplit_once(" at line ").map_or(text, |(message, _)| message);
    let Some((found, expected)) = text.rsplit_once(", expected ") else {
        return "this value is not allowed".to_owned();
    };
    let expected = if expected.starts_with("struct ") {
        "an object"
    } else {
        expected
    };
    let expected = match expected {
        "a map" => "an object",
        "a sequence" => "an array",
        "u32" | "u64" => "a whole number",
        other => other,
    };
    let kind = found
        .strip_prefix("invalid type: ")
        .map(|found| found.split([' ', ',']).next().unwrap_or_default());
    match kind {
        Some("map") => format!("expected {expected}, got an object"),
        Some("sequence") => format!("expected {expected}, got an array"),
        Some("floating") => format!("expected {expected}, got a number with a fraction"),
        Some("integer") => format!("expected {expected}, got an integer"),
        Some("boolean") => format!("expected {expected}, got a boolean"),
        Some("string") => format!("expected {expected}, got a string"),
        Some("null") => format!("expected {expected}, got null"),
        _ => format!("expected {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only the decoding matters")]
    struct Sample {
        model: String,
        env_vars: Option<BTreeMap<String, String>>,
        limit: Option<u32>,
        hosts: Option<BTreeMap<String, Vec<String>>>,
    }

    fn problem(text: &str) -> (String, serde_json::Value) {
        let problem = decode::<Sample>(text.as_bytes()).unwrap_err();
        let bytes = futures_util::FutureExt::now_or_never(problem.body("r").collect())
            .unwrap()
            .unwrap()
            .to_bytes();
        (problem.code().to_owned(), serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn wrong_types_name_the_field_and_quote_no_value() {
        let cases = [
            (r#"{"model":1}"#, "model", "expected a string, got an integer"),
            (
                r#"{"model":"m","env_vars":"API_KEY=s3cret, expected x"}"#,
                "env_vars",
                "expected an object, got a string",
            ),
            (
                r#"{"model":"m","env_vars":{"A":true}}"#,
                "env_vars.A",
                "expected a string, got a boolean",
            ),
            (r#"{"model":"m","limit":-1}"#, "limit", "expected a whole number"),
            (
                r#"{"model":"m","limit":1.5}"#,
                "limit",
                "expected a whole number, got a number with a fraction",
            ),
            (
                r#"{"model":"m","hosts":{"A":["x",[]]}}"#,
                "hosts.A[1]",
                "expected a string, got an array",
            ),
            ("{}", "model", "this field is required"),
            ("  ", "model", "this field is required"),
        ];
        for (text, field, detail) in cases {
            let (code, body) = problem(text);
            assert_eq!(
                (code.as_str(), &body["field"], &body["detail"]),
                ("invalid", &field.into(), &detail.into()),
                "{text}"
            );
            assert!(!body.to_string().contains("s3cret"));
        }
    }

    #[test]
    fn broken_json_is_not_a_wrong_type() {
        for text in [
            "{",
            "{\"model\":\"m\"} x",
            "nonsense",
            "{\"model\":\"\\ud800\"}",
            &"[".repeat(1000),
        ] {
            let (code, _) = problem(text);
            assert!(
                code == "malformed_json" || text.starts_with("[["),
                "{text}: {code}"
            );
        }
        assert_eq!(problem("[]").0, "invalid");
        assert!(
            problem("\"s3cret\"").1["detail"]
                .as_str()
                .unwrap()
                .starts_with("the body: expected an object")
        );
    }
}
