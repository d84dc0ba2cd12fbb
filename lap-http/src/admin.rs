//! Figures and health for operators, in the shapes of the original.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lap_core::session::SessionState;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::problem::Problem;
use crate::service::CONTAINER_PORT;

/// Figures of the installation. `counts` of sessions cover the newest 5000; `partial` says that there are more.
#[utoipa::path(get, path = "/api/v1/admin/stats", tag = "admin", responses((status = 200, body = Object)))]
pub(crate) async fn stats(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let statistics = app.engine.statistics().await?;
    let settings = app.engine.settings();
    let mut sandboxes = Map::new();
    for pool in &statistics.sandboxes {
        let count = sandboxes.entry(pool.state.as_str()).or_insert(json!(0));
        *count = (count.as_u64().unwrap_or_default() + pool.count).into();
    }
    let of_state = |state: &SessionState| statistics.sessions.get(state).copied().unwrap_or_default();
    let sessions: Map<_, _> = SessionState::ALL
        .iter()
        .map(|state| (state.as_str().to_owned(), of_state(state).into()))
        .collect();
    let by_agent: Vec<_> = statistics
        .busiest
        .iter()
        .map(|summary| {
            json!({
                "agent_id": summary.agent.id.to_string(),
                "name": summary.agent.spec.name,
                "session_count": summary.session_count,
                "active": statistics.active.get(&summary.agent.id).copied().unwrap_or_default(),
            })
        })
        .collect();
    let capabilities = app.engine.backends().runtime.capabilities();
    Ok(Json(json!({
        "warm_pool": {
            "configured_size": 0, "max_provisioning": 0, "ttl_minutes": 0, "recent_agent_hours": 0,
            "counts": sandboxes, "by_agent": [],
        },
        "sessions": { "counts": sessions, "by_agent": by_agent, "partial": statistics.is_partial },
        "agents": { "total": statistics.agents },
        "runtime": {
            "namespace": null,
            "harness_image": settings.images.default,
            "container_port": CONTAINER_PORT,
            "reconcile_interval_seconds": null,
            "isolation": capabilities.isolation.as_str(),
        },
    })))
}

/// Whether sandboxes can be started. The name is the original's; a runtime on this machine is always there, so this
/// is the readiness of the server.
#[utoipa::path(get, path = "/api/v1/health/k8s", tag = "admin",
    responses((status = 200, body = Object), (status = 503, body = Object)))]
pub(crate) async fn k8s(State(app): State<App>) -> Response {
    let started = Instant::now();
    let ready = app.engine.ready().await;
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match ready {
        Ok(()) => Json(json!({ "ok": true, "elapsed_ms": elapsed })).into_response(),
        Err(error) => {
            let body = json!({ "ok": false, "error": error.message(), "elapsed_ms": elapsed });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}
