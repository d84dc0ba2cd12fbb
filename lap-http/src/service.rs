//! What the server says about itself. These routes need no authentication, as in the original.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::openapi::Document;
use crate::problem::Problem;
use crate::wire::without_credentials;

/// The port of the original's images.
pub(crate) const CONTAINER_PORT: u16 = 4096;

/// What the web page and clients need to know before they log in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Config)]
pub(crate) struct ApiConfig {
    base_url: String,
    /// The repository of agents that name none; empty when there is none.
    preinstalled_github_repo: String,
}

/// What a probe is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`; what is not ok answers with another status.
    status: String,
    /// The build that answers.
    build: String,
}

/// A harness whose image the server can start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Dockerfile {
    id: String,
    container_port: u16,
}

/// What the server is configured with.
#[utoipa::path(get, path = "/api/config", tag = "service", responses((status = 200, body = ApiConfig)))]
pub(crate) async fn config(State(app): State<App>) -> Json<ApiConfig> {
    let repo = app.options.preinstalled_repo.as_deref().map(without_credentials);
    Json(ApiConfig {
        base_url: app.options.base_url.clone(),
        preinstalled_github_repo: repo.unwrap_or_default(),
    })
}

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Health)))]
pub(crate) async fn healthz(State(app): State<App>) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        build: app.options.build.clone(),
    })
}

/// The process takes requests: its store answers and it is not shutting down.
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = Health)))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Health>, Problem> {
    app.engine.ready().await?;
    Ok(healthz(State(app)).await)
}

/// Metrics in Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let render = app.options.metrics.as_ref();
    let render = render.ok_or_else(|| Problem::not_found("this server keeps no metrics"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], render()).into_response())
}

/// Metrics under the original's path.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn original_metrics(state: State<App>) -> Result<Response, Problem> {
    metrics(state).await
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "service", responses((status = 200, body = Object)))]
pub(crate) async fn openapi(Extension(document): Extension<Document>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.0).into_response()
}

/// Answers if the credentials are right; the original's web page asks it when someone logs in.
#[utoipa::path(get, path = "/api/v1/managed_agents/dockerfiles", tag = "service",
    responses((status = 200, body = Vec<Dockerfile>)))]
pub(crate) async fn dockerfiles(State(app): State<App>) -> Json<Vec<Dockerfile>> {
    let id = app.engine.settings().default_harness.clone();
    Json(vec![Dockerfile {
        id,
        container_port: CONTAINER_PORT,
    }])
}
