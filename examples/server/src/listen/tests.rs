use std::net::SocketAddr;
use std::time::Instant;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Generous: the machine may be loaded.
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);

fn limits() -> Limits {
    Limits {
        connections: 64,
        head: LONG,
        idle: LONG,
        stalled: LONG,
    }
}

struct Listening {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Listening {
    async fn with(limits: Limits) -> Self {
        let app = Router::new()
            .route(
                "/peer",
                get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()),
            )
            .route(
                "/quiet",
                get(async || Sse::new(stream::pending::<Result<Event, axum::Error>>())),
            )
            .route("/flood", get(async || Body::from_stream(flood())))
            .route("/slow", post(async |body: String| body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, app, limits, shutdown.clone()));
        Self {
            address,
            shutdown,
            serving,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn flood() -> impl futures_util::Stream<Item = Result<Vec<u8>, std::convert::Infallible>> {
    stream::repeat(()).map(|()| Ok(vec![0; 16 * 1024]))
}

async fn ask(socket: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(PATIENCE, socket.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Waits for the other side to close.
async fn closed(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut rest))
        .await
        .expect("the server closes");
}

#[tokio::test]
async fn requests_know_their_peer_and_may_follow_each_other() {
    let server = Listening::with(limits()).await;
    let mut socket = server.connect().await;
    for _ in 0..3 {
        let answer = ask(&mut socket, "/peer").await;
        assert!(
            answer.ends_with(&socket.local_addr().unwrap().to_string()),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn slow_heads_and_silence_are_cut_off() {
    let server = Listening::with(Limits {
        head: SHORT,
        ..limits()
    })
    .await;
    for first in ["", "P", "PRI * HTTP/2.0\r\n", "GET /peer HTTP/1.1\r\nhost:"] {
        let mut socket = server.connect().await;
        socket.write_all(first.as_bytes()).await.unwrap();
        closed(&mut socket).await;
    }
    let mut dripping = server.connect().await;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && dripping.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        begun.elapsed() < PATIENCE,
        "one byte after the other keeps no connection"
    );
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_quiet_stream_does_not() {
    let server = Listening::with(Limits {
        idle: SHORT,
        ..limits()
    })
    .await;
    let (mut idle, mut streaming) = (server.connect().await, server.connect().await);
    assert!(ask(&mut streaming, "/quiet").await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut idle, "/peer").await.starts_with("HTTP/1.1 200"));
    closed(&mut idle).await;
    let more = timeout(3 * SHORT, streaming.read(&mut [0; 64])).await;
    assert!(more.is_err(), "a stream that says nothing stays open: {more:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Listening::with(Limits {
        stalled: SHORT,
        ..limits()
    })
    .await;
    let mut socket = server.connect().await;
    assert!(ask(&mut socket, "/flood").await.starts_with("HTTP/1.1 200"));
    server.shutdown.cancel();
    // The answer never ends, so only the limit can end the connection, and with it the server.
    timeout(PATIENCE, server.serving)
        .await
        .expect("the connection ends")
        .unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let server = Listening::with(Limits {
        connections: 2,
        head: Duration::from_secs(2),
        ..limits()
    })
    .await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for socket in [&mut first, &mut second] {
        assert!(ask(socket, "/peer").await.starts_with("HTTP/1.1 200"));
    }
    let mut third = server.connect().await;
    third
        .write_all(b"GET /peer HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(
        timeout(SHORT, third.read(&mut [0; 64])).await.is_err(),
        "nobody answers the third"
    );
    drop(first);
    let read = timeout(PATIENCE, third.read(&mut [0; 64]))
        .await
        .expect("it has a place now");
    assert!(read.unwrap() > 0);
    // Clients that say nothing give their places back by themselves.
    let silent = [
        server.connect().await,
        server.connect().await,
        server.connect().await,
    ];
    drop((second, third));
    let mut last = server.connect().await;
    assert!(ask(&mut last, "/peer").await.starts_with("HTTP/1.1 200"));
    drop(silent);
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_lets_requests_finish() {
    let server = Listening::with(limits()).await;
    let mut idle = server.connect().await;
    assert!(ask(&mut idle, "/peer").await.starts_with("HTTP/1.1 200"));
    let mut busy = server.connect().await;
    let head = "POST /slow HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    busy.write_all(head.as_bytes()).await.unwrap();
    let read = timeout(PATIENCE, busy.read(&mut [0; 64])).await.unwrap().unwrap();
    assert!(read > 0, "the handler asks for the body");
    server.shutdown.cancel();
    closed(&mut idle).await;
    busy.write_all(b"abcd").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, busy.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("abcd"), "{answer}");
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
}
