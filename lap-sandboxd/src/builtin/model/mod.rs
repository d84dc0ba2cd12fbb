//! The model behind an OpenAI-compatible gateway.

mod chunk;
mod history;
mod retry;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lap_harness::TurnFailure;
use lap_harness::limits::MAX_LINE_BYTES;
use lap_harness::sse::SseParser;
use serde_json::Value;

use crate::launch::GatewayAddress;

pub(super) use chunk::{CallPiece, Piece};
pub(super) use history::request_body;
pub(super) use retry::Retrying;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A model may think for long, but a gateway that says nothing at all for this long is gone.
const SILENCE: Duration = Duration::from_secs(600);
/// The whole answer of a gateway that does not stream, and the body of an error.
const MAX_WHOLE_BYTES: usize = 8 << 20;
/// More of a gateway's message than this is not worth showing.
const MAX_MESSAGE: usize = 2000;

/// Speaks to the gateway. The connections are kept alive between the steps of a turn.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    bearer: Option<HeaderValue>,
}

/// Why a call failed, and whether the same call may succeed soon.
#[derive(Debug)]
pub(super) struct CallFailure {
    pub(super) failure: TurnFailure,
    pub(super) retryable: bool,
    /// The gateway's own wish.
    pub(super) retry_after: Option<Duration>,
}

impl CallFailure {
    fn lasting(message: impl Into<String>) -> Self {
        let failure = TurnFailure {
            message: message.into(),
            status: None,
        };
        Self {
            failure,
            retryable: false,
            retry_after: None,
        }
    }
}

impl Gateway {
    /// # Errors
    /// The reason, when the address cannot be used.
    pub(super) fn new(address: &GatewayAddress) -> Result<Self, String> {
        let base = address.base.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        if !base.starts_with("http://") {
            return Err(
                "the model gateway must be reached over http:// from inside a sandbox (the platform's relay)"
                    .to_owned(),
            );
        }
        let bearer =
            (!address.key.is_empty()).then(|| HeaderValue::try_from(format!("Bearer {}", address.key)));
        let bearer = bearer
            .transpose()
            .map_err(|_| "the model gateway's key is not a header value".to_owned())?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self {
            http,
            url: format!("{base}/v1/chat/completions"),
            bearer,
        })
    }

    /// Sends one request. Dropping the future, or later the answer, closes the connection, which stops the model.
    pub(super) async fn ask(&self, body: Bytes) -> Result<Answer, CallFailure> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream")
            .header(
                header::USER_AGENT,
                concat!("lap-builtin/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::from(body));
        let request =
            request.map_err(|_| CallFailure::lasting("the model gateway's address is malformed"))?;
        let answer = match tokio::time::timeout(SILENCE, self.http.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let what = if error.is_connect() {
                    "cannot be reached"
                } else {
                    "closed the connection"
                };
                let message = format!("the model gateway {what}: {}", lap_core::error::chain(&error));
                return Err(CallFailure {
                    retryable: true,
                    ..CallFailure::lasting(message)
                });
            }
            Err(_) => return Err(CallFailure::lasting("the model gateway does not answer")),
        };
        if answer.status().is_success() {
            Ok(Answer::new(answer))
        } else {
            Err(refused(answer).await)
        }
    }
}

async fn refused(answer: Response<Incoming>) -> CallFailure {
    let status = answer.status();
    let retry_after = answer.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = whole(answer.into_body()).await.unwrap_or_default();
    let message = error_message(&body);
    let message = if message.is_empty() {
        format!("the model gateway answered {}", status.as_u16())
    } else {
        format!("the model gateway answered {}: {message}", status.as_u16())
    };
    CallFailure {
        failure: TurnFailure {
            message,
            status: Some(status.as_u16()),
        },
        retryable: matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        retry_after,
    }
}

async fn whole(body: Incoming) -> Result<Bytes, String> {
    let body = tokio::time::timeout(SILENCE, Limited::new(body, MAX_WHOLE_BYTES).collect()).await;
    let body = body.map_err(|_| "it takes too long".to_owned())?;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| error.to_string())
}

/// What a gateway says in its many dialects, bounded.
fn error_message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => ["/error/message", "/message", "/detail", "/error"]
            .iter()
            .find_map(|pointer| json.pointer(pointer)?.as_str().map(str::to_owned))
            .unwrap_or_else(|| json.to_string()),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    text.chars().take(MAX_MESSAGE).collect()
}

/// A model's answer as it arrives.
#[derive(Debug)]
pub(super) struct Answer {
    body: Option<Incoming>,
    streamed: bool,
    parser: SseParser,
    ended: bool,
    /// Whether the model said why it stopped. A stream that ends without it was cut off.
    finished: bool,
}

impl Answer {
    fn new(answer: Response<Incoming>) -> Self {
        let kind = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let streamed = kind.is_none_or(|kind| !kind.starts_with("application/json"));
        let parser = SseParser::new(MAX_LINE_BYTES);
        Self {
            body: Some(answer.into_body()),
            streamed,
            parser,
            ended: false,
            finished: false,
        }
    }

    /// The next pieces: all that have arrived, at least one; none when the answer is complete.
    pub(super) async fn next(&mut self) -> Result<Vec<Piece>, TurnFailure> {
        let broken = |message: String| TurnFailure {
            message,
            status: None,
        };
        let mut pieces = Vec::new();
        if self.ended {
            self.drain().await;
        }
        while pieces.is_empty() && !self.ended {
            if !self.streamed {
                self.ended = true;
                let Some(body) = self.body.take() else { break };
                let body = whole(body)
                    .await
                    .map_err(|why| broken(format!("the model's answer broke off: {why}")))?;
                pieces = chunk::of_whole(&body)?;
                self.finished = true;
                break;
            }
            self.read().await?;
            while let Some(event) = self
                .parser
                .next_event()
                .map_err(|error| broken(error.to_string()))?
            {
                if event.data.trim() == "[DONE]" {
                    (self.ended, self.finished) = (true, true);
                    break;
                }
                chunk::of_event(&event.data, &mut pieces)?;
            }
            self.finished |= pieces.iter().any(|piece| matches!(piece, Piece::Finish(_)));
        }
        if self.ended && !self.finished && pieces.is_empty() {
            return Err(broken("the model's answer broke off before its end".to_owned()));
        }
        Ok(pieces)
    }

    async fn read(&mut self) -> Result<(), TurnFailure> {
        let Some(body) = &mut self.body else {
            self.ended = true;
            return Ok(());
        };
        let broken = |message: String| TurnFailure {
            message,
            status: None,
        };
        match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    self.parser.push(bytes);
                }
                Ok(())
            }
            Ok(None) => {
                self.ended = true;
                Ok(())
            }
            Ok(Some(Err(error))) => Err(broken(format!("the model's answer broke off: {error}"))),
            Err(_) => Err(broken("the model's answer stands still".to_owned())),
        }
    }

    /// Reads what is left after the end mark, because only then the connection can be used again. Does not wait for a
    /// gateway that keeps the stream open.
    async fn drain(&mut self) {
        if let Some(mut body) = self.body.take() {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(Duration::from_millis(50), rest).await;
        }
    }
}
