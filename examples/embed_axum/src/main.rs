//! Embed LAP in your own axum application, with your own authentication.
//!
//! ```text
//! cargo run -p embed-axum
//! curl localhost:3000/
//! curl localhost:3000/lap/api/v1/managed_agents/agents -H 'x-user: ada' -d '{"model": "demo", "harness_id": "builtin"}'
//! ```
//!
//! Everything is kept in memory and the agent is a fake; replace parts of [`Backends`] with real ones.

use std::error::Error;

use axum::Router;
use axum::routing::get;
use http::request::Parts;
use lap_core::backends::Backends;
use lap_core::caller::Caller;
use lap_core::engine::{Engine, EngineConfig};
use lap_http::{Authenticator, HttpOptions, Refusal};

#[cfg(test)]
mod tests;

/// Believes the proxy in front of this application, which has logged the user in and says so in `x-user`.
#[derive(Debug)]
struct LoggedInByProxy;

#[async_trait::async_trait]
impl Authenticator for LoggedInByProxy {
    async fn authenticate(&self, request: &Parts) -> Result<Caller, Refusal> {
        let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
        let user = user.filter(|user| !user.is_empty());
        user.map(Caller::new)
            .ok_or(Refusal::Unauthorized { challenge: "Proxy" })
    }
}

/// The application: its own page, and LAP below `/lap`.
fn application(engine: Engine) -> Router {
    let lap = lap_http::router(engine, HttpOptions::new(LoggedInByProxy));
    Router::new()
        .route("/", get(async || "the page of your own application"))
        .nest("/lap", lap)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::start(Backends::in_memory(), EngineConfig::default()).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, application(engine)).await?;
    Ok(())
}
