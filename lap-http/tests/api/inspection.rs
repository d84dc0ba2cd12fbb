//! What there is to see of a session, of the installation and of the gateway.

use async_trait::async_trait;
use http::Method;
use lap_core::engine::EngineConfig;
use lap_http::ModelCatalog;
use serde_json::{Value, json};

use crate::support::{AGENTS, Api, FAIL, KEY, NOBODY, SESSIONS, options, request};

#[tokio::test]
async fn the_timeline_tells_what_happened_in_order() {
    let api = Api::start().await;
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}");
    api.post(&format!("{path}/message"), json!({ "text": "hello" }))
        .await
        .ok();
    api.post(&format!("{path}/message"), json!({ "text": FAIL }))
        .await
        .problem(502, "turn_failed");
    api.delete(&path).await.ok();
    let log = api.get(&format!("{path}/log")).await.ok();
    let told: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            "created",
            "user",
            "assistant",
            "response",
            "user",
            "response",
            "ended"
        ]
    );
    assert_eq!(log[1]["detail"], "hello");
    assert_eq!(log[2]["detail"], "PONG hello");
    assert_eq!(
        (&log[3]["status"], &log[5]["status"]),
        (&json!("completed"), &json!("failed"))
    );
    assert_eq!(log[5]["detail"], "the model refused");
    assert_eq!(log[6]["status"], "user");
    for entry in log.as_array().unwrap() {
        assert!(
            entry["id"].is_string() && entry["at"].is_string() && entry["title"].is_string(),
            "{entry}"
        );
    }
    api.get(&format!("{SESSIONS}/{NOBODY}/log"))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn logs_of_the_sandbox_are_text_and_bounded() {
    let api = Api::start().await;
    let session = api.session().await;
    for query in [
        "",
        "?tailLines=2&sinceSeconds=60",
        "?tailLines=0",
        "?tailLines=x&sinceSeconds=-1",
    ] {
        let answer = api
            .get(&format!("{SESSIONS}/{session}/sandbox_logs{query}"))
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let lines = answer.body.iter().filter(|byte| **byte == b'\n').count();
        assert!(!query.contains("=2") || lines <= 2);
    }
    api.delete(&format!("{SESSIONS}/{session}")).await.ok();
    assert_eq!(
        api.get(&format!("{SESSIONS}/{session}/sandbox_logs"))
            .await
            .status,
        200
    );
    api.get(&format!("{SESSIONS}/{NOBODY}/sandbox_logs"))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_diagnosis_shows_every_section_and_finds_what_is_wrong() {
    let api = Api::start().await;
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}/diagnose");
    let found = api.get(&path).await.ok();
    for section in [
        "session",
        "agent",
        "pod",
        "sandbox_cr",
        "service",
        "node",
        "image_cache",
        "warm_pool",
        "notes",
        "runtime",
    ] {
        assert!(!found[section].is_null(), "{section} in {found}");
    }
    assert_eq!(found["sandbox"]["state"], "claimed");
    assert_eq!(found["harness_probe"]["ok"], true);
    assert_eq!(found["pod_logs_tail"]["available"], true);
    assert_eq!(codes(&found), ["not_isolated", "egress_advisory"]);
    api.delete(&format!("{SESSIONS}/{session}")).await.ok();
    let ended = api
        .until(&path, |found| found["harness_probe"]["ok"] != true)
        .await;
    assert_eq!(ended["session"]["status"], "dead");
    assert!(
        !codes(&ended).contains(&"harness_unreachable"),
        "that is as it should be: {ended}"
    );
    api.get(&format!("{SESSIONS}/{NOBODY}/diagnose"))
        .await
        .problem(404, "not_found");
}

fn codes(found: &Value) -> Vec<&str> {
    found["detected_issues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|issue| issue["code"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_vault_tells_names_and_no_values() {
    let api = Api::start().await;
    let body = json!({ "model": "m", "env_vars": { "GITHUB_TOKEN": "ghp-s3cret-s3cret" } });
    let agent = api.post(AGENTS, body).await.ok();
    let opened = api
        .post(
            &format!("{AGENTS}/{}/session", agent["id"].as_str().unwrap()),
            json!({}),
        )
        .await
        .ok();
    let path = format!("{SESSIONS}/{}", opened["id"].as_str().unwrap());
    api.until(&path, |session| session["status"] == "ready").await;
    assert_eq!(
        api.get(&format!("{path}/vault-keys")).await.ok(),
        json!(["GITHUB_TOKEN", "LITELLM_API_KEY"])
    );
    assert_eq!(api.get(&format!("{path}/interceptions")).await.ok(), json!([]));
    for route in ["vault-keys", "interceptions"] {
        api.get(&format!("{SESSIONS}/{NOBODY}/{route}"))
            .await
            .problem(404, "not_found");
    }
    api.delete(&path).await.ok();
    assert_eq!(api.get(&format!("{path}/vault-keys")).await.ok(), json!([]));
}

#[tokio::test]
async fn reports_of_phases_are_taken_with_the_session_as_token_and_change_nothing() {
    let api = Api::start().await;
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}/phase");
    let report = |token: &str, body: &str| {
        let mut report = request(Method::POST, &path, body.to_owned());
        report
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        report
    };
    let body = r#"{"phase":"cloning_repo","detail":"x"}"#;
    assert_eq!(
        api.call(report(&session, body)).await.ok(),
        json!({ "ok": false })
    );
    api.call(report(KEY, body)).await.problem(401, "unauthorized");
    let wrong = api.call(report(&session, r#"{"phase":"ready"}"#)).await;
    assert_eq!(wrong.problem(400, "invalid")["field"], "phase");
    assert_eq!(
        api.get(&format!("{SESSIONS}/{session}")).await.ok()["status"],
        "ready"
    );
}

#[tokio::test]
async fn figures_and_health_have_their_shapes() {
    let api = Api::start().await;
    let session = api.session().await;
    let stats = api.get("/api/v1/admin/stats").await.ok();
    assert_eq!(stats["agents"], json!({ "total": 1 }));
    assert_eq!(
        stats["sessions"]["counts"],
        json!({ "creating": 0, "ready": 1, "failed": 0, "dead": 0 })
    );
    assert_eq!(stats["sessions"]["by_agent"][0]["active"], 1);
    assert_eq!(stats["warm_pool"]["counts"], json!({ "claimed": 1 }));
    for field in [
        "namespace",
        "harness_image",
        "container_port",
        "reconcile_interval_seconds",
    ] {
        assert!(stats["runtime"].get(field).is_some(), "{field}");
    }
    api.delete(&format!("{SESSIONS}/{session}")).await.ok();
    assert_eq!(
        api.get("/api/v1/admin/stats").await.ok()["sessions"]["counts"]["dead"],
        1
    );
    let health = api.get("/api/v1/health/k8s").await.ok();
    assert!(health["ok"] == true && health["elapsed_ms"].is_u64(), "{health}");
    api.engine.drain(std::time::Duration::from_secs(5)).await;
    let health = api.get("/api/v1/health/k8s").await;
    assert_eq!(
        (health.status.as_u16(), &health.json()["ok"]),
        (503, &json!(false))
    );
}

/// A gateway that tells more than it should.
#[derive(Debug)]
struct Talkative;

#[async_trait]
impl ModelCatalog for Talkative {
    async fn models(&self) -> lap_core::Result<Value> {
        Ok(json!({ "data": [{ "id": "m1", "object": "model", "api_key": "sk-s3cret" }], "key": "sk-s3cret" }))
    }

    async fn mcp_servers(&self) -> lap_core::Result<Value> {
        let server = json!({ "server_name": "linear", "url": "https://u:s3cret@x", "static_headers": { "a": "s3cret" } });
        Ok(json!([server]))
    }
}

/// A gateway that does not answer.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl ModelCatalog for Silent {
    async fn models(&self) -> lap_core::Result<Value> {
        Err(lap_core::Error::new(
            lap_core::ErrorKind::Unavailable,
            "list models",
            "the gateway does not answer",
        ))
    }

    async fn mcp_servers(&self) -> lap_core::Result<Value> {
        self.models().await
    }
}

#[tokio::test]
async fn the_gateways_lists_are_shown_without_what_is_secret() {
    let mut open = options();
    open.catalog = Some(std::sync::Arc::new(Talkative));
    let api = Api::with(EngineConfig::default(), open).await;
    let models = api.get("/api/v1/models").await.ok();
    assert_eq!(
        models,
        json!({ "object": "list", "data": [{ "id": "m1", "object": "model" }] })
    );
    assert_eq!(
        api.get("/api/v1/mcp/server").await.ok(),
        json!([{ "server_name": "linear" }])
    );
    let mut silent = options();
    silent.catalog = Some(std::sync::Arc::new(Silent));
    let api = Api::with(EngineConfig::default(), silent).await;
    api.get("/api/v1/models")
        .await
        .problem(502, "gateway_unavailable");
    let api = Api::start().await;
    api.get("/api/v1/models").await.problem(404, "not_found");
    api.get("/api/v1/key/info").await.problem(404, "unknown_route");
}
