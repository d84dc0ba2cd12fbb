//! The listening side of the server: it gives every connection a bounded share of the process.
//!
//! A client that sends headers slowly, sends nothing, or does not read its answer loses its connection. When all
//! places are taken, further clients wait in the kernel's queue until one is free.

mod connection;
mod stalling;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes of the head of a request, and of an answer that a client does not read.
const BUFFER: usize = 64 * 1024;
/// Headers of a request.
const HEADERS: usize = 100;
/// More open files than this are not asked for.
const OPEN_FILES: u64 = 65_536;
/// More connections than this are not served at once, however many files may be open.
const CONNECTIONS: usize = 16_384;
/// Pause after the process has run out of something, so that it is not asked for in a loop.
const PAUSE: Duration = Duration::from_millis(100);

/// What one connection, and all of them together, may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Open connections.
    pub(crate) connections: usize,
    /// From the beginning of a request's head to its end, and from the start of a connection to its first request.
    pub(crate) head: Duration,
    /// Without a request that is being answered.
    pub(crate) idle: Duration,
    /// In which a client takes nothing of an answer that waits for it.
    pub(crate) stalled: Duration,
}

impl Limits {
    /// Half of the files that the process may open are for connections; the rest is for sandboxes, store and vault.
    pub(crate) fn of_this_process() -> Self {
        let files = usize::try_from(open_files()).unwrap_or(usize::MAX);
        Self {
            connections: (files / 2).clamp(1, CONNECTIONS),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stalled: Duration::from_secs(30),
        }
    }
}

/// How many files the process may open. A soft limit below the hard one is raised first: it is meant for programs
/// that use `select`, which this one does not.
fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(OPEN_FILES);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if wanted <= soft {
        return soft;
    }
    let raised = Rlimit {
        current: Some(wanted),
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(_) => soft,
    }
}

/// Serves `app` until `shutdown`, then lets every connection finish the request it is in. Each request carries the
/// peer's address as [`axum::extract::ConnectInfo`].
///
/// # Cancel safety
/// If dropped, no new connection is taken; the open ones are closed by `shutdown`.
pub(crate) async fn serve(listener: TcpListener, app: Router, limits: Limits, shutdown: CancellationToken) {
    let builder = Arc::new(protocol(limits));
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = TaskTracker::new();
    loop {
        // The place comes before the connection, so a full server accepts nothing.
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of the connection, or of the process: out of files or memory. Both pass.
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Events are small and must not wait for each other.
        let _ = socket.set_nodelay(true);
        let serving = connection::serve(
            socket,
            peer,
            app.clone(),
            Arc::clone(&builder),
            limits,
            shutdown.clone(),
        );
        open.spawn(async move {
            serving.await;
            drop(place);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

fn protocol(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(BUFFER).unwrap_or(u32::MAX))
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.stalled);
    builder
}
