//! The settings of the HTTP surface. Nothing here is read from the environment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::attempts::WrongKeys;
use crate::auth::Authenticator;
use crate::catalog::ModelCatalog;
use crate::peer::Network;

/// Renders the metrics of the process in Prometheus text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// How the API is served. Make one with [`HttpOptions::new`] and change what you need.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Says who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// The address under which people reach this server, shown by `GET /api/config`.
    pub base_url: String,
    /// The repository of agents that name none, shown by `GET /api/config`. Credentials in it are not shown.
    pub preinstalled_repo: Option<String>,
    /// The name under which the web page logs in.
    pub ui_username: String,
    /// Names this build; shown by `GET /healthz`.
    pub build: String,
    /// Bytes a body may have.
    pub body_limit: usize,
    /// Bytes a body that may carry attachments may have.
    pub attachments_limit: usize,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// How long a client may send nothing of a body that is not complete.
    pub body_pause: Duration,
    /// How long a request may take that neither streams nor waits for a turn.
    pub request_timeout: Duration,
    /// How long a request waits for the end of a turn.
    pub turn_wait: Duration,
    /// Silence after which a stream sends a comment, so that proxies keep it open.
    pub keep_alive: Duration,
    /// Values of `Host` that the API answers to, without port; `0.0.0.0` or `::` stand for every IP address. Empty:
    /// all. Protects a server on a private address from web pages that have rebound their name to it.
    pub allowed_hosts: Vec<String>,
    /// Sites whose pages may change things here, as in `Origin`: `https://lap.example`. The site that the request
    /// is for and that of [`base_url`](Self::base_url) always may.
    pub allowed_origins: Vec<String>,
    /// How peers with wrong credentials are slowed down. Peers are told apart by
    /// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo); a host that serves without it has no such limit.
    pub wrong_keys: WrongKeys,
    /// Proxies in front of the server. Only their `X-Forwarded-For` is believed. Without them everybody behind a
    /// proxy is one peer.
    pub trusted_proxies: Vec<Network>,
    /// Reads what the model gateway offers; without it those routes answer 404.
    pub catalog: Option<Arc<dyn ModelCatalog>>,
    /// Renders `GET /metrics`; without it that route answers 404.
    pub metrics: Option<RenderMetrics>,
}

impl HttpOptions {
    /// The defaults of the original system.
    pub fn new(authenticator: impl Authenticator) -> Self {
        Self {
            authenticator: Arc::new(authenticator),
            base_url: "http://localhost:3000".to_owned(),
            preinstalled_repo: None,
            ui_username: "admin".to_owned(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            body_limit: 1024 * 1024,
            attachments_limit: 80 * 1024 * 1024,
            body_timeout: Duration::from_secs(120),
            body_pause: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            turn_wait: Duration::from_secs(30 * 60),
            keep_alive: Duration::from_secs(15),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            wrong_keys: WrongKeys::default(),
            trusted_proxies: Vec::new(),
            catalog: None,
            metrics: None,
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("authenticator", &self.authenticator)
            .field("base_url", &self.base_url)
            .field("build", &self.build)
            .field("body_limit", &self.body_limit)
            .field("request_timeout", &self.request_timeout)
            .field("allowed_hosts", &self.allowed_hosts)
            .finish_non_exhaustive()
    }
}
