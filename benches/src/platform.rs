//! A whole platform in this process: SQLite, local sandboxes, the vault's relay, the HTTP API on loopback.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lap_core::backends::Backends;
use lap_core::engine::{Engine, EngineConfig, Identity};
use lap_core::harness::Contact;
use lap_core::id::{SandboxId, SystemEntropy};
use lap_core::seal::Sealer;
use lap_core::secret::Secret;
use lap_core::time::{Clock, SystemClock};
use lap_harness::SandboxdHarness;
use lap_http::{HttpOptions, MasterKey};
use lap_local::{LocalConfig, LocalRuntime};
use lap_store_sqlite::{SqliteOptions, SqliteStore};
use lap_vault::relay::Limits;
use lap_vault::{LocalVault, LocalVaultConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "sk-benchmark";

/// A whole platform in this process.
#[derive(Debug)]
pub struct Platform {
    /// The engine.
    pub engine: Engine,
    /// A client of its API.
    pub client: Client,
    identity: Identity,
    _folder: TempDir,
}

impl Platform {
    /// Starts everything. The server's binary of the same profile must have been built.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sealer = Sealer::plaintext();
        let entropy = Arc::new(SystemEntropy::new());
        let store = SqliteOptions::new(folder.path().join("lap.db"), Arc::clone(&clock));
        let store = SqliteStore::open(store).await.unwrap();
        let identity = Identity::load(&store, &sealer, &*entropy, &*clock).await.unwrap();
        let vault = LocalVaultConfig {
            gateway: model().await,
            gateway_roots: None,
        };
        let vault = LocalVault::in_process(vault, None, Sealer::plaintext(), Limits::default())
            .await
            .unwrap();
        let local = LocalConfig::new(folder.path(), server_binary(), identity.instance())
            .with_arguments(["sandboxd"])
            .with_environment(std::env::vars_os(), &[] as &[&str]);
        let parts = Backends {
            store: Arc::new(store),
            runtime: Arc::new(LocalRuntime::open(local).await.unwrap()),
            vault: Arc::new(vault),
            harness: Arc::new(SandboxdHarness::new()),
            clock,
            entropy,
            sealer: Arc::new(sealer),
        };
        let mut config = EngineConfig::default();
        "builtin".clone_into(&mut config.default_harness);
        config.gateway.key = Secret::new("sk-real-gateway-key");
        let engine = Engine::start(parts, config).await.unwrap();
        let app = lap_http::router(engine.clone(), HttpOptions::new(MasterKey::new(Secret::new(KEY))));
        let client = Client::new(&serve(app).await);
        Self {
            engine,
            client,
            identity,
            _folder: folder,
        }
    }

    /// How to reach a session's sandbox without the platform: the baseline.
    pub fn contact(&self, sandbox: SandboxId, address: &str) -> Contact {
        let token = self.identity.control_token(sandbox, SystemClock.now());
        Contact {
            sandbox,
            address: address.to_owned(),
            token,
        }
    }
}

/// The binary beside this one: `target/<profile>/lap-server`.
pub fn server_binary() -> PathBuf {
    let ours = std::env::current_exe().unwrap();
    let profile = ours.parent().and_then(std::path::Path::parent).unwrap();
    let binary = profile.join("lap-server");
    assert!(
        binary.exists(),
        "build {} first: cargo build -p lap-server (with the same profile)",
        binary.display()
    );
    binary
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    base
}

/// A model that answers at once with one chunk.
async fn model() -> String {
    async fn complete() -> Response {
        let chunk = |choices: Value| format!("data: {}\n\n", json!({ "id": "c", "choices": choices }));
        let body = [
            chunk(json!([{ "delta": { "content": "pong" } }])),
            chunk(json!([{ "delta": {}, "finish_reason": "stop" }])),
            "data: [DONE]\n\n".to_owned(),
        ];
        ([("content-type", "text/event-stream")], Body::from(body.concat())).into_response()
    }
    serve(Router::new().route("/v1/chat/completions", post(complete))).await
}

/// A client with connections of its own.
#[derive(Debug, Clone)]
pub struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Client {
    fn new(base: &str) -> Self {
        Self {
            http: HyperClient::builder(TokioExecutor::new()).build_http(),
            base: base.to_owned(),
        }
    }

    fn request(&self, method: &str, path: &str, body: String) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/managed_agents{path}", self.base))
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap()
    }

    /// Sends a request and reads the answer, which must be a success.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = self.http.request(self.request(method, path, body)).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(
            status.is_success(),
            "{method} {path}: {status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    /// Reads the session's log from its start until a line has this text.
    pub async fn wait_for(&self, session: &str, text: &str) {
        let path = format!("/sessions/{session}/events?after=0");
        let response = self
            .http
            .request(self.request("GET", &path, String::new()))
            .await
            .unwrap();
        let mut body = response.into_body().into_data_stream();
        let mut seen = String::new();
        let reading = async {
            while let Some(Ok(chunk)) = body.next().await {
                seen.push_str(&String::from_utf8_lossy(&chunk));
                if seen.contains(text) {
                    return;
                }
            }
            panic!("the stream ended without {text}: {seen}");
        };
        tokio::time::timeout(Duration::from_secs(60), reading)
            .await
            .unwrap();
    }
}
