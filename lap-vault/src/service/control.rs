use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lap_core::id::SandboxId;
use lap_core::opening::Grant;
use lap_core::secret::Secret;
use lap_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::wire::{
    AttachSandbox, AttachedStubs, GrantValue, Identity, ListedSandbox, ReceiptList, Refusal, SetGateway,
};
use super::{PidFile, VaultService, prove};

/// Grants and certificates are small; nothing larger is a control call.
const LARGEST_CALL: usize = 4 << 20;

type Answer = Response<Either<Full<Bytes>, Presence>>;

/// The control socket: how the server steers its vault.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) service: Arc<VaultService>,
    pub(super) token: Secret,
    pub(super) file: PidFile,
    pub(super) servers: Arc<AtomicUsize>,
    pub(super) end: CancellationToken,
}

impl Control {
    /// Serves until the future is dropped.
    pub(super) async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the vault could not accept a control connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let control = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let control = Arc::clone(&control);
                    async move { Ok::<_, Infallible>(control.answer(request).await) }
                });
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(60))
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = serving.await {
                    tracing::debug!(
                        error = lap_core::error::chain(&error),
                        "a control connection broke"
                    );
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if let (&Method::GET, ["v1", "identity"]) = (request.method(), segments.as_slice()) {
            let proof = prove(
                &self.token,
                parameter(&query, "nonce").unwrap_or_default(),
                &self.file,
            );
            return json(&Identity {
                file: self.file.clone(),
                proof,
            });
        }
        if !self.is_server(&request) {
            let error = Error::new(
                ErrorKind::Forbidden,
                "control vault",
                "the control token is wrong",
            );
            return refuse(&error, StatusCode::UNAUTHORIZED);
        }
        match self.call(&segments, &query, request).await {
            Ok(answer) => answer,
            Err(error) => refuse(&error, status(error.kind())),
        }
    }

    fn is_server(&self, request: &Request<Incoming>) -> bool {
        let presented = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        presented
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| self.token.matches(token))
    }

    async fn call(&self, segments: &[&str], query: &str, request: Request<Incoming>) -> Result<Answer> {
        let service = &self.service;
        let done = || json(&serde_json::json!({}));
        match (request.method().clone(), segments) {
            (Method::PUT, ["v1", "gateway"]) => {
                let call: SetGateway = document(request).await?;
                service.set_gateway(&call.base, call.extra_roots.as_deref())?;
                Ok(done())
            }
            (Method::GET, ["v1", "sandboxes"]) => Ok(json(&self.list())),
            (Method::PUT, ["v1", "sandboxes", sandbox]) => {
                let call: AttachSandbox = document(request).await?;
                let stubs = service.attach(sandbox.parse()?, &call.names).await?;
                Ok(json(&AttachedStubs {
                    base: stubs.base,
                    stubs: stubs.stubs,
                }))
            }
            (Method::PUT, ["v1", "sandboxes", sandbox, "grants"]) => {
                let call: Vec<GrantValue> = document(request).await?;
                let grant = |call: GrantValue| Grant {
                    name: call.name,
                    value: Secret::new(call.value),
                    hosts: call.hosts,
                };
                service.grant(sandbox.parse()?, &call.into_iter().map(grant).collect::<Vec<_>>())?;
                Ok(done())
            }
            (Method::DELETE, ["v1", "sandboxes", sandbox]) => {
                service.detach(sandbox.parse()?).await?;
                Ok(done())
            }
            (Method::GET, ["v1", "receipts"]) => self.receipts(query),
            (Method::GET, ["v1", "presence"]) => Ok(Response::new(Either::Right(Presence::new(Arc::clone(
                &self.servers,
            ))))),
            (Method::POST, ["v1", "shutdown"]) => {
                self.end.cancel();
                Ok(done())
            }
            _ => Err(Error::new(
                ErrorKind::NotFound,
                "control vault",
                "there is no such call",
            )),
        }
    }

    fn list(&self) -> Vec<ListedSandbox> {
        let listed = |attached: crate::relay::Attached| ListedSandbox {
            sandbox: attached.sandbox.as_uuid(),
            names: attached.names,
            granted: attached.granted,
        };
        self.service.list().into_iter().map(listed).collect()
    }

    fn receipts(&self, query: &str) -> Result<Answer> {
        let sandbox: Option<SandboxId> = parameter(query, "sandbox").map(str::parse).transpose()?;
        let number = |name| parameter(query, name).and_then(|text| text.parse::<u64>().ok());
        let limit = usize::try_from(number("limit").unwrap_or(100)).unwrap_or(usize::MAX);
        let receipts = self
            .service
            .receipts(sandbox, number("after").unwrap_or(0), limit);
        Ok(json(&ReceiptList { receipts }))
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

async fn document<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T> {
    let invalid = || {
        Error::new(
            ErrorKind::Invalid,
            "control vault",
            "the document is not the one of this call",
        )
    };
    let body = Limited::new(request.into_body(), LARGEST_CALL)
        .collect()
        .await
        .map_err(|_| invalid())?;
    // The parser's message can quote a value, so it is left out.
    serde_json::from_slice(&body.to_bytes()).map_err(|_| invalid())
}

fn json(document: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(document).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(bytes))));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refuse(error: &Error, status: StatusCode) -> Answer {
    let mut response = json(&Refusal {
        kind: word(error.kind()).to_owned(),
        message: error.message().to_owned(),
        field: error.field().map(str::to_owned),
    });
    *response.status_mut() = status;
    response
}

const fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::Unavailable => "unavailable",
        _ => "internal",
    }
}

/// The kind that [`word`] named.
pub(crate) fn kind(word: &str) -> ErrorKind {
    match word {
        "not_found" => ErrorKind::NotFound,
        "invalid" => ErrorKind::Invalid,
        "forbidden" => ErrorKind::Forbidden,
        "unavailable" => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

const fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body that is open as long as a server is there: each side learns of the other's end by it.
#[derive(Debug)]
struct Presence(Arc<AtomicUsize>);

impl Presence {
    fn new(servers: Arc<AtomicUsize>) -> Self {
        servers.fetch_add(1, Ordering::SeqCst);
        Self(servers)
    }
}

impl Body for Presence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
