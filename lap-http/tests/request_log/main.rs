//! The line that every request leaves in the log. A process of its own: the cache of tracing's call sites is shared, so
//! tests that run beside it without a subscriber would take lines away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../api/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use futures_util::stream;
use http::Method;

use crate::support::{AGENTS, Api, KEY, request};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_is_one_line_without_secrets() {
    let api = Api::start().await;
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let mut asked = request(
        Method::POST,
        &format!("{AGENTS}?search=s3cret"),
        r#"{"model":"m","env_vars":{"A":"s3cret"}}"#,
    );
    asked
        .headers_mut()
        .insert("x-request-id", "line-1".parse().unwrap());
    api.call(asked).await.ok();
    let mut refused = request(Method::GET, "/s3cret?key=s3cret", "");
    refused
        .headers_mut()
        .insert("authorization", "Bearer s3cret".parse().unwrap());
    api.call(refused).await;
    // A client that leaves: the answer is never taken, and the line is written all the same.
    let leaving = request(
        Method::POST,
        AGENTS,
        Body::from_stream(stream::pending::<Result<&str, std::io::Error>>()),
    );
    tokio::time::timeout(Duration::from_millis(20), api.send(leaving))
        .await
        .unwrap_err();
    drop(guard);

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains("s3cret") && !log.contains(KEY), "{log}");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line["target"] == "lap_http::request")
        .collect();
    let statuses: Vec<_> = lines
        .iter()
        .map(|line| line["fields"]["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 404, 499], "{log}");
    let first = &lines[0]["fields"];
    assert_eq!(
        (&first["request_id"], &first["method"]),
        (&"line-1".into(), &"POST".into())
    );
    assert_eq!(
        (&first["route"], &first["principal"]),
        (&AGENTS.into(), &"ui".into())
    );
    assert_eq!(lines[1]["fields"]["route"], "unmatched");
}
