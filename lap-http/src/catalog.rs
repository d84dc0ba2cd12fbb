//! What the model gateway offers: the only two of its routes that are shown.
//!
//! The original passed every request on to the gateway, with the gateway's key. Whoever may use agents could then
//! use, and change, everything at the gateway.

use std::fmt;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::problem::Problem;

/// Reads lists from the model gateway. The host implements it with its own client.
///
/// Implementations bound the size of an answer and the time for it.
#[async_trait]
pub trait ModelCatalog: Send + Sync + fmt::Debug + 'static {
    /// The gateway's answer to `GET /v1/models`.
    ///
    /// # Errors
    /// `Unavailable` with the reason, in words that may be shown.
    async fn models(&self) -> lap_core::Result<Value>;

    /// The gateway's answer to `GET /v1/mcp/server`. A gateway without that route has none: an empty list.
    ///
    /// # Errors
    /// `Unavailable` with the reason, in words that may be shown.
    async fn mcp_servers(&self) -> lap_core::Result<Value>;
}

const OF_A_MODEL: [&str; 4] = ["id", "object", "created", "owned_by"];
/// The gateway also tells credentials, headers and environments of servers.
const OF_A_SERVER: [&str; 8] = [
    "server_id",
    "server_name",
    "name",
    "alias",
    "description",
    "transport",
    "auth_type",
    "status",
];

/// The models of the gateway.
#[utoipa::path(get, path = "/api/v1/models", tag = "gateway", responses((status = 200, body = Object)))]
pub(crate) async fn models(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let catalog = app.options.catalog.as_ref().ok_or_else(no_catalog)?;
    let answer = catalog.models().await.map_err(|error| unreachable(&error))?;
    let data = shown(answer.get("data"), &OF_A_MODEL);
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// The MCP servers of the gateway, by name and kind. How the gateway reaches them is not shown.
#[utoipa::path(get, path = "/api/v1/mcp/server", tag = "gateway", responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn mcp_servers(State(app): State<App>) -> Result<Json<Vec<Value>>, Problem> {
    let catalog = app.options.catalog.as_ref().ok_or_else(no_catalog)?;
    let answer = catalog.mcp_servers().await.map_err(|error| unreachable(&error))?;
    Ok(Json(shown(Some(&answer), &OF_A_SERVER)))
}

fn shown(list: Option<&Value>, fields: &[&str]) -> Vec<Value> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    let only = |item: &Value| {
        let kept = fields
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), item.get(field)?.clone())));
        Value::Object(kept.collect::<Map<_, _>>())
    };
    list.map(only).collect()
}

fn no_catalog() -> Problem {
    Problem::not_found("this server does not show what its model gateway offers")
}

fn unreachable(error: &lap_core::Error) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "gateway_unavailable", error.message())
}
