//! Everything a client can get wrong is answered with a status, a code and the field.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use lap_core::engine::EngineConfig;
use serde_json::{Value, json};

use crate::support::{AGENTS, Api, NOBODY, SESSIONS, options, request};

#[tokio::test]
async fn unknown_ids_and_texts_that_are_no_ids_are_404() {
    let api = Api::start().await;
    for id in [NOBODY, "nonsense", "..", "%20", "%ff", "0"] {
        for (method, path) in [
            (Method::GET, format!("{AGENTS}/{id}")),
            (Method::PATCH, format!("{AGENTS}/{id}")),
            (Method::DELETE, format!("{AGENTS}/{id}")),
            (Method::POST, format!("{AGENTS}/{id}/session")),
            (Method::GET, format!("{SESSIONS}/{id}")),
            (Method::DELETE, format!("{SESSIONS}/{id}")),
            (Method::POST, format!("{SESSIONS}/{id}/abort")),
            (Method::GET, format!("{SESSIONS}/{id}/messages")),
            (Method::GET, format!("{SESSIONS}/{id}/events")),
            (Method::GET, format!("{SESSIONS}/{id}/stream")),
            (Method::GET, format!("{SESSIONS}/{id}/turns")),
            (Method::GET, format!("{SESSIONS}/{id}/turns/{id}")),
            (Method::POST, format!("{SESSIONS}/{id}/turns/{id}/abort")),
        ] {
            let answer = api.call(request(method.clone(), &path, "")).await;
            assert_eq!(
                answer.problem(404, "not_found")["error"],
                answer.json()["detail"],
                "{method} {path}"
            );
        }
        for verb in ["message", "message_stream", "turns"] {
            let answer = api
                .post(&format!("{SESSIONS}/{id}/{verb}"), json!({ "text": "hello" }))
                .await;
            answer.problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn malformed_json_is_400_everywhere() {
    let api = Api::start().await;
    let session = api.session().await;
    let agent = api.agent().await;
    for (method, path) in [
        (Method::POST, AGENTS.to_owned()),
        (Method::PATCH, format!("{AGENTS}/{agent}")),
        (Method::POST, format!("{AGENTS}/{agent}/session")),
        (Method::POST, format!("{SESSIONS}/{session}/message")),
        (Method::POST, format!("{SESSIONS}/{session}/message_stream")),
        (Method::POST, format!("{SESSIONS}/{session}/turns")),
    ] {
        for text in ["{", "{\"text\":", "text=hello", "{\"model\":\"m\"} {}", "\u{1}"] {
            let answer = api.call(request(method.clone(), &path, text)).await;
            answer.problem(400, "malformed_json");
        }
        let answer = api
            .call(request(method.clone(), &path, vec![b'"', 0xff, b'"']))
            .await;
        assert_eq!(answer.status, 400);
        api.call(request(method.clone(), &path, "[]"))
            .await
            .problem(400, "invalid");
    }
}

/// Every body is refused, with its field and without its values.
async fn refused(api: &Api, method: Method, path: &str, cases: &[(Value, &str)]) {
    for (body, field) in cases {
        let answer = api.call(request(method.clone(), path, body.to_string())).await;
        assert_eq!(answer.problem(400, "invalid")["field"], *field, "{body}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("s3cret"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn wrong_fields_of_agents_are_named() {
    let api = Api::start().await;
    let cases = [
        (json!({}), "model"),
        (json!({ "model": 1 }), "model"),
        (json!({ "model": null }), "model"),
        (json!({ "model": "" }), "model"),
        (json!({ "model": "m", "tools": {} }), "tools"),
        (json!({ "model": "m", "repo_url": "not a url" }), "repo_url"),
        (
            json!({ "model": "m", "repo_url": "https://u:t0ken@github.com/a/b" }),
            "repo_url",
        ),
        (json!({ "model": "m", "mcp_servers": ["a", 1] }), "mcp_servers[1]"),
        (
            json!({ "model": "m", "projects": [{ "id": "p" }] }),
            "projects[0].name",
        ),
        (
            json!({ "model": "m", "allow_out": ["a.example", "b:443"] }),
            "allow_out[1]",
        ),
        (json!({ "model": "m", "deny_out": [""] }), "deny_out[0]"),
    ];
    refused(&api, Method::POST, AGENTS, &cases).await;
    for (body, field) in [
        (json!({ "model": "m", "skill_ids": ["x"] }), "skill_ids[0]"),
        (json!({ "model": "m", "template_id": "x" }), "template_id"),
    ] {
        let answer = api.post(AGENTS, body).await;
        assert_eq!(answer.problem(404, "not_found")["field"], field);
    }
    assert_eq!(api.get(AGENTS).await.ok()["total"], 0, "nothing was created");
}

#[tokio::test]
async fn wrong_changes_of_agents_are_named() {
    let api = Api::start().await;
    let path = format!("{AGENTS}/{}", api.agent().await);
    let cases = [
        (json!({ "model": "" }), "model"),
        (json!({ "preload_memory_limit": 51 }), "preload_memory_limit"),
        (json!({ "preload_memory_limit": -1 }), "preload_memory_limit"),
        (json!({ "name": 5 }), "name"),
        (json!({ "env_vars": { "PORT": "s3cret" } }), "env_vars.PORT"),
    ];
    refused(&api, Method::PATCH, &path, &cases).await;
    assert_eq!(api.get(&path).await.ok()["version"], 1, "nothing was changed");
}

#[tokio::test]
async fn wrong_variables_are_named_and_their_values_are_not() {
    let api = Api::start().await;
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("K{n}"), json!("v"))).collect();
    let with = |env: Value, field| (json!({ "model": "m", "env_vars": env }), field);
    let bound = |env: Value, hosts: Value, field| {
        let body =
            json!({ "model": "m", "env_vars": env, "allow_out": ["a.example"], "env_var_hosts": hosts });
        (body, field)
    };
    let cases = [
        with(json!(["s3cret"]), "env_vars"),
        with(json!("A=s3cret"), "env_vars"),
        with(json!({ "A": 1 }), "env_vars.A"),
        with(json!({ "A": ["s3cret"] }), "env_vars.A"),
        with(json!({ "1A": "s3cret" }), "env_vars.1A"),
        with(json!({ "A-B": "s3cret" }), "env_vars.A-B"),
        with(json!({ "LITELLM_API_KEY": "s3cret" }), "env_vars.LITELLM_API_KEY"),
        with(json!({ "HTTPS_PROXY": "s3cret" }), "env_vars.HTTPS_PROXY"),
        with(json!({ "LAP_X": "s3cret" }), "env_vars.LAP_X"),
        with(json!({ "A": "s3cret".repeat(4000) }), "env_vars"),
        with(many.into(), "env_vars"),
        bound(json!({}), json!({ "A": ["a.example"] }), "env_var_hosts.A"),
        bound(
            json!({ "A": "s3cret" }),
            json!({ "A": ["b.example"] }),
            "env_var_hosts.A",
        ),
        bound(
            json!({ "A": "s3cret" }),
            json!({ "A": "a.example" }),
            "env_var_hosts.A",
        ),
    ];
    refused(&api, Method::POST, AGENTS, &cases).await;
}

#[tokio::test]
async fn wrong_fields_of_sessions_are_named() {
    let api = Api::start().await;
    let path = format!("{AGENTS}/{}/session", api.agent().await);
    let image = |mime: &str, base64: &str| json!({ "mime_type": mime, "base64": base64 });
    let cases = [
        (json!({ "title": {} }), "title"),
        (json!({ "initial_prompt": 1 }), "initial_prompt"),
        (json!({ "env_vars": { "A": [] } }), "env_vars.A"),
        (
            json!({ "env_vars": { "SESSION_ID": "x" } }),
            "env_vars.SESSION_ID",
        ),
        (
            json!({ "initial_attachments": vec![image("image/png", "AAAA"); 11] }),
            "initial_attachments",
        ),
        (
            json!({ "initial_attachments": [image("image/svg+xml", "AAAA")] }),
            "initial_attachments[0].mime_type",
        ),
        (
            json!({ "initial_attachments": [image("image/png", "AA AA")] }),
            "initial_attachments[0].base64",
        ),
        (
            json!({ "initial_attachments": [{ "base64": "AAAA" }] }),
            "initial_attachments[0].mime_type",
        ),
    ];
    for (body, field) in cases {
        let answer = api.post(&path, body.clone()).await;
        assert_eq!(answer.problem(400, "invalid")["field"], field, "{body}");
    }
    api.post(&path, json!({ "skill_ids": [NOBODY] }))
        .await
        .problem(404, "not_found");
    assert_eq!(api.get(SESSIONS).await.ok(), json!([]));
}

#[tokio::test]
async fn wrong_messages_are_named() {
    let api = Api::start().await;
    let session = api.session().await;
    let large = STANDARD.encode(vec![0u8; 5 * 1024 * 1024 + 1]);
    let cases = [
        (json!({}), "text"),
        (json!({ "text": "  " }), "text"),
        (json!({ "parts": [] }), "text"),
        (json!({ "text": 1 }), "text"),
        (json!({ "parts": ["hello"] }), "parts[0]"),
        (json!({ "parts": [{ "text": "hello" }] }), "parts[0].type"),
        (json!({ "parts": [{ "type": "text" }] }), "parts[0].text"),
        (
            json!({ "parts": vec![json!({ "type": "text", "text": "x" }); 101] }),
            "parts",
        ),
        (
            json!({ "attachments": [{ "mime_type": "image/png", "base64": large }] }),
            "attachments[0].base64",
        ),
        (
            json!({ "attachments": [{ "mime_type": "image/png", "base64": "AAAA", "name": "x".repeat(256) }] }),
            "attachments[0].name",
        ),
    ];
    for (body, field) in cases {
        for verb in ["message", "message_stream", "turns"] {
            let answer = api
                .post(&format!("{SESSIONS}/{session}/{verb}"), body.clone())
                .await;
            assert_eq!(answer.problem(400, "invalid")["field"], field);
        }
    }
    let turns = api.get(&format!("{SESSIONS}/{session}/turns")).await.ok();
    assert_eq!(turns["data"], json!([]), "nothing was sent");
}

#[tokio::test]
async fn wrong_parameters_and_headers_are_named() {
    let api = Api::start().await;
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}");
    for (path, field) in [
        (format!("{path}/events?after=x"), "after"),
        (format!("{path}/turns?after=-1"), "after"),
        (format!("{SESSIONS}?before=x"), "before"),
        (format!("{SESSIONS}?agent_id=x"), "agent_id"),
    ] {
        assert_eq!(api.get(&path).await.problem(400, "invalid")["field"], field);
    }
    let wait = api
        .post(&format!("{path}/turns?wait=soon"), json!({ "text": "x" }))
        .await;
    assert_eq!(wait.problem(400, "invalid")["field"], "wait");
    let mut resume = request(Method::GET, &format!("{path}/events"), "");
    resume.headers_mut().insert("last-event-id", "x".parse().unwrap());
    assert_eq!(
        api.call(resume).await.problem(400, "invalid")["field"],
        "Last-Event-ID"
    );
    let long = api
        .post_with_key(
            &format!("{path}/message"),
            &"k".repeat(256),
            json!({ "text": "x" }),
        )
        .await;
    assert_eq!(long.problem(400, "invalid")["field"], "Idempotency-Key");
    assert_eq!(
        api.get(&format!("{path}/turns")).await.ok()["data"],
        json!([]),
        "nothing was sent"
    );
}

#[tokio::test]
async fn oversized_bodies_are_413() {
    let mut options = options();
    options.body_limit = 1000;
    options.attachments_limit = 5000;
    let api = Api::with(EngineConfig::default(), options).await;
    let agent = api.agent().await;
    let large = json!({ "model": "m", "prompt": "x".repeat(1000) }).to_string();
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>("x".repeat(600)), Ok("x".repeat(600))]);
    let announced = api.call(request(Method::POST, AGENTS, large)).await;
    let chunked = api
        .call(request(Method::POST, AGENTS, Body::from_stream(pieces)))
        .await;
    for answer in [announced, chunked] {
        answer.problem(413, "too_large");
    }
    let opened = |size: usize| {
        let path = format!("{AGENTS}/{agent}/session");
        request(
            Method::POST,
            &path,
            json!({ "initial_prompt": "x".repeat(size) }).to_string(),
        )
    };
    api.call(opened(2000)).await.ok();
    api.call(opened(5000)).await.problem(413, "too_large");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let api = Api::start().await;
    for path in [
        "/",
        "/api",
        "/api/v1/managed_agents/nothing",
        "/api/v1/managed_agents/agents/",
    ] {
        api.get(path).await.problem(404, "unknown_route");
    }
    let answer = api.call(request(Method::PUT, AGENTS, "")).await;
    answer.problem(405, "method_not_allowed");
    assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
}

#[tokio::test]
async fn unknown_fields_and_content_types_are_ignored() {
    let api = Api::start().await;
    let mut odd = request(Method::POST, AGENTS, r#"{"model":"m","colour":"red"}"#);
    odd.headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(api.call(odd).await.ok()["model"], "m");
}
