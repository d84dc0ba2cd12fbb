//! How long people wait: sessions from cold, first text, and what the platform adds to a message.
//!
//! `cargo xtask bench`, or `cargo build --release -p lap-server && cargo bench -p lap-benches --bench platform`.
//! With `--test` (as `cargo test --benches` runs it) every figure is taken once, to see that it can be.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends, and it prints"
)]

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lap_benches::{Figure, Platform};
use lap_core::harness::{Contact, Delivery, Sent};
use lap_core::id::{SystemEntropy, TurnId};
use lap_core::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let (sessions, messages) = if smoke { (1, 2) } else { (50, 500) };
    let platform = Platform::start().await;
    let agent = json!({ "model": "bench/model", "harness_id": "builtin" });
    let agent = platform.client.call("POST", "/agents", &agent).await;
    let path = format!("/agents/{}/session", agent["id"].as_str().unwrap());
    println!("| figure | n | p50 ms | p95 ms |\n|---|---|---|---|");
    cold(&platform, &path, sessions).await;
    message_overhead(&platform, &path, messages).await;
    platform.engine.drain(Duration::from_secs(5)).await;
}

async fn cold(platform: &Platform, path: &str, rounds: usize) {
    let (mut answered, mut ready, mut text) = (Figure::default(), Figure::default(), Figure::default());
    for _ in 0..rounds {
        let start = Instant::now();
        let session = platform.client.call("POST", path, &Value::Null).await;
        answered.add(start.elapsed());
        platform.client.wait_for(id(&session), "session.ready").await;
        ready.add(start.elapsed());
        close(platform, &session).await;

        let start = Instant::now();
        let session = platform
            .client
            .call("POST", path, &json!({ "initial_prompt": "ping" }))
            .await;
        platform.client.wait_for(id(&session), "message.part.delta").await;
        text.add(start.elapsed());
        close(platform, &session).await;
    }
    answered.print("POST session, answered");
    ready.print("POST session to ready, cold");
    text.print("POST session with prompt to first text, cold");
}

/// Two sandboxes of the same kind, one asked through the platform and one directly, in turns.
async fn message_overhead(platform: &Platform, path: &str, rounds: usize) {
    let (ours, plain) = (open_ready(platform, path).await, open_ready(platform, path).await);
    let found = platform
        .engine
        .session(id(&plain).parse().unwrap())
        .await
        .unwrap();
    let (sandbox, address) = (found.sandbox.unwrap(), found.address.unwrap());
    let (mut through, mut direct) = (Figure::default(), Figure::default());
    for _ in 0..rounds {
        let start = Instant::now();
        let message = format!("/sessions/{}/message", id(&ours));
        platform
            .client
            .call("POST", &message, &json!({ "text": "ping" }))
            .await;
        through.add(start.elapsed());

        let start = Instant::now();
        ask(platform, &platform.contact(sandbox, &address)).await;
        direct.add(start.elapsed());
    }
    floor(rounds).print("floor: two commits of 4 KiB, flushed to the same disk");
    direct.print("message, sandboxd asked directly");
    through.print("message, through the platform");
    let added = through.quantile(0.5).saturating_sub(direct.quantile(0.5));
    println!(
        "| added by the platform at p50 | | {:.2} | |",
        added.as_secs_f64() * 1000.0
    );
    close(platform, &ours).await;
    close(platform, &plain).await;
}

/// A message is two commits in SQLite. This is what two flushes cost by themselves.
fn floor(rounds: usize) -> Figure {
    let mut file = tempfile::tempfile().unwrap();
    let mut times = Figure::default();
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..2 {
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
        }
        times.add(start.elapsed());
    }
    times
}

async fn open_ready(platform: &Platform, path: &str) -> Value {
    let session = platform.client.call("POST", path, &Value::Null).await;
    platform.client.wait_for(id(&session), "session.ready").await;
    session
}

/// One turn without the platform, until its end.
async fn ask(platform: &Platform, contact: &Contact) {
    let delivery = Delivery {
        turn: TurnId::fresh(&SystemEntropy::new(), SystemClock.now()),
        fence: 1 << 20,
        parts: vec![json!({ "type": "text", "text": "ping" })],
        model: None,
        deadline: Duration::from_secs(60),
    };
    let harness = &platform.engine.backends().harness;
    let Sent::Started(mut events) = harness.send(contact, &delivery).await.unwrap() else {
        panic!("the sandbox did not take the turn");
    };
    while events
        .next()
        .await
        .is_some_and(|event| event.unwrap().outcome.is_none())
    {}
}

async fn close(platform: &Platform, session: &Value) {
    platform
        .client
        .call("DELETE", &format!("/sessions/{}", id(session)), &Value::Null)
        .await;
}

fn id(session: &Value) -> &str {
    session["id"].as_str().unwrap()
}
