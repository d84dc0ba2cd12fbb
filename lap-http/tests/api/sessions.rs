//! Sessions through the API.

use serde_json::{Value, json};

use crate::support::{AGENTS, Api, SESSIONS};

/// Every field of the original's `ApiSession`.
const FIELDS: [&str; 19] = [
    "id",
    "agent_id",
    "sandbox_url",
    "harness_session_id",
    "tty_url",
    "tty_token",
    "supports_tui",
    "status",
    "task_arn",
    "response",
    "created_at",
    "last_seen_at",
    "idle_timeout_ms",
    "failure_reason",
    "phase",
    "phase_detail",
    "origin",
    "title_preview",
    "sandboxes",
];

#[tokio::test]
async fn a_session_is_opened_shown_and_closed() {
    let api = Api::start().await;
    let agent = api.agent().await;
    let body =
        json!({ "title": "Fix it", "initial_prompt": "say  hello\nplease", "env_vars": { "A": "s3cret" } });
    let opened = api.post(&format!("{AGENTS}/{agent}/session"), body).await.ok();
    for field in FIELDS {
        assert!(opened.get(field).is_some(), "{field}");
    }
    assert_eq!(
        (&opened["status"], &opened["agent_id"]),
        (&json!("creating"), &json!(agent))
    );
    assert_eq!(
        (&opened["title"], &opened["title_preview"]),
        (&json!("Fix it"), &json!("say hello please"))
    );
    assert_eq!(opened["idle_timeout_ms"], 900_000);
    let created = opened["created_at"].as_str().unwrap();
    assert!(
        created.ends_with('Z') && created.len() == "2026-11-25T15:02:51.000Z".len(),
        "{created}"
    );

    let path = format!("{SESSIONS}/{}", opened["id"].as_str().unwrap());
    let ready = api.until(&path, |session| !session["response"].is_null()).await;
    assert_eq!(
        (&ready["status"], &ready["phase"]),
        (&json!("ready"), &json!("ready"))
    );
    assert!(ready["sandbox_url"].as_str().unwrap().starts_with("http://"));
    assert!(ready["response"]["parts"].is_array(), "{ready}");
    assert!(!ready.to_string().contains("s3cret"));

    let id = &opened["id"];
    assert_eq!(
        api.delete(&path).await.ok(),
        json!({ "id": id, "status": "deleted" })
    );
    assert_eq!(
        api.delete(&path).await.ok(),
        json!({ "id": id, "status": "dead" })
    );
    let dead = api.get(&path).await.ok();
    assert_eq!(
        (&dead["status"], &dead["ended_by"], &dead["sandbox_url"]),
        (&json!("dead"), &json!("user"), &Value::Null)
    );
    for verb in ["message", "message_stream", "turns"] {
        api.post(&format!("{path}/{verb}"), json!({ "text": "hello" }))
            .await
            .problem(410, "gone");
    }
    assert!(
        !api.get(&format!("{path}/messages"))
            .await
            .ok()
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_body_may_be_empty_and_the_same_key_opens_one_session() {
    let api = Api::start().await;
    let path = format!("{AGENTS}/{}/session", api.agent().await);
    let empty = api
        .call(crate::support::request(http::Method::POST, &path, ""))
        .await
        .ok();
    assert_eq!(empty["title_preview"], Value::Null);
    let first = api.post_with_key(&path, "k", json!({ "title": "a" })).await.ok();
    let again = api.post_with_key(&path, "k", json!({ "title": "a" })).await.ok();
    assert_eq!(first["id"], again["id"]);
    api.post_with_key(&path, "k", json!({ "title": "b" }))
        .await
        .problem(422, "key_reused");
    assert_eq!(api.get(SESSIONS).await.ok().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn lists_are_arrays_newest_first_with_a_cursor() {
    let api = Api::start().await;
    let (one, two) = (api.agent().await, api.agent().await);
    let mut opened = Vec::new();
    for agent in [&one, &two, &one] {
        let session = api
            .post(&format!("{AGENTS}/{agent}/session"), json!({}))
            .await
            .ok();
        opened.push(session["id"].as_str().unwrap().to_owned());
        // Ids are ordered by the millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    opened.reverse();
    let ids = |list: Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|session| session["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(api.get(SESSIONS).await.ok()), opened);
    assert_eq!(
        ids(api.get(&format!("{SESSIONS}?agent_id={two}&limit=x")).await.ok()),
        opened[1..2]
    );
    let first = api.get(&format!("{SESSIONS}?limit=2")).await;
    assert_eq!(ids(first.ok()), opened[..2]);
    let next = first.header("x-next-before").to_owned();
    assert_eq!(next, opened[1]);
    let second = api.get(&format!("{SESSIONS}?limit=2&before={next}")).await;
    assert_eq!(ids(second.ok()), opened[2..]);
    assert_eq!(second.header("x-next-before"), "");
}
