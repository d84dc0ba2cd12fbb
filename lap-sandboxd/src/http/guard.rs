//! Who may call.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header;
use lap_core::token::Scope;

use super::Refusal;
use crate::sandbox::Sandbox;

/// Lets a request through that carries a control token of this sandbox. Nothing of the request's body is read before.
pub(super) async fn check(State(sandbox): State<Arc<Sandbox>>, request: Request, next: Next) -> Response {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        return Refusal::unauthorized("the call carries no bearer token").into_response();
    };
    let launch = &sandbox.launch;
    match launch
        .public_key
        .verify(token.trim(), launch.sandbox, Scope::Control, sandbox.clock.now())
    {
        Ok(()) => next.run(request).await,
        Err(refusal) => Refusal::unauthorized(refusal.to_string()).into_response(),
    }
}
