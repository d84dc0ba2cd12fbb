//! One connection from its first byte to its last.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Limits;
use super::stalling::Stalling;

/// How long an idle connection may take to say good-bye.
const PARTING: Duration = Duration::from_secs(1);

/// Serves the connection until its end: the client's, that of `shutdown` after the request it is in, or that of a
/// limit.
pub(super) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    app: Router,
    builder: Arc<Builder<TokioExecutor>>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let (in_flight, watching) = watch::channel(0_usize);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let underway = Underway::begin(&in_flight);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = app.clone().oneshot(request);
        async move { answer.await.map(|response| until_sent(response, underway)) }
    });
    let io = TokioIo::new(Stalling::new(socket, limits.stalled));
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let ending = async {
        tokio::select! {
            () = shutdown.cancelled() => None,
            () = idle(watching, limits) => Some(PARTING),
        }
    };
    let parting = tokio::select! {
        // An error here is the client's: what it sent is not HTTP, or it left.
        _ = connection.as_mut() => return,
        parting = ending => parting,
    };
    connection.as_mut().graceful_shutdown();
    match parting {
        Some(parting) => {
            let _ = tokio::time::timeout(parting, connection).await;
        }
        None => {
            let _ = connection.await;
        }
    }
}

/// Returns once no request has been underway for as long as the limits allow.
async fn idle(mut in_flight: watch::Receiver<usize>, limits: Limits) {
    let mut limit = limits.head;
    while in_flight.wait_for(|requests| *requests == 0).await.is_ok() {
        match tokio::time::timeout(limit, in_flight.changed()).await {
            Ok(Ok(())) => limit = limits.idle,
            Ok(Err(_)) => break,
            Err(_) => return,
        }
    }
    // The service is gone, and so is the connection in a moment.
    std::future::pending().await
}

/// A request that is being answered. It counts until the last byte of the answer was handed over.
struct Underway(watch::Sender<usize>);

impl Underway {
    fn begin(in_flight: &watch::Sender<usize>) -> Self {
        in_flight.send_modify(|requests| *requests += 1);
        Self(in_flight.clone())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

fn until_sent(response: Response, underway: Underway) -> Response {
    response.map(|body| {
        Body::new(Counted {
            body,
            _underway: underway,
        })
    })
}

struct Counted {
    body: Body,
    _underway: Underway,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
