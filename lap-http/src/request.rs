//! What surrounds every request: its id, its line in the log, its metrics, its headers, and the end of panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use lap_core::Error;
use tracing::Instrument;

use crate::app::App;
use crate::auth::Authenticated;
use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The status in logs and metrics of a request whose client left before the answer.
const CLIENT_LEFT: u16 = 499;

/// Routes that machines ask all day long.
const PROBES: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/api/v1/metrics"];

/// The outermost layer. It sees every answer, so it finishes the bodies of problems.
pub(crate) async fn surround(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = given_id(request.headers()).unwrap_or_else(|| app.fresh_request_id());
    // The log and the metrics name the route and never the query; an unmatched path could be anything.
    let matched = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let path = matched
        .as_ref()
        .map(|_| request.uri().path().to_owned())
        .unwrap_or_default();
    let route = matched.unwrap_or_else(|| "unmatched".to_owned());
    let method = known_method(request.method());
    let span = tracing::info_span!("request", request_id = %id, %method, %route);
    let mut line = Line {
        id,
        method,
        route,
        path,
        principal: None,
        started: Instant::now(),
        written: false,
    };
    request.extensions_mut().insert(RequestId(line.id.clone()));

    let answer = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span)
        .await;
    let mut response =
        answer.unwrap_or_else(|panic| Problem::defect(format!("panic: {}", said(&*panic))).into_response());
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        *response.body_mut() = problem.body(&line.id);
    }
    add_headers(response.headers_mut(), &line.id);
    line.principal = response
        .extensions_mut()
        .remove::<Authenticated>()
        .map(|Authenticated(caller)| caller.principal().to_owned());
    line.write(response.status().as_u16(), problem.as_ref());
    response
}

/// The id of the request, among its extensions: the client's `x-request-id` when it is harmless, else a fresh one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The id as it stands in the log and in the answer.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client's own id, when it is harmless in headers and logs.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(harmless)).then(|| id.to_owned())
}

/// Methods are labels of metrics, so an invented one must not make a new series.
fn known_method(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn add_headers(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// One line of the log and one sample of the metrics, also when the client leaves before the answer.
struct Line {
    id: String,
    method: &'static str,
    route: String,
    path: String,
    principal: Option<String>,
    started: Instant,
    written: bool,
}

impl Line {
    fn write(&mut self, status: u16, problem: Option<&Problem>) {
        self.written = true;
        let elapsed = self.started.elapsed();
        let labels = [
            ("method", self.method.to_owned()),
            ("route", self.route.clone()),
            ("status", status.to_string()),
        ];
        metrics::counter!("lap_http_requests_total", &labels).increment(1);
        metrics::histogram!("lap_http_request_duration_seconds", &labels).record(elapsed);
        let (id, method, route, path) = (&self.id, self.method, &self.route, &self.path);
        let principal = self.principal.as_deref();
        let ms = elapsed.as_millis();
        let code = problem.map(Problem::code);
        if let Some(cause) = problem.and_then(Problem::cause) {
            tracing::error!(request_id = %id, method, %route, %path, status, ms, principal, code, cause, "request failed");
        } else if PROBES.contains(&route.as_str()) {
            tracing::debug!(request_id = %id, method, %route, status, ms, code, "request");
        } else {
            tracing::info!(request_id = %id, method, %route, %path, status, ms, principal, code, "request");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.written {
            self.write(CLIENT_LEFT, None);
        }
    }
}

/// Ends requests that neither stream nor wait for a turn after their time.
pub(crate) async fn limit_time(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.options.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out("this took too long; it may still have happened").into_response(),
    }
}

/// Counts errors that a stream meets after its headers are sent; they have no status any more.
pub(crate) fn log_stream_error(error: &Error) {
    metrics::counter!("lap_http_stream_errors_total").increment(1);
    tracing::warn!(cause = %lap_core::error::chain(error), "a stream ended with an error");
}

/// How long a client should wait before it connects to a stream again.
pub(crate) const RECONNECT: Duration = Duration::from_secs(1);
