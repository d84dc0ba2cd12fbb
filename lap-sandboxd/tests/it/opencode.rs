//! Plain opencode clients.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::model::{Line, Model, say};
use crate::support::{PATIENCE, Place, Running, call};

/// A client that knows nothing of the platform binds the sandbox; returns the id of its session.
async fn session(running: &Running<'_>) -> String {
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    let (status, session) = call(running, "POST", "/session", json!({"title": "t"})).await;
    assert_eq!(status, StatusCode::OK, "{session}");
    session["id"].as_str().unwrap().to_owned()
}

fn message() -> Value {
    json!({"parts": [{"type": "text", "text": "ping"}]})
}

#[tokio::test]
async fn a_message_is_answered_with_the_reply() {
    let model = Model::start([say("PONG"), Line::Refuse(400, "no".to_owned())]).await;
    let place = Place::new();
    let launch = json!({"env": {"LITELLM_DEFAULT_MODEL": "default-model"}});
    let running = place.start(&model.base, launch).await;
    let id = session(&running).await;
    let path = format!("/session/{id}/message");
    let (status, reply) = call(&running, "POST", &path, message()).await;
    assert_eq!(
        (status, &reply["info"]["role"]),
        (StatusCode::OK, &json!("assistant")),
        "{reply}"
    );
    assert!(
        reply["parts"]
            .as_array()
            .unwrap()
            .iter()
            .any(|part| part["text"] == "PONG")
    );
    assert_eq!(model.requests()[0].1["model"], "default-model");
    // As opencode does: a model's error is a reply with an error inside.
    let (status, failed) = call(&running, "POST", &path, message()).await;
    assert_eq!(
        (status, &failed["info"]["error"]["name"]),
        (StatusCode::OK, &json!("APIError"))
    );
    assert_eq!(failed["info"]["error"]["data"]["statusCode"], 400);
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_prompt_runs_on_its_own_and_its_messages_can_be_read() {
    let model = Model::start([say("async")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await;
    let id = session(&running).await;
    let named = json!({"parts": message()["parts"], "model": {"providerID": "litellm", "modelID": "a/b"}});
    let (status, _) = call(&running, "POST", &format!("/session/{id}/prompt_async"), named).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_, messages) = call(&running, "GET", &format!("/session/{id}/message"), Value::Null).await;
        if messages[1]["info"]["time"]["completed"].is_i64() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{messages}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(model.requests()[0].1["model"], "a/b");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn there_is_one_session() {
    let place = Place::new();
    let running = place.start("http://127.0.0.1:9", json!({})).await;
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    assert_eq!(call(&running, "GET", "/session", Value::Null).await.1, json!([]));
    let id = session(&running).await;
    assert!(id.starts_with("ses_"));
    assert_eq!(call(&running, "POST", "/session", json!({})).await.1["id"], id);
    assert_eq!(
        call(&running, "GET", "/session", Value::Null).await.1[0]["title"],
        "t"
    );
    let foreign = json!({"platform_session_id": place.session.to_string()});
    assert_eq!(
        call(&running, "POST", "/session", foreign).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        call(&running, "POST", "/session/other/message", message())
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        call(&running, "POST", &format!("/session/{id}/abort"), json!({}))
            .await
            .1,
        json!(true)
    );
    assert_eq!(
        call(&running, "DELETE", &format!("/session/{id}"), Value::Null)
            .await
            .0,
        StatusCode::OK
    );
    running.sandboxd.stop().await;
}
