//! Reading what a sandbox answers, which is untrusted: bounded, timed and checked.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use lap_core::error::{Error, ErrorKind, Result, Retry};
use serde::de::DeserializeOwned;

use super::{Refused, kind_of};
use crate::limits::MAX_BODY_BYTES;
use crate::problem::Problem;

/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// More of a refusal than this is not worth showing.
const MAX_DETAIL: usize = 2000;

/// The whole body, at most [`MAX_BODY_BYTES`].
pub(super) async fn body(operation: &'static str, answer: Response<Incoming>) -> Result<Bytes> {
    body_within(operation, answer, MAX_BODY_BYTES).await
}

/// The whole body, at most `limit` bytes.
pub(super) async fn body_within(
    operation: &'static str,
    answer: Response<Incoming>,
    limit: usize,
) -> Result<Bytes> {
    let body = Limited::new(answer.into_body(), limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(invalid(operation, "it is too large"))
        }
        Ok(Err(error)) => Err(Error::new(
            ErrorKind::Unavailable,
            operation,
            "the sandbox's answer broke off",
        )
        .with_source(error)),
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            operation,
            "the sandbox's answer takes too long",
        )),
    }
}

/// The body as JSON of the expected shape.
pub(super) async fn json<T: DeserializeOwned>(
    operation: &'static str,
    answer: Response<Incoming>,
) -> Result<T> {
    let body = body(operation, answer).await?;
    serde_json::from_slice(&body).map_err(|_| invalid(operation, "it is not the expected JSON"))
}

/// Lets successes through and turns everything else into an error.
pub(super) async fn accept(
    operation: &'static str,
    answer: Response<Incoming>,
) -> Result<Response<Incoming>, Refused> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = body(operation, answer).await?;
    let problem = serde_json::from_slice::<Problem>(&body).ok();
    let detail = problem.as_ref().map_or("", |problem| problem.detail.as_str());
    let error = Error::new(kind_of(status), operation, message(status, detail));
    match problem {
        Some(problem) if status == StatusCode::CONFLICT => Err(Refused::Code(problem.code, error)),
        _ => Err(Refused::Other(error)),
    }
}

fn message(status: StatusCode, detail: &str) -> String {
    if detail.is_empty() {
        return format!("the sandbox answered {}", status.as_u16());
    }
    let end = (0..=MAX_DETAIL.min(detail.len()))
        .rev()
        .find(|at| detail.is_char_boundary(*at))
        .unwrap_or(0);
    format!("the sandbox answered {}: {}", status.as_u16(), &detail[..end])
}

/// An answer that breaks the protocol. Asking again would give the same.
pub(super) fn invalid(operation: &'static str, what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        operation,
        format!("the sandbox's answer is not valid: {what}"),
    )
    .with_retry(Retry::Never)
}
