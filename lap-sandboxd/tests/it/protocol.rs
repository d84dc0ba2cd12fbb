//! The protocol's promises: identity, tokens, fences, at most one delivery, reattaching, bounds.

use std::time::Duration;

use crate::support::model::{Line, Model, say};
use crate::support::{PATIENCE, Place, call, delivery, fresh_turn, raw, raw_text, text, to_the_end, until};
use futures_util::StreamExt;
use hyper::StatusCode;
use lap_core::error::ErrorKind;
use lap_core::harness::{Contact, Delivery, Harness, Readiness, Sent};
use lap_core::id::{SandboxId, SessionId, SystemEntropy};
use lap_core::secret::Secret;
use lap_core::time::{Clock, SystemClock};
use lap_core::token::Scope;
use lap_core::turn::TurnState;
use serde_json::{Value, json};

#[tokio::test]
async fn health_tells_who_it_is_and_waits_for_ready() {
    let place = Place::new();
    let running = place.start("http://127.0.0.1:9", json!({})).await;
    let health = running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    assert_eq!(health.sandbox, place.sandbox.as_uuid());
    assert_eq!(health.instance, place.instance.as_uuid());
    assert_eq!((health.phase.as_str(), health.session), ("ready", None));
    let file: Value = serde_json::from_slice(&std::fs::read(place.path("endpoint.json")).unwrap()).unwrap();
    assert_eq!(file["address"], running.contact.address);
    assert_eq!(file["boot"], health.boot.to_string());
    assert_eq!(file["pid"], std::process::id());
    let opened = running.opened().await;
    let probe = opened
        .harness()
        .probe(&opened.contact, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        (probe.readiness, probe.session),
        (Readiness::Ready, Some(place.session))
    );
    opened.sandboxd.stop().await;
}

#[tokio::test]
async fn every_path_wants_a_token_of_this_sandbox() {
    let place = Place::new();
    let running = place.start("http://127.0.0.1:9", json!({})).await;
    let (now, minute) = (SystemClock.now(), Duration::from_secs(60));
    let other = SandboxId::fresh(&SystemEntropy::new(), now);
    let stranger = Place::new();
    let bad = [
        None,
        Some(Secret::new("")),
        Some(Secret::new("x".repeat(5000))),
        Some(place.key.mint(other, Scope::Control, now, minute)),
        Some(place.key.mint(place.sandbox, Scope::Tty, now, minute)),
        Some(place.key.mint(place.sandbox, Scope::Exec, now, minute)),
        Some(
            place
                .key
                .mint(place.sandbox, Scope::Control, now.minus(minute * 2), minute),
        ),
        Some(stranger.key.mint(place.sandbox, Scope::Control, now, minute)),
    ];
    let turn = fresh_turn();
    let paths = [
        ("GET", "/lap/health".to_owned()),
        ("POST", "/lap/open".to_owned()),
        ("POST", "/lap/turns".to_owned()),
        ("GET", format!("/lap/turns/{turn}")),
        ("POST", format!("/lap/turns/{turn}/abort")),
        ("GET", "/lap/events".to_owned()),
        ("GET", "/lap/messages".to_owned()),
        ("POST", "/lap/answer".to_owned()),
        ("GET", "/lap/logs".to_owned()),
        ("POST", "/lap/stop".to_owned()),
        ("GET", "/session".to_owned()),
        ("POST", "/session".to_owned()),
        ("POST", "/session/x/message".to_owned()),
        ("GET", "/event".to_owned()),
        ("GET", "/nothing".to_owned()),
    ];
    for token in &bad {
        for (method, path) in &paths {
            let (status, problem) = raw(
                &running,
                method,
                path,
                token.as_ref().map(Secret::expose),
                Vec::new(),
            )
            .await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(problem["code"], "unauthorized");
        }
    }
    let wrong = Contact {
        token: bad[6].clone().unwrap(),
        ..running.contact.clone()
    };
    let refused = running.harness().probe(&wrong, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stale);
    let refused = running.harness().messages(&wrong).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn another_session_and_an_older_owner_are_refused() {
    let model = Model::start([]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await;
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    let (harness, at) = (running.harness(), &running.contact);
    let unopened = harness.send(at, &delivery("x")).await.unwrap_err();
    assert_eq!(unopened.kind(), ErrorKind::WrongState);

    let mut opening = place.opening();
    opening.fence = 5;
    let conversation = harness.open(at, &opening).await.unwrap();
    assert_eq!(harness.open(at, &opening).await.unwrap(), conversation);
    let mut foreign = opening.clone();
    foreign.session = SessionId::fresh(&SystemEntropy::new(), SystemClock.now());
    assert_eq!(
        harness.open(at, &foreign).await.unwrap_err().kind(),
        ErrorKind::WrongState
    );
    opening.fence = 4;
    assert_eq!(
        harness.open(at, &opening).await.unwrap_err().kind(),
        ErrorKind::Stale
    );
    let stale = Delivery {
        fence: 4,
        ..delivery("x")
    };
    assert!(matches!(harness.send(at, &stale).await.unwrap(), Sent::Stale));
    // Refused means not seen: the same turn may come again from the right owner.
    assert!(!harness.has_turn(at, stale.turn).await.unwrap());
    assert_eq!(model.requests().len(), 0);
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn what_the_builtin_harness_cannot_do_is_refused() {
    let place = Place::new();
    let running = place.start("http://127.0.0.1:9", json!({})).await;
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    let mut opening = place.opening();
    opening.mcp_servers = vec![json!({"name": "x", "url": "http://x"})];
    let refused = running
        .harness()
        .open(&running.contact, &opening)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("MCP"), "{refused}");
    let refused = running
        .harness()
        .answer(&running.contact, "per_1", &json!("once"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_turn_runs_once_however_often_it_is_sent() {
    let model = Model::start([Line::Hang("thinking".to_owned())]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let (harness, at) = (running.harness(), &running.contact);
    let turn = delivery("once");
    let mut events = running.send(&turn).await;
    until(&mut events, |event| event.kind == "message.part.delta").await;
    assert!(matches!(harness.send(at, &turn).await.unwrap(), Sent::Known));
    assert!(matches!(
        harness.send(at, &delivery("other")).await.unwrap(),
        Sent::Busy
    ));
    harness.abort(at, turn.turn).await.unwrap();
    to_the_end(events).await;
    assert!(matches!(harness.send(at, &turn).await.unwrap(), Sent::Known));
    assert_eq!(model.requests().len(), 1);
    let status = harness.turn_status(at, turn.turn).await.unwrap().unwrap();
    assert_eq!(status.state, lap_harness::TurnState::Aborted);
    assert_eq!(harness.turn_status(at, fresh_turn()).await.unwrap(), None);
    assert_eq!(
        harness.abort(at, fresh_turn()).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_reader_reattaches_anywhere_and_misses_nothing() {
    let model = Model::start([
        say("one"),
        Line::Say(vec!["a".into(), "b".into(), "c".into()]),
        say("three"),
    ])
    .await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let (harness, at) = (running.harness(), &running.contact);
    running.turn(&delivery("first")).await;
    let turn = delivery("second");
    let events = running.send(&turn).await;
    // The stream is given up at once; the turn lives in the sandbox.
    drop(events);
    let (all, outcome) = to_the_end(harness.attach(at, 0, turn.turn).await.unwrap()).await;
    assert_eq!(text(&outcome), "abc");
    running.turn(&delivery("third")).await;
    for after in 0..all.len() - 1 {
        let events = harness.attach(at, all[after].seq, turn.turn).await.unwrap();
        let (rest, _) = to_the_end(events).await;
        assert_eq!(rest, all[after + 1..], "after {}", all[after].seq);
    }
    // Attaching at the end of a finished turn ends at once.
    let mut nothing = harness
        .attach(at, all.last().unwrap().seq, turn.turn)
        .await
        .unwrap();
    assert!(
        tokio::time::timeout(PATIENCE, nothing.next())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        harness.attach(at, 0, fresh_turn()).await.err().unwrap().kind(),
        ErrorKind::NotFound
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn the_stream_of_a_turn_ends_with_the_turn() {
    let model = Model::start([say("short")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let parts = json!([{"type": "text", "text": "x"}]);
    let turn = json!({"turn": fresh_turn().to_string(), "fence": 1, "parts": parts, "deadline_ms": 60_000});
    let token = running.contact.token.expose().to_owned();
    let (status, stream) = raw_text(
        &running,
        "POST",
        "/lap/turns",
        Some(&token),
        turn.to_string().into_bytes(),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let last = stream.trim_end().lines().last().unwrap();
    assert!(last.contains("\"type\":\"turn.finished\""), "{last}");
    // A stream that waits for its next comment instead of the turn's end would have one.
    assert!(!stream.contains(": alive"), "{stream}");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn stopping_ends_the_turn_and_tells_the_reader() {
    let model = Model::start([Line::Hang("thinking".to_owned())]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let mut events = running.send(&delivery("x")).await;
    until(&mut events, |event| event.kind == "message.part.delta").await;
    running.harness().stop(&running.contact).await.unwrap();
    tokio::time::timeout(PATIENCE, running.sandboxd.stop_requested())
        .await
        .unwrap();
    let address = running.contact.clone();
    running.sandboxd.stop().await;
    let (_, outcome) = to_the_end(events).await;
    assert_eq!(outcome.state, TurnState::Failed);
    assert!(outcome.failure.unwrap().starts_with("interrupted"));
    let gone = place.harness.probe(&address, Duration::ZERO).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unavailable);
    assert!(gone.is_retryable());
}

#[tokio::test]
async fn bad_bodies_are_refused_with_a_reason() {
    let place = Place::new();
    let running = place.start("http://127.0.0.1:9", json!({})).await.opened().await;
    let token = running.contact.token.expose().to_owned();
    for (path, body) in [
        ("/lap/open", json!({"session": 1})),
        (
            "/lap/turns",
            json!({"turn": fresh_turn().to_string(), "fence": 1, "parts": [], "deadline_ms": 1}),
        ),
        (
            "/lap/turns",
            json!({"turn": "x", "fence": 1, "parts": [{}], "deadline_ms": 1}),
        ),
        ("/lap/turns", json!([])),
        ("/lap/answer", Value::Null),
    ] {
        let (status, problem) = call(&running, "POST", path, body).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid")),
            "{path}: {problem}"
        );
    }
    let (status, _) = raw(&running, "POST", "/lap/open", Some(&token), vec![b' '; 17 << 20]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, problem) = call(&running, "GET", "/lap/turns/not-an-id", Value::Null).await;
    assert!(status.is_client_error(), "{status} {problem}");
    let (status, _) = call(&running, "DELETE", "/lap/health", Value::Null).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn other_harnesses_say_how_they_are_installed() {
    for (harness, hint) in [
        ("opencode", "npm install -g opencode-ai"),
        ("nonsense", "no harness named"),
    ] {
        let place = Place::new();
        let running = place
            .start("http://127.0.0.1:9", json!({"harness": harness}))
            .await;
        let probe = running.harness().probe(&running.contact, PATIENCE).await.unwrap();
        let Readiness::Failed(reason) = probe.readiness else {
            panic!("{probe:?}")
        };
        assert!(reason.contains(harness) && reason.contains(hint), "{reason}");
        let refused = running
            .harness()
            .open(&running.contact, &place.opening())
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        running.sandboxd.stop().await;
    }
}
