use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lap_core::id::Entropy;
use lap_core::time::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::{cut, handle};
use super::{Limits, Receipts, Tables};

/// A client that listens gets its refusal within this time after its sandbox ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The model relay on one listening socket.
#[derive(Debug)]
pub struct Relay {
    /// The tables it decides by.
    pub tables: Arc<Tables>,
    /// Where it files receipts.
    pub receipts: Arc<Receipts>,
    /// What bounds it.
    pub limits: Limits,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    requests: AtomicU64,
}

impl Relay {
    /// A relay of these parts.
    pub fn new(tables: Arc<Tables>, receipts: Arc<Receipts>, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            tables,
            receipts,
            limits,
            clock,
            requests: AtomicU64::new(0),
        }
    }

    /// How many requests there have been.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Serves clients until `stop` is cancelled, then drops every connection.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let own = listener.local_addr().ok();
        let serve = async {
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors or a client that left early: the listener itself is fine.
                        tracing::warn!(%error, "the relay could not accept a connection");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                };
                let (relay, stop) = (Arc::clone(&self), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay.connection(stream, own) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(slot);
                });
            }
        };
        tokio::select! {
            () = serve => {}
            () = stop.cancelled() => {}
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, own: Option<SocketAddr>) {
        // Events are small and must leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let connection = Arc::new(Connection {
            relay: self,
            own,
            occupied: watch::Sender::new(None),
        });
        let service = service_fn(|request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(handle(connection, request).await) }
        });
        let limits = &connection.relay.limits;
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.client_idle)
            .max_headers(limits.headers)
            .max_buf_size(limits.head_bytes)
            .serve_connection(TokioIo::new(stream), service);
        let end = async {
            cut(&connection).await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            served = serving => {
                if let Err(error) = served {
                    tracing::debug!(error = lap_core::error::chain(&error), "a connection broke");
                }
            }
            () = end => {}
        }
    }
}

/// The exchange that occupies a connection.
#[derive(Debug, Clone)]
pub(super) struct Occupied {
    pub(super) life: CancellationToken,
    pub(super) until: Instant,
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) relay: Arc<Relay>,
    own: Option<SocketAddr>,
    /// Watched beside the connection, because a client that does not read keeps its exchange from being asked.
    pub(super) occupied: watch::Sender<Option<Occupied>>,
}

impl Connection {
    /// An exchange of this sandbox occupies the connection from now on.
    pub(super) fn busy(&self, life: CancellationToken) {
        let until = Instant::now() + self.relay.limits.exchange;
        self.occupied.send_replace(Some(Occupied { life, until }));
    }

    /// No exchange occupies the connection.
    pub(super) fn quiet(&self) {
        self.occupied
            .send_if_modified(|occupied| occupied.take().is_some());
    }

    /// The target in origin form; empty, which no route accepts, when it names another host.
    pub(super) fn target(&self, uri: &Uri) -> String {
        if let Some(authority) = uri.authority() {
            let is_own = self.own.is_some_and(|own| {
                [own.to_string(), format!("localhost:{}", own.port())]
                    .iter()
                    .any(|name| name == authority.as_str())
            });
            if !is_own || uri.scheme_str() != Some("http") {
                return String::new();
            }
        }
        uri.path_and_query()
            .map(|target| target.as_str().to_owned())
            .unwrap_or_default()
    }
}

/// A loopback port for the relay: `wanted` when it is free.
///
/// A fresh port is taken from below the range from which systems give ports to outgoing connections, so that
/// it is still free when a vault that died is started again.
///
/// # Errors
/// When no port can be had at all.
pub async fn bind(wanted: Option<u16>, entropy: &dyn Entropy) -> io::Result<TcpListener> {
    if let Some(port) = wanted {
        return TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    }
    for _ in 0..16 {
        let mut random = [0; 2];
        entropy.fill(&mut random);
        let port = 18_000 + u16::from_le_bytes(random) % 14_000;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}
