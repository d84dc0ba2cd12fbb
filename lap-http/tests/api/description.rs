//! The description of the API and the routes that are served are the same.

use http::Method;
use serde_json::Value;

use crate::support::{Api, NOBODY, request};

/// Every route of the API. A route that is added belongs here and in `docs/compat.md` when the original has it not.
const ROUTES: &[&str] = &[
    "GET /api/config",
    "GET /api/openapi.json",
    "GET /api/v1/admin/stats",
    "GET /api/v1/health/k8s",
    "GET /api/v1/mcp/server",
    "GET /api/v1/models",
    "GET /api/v1/managed_agents/agents",
    "POST /api/v1/managed_agents/agents",
    "GET /api/v1/managed_agents/agents/{agent_id}",
    "PATCH /api/v1/managed_agents/agents/{agent_id}",
    "DELETE /api/v1/managed_agents/agents/{agent_id}",
    "POST /api/v1/managed_agents/agents/{agent_id}/session",
    "GET /api/v1/managed_agents/dockerfiles",
    "GET /api/v1/managed_agents/sessions",
    "GET /api/v1/managed_agents/sessions/{session_id}",
    "DELETE /api/v1/managed_agents/sessions/{session_id}",
    "POST /api/v1/managed_agents/sessions/{session_id}/abort",
    "POST /api/v1/managed_agents/sessions/{session_id}/answer",
    "GET /api/v1/managed_agents/sessions/{session_id}/diagnose",
    "GET /api/v1/managed_agents/sessions/{session_id}/events",
    "GET /api/v1/managed_agents/sessions/{session_id}/interceptions",
    "GET /api/v1/managed_agents/sessions/{session_id}/log",
    "POST /api/v1/managed_agents/sessions/{session_id}/message",
    "POST /api/v1/managed_agents/sessions/{session_id}/message_stream",
    "GET /api/v1/managed_agents/sessions/{session_id}/messages",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/config",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/event",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/permission",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/permission/{request}/reply",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/question",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/question/{request}/reject",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/question/{request}/reply",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/session",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/abort",
    "GET /api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/message",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/message",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/permissions/{request}",
    "POST /api/v1/managed_agents/sessions/{session_id}/opencode/session/{conversation}/prompt_async",
    "POST /api/v1/managed_agents/sessions/{session_id}/phase",
    "POST /api/v1/managed_agents/sessions/{session_id}/restart",
    "GET /api/v1/managed_agents/sessions/{session_id}/sandbox_logs",
    "GET /api/v1/managed_agents/sessions/{session_id}/stream",
    "GET /api/v1/managed_agents/sessions/{session_id}/turns",
    "POST /api/v1/managed_agents/sessions/{session_id}/turns",
    "GET /api/v1/managed_agents/sessions/{session_id}/turns/{turn_id}",
    "POST /api/v1/managed_agents/sessions/{session_id}/turns/{turn_id}/abort",
    "GET /api/v1/managed_agents/sessions/{session_id}/vault-keys",
    "GET /api/v1/metrics",
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
];

fn described(document: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let routes = paths.flat_map(|(path, item)| {
        let methods = ["get", "post", "put", "patch", "delete"].into_iter();
        methods
            .filter(|method| item.get(*method).is_some())
            .map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    routes.collect()
}

#[tokio::test]
async fn the_document_describes_every_route_and_no_other() {
    let document = Api::start().await.get("/api/openapi.json").await.ok();
    let mut described = described(&document);
    let mut expected: Vec<_> = ROUTES.iter().map(|route| (*route).to_owned()).collect();
    described.sort();
    expected.sort();
    assert_eq!(described, expected);
}

#[tokio::test]
async fn every_described_route_is_served_and_no_other_method() {
    let api = Api::start().await;
    let served = described(&api.get("/api/openapi.json").await.ok());
    for route in &served {
        let path = route.split_once(' ').unwrap().1;
        let concrete = path
            .replace("{agent_id}", NOBODY)
            .replace("{session_id}", NOBODY)
            .replace("{turn_id}", NOBODY)
            .replace("{conversation}", "ses_1")
            .replace("{request}", "per_1");
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ] {
            let answer = api.call(request(method.clone(), &concrete, "")).await;
            let expected = served.contains(&format!("{method} {path}"));
            let code = serde_json::from_slice::<Value>(&answer.body).map(|body| body["code"].clone());
            let refused = code.is_ok_and(|code| code == "unknown_route" || code == "method_not_allowed");
            assert_eq!(!refused, expected, "{method} {path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn protected_routes_say_so_and_all_name_the_problem() {
    let document = Api::start().await.get("/api/openapi.json").await.ok();
    for route in ROUTES {
        let (method, path) = route.split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        let protected =
            path.starts_with("/api/v1/") && !path.ends_with("/metrics") && !path.ends_with("/phase");
        assert_eq!(
            operation["security"][0]["master_key"].is_array(),
            protected,
            "{route}"
        );
        let problem =
            &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem", "{route}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in [
        "Agent",
        "AgentList",
        "Session",
        "Turn",
        "Problem",
        "MessageBody",
        "CreateAgentBody",
    ] {
        assert!(schemas.contains_key(name), "{name} in {:?}", schemas.keys());
    }
    references(&document, schemas);
}

/// Every reference in the document leads somewhere.
fn references(value: &Value, schemas: &serde_json::Map<String, Value>) {
    match value {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str) {
                assert!(schemas.contains_key(name.rsplit('/').next().unwrap()), "{name}");
            }
            object.values().for_each(|value| references(value, schemas));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, schemas)),
        _ => {}
    }
}

#[test]
fn the_document_exists_without_an_engine() {
    let document: Value = serde_json::from_str(&lap_http::openapi_json()).unwrap();
    assert_eq!(described(&document).len(), ROUTES.len());
}
