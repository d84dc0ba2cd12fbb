//! Reports of a bring-up's progress from inside a sandbox, as images of the original send them.
//!
//! LAP asks its sandboxes under a signed token instead, so a report changes nothing here. The route exists for such
//! images: their entry points repeat a report that fails.

use axum::Json;
use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::body::JsonBody;
use crate::path::SessionPath;
use crate::problem::Problem;

const PHASES: [&str; 3] = ["cloning_repo", "installing_deps", "harness_listening"];
const MAX_DETAIL: usize = 500;

/// How far a bring-up is.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PhaseBody {
    /// `cloning_repo`, `installing_deps` or `harness_listening`.
    phase: String,
    /// At most 500 characters.
    detail: Option<String>,
}

/// The answer to a report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PhaseTaken {
    /// Whether it changed anything.
    ok: bool,
}

/// The bearer token is the id of the session in the path. It is looked at before the body.
#[derive(Debug)]
pub(crate) struct SessionAsToken;

impl FromRequestParts<App> for SessionAsToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let SessionPath(session) = SessionPath::from_request_parts(parts, app).await?;
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = token.and_then(|token| token.strip_prefix("Bearer "));
        let matches = token == Some(&session.to_string());
        matches
            .then_some(Self)
            .ok_or_else(|| Problem::unauthorized("Bearer realm=\"lap\""))
    }
}

/// Takes a report and does nothing with it. Its bearer token is the session's id, as in the original.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/phase", tag = "sessions",
    params(("session_id" = String, Path)), request_body = PhaseBody, responses((status = 200, body = PhaseTaken)))]
pub(crate) async fn report(
    _: SessionAsToken,
    JsonBody(body): JsonBody<PhaseBody>,
) -> Result<Json<PhaseTaken>, Problem> {
    if !PHASES.contains(&body.phase.as_str()) {
        return Err(Problem::invalid(
            "phase",
            format!("expected one of {}", PHASES.join(", ")),
        ));
    }
    if body
        .detail
        .is_some_and(|detail| detail.chars().count() > MAX_DETAIL)
    {
        return Err(Problem::invalid(
            "detail",
            format!("at most {MAX_DETAIL} characters are taken"),
        ));
    }
    Ok(Json(PhaseTaken { ok: false }))
}
