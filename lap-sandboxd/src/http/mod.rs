//! The HTTP interface: `/lap/*` for the platform, eight opencode calls for plain clients.

mod body;
mod events;
mod guard;
mod lap;
mod opencode;
mod refusal;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use crate::sandbox::Sandbox;
use refusal::Refusal;

pub(crate) use serve::serve;

/// Every route. The token check stands before all of them, the unknown ones included.
fn router(sandbox: Arc<Sandbox>) -> Router {
    Router::new()
        .route("/lap/health", get(lap::health))
        .route("/lap/open", post(lap::open))
        .route("/lap/snapshot", get(lap::snapshot))
        .route("/lap/restore", post(lap::restore))
        .route("/lap/turns", post(lap::send))
        .route("/lap/turns/{turn}", get(lap::turn))
        .route("/lap/turns/{turn}/abort", post(lap::abort))
        .route("/lap/events", get(lap::events))
        .route("/lap/messages", get(lap::messages))
        .route("/lap/answer", post(lap::answer))
        .route("/lap/logs", get(lap::logs))
        .route("/lap/stop", post(lap::stop))
        .route("/session", get(opencode::list).post(opencode::create))
        .route("/session/{id}", delete(opencode::remove))
        .route(
            "/session/{id}/message",
            get(opencode::messages).post(opencode::message),
        )
        .route("/session/{id}/prompt_async", post(opencode::prompt_async))
        .route("/session/{id}/abort", post(opencode::abort))
        .route("/event", get(opencode::events))
        .fallback(|| async { Refusal::not_found("there is no such path") })
        .method_not_allowed_fallback(|| async { Refusal::method_not_allowed() })
        .layer(from_fn_with_state(Arc::clone(&sandbox), guard::check))
        .with_state(sandbox)
}
