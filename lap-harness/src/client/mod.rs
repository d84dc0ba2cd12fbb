//! The platform's side of the protocol.

mod answer;
mod contract;
mod snapshot;
mod stream;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::harness::Contact;
use lap_core::id::TurnId;
use serde::Serialize;
use serde_json::json;

use crate::health::Health;
use crate::turn::TurnStatus;

pub use stream::EventStream;

/// A sandbox on the same machine or in the same cluster accepts a connection at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Every call but a waiting one is answered from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Speaks to `lap-sandboxd` over HTTP/1.1 with connections kept alive. Implements
/// [`Harness`](lap_core::harness::Harness). Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct SandboxdHarness {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl std::fmt::Debug for SandboxdHarness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxdHarness").finish_non_exhaustive()
    }
}

impl Default for SandboxdHarness {
    fn default() -> Self {
        Self::new()
    }
}

impl SandboxdHarness {
    /// A client without connections yet.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(crate::limits::IDLE_CONNECTION)
            .pool_max_idle_per_host(4)
            .build(connector);
        Self { http }
    }

    /// Identity and readiness; waits at most `wait` for the sandbox to stop preparing.
    ///
    /// # Errors
    /// `Unavailable` when nothing answers; `Stale` when what answers is another sandbox, refuses this sandbox's
    /// token, or speaks another protocol.
    pub async fn health(&self, at: &Contact, wait: Duration) -> Result<Health> {
        const OPERATION: &str = "ask the sandbox's health";
        let stale = |message| Error::new(ErrorKind::Stale, OPERATION, message);
        let wait = wait.min(crate::limits::MAX_HEALTH_WAIT);
        let path = format!("/lap/health?wait_ms={}", wait.as_millis());
        let answer = match self.get(OPERATION, at, &path, wait + ANSWER_TIMEOUT).await {
            Err(error) if error.kind() == ErrorKind::Forbidden => {
                return Err(
                    stale("what answers at this address refuses this sandbox's token").with_source(error)
                );
            }
            answer => answer?,
        };
        let health: Health = answer::json(OPERATION, answer).await?;
        if health.sandbox != at.sandbox.as_uuid() {
            return Err(stale("another sandbox answers at this address"));
        }
        if health.protocol != crate::PROTOCOL_VERSION {
            return Err(stale("the sandbox speaks another protocol version"));
        }
        Ok(health)
    }

    /// The whole journal after `after`, then live, without an end.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn follow(&self, at: &Contact, after: u64) -> Result<EventStream> {
        let path = format!("/lap/events?after={after}");
        Ok(EventStream::new(
            self.get("follow the sandbox", at, &path, ANSWER_TIMEOUT).await?,
        ))
    }

    /// Where a turn is, or `None` when the sandbox never saw it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn turn_status(&self, at: &Contact, turn: TurnId) -> Result<Option<TurnStatus>> {
        const OPERATION: &str = "ask about a turn";
        let path = format!("/lap/turns/{turn}");
        match self.get(OPERATION, at, &path, ANSWER_TIMEOUT).await {
            Ok(answer) => {
                let status: TurnStatus = answer::json(OPERATION, answer).await?;
                if status.turn != turn.as_uuid() {
                    return Err(answer::invalid(OPERATION, "it speaks of another turn"));
                }
                Ok(Some(status))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last lines of the sandbox's own log.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn logs(&self, at: &Contact, tail: u32) -> Result<String> {
        const OPERATION: &str = "read the sandbox's log";
        let answer = self
            .get(OPERATION, at, &format!("/lap/logs?tail={tail}"), ANSWER_TIMEOUT)
            .await?;
        let body = answer::body(OPERATION, answer).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Ends sandboxd and everything below it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn stop(&self, at: &Contact) -> Result<()> {
        self.post("stop the sandbox", at, "/lap/stop", &json!({}))
            .await
            .map(drop)
            .map_err(Error::from)
    }

    async fn post<T: Serialize + Sync>(
        &self,
        operation: &'static str,
        at: &Contact,
        path: &str,
        body: &T,
    ) -> Result<Response<Incoming>, Refused> {
        let body = serde_json::to_vec(body).map_err(|error| {
            Error::new(ErrorKind::Internal, operation, "the request has no JSON form").with_source(error)
        })?;
        let request = request(operation, at, Method::POST, path, body)?;
        answer::accept(
            operation,
            self.exchange(operation, request, ANSWER_TIMEOUT).await?,
        )
        .await
    }

    async fn get(
        &self,
        operation: &'static str,
        at: &Contact,
        path: &str,
        timeout: Duration,
    ) -> Result<Response<Incoming>> {
        let request = request(operation, at, Method::GET, path, Vec::new())?;
        Ok(answer::accept(operation, self.exchange(operation, request, timeout).await?).await?)
    }

    async fn exchange(
        &self,
        operation: &'static str,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Incoming>> {
        let unavailable = |message| Error::new(ErrorKind::Unavailable, operation, message);
        match tokio::time::timeout(timeout, self.http.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_connect() => {
                Err(unavailable("the sandbox cannot be reached").with_source(error))
            }
            Ok(Err(error)) => Err(unavailable("the connection to the sandbox broke off").with_source(error)),
            Err(_) => Err(unavailable("the sandbox does not answer in time")),
        }
    }
}

fn request(
    operation: &'static str,
    at: &Contact,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", at.token.expose()))
        .map_err(|_| Error::invalid(operation, "token", "the sandbox's token is not a header value"))?;
    bearer.set_sensitive(true);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", at.address))
        .header(header::AUTHORIZATION, bearer);
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::from(body)).map_err(|error| {
        Error::invalid(operation, "address", "the sandbox's address is not host:port").with_source(error)
    })
}

/// An answer that was not a success.
enum Refused {
    /// A conflict with its machine-readable code, and the error for callers that expect none.
    Code(String, Error),
    Other(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Code(_, error) | Refused::Other(error) => error,
        }
    }
}

/// The one place where HTTP statuses become kinds of errors.
const fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        400 | 413 | 415 => ErrorKind::Invalid,
        401 | 403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::WrongState,
        410 => ErrorKind::Gone,
        422 => ErrorKind::Unsupported,
        429 => ErrorKind::Busy,
        500 => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}
