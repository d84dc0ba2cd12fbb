//! The platform's side of the protocol.

mod answer;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{InstanceId, SandboxId, TurnId};
use lap_core::time::Clock;
use lap_core::token::{Scope, SigningKey};
use serde::Serialize;
use serde_json::{Value, json};

use crate::health::Health;
use crate::opening::{OpenAnswer, OpenRequest};
use crate::problem;
use crate::turn::{TurnRequest, TurnStatus};

pub use stream::EventStream;

/// How long a token lives. Long enough for a clock that is a little off, short enough to be worthless later.
const TOKEN_TTL: Duration = Duration::from_secs(300);
/// A sandbox on the same machine or in the same cluster accepts a connection at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Every call but a waiting one is answered from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a sandbox answers and who it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxAddress {
    /// The sandbox expected there.
    pub sandbox: SandboxId,
    /// The installation it must belong to.
    pub instance: InstanceId,
    /// `host:port`.
    pub authority: String,
}

/// What came of an opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The session holds the sandbox; this is the harness's id of its conversation.
    Conversation(String),
    /// Another session holds it.
    Bound,
    /// A newer owner has taken over.
    Stale,
}

/// What came of sending a turn.
#[derive(Debug)]
pub enum Sent {
    /// The turn runs; its events follow.
    Running(EventStream),
    /// This turn's id was seen before: attach to it instead.
    Known,
    /// Another turn is running.
    Busy,
    /// A newer owner has taken over.
    Stale,
    /// No session has opened the sandbox.
    Unbound,
}

/// Speaks to `lap-sandboxd` over HTTP/1.1 with connections kept alive. Cheap to clone.
#[derive(Clone)]
pub struct SandboxdHarness {
    http: Client<HttpConnector, Full<Bytes>>,
    key: Arc<SigningKey>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for SandboxdHarness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxdHarness").finish_non_exhaustive()
    }
}

impl SandboxdHarness {
    /// A client that signs its calls with the instance's key.
    pub fn new(key: Arc<SigningKey>, clock: Arc<dyn Clock>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(4)
            .build(connector);
        Self { http, key, clock }
    }

    /// Identity and readiness; waits at most `wait` for the sandbox to stop preparing.
    ///
    /// # Errors
    /// `Unavailable` when nothing answers, `Forbidden` when the token is refused, `Gone` when another sandbox, or
    /// one of another protocol, answers there.
    pub async fn health(&self, at: &SandboxAddress, wait: Duration) -> Result<Health> {
        const OPERATION: &str = "ask the sandbox's health";
        let wait = wait.min(crate::limits::MAX_HEALTH_WAIT);
        let path = format!("/lap/health?wait_ms={}", wait.as_millis());
        let answer = self
            .call(OPERATION, at, Method::GET, &path, None, wait + ANSWER_TIMEOUT)
            .await?;
        let health: Health = answer::json(OPERATION, answer).await?;
        if health.sandbox != at.sandbox.as_uuid() || health.instance != at.instance.as_uuid() {
            return Err(Error::new(
                ErrorKind::Gone,
                OPERATION,
                "another sandbox answers at this address",
            ));
        }
        if health.protocol != crate::PROTOCOL_VERSION {
            return Err(Error::new(
                ErrorKind::Gone,
                OPERATION,
                "the sandbox speaks another protocol version",
            ));
        }
        Ok(health)
    }

    /// Binds the sandbox to a session. Repeating it for the same session is allowed.
    ///
    /// # Errors
    /// As [`Self::health`]; `Unsupported` when the harness cannot do what the opening asks.
    pub async fn open(&self, at: &SandboxAddress, opening: &OpenRequest) -> Result<Opened> {
        const OPERATION: &str = "open the sandbox";
        match self.post(OPERATION, at, "/lap/open", opening).await {
            Ok(answer) => {
                let answer: OpenAnswer = answer::json(OPERATION, answer).await?;
                Ok(Opened::Conversation(answer.conversation))
            }
            Err(Refused::Code(code, error)) => match code.as_str() {
                problem::BOUND => Ok(Opened::Bound),
                problem::STALE_FENCE => Ok(Opened::Stale),
                _ => Err(error),
            },
            Err(Refused::Other(error)) => Err(error),
        }
    }

    /// Starts a turn. The turn lives in the sandbox: dropping the stream does not stop it.
    ///
    /// # Cancel safety
    /// If dropped, the turn either started or did not; [`Self::turn_status`] tells.
    ///
    /// # Errors
    /// As [`Self::health`].
    pub async fn send(&self, at: &SandboxAddress, turn: &TurnRequest) -> Result<Sent> {
        match self.post("send a turn", at, "/lap/turns", turn).await {
            Ok(answer) => Ok(Sent::Running(EventStream::new(answer))),
            Err(Refused::Code(code, error)) => match code.as_str() {
                problem::TURN_KNOWN => Ok(Sent::Known),
                problem::BUSY => Ok(Sent::Busy),
                problem::STALE_FENCE => Ok(Sent::Stale),
                problem::UNBOUND => Ok(Sent::Unbound),
                _ => Err(error),
            },
            Err(Refused::Other(error)) => Err(error),
        }
    }

    /// The journal after `after`, then live. With a turn it ends after that turn's `turn.finished`.
    ///
    /// # Errors
    /// As [`Self::health`]; `NotFound` when the sandbox does not know the turn.
    pub async fn attach(&self, at: &SandboxAddress, after: u64, turn: Option<TurnId>) -> Result<EventStream> {
        let path = match turn {
            Some(turn) => format!("/lap/events?after={after}&turn={turn}"),
            None => format!("/lap/events?after={after}"),
        };
        let answer = self
            .call(
                "attach to the sandbox",
                at,
                Method::GET,
                &path,
                None,
                ANSWER_TIMEOUT,
            )
            .await?;
        Ok(EventStream::new(answer))
    }

    /// Where a turn is, or `None` when the sandbox never saw it.
    ///
    /// # Errors
    /// As [`Self::health`].
    pub async fn turn_status(&self, at: &SandboxAddress, turn: TurnId) -> Result<Option<TurnStatus>> {
        const OPERATION: &str = "ask about a turn";
        let path = format!("/lap/turns/{turn}");
        match self
            .call(OPERATION, at, Method::GET, &path, None, ANSWER_TIMEOUT)
            .await
        {
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

    /// Asks the sandbox to stop a turn. Stopping one that has ended is allowed; the end arrives as `turn.finished`.
    ///
    /// # Errors
    /// As [`Self::health`]; `NotFound` when the sandbox does not know the turn.
    pub async fn abort(&self, at: &SandboxAddress, turn: TurnId) -> Result<()> {
        let path = format!("/lap/turns/{turn}/abort");
        self.post("abort a turn", at, &path, &json!({}))
            .await
            .map(drop)
            .map_err(Error::from)
    }

    /// All messages of the conversation, `{info, parts}` each.
    ///
    /// # Errors
    /// As [`Self::health`].
    pub async fn messages(&self, at: &SandboxAddress) -> Result<Vec<Value>> {
        const OPERATION: &str = "read the messages";
        let answer = self
            .call(OPERATION, at, Method::GET, "/lap/messages", None, ANSWER_TIMEOUT)
            .await?;
        answer::json(OPERATION, answer).await
    }

    /// Answers a question or a permission request of the harness.
    ///
    /// # Errors
    /// As [`Self::health`]; `NotFound` when no such request waits.
    pub async fn answer(&self, at: &SandboxAddress, request: &str, reply: &Value) -> Result<()> {
        let body = json!({"request": request, "reply": reply});
        self.post("answer the agent", at, "/lap/answer", &body)
            .await
            .map(drop)
            .map_err(Error::from)
    }

    /// The last lines of the sandbox's own log.
    ///
    /// # Errors
    /// As [`Self::health`].
    pub async fn logs(&self, at: &SandboxAddress, tail: u32) -> Result<String> {
        const OPERATION: &str = "read the sandbox's log";
        let path = format!("/lap/logs?tail={tail}");
        let answer = self
            .call(OPERATION, at, Method::GET, &path, None, ANSWER_TIMEOUT)
            .await?;
        let body = answer::body(OPERATION, answer).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Ends sandboxd and everything below it.
    ///
    /// # Errors
    /// As [`Self::health`].
    pub async fn stop(&self, at: &SandboxAddress) -> Result<()> {
        self.post("stop the sandbox", at, "/lap/stop", &json!({}))
            .await
            .map(drop)
            .map_err(Error::from)
    }

    async fn post<T: Serialize + Sync>(
        &self,
        operation: &'static str,
        at: &SandboxAddress,
        path: &str,
        body: &T,
    ) -> Result<Response<Incoming>, Refused> {
        let body = serde_json::to_vec(body).map_err(|error| {
            Refused::Other(
                Error::new(ErrorKind::Internal, operation, "the request cannot be written")
                    .with_source(error),
            )
        })?;
        let request = self.request(operation, at, Method::POST, path, Some(body))?;
        let answer = self.exchange(operation, request, ANSWER_TIMEOUT).await?;
        answer::accept(operation, answer).await
    }

    async fn call(
        &self,
        operation: &'static str,
        at: &SandboxAddress,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Response<Incoming>> {
        let request = self.request(operation, at, method, path, body)?;
        let answer = self.exchange(operation, request, timeout).await?;
        Ok(answer::accept(operation, answer).await?)
    }

    fn request(
        &self,
        operation: &'static str,
        at: &SandboxAddress,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>> {
        let token = self
            .key
            .mint(at.sandbox, Scope::Control, self.clock.now(), TOKEN_TTL);
        let mut bearer =
            http::HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|error| {
                Error::new(ErrorKind::Internal, operation, "the token is no header").with_source(error)
            })?;
        bearer.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", at.authority))
            .header(header::AUTHORIZATION, bearer);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| {
                Error::invalid(operation, "address", "the sandbox's address is not host:port")
                    .with_source(error)
            })
    }

    async fn exchange(
        &self,
        operation: &'static str,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Incoming>> {
        match tokio::time::timeout(timeout, self.http.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let message = if error.is_connect() {
                    "the sandbox cannot be reached"
                } else {
                    "the connection to the sandbox broke off"
                };
                Err(Error::new(ErrorKind::Unavailable, operation, message).with_source(error))
            }
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                operation,
                "the sandbox does not answer in time",
            )),
        }
    }
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
