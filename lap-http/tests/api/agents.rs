//! Agents through the API.

use lap_core::engine::EngineConfig;
use serde_json::{Value, json};

use crate::support::{AGENTS, Api, SESSIONS, options};

/// Every field of the original's `ApiAgent`.
const FIELDS: [&str; 26] = [
    "id",
    "name",
    "model",
    "prompt",
    "harness_id",
    "supports_tui",
    "repo_url",
    "branch",
    "pfp_url",
    "mcp_servers",
    "env_vars",
    "env_var_hosts",
    "attached_skill_ids",
    "allow_out",
    "deny_out",
    "projects",
    "preload_memory_limit",
    "template_id",
    "template_version",
    "template_latest_version",
    "template_in_sync",
    "template_prompt",
    "template_latest_prompt",
    "created_at",
    "harness_image",
    "version",
];

#[tokio::test]
async fn an_agent_is_created_shown_changed_and_deleted() {
    let api = Api::start().await;
    let body = json!({
        "name": "Reviewer", "model": "anthropic/claude", "prompt": "Be kind.", "branch": "dev",
        "repo_url": "https://github.com/acme/app", "mcp_servers": ["linear"], "tools": [{ "any": "thing" }],
        "env_vars": { "API_KEY": "s3cret-s3cret-s3cret" }, "allow_out": ["*.example.com"],
        "env_var_hosts": { "API_KEY": ["api.example.com"] },
        "projects": [{ "id": "p", "name": "P" }],
    });
    let agent = api.post(AGENTS, body).await.ok();
    for field in FIELDS {
        assert!(agent.get(field).is_some(), "{field}");
    }
    assert_eq!(agent["harness_id"], "opencode");
    assert_eq!(agent["repo_url"], "https://github.com/acme/app");
    assert_eq!(agent["env_var_hosts"], json!({ "API_KEY": ["api.example.com"] }));
    assert_eq!(agent["projects"][0]["branch"], "main");
    assert_eq!(agent["preload_memory_limit"], 10);
    let mask = agent["env_vars"]["API_KEY"].clone();
    assert!(mask.as_str().unwrap().starts_with("********"), "{mask}");

    let path = format!("{AGENTS}/{}", agent["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.ok(), agent);
    let change =
        json!({ "name": null, "prompt": "Be strict.", "env_vars": { "API_KEY": mask, "OTHER": "v" } });
    let changed = api.patch(&path, change).await.ok();
    assert_eq!(
        (&changed["name"], &changed["prompt"]),
        (&Value::Null, &json!("Be strict."))
    );
    assert_eq!(
        (&changed["model"], &changed["version"]),
        (&agent["model"], &json!(2))
    );
    assert_eq!(
        changed["env_vars"]["API_KEY"], mask,
        "writing the mask back changes nothing"
    );
    assert_eq!(changed["env_vars"]["OTHER"], "********");
    assert!(!changed.to_string().contains("s3cret-s3"));
    assert_eq!(api.patch(&path, json!({})).await.ok()["prompt"], "Be strict.");

    assert_eq!(api.delete(&path).await.status, 204);
    api.get(&path).await.problem(404, "not_found");
    api.delete(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_same_key_creates_one_agent() {
    let api = Api::start().await;
    let body = json!({ "model": "m", "env_vars": { "A": "v" } });
    let first = api.post_with_key(AGENTS, "k1", body.clone()).await.ok();
    let again = api.post_with_key(AGENTS, "k1", body).await.ok();
    assert_eq!(first, again);
    let other = api
        .post_with_key(AGENTS, "k1", json!({ "model": "m", "env_vars": { "A": "w" } }))
        .await;
    other.problem(422, "key_reused");
    assert_eq!(api.get(AGENTS).await.ok()["total"], 1);
}

#[tokio::test]
async fn lists_are_paged_sorted_and_searched_and_forgive_bad_parameters() {
    let api = Api::with(EngineConfig::default(), options()).await;
    for name in ["b", "a", "c"] {
        api.post(AGENTS, json!({ "model": "m", "name": name })).await.ok();
    }
    let names = async |query: &str| {
        let list = api.get(&format!("{AGENTS}{query}")).await.ok();
        let names = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|agent| agent["name"].as_str().unwrap().to_owned());
        (
            names.collect::<String>(),
            list["total"].clone(),
            list["limit"].clone(),
            list["offset"].clone(),
        )
    };
    assert_eq!(
        names("?sort=name&order=asc").await,
        ("abc".to_owned(), json!(3), json!(50), json!(0))
    );
    let page = names("?sort=name&order=desc&limit=1&offset=1").await;
    assert_eq!(page, ("b".to_owned(), json!(3), json!(1), json!(1)));
    assert_eq!(names("?search=C&sort=name").await.1, json!(3), "opencode has a c");
    let forgiven = names("?limit=9999&offset=-1&sort=shoe&order=up").await;
    assert_eq!(
        (forgiven.1, forgiven.2, forgiven.3),
        (json!(3), json!(50), json!(0))
    );

    let list = api.get(AGENTS).await.ok();
    assert_eq!(list["data"][0]["session_count"], 0);
    assert_eq!(list["data"][0]["has_active_session"], false);
}

#[tokio::test]
async fn deleting_an_agent_ends_its_sessions() {
    let api = Api::start().await;
    let session = api.session().await;
    let shown = api.get(&format!("{SESSIONS}/{session}")).await.ok();
    let agent = shown["agent_id"].as_str().unwrap();
    assert_eq!(api.get(AGENTS).await.ok()["data"][0]["has_active_session"], true);
    assert_eq!(api.delete(&format!("{AGENTS}/{agent}")).await.status, 204);
    let ended = api.get(&format!("{SESSIONS}/{session}")).await.ok();
    assert_eq!(
        (&ended["status"], &ended["ended_by"]),
        (&json!("dead"), &json!("agent_deleted"))
    );
    api.post(&format!("{AGENTS}/{agent}/session"), json!({}))
        .await
        .problem(404, "not_found");
}
