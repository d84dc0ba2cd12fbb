//! What surrounds every request: ids, headers, time, panics, the log and the metrics.

use std::time::Duration;

use axum::body::Body;
use futures_util::{StreamExt, stream};
use http::request::Parts;
use http::{Method, Request};
use lap_core::caller::Caller;
use lap_core::engine::EngineConfig;
use lap_http::{Authenticator, HttpOptions, Refusal, RequestId};

use crate::support::{AGENTS, Api, KEY, NOBODY, SESSIONS, options, request};

#[tokio::test]
async fn a_harmless_request_id_is_kept_and_others_are_replaced() {
    let api = Api::start().await;
    for (given, kept) in [
        ("abc-1.2_3:4", true),
        ("", false),
        ("a b", false),
        ("<script>", false),
        (&"x".repeat(129), false),
    ] {
        let mut asked = request(Method::GET, AGENTS, "");
        asked.headers_mut().insert("x-request-id", given.parse().unwrap());
        let answer = api.call(asked).await;
        let id = answer.header("x-request-id");
        assert_eq!(id == given, kept, "{given}: {id}");
        assert!(!id.is_empty());
    }
    let (one, two) = (api.get(AGENTS).await, api.get(AGENTS).await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test]
async fn answers_are_not_stored_and_not_sniffed() {
    let api = Api::start().await;
    for path in [AGENTS, "/healthz", "/nothing"] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

/// A host's authentication, with whatever can go wrong in it.
#[derive(Debug)]
struct Moody;

#[async_trait::async_trait]
impl Authenticator for Moody {
    async fn authenticate(&self, request: &Parts) -> Result<Caller, Refusal> {
        assert!(
            request
                .extensions
                .get::<RequestId>()
                .is_some_and(|id| !id.as_str().is_empty())
        );
        match request.headers.get("x-mood").map(|mood| mood.to_str().unwrap()) {
            Some("panic") => panic!("s3cret: {KEY}"),
            Some("forbidden") => Err(Refusal::Forbidden),
            Some("too many") => Err(Refusal::TooMany(Duration::from_millis(1500))),
            Some("unavailable") => Err(Refusal::Unavailable),
            _ => Ok(Caller::new("ada")),
        }
    }
}

#[tokio::test]
async fn a_host_decides_who_gets_in_and_its_panics_end_here() {
    let api = Api::with(EngineConfig::default(), HttpOptions::new(Moody)).await;
    for (mood, status, code, retry) in [
        ("panic", 500, "internal", ""),
        ("forbidden", 403, "forbidden", ""),
        ("too many", 429, "too_many_attempts", "2"),
        ("unavailable", 503, "unavailable", "1"),
    ] {
        let asked = Request::get(AGENTS)
            .header("x-mood", mood)
            .body(Body::empty())
            .unwrap();
        let answer = api.call(asked).await;
        let body = answer.problem(status, code);
        assert!(!body.to_string().contains("s3cret"));
        assert_eq!(answer.header("retry-after"), retry);
        assert_eq!(status == 500, body["error"] == "internal error");
    }
    let created = Request::post(AGENTS)
        .body(Body::from(r#"{"model":"m"}"#))
        .unwrap();
    assert_eq!(api.call(created).await.ok()["created_by"], "ada");
}

#[tokio::test]
async fn slow_clients_and_slow_requests_end() {
    let mut options = options();
    options.request_timeout = Duration::from_millis(50);
    options.body_timeout = Duration::from_millis(50);
    let api = Api::with(EngineConfig::default(), options).await;
    let endless = || Body::from_stream(stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending()));
    let message = request(Method::POST, &format!("{SESSIONS}/{NOBODY}/message"), endless());
    api.call(message).await.problem(408, "slow_body");
    let mut pausing = crate::support::options();
    pausing.body_pause = Duration::from_millis(50);
    let api = Api::with(EngineConfig::default(), pausing).await;
    api.call(request(Method::POST, AGENTS, endless()))
        .await
        .problem(408, "slow_body");
    let mut patient = crate::support::options();
    patient.request_timeout = Duration::from_millis(50);
    let api = Api::with(EngineConfig::default(), patient).await;
    api.call(request(Method::POST, AGENTS, endless()))
        .await
        .problem(504, "timed_out");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let api = Api::start().await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let guard = metrics::set_default_local_recorder(&recorder);
    api.get(&format!("{AGENTS}/{NOBODY}")).await;
    api.get(&format!("{AGENTS}/other")).await;
    let odd = request(Method::from_bytes(b"INVENTED").unwrap(), "/invented", "");
    api.call(odd).await;
    drop(guard);
    let text = handle.render();
    let route = "/api/v1/managed_agents/agents/{agent_id}";
    let counted = format!("lap_http_requests_total{{method=\"GET\",route=\"{route}\",status=\"404\"}} 2");
    assert!(text.contains(&counted), "{text}");
    assert!(
        text.contains("method=\"other\",route=\"unmatched\",status=\"404\""),
        "{text}"
    );
    assert!(text.contains("lap_http_request_duration_seconds"), "{text}");
}
