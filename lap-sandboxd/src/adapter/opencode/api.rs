//! Calls to the opencode server of this sandbox. Every call has a connection of its own and a deadline, because a
//! request that meets the server before it is ready is never answered, and neither is the next one on its connection.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lap_harness::sse::SseParser;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Conversations with images are long; what exceeds this is not a conversation.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// One event can hold a whole message part, an attached file included.
const MAX_EVENT_BYTES: usize = 16 << 20;
/// Heartbeats come every ten seconds.
const SILENCE: Duration = Duration::from_secs(35);
/// Longer messages say nothing more.
const MAX_MESSAGE: usize = 2000;

/// An opencode server and the right to use it.
#[derive(Clone)]
pub(super) struct Server {
    address: SocketAddr,
    authorization: HeaderValue,
    directory: HeaderValue,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// The server's status, when it answered.
    pub(super) status: Option<StatusCode>,
    pub(super) message: String,
}

impl Failed {
    fn silent(message: impl Into<String>) -> Self {
        Self {
            status: None,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "opencode answered {}: {}", status.as_u16(), self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Server {
    /// The server at this address. `directory` is the work tree that all calls are about.
    pub(super) fn new(address: SocketAddr, password: &str, directory: &Path) -> Result<Self, String> {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("opencode:{password}")));
        let authorization = HeaderValue::try_from(basic).map_err(|error| error.to_string())?;
        // The server decodes the header, so that every folder's name has a form.
        let directory = percent(&directory.to_string_lossy());
        let directory = HeaderValue::try_from(directory).map_err(|error| error.to_string())?;
        Ok(Self {
            address,
            authorization,
            directory,
        })
    }

    pub(super) async fn get(&self, path: &str, patience: Duration) -> Result<Value, Failed> {
        self.call(Method::GET, path, None, patience).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value, patience: Duration) -> Result<Value, Failed> {
        self.call(Method::POST, path, Some(body), patience).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value, patience: Duration) -> Result<Value, Failed> {
        self.call(Method::PATCH, path, Some(body), patience).await
    }

    pub(super) async fn delete(&self, path: &str, patience: Duration) -> Result<Value, Failed> {
        self.call(Method::DELETE, path, None, patience).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Value, Failed> {
        let exchange = async {
            let (answer, _connection) = self.exchange(method, path, body).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body =
                body.map_err(|error| Failed::silent(format!("opencode's answer broke off: {error}")))?;
            let body = body.to_bytes();
            if status.is_success() {
                return Ok(serde_json::from_slice(&body).unwrap_or(Value::Null));
            }
            Err(Failed {
                status: Some(status),
                message: complaint(&body),
            })
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(done) => done,
            Err(_) => Err(Failed::silent(format!(
                "opencode did not answer {} within {} s",
                path.split('?').next().unwrap_or(path),
                patience.as_secs()
            ))),
        }
    }

    /// The live events, from the moment this returns.
    pub(super) async fn events(&self, patience: Duration) -> Result<Events, Failed> {
        let begin = async {
            let (answer, connection) = self.exchange(Method::GET, "/event", None).await?;
            if !answer.status().is_success() {
                return Err(Failed {
                    status: Some(answer.status()),
                    message: "there are no events".to_owned(),
                });
            }
            let mut events = Events {
                body: answer.into_body(),
                parser: SseParser::new(MAX_EVENT_BYTES),
                _connection: connection,
            };
            // The first event says that nothing from here on is missed.
            events.next().await.map_err(Failed::silent)?;
            Ok(events)
        };
        match tokio::time::timeout(patience, begin).await {
            Ok(done) => done,
            Err(_) => Err(Failed::silent("opencode does not tell its events")),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Connection), Failed> {
        let broken =
            |error: &dyn std::fmt::Display| Failed::silent(format!("opencode cannot be reached: {error}"));
        let socket = TcpStream::connect(self.address)
            .await
            .map_err(|error| broken(&error))?;
        let _ = socket.set_nodelay(true);
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| broken(&error))?;
        let connection = Connection(
            tokio::spawn(async move {
                let _ = connection.await;
            })
            .abort_handle(),
        );
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, &self.authorization)
            .header("x-opencode-directory", &self.directory);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(bytes)).map_err(|error| broken(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        Ok((answer, connection))
    }
}

/// Ends the connection when the answer is not wanted any more.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What happens in the server, as it happens. There is no replay: who reconnects must look at the state.
pub(super) struct Events {
    body: Incoming,
    parser: SseParser,
    _connection: Connection,
}

impl Events {
    /// The next event. An error ends the stream.
    ///
    /// # Cancel safety
    /// If dropped, no event is lost.
    pub(super) async fn next(&mut self) -> Result<Value, String> {
        loop {
            match self.parser.next_event() {
                Ok(Some(event)) => {
                    return serde_json::from_str(&event.data)
                        .map_err(|_| "opencode sent an event that is not JSON".to_owned());
                }
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.parser.push(bytes);
                    }
                }
                Ok(Some(Err(error))) => return Err(format!("opencode's events broke off: {error}")),
                Ok(None) => return Err("opencode ended its events".to_owned()),
                Err(_) => return Err("opencode fell silent".to_owned()),
            }
        }
    }
}

/// What the server complains about, bounded: its errors come in two shapes.
fn complaint(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => ["/data/message", "/message", "/error/message", "/name"]
            .iter()
            .find_map(|pointer| json.pointer(pointer)?.as_str().map(str::to_owned))
            .unwrap_or_else(|| json.to_string()),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    text.chars().take(MAX_MESSAGE).collect()
}

/// Everything but unreserved characters and slashes as `%XX`.
pub(super) fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
