//! A real upstream that does what a test tells it, a vault in front of it, and a client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lap_core::id::{SandboxId, SystemEntropy};
use lap_core::opening::Grant;
use lap_core::seal::Sealer;
use lap_core::secret::Secret;
use lap_core::time::{Clock as _, SystemClock};
use lap_core::vault::GATEWAY_KEY;
use lap_vault::relay::Limits;
use lap_vault::service::{Parts, VaultService};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

/// The real key. It must not occur in anything a sandbox gets.
pub(crate) const CANARY: &str = "sk-canary-4f1d9c2e7b60/+a";

pub(crate) type AnyBody = BoxBody<Bytes, std::io::Error>;

/// What the upstream saw of one request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body_bytes: u64,
}

/// A gateway whose behaviour the header `x-mode` of a request chooses.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    /// One permit lets one more chunk of a `x-mode: steps` answer leave.
    pub(crate) steps: Arc<Semaphore>,
    /// Answers that were dropped before their end.
    pub(crate) dropped: Arc<AtomicU64>,
    /// Requests whose head arrived.
    pub(crate) arrived: Arc<AtomicU64>,
}

struct DropCounter(Arc<AtomicU64>, bool);

impl Drop for DropCounter {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

impl Upstream {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            steps: Arc::new(Semaphore::new(0)),
            dropped: Arc::default(),
            arrived: Arc::default(),
        });
        let serving = Arc::clone(&upstream);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let upstream = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let upstream = Arc::clone(&upstream);
                        async move { Ok::<_, Infallible>(upstream.answer(request).await) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        upstream
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<AnyBody> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let (parts, mut body) = request.into_parts();
        let mode = parts
            .headers
            .get("x-mode")
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let mut counter = DropCounter(Arc::clone(&self.dropped), false);
        let mut body_bytes = 0;
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { break };
            let data = frame.into_data().unwrap_or_default();
            body_bytes += data.len() as u64;
            if body_bytes < 1 << 16 {
                text.extend_from_slice(&data);
            }
        }
        self.seen.lock().unwrap().push(Seen {
            method: parts.method.clone(),
            target: parts.uri.to_string(),
            headers: parts.headers.clone(),
            body_bytes,
        });
        let key = parts
            .headers
            .iter()
            .filter(|(_, value)| value.to_str().unwrap_or_default().contains(CANARY))
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect::<Vec<_>>()
            .join("\n");
        let response = self.respond(&mode, &key, body_bytes).await;
        match mode.as_str() {
            "steps" | "endless" => self.stream(response, counter),
            _ => {
                counter.1 = true;
                response
            }
        }
    }

    async fn respond(&self, mode: &str, key: &str, body_bytes: u64) -> Response<AnyBody> {
        let builder = Response::builder();
        match mode {
            "hang" => std::future::pending().await,
            "echo" => {
                use base64::Engine as _;
                let encoded = base64::engine::general_purpose::STANDARD.encode(key);
                let quoted = serde_json::Value::from(key).to_string();
                let text =
                    format!("{{\"error\":\"wrong key {key}\",\"b64\":\"{encoded}\",\"quoted\":{quoted}}}");
                builder
                    .status(401)
                    .header("x-echo", key.replace('\n', " "))
                    .header("set-cookie", "login=1")
                    .header("www-authenticate", format!("Bearer realm=\"{CANARY}\""))
                    .body(full(text))
                    .unwrap()
            }
            "gzip" => builder
                .header("content-encoding", "gzip")
                .body(full("\u{1f}not really"))
                .unwrap(),
            "redirect" => builder
                .status(302)
                .header("location", format!("http://evil.example/?k={CANARY}"))
                .body(full(""))
                .unwrap(),
            "steps" | "endless" => builder
                .header("content-type", "text/event-stream")
                .body(full(""))
                .unwrap(),
            "big" => builder.body(full(vec![b'x'; 100 << 20])).unwrap(),
            _ => builder
                .header("content-type", "application/json")
                .body(full(format!("{{\"ok\":true,\"bytes\":{body_bytes}}}")))
                .unwrap(),
        }
    }

    fn stream(&self, response: Response<AnyBody>, counter: DropCounter) -> Response<AnyBody> {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let steps = Arc::clone(&self.steps);
        tokio::spawn(async move {
            for step in 0..1000 {
                steps.acquire().await.unwrap().forget();
                let event = format!("data: {{\"step\":{step}}}\n\n");
                tokio::select! {
                    sent = sender.send(event.into()) => if sent.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        let stream = tokio_stream(receiver).map(move |bytes| {
            // The whole counter lives as long as the stream.
            let _ = &counter;
            Ok(Frame::data(bytes))
        });
        response.map(|_| BodyExt::boxed(StreamBody::new(SyncStream::new(stream))))
    }
}

fn tokio_stream(mut receiver: mpsc::Receiver<Bytes>) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// A boxed body must be `Sync`; the stream inside is only ever used by one task.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S> SyncStream<S> {
    fn new(stream: S) -> Self {
        Self(Mutex::new(Box::pin(stream)))
    }
}

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

/// A vault in this process with one attached and granted sandbox.
pub(crate) struct Rig {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) service: Arc<VaultService>,
    pub(crate) sandbox: SandboxId,
    pub(crate) stub: String,
    pub(crate) base: String,
}

pub(crate) fn parts(limits: Limits) -> Parts {
    Parts {
        folder: None,
        sealer: Sealer::plaintext(),
        limits,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
    }
}

pub(crate) fn fresh_sandbox() -> SandboxId {
    SandboxId::fresh(&SystemEntropy::new(), SystemClock.now())
}

pub(crate) fn key_grant() -> Grant {
    Grant {
        name: GATEWAY_KEY.to_owned(),
        value: Secret::new(CANARY),
        hosts: Vec::new(),
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let upstream = Upstream::start().await;
        let service = VaultService::start(parts(limits)).await.unwrap();
        service.set_gateway(&upstream.base(), None).unwrap();
        let sandbox = fresh_sandbox();
        let stubs = service.attach(sandbox, &Default::default()).await.unwrap();
        service.grant(sandbox, &[key_grant()]).unwrap();
        Self {
            upstream,
            sandbox,
            stub: stubs.stubs[GATEWAY_KEY].clone(),
            base: stubs.base,
            service,
        }
    }

    pub(crate) fn post(&self, mode: &str) -> http::request::Builder {
        Request::post(format!("{}/v1/chat/completions", self.base))
            .header("authorization", format!("Bearer {}", self.stub))
            .header("x-mode", mode)
    }
}

pub(crate) type TestClient = Client<HttpConnector, AnyBody>;

pub(crate) fn client() -> TestClient {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn body(text: impl Into<Bytes>) -> AnyBody {
    full(text)
}

/// The whole answer: status, head as text, body as text.
pub(crate) async fn whole(response: Response<Incoming>) -> (u16, String, String) {
    let status = response.status().as_u16();
    let head = format!("{:?}", response.headers());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, head, String::from_utf8_lossy(&bytes).into_owned())
}

/// The reason code of a refusal.
pub(crate) async fn refusal(response: Response<Incoming>) -> (u16, String) {
    let (status, head, text) = whole(response).await;
    assert!(
        head.contains("application/problem+json"),
        "{status} {head} {text}"
    );
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["status"], status);
    (status, document["code"].as_str().unwrap().to_owned())
}

/// Waits for a state of the world, not for a time.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
