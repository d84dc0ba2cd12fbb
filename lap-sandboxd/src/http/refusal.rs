//! Refusals as problem JSON.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lap_harness::problem::{self, Problem};

use crate::adapter::Refused;
use crate::binding::Conflict;
use crate::sandbox::NotOpened;
use crate::snapshot;
use crate::turns::NotStarted;

/// Why a call is not served.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "the path knows other methods",
        )
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the body is too large",
        )
    }

    pub(super) fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the body did not arrive in time",
        )
    }

    pub(super) fn broken(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn not_ready(failed: bool, detail: String) -> Self {
        let code = if failed {
            problem::FAILED
        } else {
            problem::PREPARING
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }
}

impl From<Conflict> for Refusal {
    fn from(conflict: Conflict) -> Self {
        let (code, detail) = match conflict {
            Conflict::Bound => (problem::BOUND, "the sandbox belongs to another session"),
            Conflict::Unbound => (problem::UNBOUND, "no session has opened the sandbox"),
            Conflict::StaleFence => (problem::STALE_FENCE, "a newer owner has taken over"),
        };
        Self::new(StatusCode::CONFLICT, code, detail)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unsupported(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, problem::UNSUPPORTED, detail)
            }
            Refused::NotFound(detail) => Self::not_found(detail),
        }
    }
}

impl From<NotOpened> for Refusal {
    fn from(refused: NotOpened) -> Self {
        match refused {
            NotOpened::NotReady => Self::not_ready(false, "the sandbox is not ready".to_owned()),
            NotOpened::Conflict(conflict) => conflict.into(),
            NotOpened::Harness(refused) => refused.into(),
            NotOpened::Broken(error) => Self::broken(format!("the sandbox cannot be bound: {error}")),
        }
    }
}

impl From<snapshot::Refused> for Refusal {
    fn from(refused: snapshot::Refused) -> Self {
        match refused {
            snapshot::Refused::NotReady => Self::not_ready(false, "the sandbox is not ready".to_owned()),
            snapshot::Refused::Busy => Self::new(StatusCode::CONFLICT, problem::BUSY, "a turn is running"),
            snapshot::Refused::Conflict(conflict) => conflict.into(),
            snapshot::Refused::Invalid(detail) => Self::invalid(detail),
            snapshot::Refused::Broken(detail) => Self::broken(detail),
        }
    }
}

impl From<NotStarted> for Refusal {
    fn from(refused: NotStarted) -> Self {
        let conflict = |code, detail| Self::new(StatusCode::CONFLICT, code, detail);
        match refused {
            NotStarted::Conflict(conflict) => conflict.into(),
            NotStarted::Known => conflict(
                problem::TURN_KNOWN,
                "this turn was seen before and is not run again",
            ),
            NotStarted::Busy => conflict(problem::BUSY, "another turn is running"),
            NotStarted::Stopping => Self::not_ready(true, "the sandbox is stopping".to_owned()),
            NotStarted::Broken(error) => Self::broken(format!("the turn cannot be recorded: {error}")),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem {
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            detail: self.detail,
            code: self.code.to_owned(),
        };
        let mut response = (self.status, axum::Json(problem)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
