//! Ids in paths. Text that is not an id names nothing, so it is answered like an unknown id: 404.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use lap_core::id::{AgentId, SessionId, TurnId};

use crate::app::App;
use crate::problem::Problem;

/// The agent of the path.
#[derive(Debug)]
pub(crate) struct AgentPath(pub(crate) AgentId);

/// The session of the path.
#[derive(Debug)]
pub(crate) struct SessionPath(pub(crate) SessionId);

/// The session and the turn of the path.
#[derive(Debug)]
pub(crate) struct TurnPath(pub(crate) SessionId, pub(crate) TurnId);

/// The session of the path, and the names that its harness gives to things.
#[derive(Debug)]
pub(crate) struct HarnessPath {
    pub(crate) session: SessionId,
    /// The conversation, where the path has one.
    pub(crate) conversation: Option<String>,
    /// The permission request or question, where the path has one.
    pub(crate) request: String,
}

impl FromRequestParts<App> for AgentPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Names::of(parts, app).await?.id("agent_id", "agent").map(Self)
    }
}

impl FromRequestParts<App> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Names::of(parts, app).await?.id("session_id", "session").map(Self)
    }
}

impl FromRequestParts<App> for TurnPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let names = Names::of(parts, app).await?;
        Ok(Self(
            names.id("session_id", "session")?,
            names.id("turn_id", "turn")?,
        ))
    }
}

impl FromRequestParts<App> for HarnessPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let names = Names::of(parts, app).await?;
        Ok(Self {
            session: names.id("session_id", "session")?,
            conversation: names.0.get("conversation").cloned(),
            request: names.0.get("request").cloned().unwrap_or_default(),
        })
    }
}

/// The segments by name, so that a host may mount the routes below a path with parameters of its own.
struct Names(HashMap<String, String>);

impl Names {
    async fn of(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // The only way to fail is a percent escape that is not UTF-8.
        let names = Path::<HashMap<String, String>>::from_request_parts(parts, app).await;
        names
            .map(|Path(names)| Self(names))
            .map_err(|_| Problem::not_found("there is nothing here"))
    }

    fn id<T: FromStr>(&self, name: &str, noun: &str) -> Result<T, Problem> {
        let id = self.0.get(name).and_then(|text| text.parse().ok());
        id.ok_or_else(|| Problem::not_found(format!("there is no such {noun}")))
    }
}
