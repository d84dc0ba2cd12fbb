//! The route table, and what a request passes on its way to a handler.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::any;
use axum::{Extension, Router};
use http::StatusCode;
use lap_core::engine::Engine;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::body::CarriesAttachments;
use crate::openapi::{Document, finish, protect};
use crate::options::HttpOptions;
use crate::problem::Problem;
use crate::{
    admin, agents, answers, auth, catalog, events, inspect, messages, opencode, origin, phase, request,
    service, sessions, turns,
};

/// The HTTP API of `engine`.
///
/// The result is a tower service and can be served on its own or mounted in a host's application, at the root
/// (`host.fallback_service(lap)`) or below a prefix (`host.nest("/lap", lap)`). Authentication is what
/// [`HttpOptions::authenticator`] says; the host's own routes and layers are not touched.
pub fn router(engine: Engine, options: HttpOptions) -> Router {
    let app = App {
        engine,
        options: Arc::new(options),
        attempts: Arc::default(),
    };
    let layered = |routes: OpenApiRouter<App>| -> Router<App> { routes.into() };
    let protected = layered(quick())
        .route_layer(from_fn_with_state(app.clone(), request::limit_time))
        .merge(layered(uploads()).route_layer(Extension(CarriesAttachments)))
        .merge(layered(streams()))
        .route(opencode::EVERYTHING_ELSE, any(opencode::not_passed_on))
        // Before any body is read.
        .route_layer(from_fn_with_state(app.clone(), auth::require))
        // Before authentication: a web page of another site learns nothing.
        .route_layer(from_fn_with_state(app.clone(), origin::check));
    layered(public())
        .layer(Extension(Document(openapi_json().into())))
        .merge(protected)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        // Outermost, so that nothing escapes the log, the ids and the form of problems.
        .layer(from_fn_with_state(app.clone(), request::surround))
        .with_state(app)
}

/// The description of the API (OpenAPI), made of the same groups of routes that [`router`] serves.
pub fn openapi_json() -> String {
    let mut protected = quick().merge(uploads()).merge(streams()).into_openapi();
    protect(&mut protected);
    protected.merge(public().into_openapi());
    serde_json::to_string(&finish(protected)).unwrap_or_default()
}

/// Routes that answer at once.
fn quick() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(agents::list, agents::create))
        .routes(routes!(agents::get, agents::change, agents::delete))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::get, sessions::close))
        .routes(routes!(messages::thread))
        .routes(routes!(turns::list))
        .routes(routes!(turns::get))
        .routes(routes!(turns::abort))
        .routes(routes!(turns::abort_all))
        .routes(routes!(answers::answer))
        .routes(routes!(inspect::log))
        .routes(routes!(inspect::sandbox_logs))
        .routes(routes!(inspect::diagnose))
        .routes(routes!(inspect::interceptions))
        .routes(routes!(inspect::vault_keys))
        .routes(routes!(opencode::sessions))
        .routes(routes!(opencode::session))
        .routes(routes!(opencode::abort))
        .routes(routes!(opencode::config))
        .routes(routes!(opencode::permissions))
        .routes(routes!(opencode::reply_permission))
        .routes(routes!(opencode::reply_permission_of_session))
        .routes(routes!(opencode::questions))
        .routes(routes!(opencode::reply_question))
        .routes(routes!(opencode::reject_question))
        .routes(routes!(service::dockerfiles))
        .routes(routes!(catalog::models))
        .routes(routes!(catalog::mcp_servers))
        .routes(routes!(admin::stats))
        .routes(routes!(admin::k8s))
}

/// Routes whose body may carry attachments, so it takes time, and which may wait for a turn. They limit the time of
/// their own steps.
fn uploads() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(sessions::open))
        .routes(routes!(messages::send))
        .routes(routes!(messages::send_and_stream))
        .routes(routes!(turns::send))
        .routes(routes!(opencode::messages, opencode::send))
        .routes(routes!(opencode::prompt))
}

/// Routes that stream for as long as the client likes.
fn streams() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(events::wrapped))
        .routes(routes!(events::raw))
        .routes(routes!(opencode::event))
        // Waits for the session to be ready again.
        .routes(routes!(sessions::restart))
}

/// Routes for everybody.
fn public() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(service::config))
        .routes(routes!(phase::report))
        .routes(routes!(service::healthz))
        .routes(routes!(service::readyz))
        .routes(routes!(service::metrics))
        .routes(routes!(service::original_metrics))
        .routes(routes!(service::openapi))
}

async fn unknown_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_route",
        "there is no such route; see /api/openapi.json",
    )
}

async fn wrong_method() -> Problem {
    let detail = "this route does not take that method; see /api/openapi.json";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
