use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use http_body_util::{Either, Full};

use super::body::AnswerBody;
use crate::redeem::Reason;

/// What the relay answers: a problem document of its own or the gateway's answer.
pub(super) type RelayBody = Either<Full<Bytes>, AnswerBody>;

/// A refusal as a problem document (RFC 9457) that also has the `error` object model clients look for.
pub(super) fn refusal(reason: Reason) -> Response<RelayBody> {
    let status = reason.status();
    let title = status.canonical_reason().unwrap_or("Refused");
    let document = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "code": reason.code(),
        "detail": reason.detail(),
        "error": { "message": reason.detail(), "type": "vault", "code": reason.code() },
    });
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(document.to_string()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = reason.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
