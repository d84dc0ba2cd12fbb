//! Messages and turns through the API.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Api, FAIL, FAILURE, HANG, SESSIONS, SLOW, request};

fn text(message: &Value) -> String {
    let parts = message["parts"].as_array().unwrap().iter();
    parts.filter_map(|part| part["text"].as_str()).collect()
}

#[tokio::test]
async fn a_message_is_answered_with_the_harness_reply_as_it_is() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let reply = api
        .post(&format!("{path}/message"), json!({ "text": "hello" }))
        .await
        .ok();
    assert_eq!(reply["info"]["role"], "assistant", "{reply}");
    assert!(!text(&reply).is_empty(), "{reply}");
    let turns = api.get(&format!("{path}/turns")).await.ok();
    let turn = &turns["data"][0];
    assert_eq!(
        (&turn["status"], &turn["number"], &turn["reply"]),
        (&json!("completed"), &json!(1), &reply)
    );
    assert_eq!(turn["parts"], json!([{ "type": "text", "text": "hello" }]));
    assert_eq!(
        (&turn["created_by"], &turn["failure_reason"]),
        (&json!("ui"), &Value::Null)
    );
    assert!(turn["finished_at"].as_str() >= turn["created_at"].as_str());
    let id = turn["id"].as_str().unwrap();
    assert_eq!(&api.get(&format!("{path}/turns/{id}")).await.ok(), turn);
    let messages = api.get(&format!("{path}/messages")).await.ok();
    let roles: Vec<_> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["info"]["role"])
        .collect();
    assert_eq!(roles, ["user", "assistant"]);
}

#[tokio::test]
async fn the_same_key_gives_the_same_reply_and_sends_nothing_twice() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let message = format!("{path}/message");
    let first = api
        .post_with_key(&message, "k1", json!({ "text": "hello" }))
        .await
        .ok();
    assert_eq!(
        api.post_with_key(&message, "k1", json!({ "text": "hello" }))
            .await
            .ok(),
        first
    );
    api.post_with_key(&message, "k1", json!({ "text": "other" }))
        .await
        .problem(422, "key_reused");
    let streamed = json!({ "text": "hello" }).to_string();
    let mut again = request(Method::POST, &format!("{path}/message_stream"), streamed);
    again
        .headers_mut()
        .insert("idempotency-key", "k1".parse().unwrap());
    let frames = api.stream(again).await.rest().await;
    let kinds: Vec<_> = frames.iter().map(crate::support::Frame::kind).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("ready", "done"));
    assert!(format!("{frames:?}").contains(&text(&first)));
    assert_eq!(
        api.get(&format!("{path}/turns")).await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_client_that_leaves_changes_nothing() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let message = format!("{path}/message");
    let mut leaving = request(Method::POST, &message, json!({ "text": SLOW }).to_string());
    leaving
        .headers_mut()
        .insert("idempotency-key", "k1".parse().unwrap());
    let sending = api.send(leaving);
    let turns = format!("{path}/turns");
    let accepted = api.until(&turns, |turns| turns["data"][0].is_object());
    tokio::select! {
        _ = sending => panic!("a slow turn ended before it was seen"),
        _ = accepted => {}
    }
    let reply = api
        .post_with_key(&message, "k1", json!({ "text": SLOW }))
        .await
        .ok();
    let turns = api.get(&turns).await.ok();
    assert_eq!(turns["data"].as_array().unwrap().len(), 1);
    assert_eq!(turns["data"][0]["reply"], reply);
}

#[tokio::test]
async fn a_failed_turn_carries_the_reason_and_the_session_stays_usable() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let failed = api
        .post(&format!("{path}/message"), json!({ "text": FAIL }))
        .await;
    let body = failed.problem(502, "turn_failed");
    assert!(body["error"].as_str().unwrap().contains(FAILURE), "{body}");
    let turn = api
        .get(&format!("{path}/turns/{}", body["turn_id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(
        (&turn["status"], &turn["failure_reason"]),
        (&json!("failed"), &body["detail"])
    );
    let streamed = json!({ "text": FAIL }).to_string();
    let frames = api
        .stream(request(Method::POST, &format!("{path}/message_stream"), streamed))
        .await
        .rest()
        .await;
    let last = frames.last().unwrap().data.clone().unwrap();
    assert_eq!(
        (&last["type"], &last["code"]),
        (&json!("error"), &json!("turn_failed"))
    );
    assert!(last["message"].as_str().unwrap().contains(FAILURE), "{last}");
    api.post(&format!("{path}/message"), json!({ "text": "hello" }))
        .await
        .ok();
}

#[tokio::test]
async fn an_aborted_turn_is_409_and_the_rest_goes_with_it() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let (message, turns) = (format!("{path}/message"), format!("{path}/turns"));
    let waiting = api.post(&message, json!({ "text": HANG }));
    let aborting = async {
        api.until(&turns, |turns| turns["data"][0]["status"] == "running")
            .await;
        let queued = api.post(&turns, json!({ "text": "hello" })).await;
        assert_eq!(
            (queued.status.as_u16(), &queued.json()["status"]),
            (202, &json!("queued"))
        );
        let id = queued.json()["id"].clone();
        assert_eq!(
            queued.header("location"),
            format!("turns/{}", id.as_str().unwrap())
        );
        let done = api.post(&format!("{path}/abort"), json!({})).await.ok();
        assert_eq!((&done["ok"], &done["aborted"]), (&json!(true), &json!([id])));
        assert!(done["stopping"].is_string());
    };
    let (answer, ()) = tokio::join!(waiting, aborting);
    let body = answer.problem(409, "turn_aborted");
    assert!(body["turn_id"].is_string());
    let idle = api.post(&format!("{path}/abort"), json!({})).await.ok();
    assert_eq!(idle, json!({ "ok": true, "aborted": [], "stopping": null }));
}

#[tokio::test]
async fn one_turn_is_aborted_by_its_id() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let turns = format!("{path}/turns");
    let turn = api.post(&turns, json!({ "text": HANG })).await.json();
    let turn = format!("{turns}/{}", turn["id"].as_str().unwrap());
    api.until(&turn, |turn| turn["status"] == "running").await;
    assert_eq!(
        api.post(&format!("{turn}/abort"), json!({})).await.ok()["ok"],
        true
    );
    api.until(&turn, |turn| turn["status"] == "aborted").await;
    let other = api.session().await;
    let foreign = turn.replace(&path, &format!("{SESSIONS}/{other}"));
    api.get(&foreign).await.problem(404, "not_found");
    api.post(&format!("{foreign}/abort"), json!({}))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn turns_wait_when_asked_and_queue_up_to_a_limit() {
    let config = lap_core::engine::EngineConfig::default();
    let limit = config.queue_limit;
    let api = Api::with(config, crate::support::options()).await;
    let turns = format!("{SESSIONS}/{}/turns", api.session().await);
    let over = api
        .post(&format!("{turns}?wait=30"), json!({ "text": "hello" }))
        .await;
    assert_eq!(
        (over.status.as_u16(), &over.json()["status"]),
        (200, &json!("completed"))
    );
    let hanging = api
        .post(&format!("{turns}?wait=0"), json!({ "text": HANG }))
        .await;
    assert_eq!(hanging.status, 202);
    for _ in 0..limit {
        assert_eq!(api.post(&turns, json!({ "text": "hello" })).await.status, 202);
    }
    let full = api.post(&turns, json!({ "text": "hello" })).await;
    full.problem(429, "busy");
    assert_eq!(full.header("retry-after"), "1");
    let page = api.get(&format!("{turns}?limit=2")).await.ok();
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["next_after"]),
        (2, &json!(2))
    );
    let rest = api.get(&format!("{turns}?after=2&limit=200")).await.ok();
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["next_after"]),
        (limit as usize, &Value::Null)
    );
    assert_eq!(rest["data"][0]["number"], 3);
}

#[tokio::test]
async fn attachments_become_file_parts() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let body = json!({
        "text": "hello", "parts": [{ "type": "text", "text": "not this" }],
        "attachments": [{ "name": "a.png", "mime_type": "image/png", "base64": "AAAA" }],
    });
    api.post(&format!("{path}/message"), body).await.ok();
    let parts = json!([
        { "type": "text", "text": "hello" },
        { "type": "file", "mime": "image/png", "url": "data:image/png;base64,AAAA", "filename": "a.png" },
    ]);
    assert_eq!(
        api.get(&format!("{path}/turns")).await.ok()["data"][0]["parts"],
        parts
    );
}

#[tokio::test]
async fn a_wait_that_is_over_says_that_the_turn_is_not() {
    let mut options = crate::support::options();
    options.turn_wait = std::time::Duration::from_millis(20);
    let api = Api::with(lap_core::engine::EngineConfig::default(), options).await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let answer = api
        .post(&format!("{path}/message"), json!({ "text": HANG }))
        .await;
    let body = answer.problem(504, "turn_not_over");
    let turn = api
        .get(&format!("{path}/turns/{}", body["turn_id"].as_str().unwrap()))
        .await
        .ok();
    assert!(turn["finished_at"].is_null());
}

#[tokio::test]
async fn a_shutdown_tells_waiting_clients_to_come_back() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let (message, turns) = (format!("{path}/message"), format!("{path}/turns"));
    let waiting = api.post_with_key(&message, "k1", json!({ "text": HANG }));
    let draining = async {
        api.until(&turns, |turns| turns["data"][0]["status"] == "running")
            .await;
        api.engine.drain(std::time::Duration::from_millis(100)).await;
    };
    let (answer, ()) = tokio::join!(waiting, draining);
    assert!(answer.problem(503, "unavailable")["turn_id"].is_string());
    assert_eq!(answer.header("retry-after"), "1");
}
