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

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let mut options = options();
    options.base_url = "https://lap.example/".to_owned();
    options.allowed_origins = vec!["https://console.example".to_owned()];
    let api = Api::with(EngineConfig::default(), options).await;
    for (origin, status) in [
        ("https://lap.example", 200),
        ("https://lap.example:443", 200),
        ("http://127.0.0.1:3000", 200),
        ("https://console.example", 200),
        ("http://127.0.0.1:3001", 403),
        ("https://lap.example.evil.example", 403),
        ("http://console.example", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let sent = |method: Method, body: &'static str| {
            let mut asked = request(method, AGENTS, body);
            let headers = asked.headers_mut();
            headers.insert("origin", origin.parse().unwrap());
            headers.insert("host", "127.0.0.1:3000".parse().unwrap());
            asked
        };
        let answer = api.call(sent(Method::POST, r#"{"model":"m"}"#)).await;
        assert_eq!(answer.status.as_u16(), status, "{origin}");
        if status == 403 {
            answer.problem(403, "foreign_origin");
        }
        api.call(sent(Method::GET, "")).await.ok();
    }
}

#[tokio::test]
async fn unspecified_addresses_stand_for_every_address_and_no_name() {
    let mut options = options();
    options.allowed_hosts = vec!["0.0.0.0".to_owned()];
    let api = Api::with(EngineConfig::default(), options).await;
    for (host, status) in [
        ("192.0.2.1:3000", 200),
        ("[2001:db8::1]", 200),
        ("evil.example", 421),
    ] {
        let mut asked = request(Method::GET, AGENTS, "");
        asked.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(api.call(asked).await.status.as_u16(), status, "{host}");
    }
}

#[tokio::test]
async fn peers_with_wrong_keys_wait_and_others_do_not() {
    let mut options = options();
    options.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let api = Api::with(EngineConfig::default(), options).await;
    let from = |peer: &str, forwarded: Option<&str>, key: &str| {
        let mut asked = request(Method::GET, AGENTS, "");
        let peer: std::net::SocketAddr = peer.parse().unwrap();
        asked.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        let headers = asked.headers_mut();
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        if let Some(forwarded) = forwarded {
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        }
        asked
    };
    for _ in 0..10 {
        api.call(from("192.0.2.1:1", None, "wrong"))
            .await
            .problem(401, "unauthorized");
    }
    // The right key is not looked at any more, and a made-up forwarding does not help.
    for forwarded in [None, Some("198.51.100.7")] {
        let answer = api.call(from("192.0.2.1:2", forwarded, KEY)).await;
        answer.problem(429, "too_many_attempts");
        assert!((1..=5).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
    }
    api.call(from("192.0.2.2:1", None, KEY)).await.ok();
    for _ in 0..11 {
        api.call(from("10.0.0.1:1", Some("198.51.100.7"), "wrong")).await;
    }
    api.call(from("10.0.0.1:1", Some("198.51.100.7"), KEY))
        .await
        .problem(429, "too_many_attempts");
    api.call(from("10.0.0.1:1", Some("198.51.100.8"), KEY)).await.ok();
    // Agents share this machine's address with whoever runs the server: they are slowed down and lock nobody out.
    for _ in 0..11 {
        api.call(from("127.0.0.1:1", None, "wrong")).await;
    }
    api.call(from("127.0.0.1:1", None, "wrong"))
        .await
        .problem(429, "too_many_attempts");
    api.call(from("127.0.0.1:2", None, KEY)).await.ok();
}
