//! Clients that take what they can: slow heads, slow bodies, and more connections than the server has places.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{PATIENCE, eventually};
use crate::server::Server;

async fn connect(server: &Server) -> TcpStream {
    let address = server.client.base.trim_start_matches("http://");
    timeout(PATIENCE, TcpStream::connect(address))
        .await
        .unwrap()
        .unwrap()
}

/// Everything the server says until it closes the connection.
async fn until_closed(mut socket: TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut said))
        .await
        .expect("the server closes");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_slow_bodies_lose_their_connection() {
    let server = Server::start().await;
    let (mut head, mut body) = (connect(&server).await, connect(&server).await);
    let silent = connect(&server).await;
    head.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        .await
        .unwrap();
    let key = &server.client.key;
    let request = format!(
        "POST /api/v1/managed_agents/agents HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-length: 1000\r\n\r\n{{\"model\":"
    );
    body.write_all(request.as_bytes()).await.unwrap();
    let (head, body, silent) = tokio::join!(until_closed(head), until_closed(body), until_closed(silent));
    assert!(!head.contains("200 OK"), "{head}");
    assert!(
        body.starts_with("HTTP/1.1 408") && body.contains("slow_body"),
        "{body}"
    );
    assert_eq!(silent, "");
    assert_eq!(server.client.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_passes_and_the_work_goes_on() {
    const FILES: u32 = 256;
    let server = Server::start_limited(&[], Some(FILES)).await;
    let agent = server.client.agent(json!({ "model": "demo" })).await;
    let session = server.client.session(&agent, json!({})).await;
    let mut flood = Vec::new();
    for _ in 0..FILES {
        // Beyond its places the server accepts none; they wait in the kernel.
        flood.push(connect(&server).await);
    }
    // The client's own connection is one of many; a message needs new ones inside the server as well.
    let (status, reply) = server.client.message(&session, "hello").await;
    assert_eq!(status, 200, "{reply}");
    let stranger = crate::client::Client::new(&server.client.base, &server.client.key);
    eventually(
        "a newcomer is served once silent clients are cut off",
        async || match timeout(Duration::from_secs(30), stranger.get("/readyz")).await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    drop(flood);
    let (status, _) = server.client.delete(&format!("/sessions/{session}")).await;
    assert_eq!(status, 200);
    server.nothing_left().await;
}
