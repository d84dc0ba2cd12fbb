//! Errors on the wire: problem details (RFC 9457) that also carry the original system's `error` string.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lap_core::error::{Retry, chain};
use lap_core::id::TurnId;
use lap_core::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// What a client is told about an error. It travels to the outermost layer as an extension of the response; that
/// layer knows the request's id and writes the body.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    turn: Option<TurnId>,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
    /// For the log only: the causes of a failure of ours.
    cause: Option<String>,
}

/// The body of every answer with a status of 400 or more, as `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// A name for this kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what to do about it.
    detail: String,
    /// A stable word for programs.
    code: String,
    /// The part of the request at fault, e.g. `env_vars.API_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The turn that did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_id: Option<String>,
    /// Finds the request in the log of the server.
    request_id: String,
    /// The error in the shape of the original system.
    error: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            field: None,
            turn: None,
            retry_after: None,
            challenge: None,
            cause: None,
        }))
    }

    /// This part of the request is wrong.
    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "invalid", detail);
        problem.0.field = Some(field.into());
        problem
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(crate) fn timed_out(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timed_out", detail)
    }

    pub(crate) fn unauthorized(challenge: &'static str) -> Self {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the credentials are missing or wrong",
        );
        problem.0.challenge = Some(challenge);
        problem
    }

    /// A handler panicked. The panic's message stays in the log.
    pub(crate) fn defect(cause: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", INTERNAL);
        problem.0.cause = Some(cause.into());
        problem
    }

    #[must_use]
    pub(crate) fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    #[must_use]
    pub(crate) fn about_turn(mut self, turn: TurnId) -> Self {
        self.0.turn = Some(turn);
        self
    }

    #[must_use]
    pub(crate) fn about_field(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The finished body.
    pub(crate) fn body(&self, request_id: &str) -> Body {
        let inner = &*self.0;
        let body = ProblemBody {
            kind: format!("urn:lap:problem:{}", inner.code),
            title: inner.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: inner.status.as_u16(),
            detail: inner.detail.clone(),
            code: inner.code.to_owned(),
            field: inner.field.clone(),
            turn_id: inner.turn.map(|turn| turn.to_string()),
            request_id: request_id.to_owned(),
            error: self.original().to_owned(),
        };
        Body::from(serde_json::to_vec(&body).unwrap_or_default())
    }

    /// The original system had fixed strings for two statuses and free text for the others.
    fn original(&self) -> &str {
        match self.0.status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::INTERNAL_SERVER_ERROR => "internal error",
            _ => &self.0.detail,
        }
    }
}

const INTERNAL: &str =
    "the platform failed to do this; the log of the server has the cause under the request id";

impl From<Error> for Problem {
    /// The one place where kinds of errors become statuses.
    fn from(error: Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            ErrorKind::WrongState => (StatusCode::CONFLICT, "wrong_state"),
            ErrorKind::Gone => (StatusCode::GONE, "gone"),
            ErrorKind::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key_reused"),
            ErrorKind::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            ErrorKind::Stale => (StatusCode::SERVICE_UNAVAILABLE, "superseded"),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ErrorKind::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
            ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
            ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let ours = status.is_server_error();
        let detail = if status == StatusCode::INTERNAL_SERVER_ERROR {
            INTERNAL
        } else {
            error.message()
        };
        let mut problem = Self::new(status, code, detail);
        problem.0.field = error.field().map(str::to_owned);
        problem.0.cause = ours.then(|| chain(&error));
        problem.0.retry_after = match error.retry() {
            Retry::After(after) => Some(after),
            Retry::Never if status == StatusCode::SERVICE_UNAVAILABLE => Some(Duration::from_secs(1)),
            Retry::Never => None,
        };
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(after) = self.0.retry_after {
            // The header has whole seconds; rounding down would invite the client too early.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)),
            );
        }
        if let Some(challenge) = self.0.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response.extensions_mut().insert(self);
        response
    }
}
