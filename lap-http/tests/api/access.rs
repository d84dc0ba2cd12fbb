//! Who gets in, and what everybody may read.

use http::{Method, Request};
use lap_core::engine::EngineConfig;
use serde_json::json;

use crate::support::{AGENTS, Api, KEY, NOBODY, SESSIONS, options, request};

#[tokio::test]
async fn only_the_master_key_opens_the_api() {
    let api = Api::start().await;
    let wrong = [
        None,
        Some("Bearer wrong".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer".to_owned()),
        Some(format!("Bearer {KEY}x")),
        Some(format!("Bearer {}", &KEY[..KEY.len() - 1])),
        Some(format!("Basic {KEY}")),
        Some(KEY.to_owned()),
        Some(format!("Bearer {}", KEY.to_uppercase())),
    ];
    for credentials in wrong {
        for (method, path) in [
            (Method::GET, AGENTS.to_owned()),
            (Method::POST, format!("{SESSIONS}/{NOBODY}/message")),
            (Method::GET, format!("{SESSIONS}/{NOBODY}/events")),
        ] {
            let mut unknown = request(method, &path, "not even JSON");
            unknown.headers_mut().remove("authorization");
            if let Some(credentials) = &credentials {
                unknown
                    .headers_mut()
                    .insert("authorization", credentials.parse().unwrap());
            }
            let answer = api.call(unknown).await;
            let body = answer.problem(401, "unauthorized");
            assert_eq!(body["error"], "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"lap\"");
        }
    }
    let mut lower = request(Method::GET, AGENTS, "");
    lower
        .headers_mut()
        .insert("authorization", format!("bearer {KEY}").parse().unwrap());
    api.call(lower).await.ok();
}

#[tokio::test]
async fn two_authorization_headers_are_none() {
    let api = Api::start().await;
    let mut both = request(Method::GET, AGENTS, "");
    both.headers_mut()
        .append("authorization", "Bearer other".parse().unwrap());
    api.call(both).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn an_empty_master_key_lets_nobody_in() {
    let mut options = options();
    options.authenticator = std::sync::Arc::new(lap_http::MasterKey::new(lap_core::secret::Secret::new("")));
    let api = Api::with(EngineConfig::default(), options).await;
    let mut empty = request(Method::GET, AGENTS, "");
    empty
        .headers_mut()
        .insert("authorization", "Bearer ".parse().unwrap());
    api.call(empty).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn configuration_health_and_description_are_public() {
    let mut options = options();
    options.base_url = "https://lap.example".to_owned();
    options.preinstalled_repo = Some("https://x:t0ken@github.com/acme/app".to_owned());
    options.build = "b1".to_owned();
    options.metrics = Some(std::sync::Arc::new(|| "up 1\n".to_owned()));
    let api = Api::with(EngineConfig::default(), options).await;
    let public = |path: &str| Request::get(path).body(axum::body::Body::empty()).unwrap();
    let config = api.call(public("/api/config")).await.ok();
    let expected = json!({ "base_url": "https://lap.example", "preinstalled_github_repo": "https://github.com/acme/app" });
    assert_eq!(config, expected);
    assert_eq!(
        api.call(public("/healthz")).await.ok(),
        json!({ "status": "ok", "build": "b1" })
    );
    assert_eq!(api.call(public("/readyz")).await.ok()["status"], "ok");
    for path in ["/metrics", "/api/v1/metrics"] {
        let metrics = api.call(public(path)).await;
        assert_eq!(
            (&metrics.body[..], metrics.header("content-type")),
            (&b"up 1\n"[..], "text/plain; version=0.0.4")
        );
    }
    assert!(api.call(public("/api/openapi.json")).await.ok()["openapi"].is_string());
}

#[tokio::test]
async fn other_hosts_are_refused_when_hosts_are_named() {
    let mut options = options();
    options.allowed_hosts = vec!["lap.example".to_owned(), "::1".to_owned()];
    let api = Api::with(EngineConfig::default(), options).await;
    for (host, status) in [
        ("lap.example", 200),
        ("LAP.example:3000", 200),
        ("[::1]:3000", 200),
        ("evil.example", 421),
        ("lap.example.evil.example", 421),
        ("", 421),
    ] {
        let mut asked = request(Method::GET, AGENTS, "");
        asked.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(api.call(asked).await.status.as_u16(), status, "{host}");
    }
    let probe = Request::get("/healthz")
        .header("host", "10.0.0.7:3000")
        .body(axum::body::Body::empty());
    api.call(probe.unwrap()).await.ok();
}
