//! Exact bytes: what the gateway receives for odd requests, and what the client receives for odd answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lap_vault::relay::Limits;
use lap_vault::service::VaultService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{CANARY, eventually, fresh_sandbox, key_grant, parts};

/// A gateway that keeps every byte and answers each connection's first head with these writes.
struct RawGateway {
    base: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl RawGateway {
    async fn start(writes: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (heard, writes) = (Arc::clone(&hearing), writes.clone());
                tokio::spawn(async move {
                    let mut own = Vec::new();
                    let mut buffer = [0; 4096];
                    let mut answered = false;
                    while let Ok(size) = stream.read(&mut buffer).await {
                        if size == 0 {
                            return;
                        }
                        own.extend_from_slice(&buffer[..size]);
                        heard.lock().unwrap().extend_from_slice(&buffer[..size]);
                        if !answered && own.windows(4).any(|end| end == b"\r\n\r\n") {
                            answered = true;
                            for write in &writes {
                                if stream.write_all(write.as_bytes()).await.is_err() {
                                    return;
                                }
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                            if writes.last().is_some_and(|last| last.ends_with("<cut>")) {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { base, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

struct Exchange {
    gateway: RawGateway,
    answer: String,
    reasons: Vec<Option<String>>,
}

/// Sends these bytes (with `STUB` for the stub) and reads until the relay closes.
async fn exchange(request: &str, answer: &[&str]) -> Exchange {
    let gateway = RawGateway::start(
        answer
            .iter()
            .map(|write| write.replace("CANARY", CANARY))
            .collect(),
    )
    .await;
    let service = VaultService::start(parts(Limits::default())).await.unwrap();
    service.set_gateway(&gateway.base, None).unwrap();
    let sandbox = fresh_sandbox();
    let stubs = service.attach(sandbox, &Default::default()).await.unwrap();
    service.grant(sandbox, &[key_grant()]).unwrap();
    let stub = &stubs.stubs[lap_core::vault::GATEWAY_KEY];
    let mut stream = TcpStream::connect(stubs.base.trim_start_matches("http://"))
        .await
        .unwrap();
    stream
        .write_all(request.replace("STUB", stub).as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .unwrap();
    eventually("the exchange is on record", async || {
        !service.receipts(Some(sandbox), 0, 9).is_empty() || answer.starts_with(b"HTTP/1.1 400")
    })
    .await;
    let reasons = service
        .receipts(Some(sandbox), 0, 9)
        .into_iter()
        .map(|receipt| receipt.reason)
        .collect();
    Exchange {
        gateway,
        answer: String::from_utf8_lossy(&answer).into_owned(),
        reasons,
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const HEAD: &str = "POST /v1/messages HTTP/1.1\r\nhost: relay\r\nx-api-key: STUB\r\nconnection: close\r\n";

#[tokio::test]
async fn a_plain_request_arrives_as_these_bytes() {
    let request = format!("{HEAD}content-type: text/plain\r\ncontent-length: 5\r\n\r\nhello");
    let exchange = exchange(&request, &[OK]).await;
    let heard = exchange.gateway.heard();
    assert!(heard.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\nhello"), "{heard}");
    let mut head: Vec<&str> = heard
        .split("\r\n\r\n")
        .next()
        .unwrap()
        .split("\r\n")
        .skip(1)
        .collect();
    head.sort_unstable();
    let host = exchange.gateway.base.replace("http://", "host: ");
    let key = format!("x-api-key: {CANARY}");
    assert_eq!(
        head,
        [
            "accept-encoding: identity",
            "content-length: 5",
            "content-type: text/plain",
            &host,
            &key
        ]
    );
    assert!(exchange.answer.starts_with("HTTP/1.1 200 OK\r\n") && exchange.answer.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn nothing_can_be_smuggled_to_the_gateway() {
    let smuggled = "GET /key/list HTTP/1.1\r\nhost: x\r\nx-api-key: STUB\r\n\r\n";
    for (request, statuses) in [
        // Both framings: the body is chunked and ends at once, and what follows is a request of its own.
        (
            format!("{HEAD}content-length: 70\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            [200, 400],
        ),
        (
            format!("{HEAD}content-length: 0\r\ncontent-length: 60\r\n\r\n{smuggled}"),
            [400, 400],
        ),
        (
            format!("{HEAD}content-length: +5\r\n\r\nhello{smuggled}"),
            [400, 400],
        ),
        (
            format!("{HEAD}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
            [400, 400],
        ),
        (
            format!("{HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{smuggled}"),
            [400, 502],
        ),
        (format!("{HEAD}x-a: b\r\n folded: c\r\n\r\n"), [400, 400]),
        (format!("{HEAD}x-a : b\r\n\r\n"), [400, 400]),
        (format!("{HEAD}x-a: b\0c\r\n\r\n"), [400, 400]),
        (
            "POST /v1/messages HTTP/1.1\r\nx-api-key: STUB\nx-admin: 1\r\nconnection: close\r\n\r\n"
                .to_owned(),
            [200, 400],
        ),
    ] {
        let exchange = exchange(&request, &[OK]).await;
        let heard = exchange.gateway.heard();
        assert!(!heard.contains("/key/list"), "{request}\n{heard}");
        assert!(heard.matches(" HTTP/1.1\r\n").count() <= 1, "{request}\n{heard}");
        let framings = heard.matches("content-length").count() + heard.matches("transfer-encoding").count();
        assert!(framings <= 1, "{request}\n{heard}");
        let status: u16 = exchange.answer.get(9..12).unwrap_or("400").parse().unwrap();
        assert!(statuses.contains(&status), "{request}\n{}", exchange.answer);
    }
}

#[tokio::test]
async fn pipelined_requests_are_judged_one_by_one() {
    let first = "GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: STUB\r\n\r\n";
    let second = "GET /key/list HTTP/1.1\r\nhost: x\r\nx-api-key: STUB\r\nconnection: close\r\n\r\n";
    let exchange = exchange(&format!("{first}{second}"), &[OK]).await;
    assert!(
        exchange.answer.contains("\r\n\r\nokHTTP/1.1 403 Forbidden"),
        "{}",
        exchange.answer
    );
    assert!(!exchange.gateway.heard().contains("/key/list"));
}

#[tokio::test]
async fn the_key_comes_back_by_no_part_of_an_answer() {
    let (one, two) = CANARY.split_at(11);
    let split: [&str; 3] = [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        &format!("b\r\n{one}\r\n"),
        &format!("{:x}\r\n{two}\r\n0\r\n\r\n", two.len()),
    ];
    let request = format!("{HEAD}content-length: 0\r\n\r\n");
    for answer in [
        vec!["HTTP/1.1 401 no CANARY here\r\ncontent-length: 2\r\n\r\nno"],
        vec![
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-key\r\n\r\n2\r\nok\r\n0\r\nx-key: CANARY\r\n\r\n",
        ],
        vec![
            "HTTP/1.1 200 OK\r\nx-key: CANARY\r\ncontent-length: 25\r\n\r\n",
            CANARY,
        ],
        vec!["HTTP/1.1 103 Early Hints\r\nlink: CANARY\r\n\r\n", OK],
        split.to_vec(),
    ] {
        let exchange = exchange(&request, &answer).await;
        assert!(exchange.gateway.heard().contains(CANARY), "it was sent");
        assert!(exchange.answer.starts_with("HTTP/1.1 "), "{}", exchange.answer);
        for part in [CANARY, one, two] {
            assert!(!exchange.answer.contains(part), "{answer:?}\n{}", exchange.answer);
        }
    }
}

#[tokio::test]
async fn a_broken_answer_is_seen_as_broken() {
    let request = format!("{HEAD}content-length: 0\r\n\r\n");
    let cut = exchange(
        &request,
        &["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf<cut>"],
    )
    .await;
    assert!(
        cut.answer.contains("content-length: 100") && !cut.answer.contains("502"),
        "{}",
        cut.answer
    );
    assert_eq!(cut.reasons, [Some("upstream_failed".to_owned())]);
    let switch = exchange(
        &request,
        &["HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
    )
    .await;
    assert!(switch.answer.starts_with("HTTP/1.1 502 "), "{}", switch.answer);
    let nonsense = exchange(&request, &["SSH-2.0-OpenSSH\r\n\r\n"]).await;
    assert!(
        nonsense.answer.starts_with("HTTP/1.1 502 "),
        "{}",
        nonsense.answer
    );
    assert_eq!(nonsense.reasons, [Some("upstream_failed".to_owned())]);
}
