//! Reads query parameters. The original's parameters fall back silently when they are wrong; ours do not.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;

use crate::app::App;
use crate::problem::Problem;

/// The parameters by name. Of a repeated one the last counts.
#[derive(Debug)]
pub(crate) struct Parameters(HashMap<String, String>);

impl FromRequestParts<App> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, app).await;
        query
            .map(|Query(map)| Self(map))
            .map_err(|_| Problem::invalid("query", "the query string cannot be decoded"))
    }
}

impl Parameters {
    /// The text of a parameter, unless it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A parameter of the original: anything unreadable counts as absent.
    pub(crate) fn lenient<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// A parameter of ours: anything unreadable is refused.
    pub(crate) fn strict<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| Problem::invalid(name, format!("expected {expected}")))
    }

    /// Whether a switch is on: `1` or `true`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), Some("1" | "true"))
    }
}
