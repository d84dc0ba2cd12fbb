//! A sandbox that lies: the client bounds it, checks it and does not hang.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lap_core::error::{ErrorKind, Retry};
use lap_core::harness::{Contact, Delivery, Harness, Sent};
use lap_core::id::{SandboxId, TurnId};
use lap_core::secret::Secret;
use lap_core::turn::TurnState;
use lap_harness::SandboxdHarness;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

/// A sandbox that answers every call with this.
async fn answering(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Contact {
    let body = body.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let contact = contact(&listener);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let body = body.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let answer = Response::builder().status(status).header("content-type", kind);
                let answer = answer.body(Full::new(body.clone())).unwrap();
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    contact
}

fn contact(listener: &TcpListener) -> Contact {
    Contact {
        sandbox: SandboxId::from_uuid(Uuid::from_u128(1)),
        address: listener.local_addr().unwrap().to_string(),
        token: Secret::new("token"),
    }
}

fn turn() -> TurnId {
    TurnId::from_uuid(Uuid::from_u128(2))
}

fn delivery() -> Delivery {
    Delivery {
        turn: turn(),
        fence: 1,
        parts: vec![json!({"type": "text", "text": "x"})],
        model: None,
        deadline: Duration::from_secs(1),
    }
}

fn event(seq: u64, kind: &str, properties: Value) -> String {
    let event = json!({"seq": seq, "turn": turn().as_uuid(), "type": kind, "properties": properties});
    format!("id: {seq}\ndata: {event}\n\n")
}

fn finished(seq: u64) -> String {
    event(
        seq,
        "turn.finished",
        json!({"turn": turn().as_uuid(), "outcome": "completed"}),
    )
}

fn health(sandbox: u128, protocol: u32) -> String {
    let (sandbox, nil) = (Uuid::from_u128(sandbox), Uuid::nil());
    json!({"sandbox": sandbox, "instance": nil, "boot": nil, "protocol": protocol, "state": "ready", "phase": "ready",
        "harness": "builtin"})
    .to_string()
}

#[tokio::test]
async fn only_the_expected_sandbox_is_believed() {
    for (status, body, kind) in [
        (200, health(9, 1), ErrorKind::Stale),
        (200, health(1, 2), ErrorKind::Stale),
        (401, "{}".to_owned(), ErrorKind::Stale),
        (200, String::new(), ErrorKind::Unavailable),
        (200, "<html>".to_owned(), ErrorKind::Unavailable),
        (503, "starting".to_owned(), ErrorKind::Unavailable),
    ] {
        let at = answering(status, "application/json", body.clone()).await;
        let refused = SandboxdHarness::new()
            .probe(&at, Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), kind, "{status} {body}: {refused}");
    }
    let at = answering(200, "application/json", health(1, 1)).await;
    SandboxdHarness::new().probe(&at, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_may_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = contact(&listener);
    drop(listener);
    let refused = SandboxdHarness::new().send(&at, &delivery()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.is_retryable());
    let odd = Contact {
        address: "no host".to_owned(),
        ..at
    };
    assert_eq!(
        SandboxdHarness::new().messages(&odd).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn conflicts_are_outcomes_where_the_contract_says_so() {
    for (code, expected) in [
        ("turn_known", "Known"),
        ("busy", "Busy"),
        ("stale_fence", "Stale"),
    ] {
        let problem = json!({"status": 409, "title": "Conflict", "detail": "d", "code": code}).to_string();
        let at = answering(409, "application/problem+json", problem).await;
        let sent = SandboxdHarness::new().send(&at, &delivery()).await.unwrap();
        assert_eq!(format!("{sent:?}"), expected);
    }
    let at = answering(409, "application/problem+json", "{\"code\":\"whatever\"}").await;
    let refused = SandboxdHarness::new().send(&at, &delivery()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongState);
}

#[tokio::test]
async fn a_body_without_end_is_cut() {
    let at = answering(200, "application/json", vec![b' '; 17 << 20]).await;
    let refused = SandboxdHarness::new().messages(&at).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.retry()),
        (ErrorKind::Unavailable, Retry::Never)
    );
    assert!(refused.message().contains("too large"), "{refused}");
}

/// Reads a stream to its end or first error.
async fn read(body: String) -> (Vec<u64>, Option<lap_core::Error>, Option<TurnState>) {
    let at = answering(200, "text/event-stream", body).await;
    let Sent::Started(mut events) = SandboxdHarness::new().send(&at, &delivery()).await.unwrap() else {
        panic!("not started")
    };
    let (mut seen, mut outcome) = (Vec::new(), None);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                seen.push(event.seq);
                outcome = event.outcome.map(|outcome| outcome.state).or(outcome);
            }
            Err(error) => return (seen, Some(error), outcome),
        }
    }
    (seen, None, outcome)
}

#[tokio::test]
async fn nothing_after_the_outcome_counts() {
    let (seen, error, outcome) = read(
        [
            event(4, "a", json!({})),
            finished(5),
            finished(6),
            event(7, "b", json!({})),
        ]
        .concat(),
    )
    .await;
    assert_eq!(seen, [4, 5]);
    assert!(error.is_none());
    assert_eq!(outcome, Some(TurnState::Completed));
}

#[tokio::test]
async fn nothing_follows_the_largest_number() {
    let (seen, error, _) = read([event(u64::MAX, "a", json!({})), event(1, "a", json!({}))].concat()).await;
    assert_eq!((seen, error.is_some()), (vec![u64::MAX], true));
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_ends_with_an_error() {
    let good = event(1, "a", json!({}));
    let long = event(2, "a", json!({"text": "x".repeat(2 << 20)}));
    for (what, bad) in [
        ("a gap", event(3, "a", json!({}))),
        ("a repetition", event(1, "a", json!({}))),
        ("a step back", event(0, "a", json!({}))),
        ("no JSON", "data: {\n\n".to_owned()),
        ("no event", "data: {\"seq\":2}\n\n".to_owned()),
        ("a line without end", long),
    ] {
        let (seen, error, outcome) = read([good.clone(), bad, finished(4)].concat()).await;
        let error = error.unwrap_or_else(|| panic!("{what} is accepted"));
        assert_eq!(
            (seen, error.kind(), outcome),
            (vec![1], ErrorKind::Unavailable, None),
            "{what}"
        );
    }
    let (seen, error, _) = read(
        [
            good,
            event(9, "journal.reset", json!({"oldest": 10})),
            finished(10),
        ]
        .concat(),
    )
    .await;
    assert_eq!((seen, error.is_none()), (vec![1, 9, 10], true));
}

#[tokio::test]
async fn an_end_that_cannot_be_read_is_a_failure() {
    for properties in [
        Value::Null,
        json!({"outcome": "excellent"}),
        json!("x"),
        json!({"outcome": 1}),
    ] {
        let (_, _, outcome) = read(event(1, "turn.finished", properties)).await;
        assert_eq!(outcome, Some(TurnState::Failed));
    }
    let cost =
        json!({"turn": turn().as_uuid(), "outcome": "completed", "usage": {"cost": -5.0}, "reply": "text"});
    let at = answering(200, "text/event-stream", event(1, "turn.finished", cost)).await;
    let Sent::Started(mut events) = SandboxdHarness::new().send(&at, &delivery()).await.unwrap() else {
        panic!("not started")
    };
    let outcome = events.next().await.unwrap().unwrap().outcome.unwrap();
    assert_eq!((outcome.usage.cost, outcome.reply), (0.0, None));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = contact(&listener);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for head in ["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", ""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            kept.push(stream);
        }
        std::future::pending::<()>().await;
    });
    let harness = SandboxdHarness::new();
    let Sent::Started(mut events) = harness.send(&at, &delivery()).await.unwrap() else {
        panic!("not started")
    };
    let silent = events.next().await.unwrap().unwrap_err();
    assert!(
        silent.message().contains("silent") && silent.is_retryable(),
        "{silent}"
    );
    assert!(events.next().await.is_none());
    let silent = harness.messages(&at).await.unwrap_err();
    assert!(
        silent.message().contains("in time") && silent.is_retryable(),
        "{silent}"
    );
}
