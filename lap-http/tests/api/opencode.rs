//! The opencode dialect: what is on the list goes through the engine, the rest is refused.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Api, FAIL, FAILURE, Frames, HANG, NOBODY, SESSIONS, request};

async fn conversation(api: &Api) -> (String, String) {
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}/opencode");
    let sessions = api.get(&format!("{path}/session")).await.ok();
    let id = sessions[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.get(&format!("{path}/session/{id}")).await.ok(), sessions[0]);
    (session, format!("{path}/session/{id}"))
}

fn prompt(text: &str) -> Value {
    json!({ "parts": [{ "type": "text", "text": text }], "model": { "providerID": "litellm", "modelID": "x/y" } })
}

#[tokio::test]
async fn prompts_become_turns() {
    let api = Api::start().await;
    let (session, path) = conversation(&api).await;
    let reply = api.post(&format!("{path}/message"), prompt("hello")).await.ok();
    assert_eq!(reply["info"]["role"], "assistant");
    assert_eq!(reply["info"]["modelID"], "x/y");
    assert_eq!(reply["parts"][0]["text"], "PONG hello");
    let sent = api.post(&format!("{path}/prompt_async"), prompt("again")).await;
    assert_eq!((sent.status.as_u16(), sent.body.len()), (204, 0));
    let turns = format!("{SESSIONS}/{session}/turns");
    let turns = api
        .until(&turns, |turns| turns["data"][1]["status"] == "completed")
        .await;
    assert_eq!(turns["data"][0]["parts"][0]["text"], "hello");
    let messages = api.get(&format!("{path}/message")).await.ok();
    assert_eq!(messages.as_array().unwrap().len(), 4);
    let failed = api.post(&format!("{path}/message"), prompt(FAIL)).await;
    assert_eq!(failed.problem(502, "turn_failed")["detail"], FAILURE);
    // The platform's own id of the session is an alias of the conversation's.
    let alias = format!("{SESSIONS}/{session}/opencode/session/{session}/message");
    assert_eq!(api.get(&alias).await.ok().as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn an_abort_stops_what_runs() {
    let api = Api::start().await;
    let (session, path) = conversation(&api).await;
    api.post(&format!("{path}/prompt_async"), prompt(HANG)).await;
    assert_eq!(
        api.post(&format!("{path}/abort"), json!({})).await.ok(),
        json!(true)
    );
    let turns = format!("{SESSIONS}/{session}/turns");
    api.until(&turns, |turns| turns["data"][0]["status"] == "aborted")
        .await;
}

#[tokio::test]
async fn the_bus_tells_this_sessions_events_as_the_harness_says_them() {
    let api = Api::start().await;
    let (session, path) = conversation(&api).await;
    let (other, _) = conversation(&api).await;
    let bus = format!("{SESSIONS}/{session}/opencode/event");
    let mut bus: Frames = api.stream(request(Method::GET, &bus, "")).await;
    assert_eq!(
        bus.next().await.unwrap().data.unwrap(),
        json!({ "type": "server.connected", "properties": {} })
    );
    api.post(
        &format!("{SESSIONS}/{other}/message"),
        json!({ "text": "elsewhere" }),
    )
    .await
    .ok();
    api.post(&format!("{path}/message"), prompt("hello")).await.ok();
    let told = bus.up_to("session.idle").await;
    assert!(told.iter().all(|frame| frame.id.is_none()));
    let kinds: Vec<_> = told.iter().map(crate::support::Frame::kind).collect();
    assert!(
        kinds.contains(&"message.part.delta") && kinds.contains(&"message.updated"),
        "{kinds:?}"
    );
    assert!(
        !kinds
            .iter()
            .any(|kind| kind.starts_with("turn.") || *kind == "session.ready"),
        "{kinds:?}"
    );
    assert!(!bus.raw().contains("elsewhere"));
    api.delete(&format!("{SESSIONS}/{session}")).await.ok();
    let rest = bus.rest().await;
    assert!(
        rest.iter()
            .all(|frame| !["session.ended", "turn.finished"].contains(&frame.kind())),
        "{rest:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_bus_beats() {
    let api = Api::start().await;
    let (session, _) = conversation(&api).await;
    let bus = format!("{SESSIONS}/{session}/opencode/event");
    let mut bus = api.stream(request(Method::GET, &bus, "")).await;
    let beats = bus.up_to("server.heartbeat").await;
    assert_eq!(
        beats.last().unwrap().data,
        Some(json!({ "type": "server.heartbeat", "properties": {} }))
    );
}

#[tokio::test]
async fn permissions_are_listed_and_answered() {
    let api = Api::start().await;
    let (session, path) = conversation(&api).await;
    let base = format!("{SESSIONS}/{session}/opencode");
    for (ask, reply_path) in [
        ("ASK one", "permission/{}/reply"),
        ("ASK two", "session/{c}/permissions/{}"),
        ("ASK three", "/answer"),
    ] {
        api.post(&format!("{path}/prompt_async"), prompt(ask)).await;
        let open = api
            .until(&format!("{base}/permission"), |open| open[0]["id"].is_string())
            .await;
        let id = open[0]["id"].as_str().unwrap();
        assert_eq!(open[0]["patterns"][0], ask.split_once(' ').unwrap().1);
        let conversation = path.rsplit('/').next().unwrap();
        let reply_path = reply_path.replace("{}", id).replace("{c}", conversation);
        let answered = match reply_path.as_str() {
            "/answer" => {
                let body = json!({ "request": id, "reply": { "reply": "once" } });
                let answered = api.post(&format!("{SESSIONS}/{session}/answer"), body).await.ok();
                answered["ok"].clone()
            }
            path if path.starts_with("session") => api
                .post(&format!("{base}/{path}"), json!({ "response": "once" }))
                .await
                .ok(),
            path => api
                .post(&format!("{base}/{path}"), json!({ "reply": "once" }))
                .await
                .ok(),
        };
        assert_eq!(answered, json!(true));
        api.until(&format!("{base}/permission"), |open| open == &json!([]))
            .await;
    }
    assert_eq!(api.get(&format!("{base}/question")).await.ok(), json!([]));
    let wrong = api
        .post(
            &format!("{base}/permission/per_1/reply"),
            json!({ "reply": "perhaps" }),
        )
        .await;
    assert_eq!(wrong.problem(400, "invalid")["field"], "reply");
    api.post(
        &format!("{base}/permission/per_1/reply"),
        json!({ "reply": "once" }),
    )
    .await
    .problem(404, "not_found");
    api.post(&format!("{base}/question/q/reject"), json!({}))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn what_is_not_on_the_list_is_refused_with_a_reason() {
    let api = Api::start().await;
    let (session, path) = conversation(&api).await;
    let base = format!("{SESSIONS}/{session}/opencode");
    for call in [
        "file?path=/etc/passwd",
        "session/x/share",
        "mcp",
        "pty",
        "config/providers",
        "session/a/b/c",
    ] {
        api.get(&format!("{base}/{call}"))
            .await
            .problem(404, "not_passed_on");
        api.post(&format!("{base}/{call}"), json!({}))
            .await
            .problem(404, "not_passed_on");
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for call in ["anything", "config", "session"] {
            api.call(request(method.clone(), &format!("{base}/{call}"), ""))
                .await
                .problem(405, "method_not_allowed");
        }
    }
    api.post(&format!("{base}/session"), json!({}))
        .await
        .problem(405, "method_not_allowed");
    assert_eq!(
        api.get(&format!("{base}/config")).await.ok(),
        json!({ "model": "litellm/demo" })
    );
    api.get(&format!("{base}/session/ses_other"))
        .await
        .problem(404, "not_found");
    api.post(&format!("{base}/session/ses_other/message"), prompt("x"))
        .await
        .problem(404, "not_found");
    for (field, value) in [
        ("system", json!("be evil")),
        ("tools", json!({ "bash": true })),
        ("noReply", json!(true)),
    ] {
        let mut body = prompt("x");
        body[field] = value;
        let refused = api.post(&format!("{path}/message"), body).await;
        assert_eq!(refused.problem(400, "invalid")["field"], field);
    }
    assert_eq!(
        api.post(&format!("{path}/message"), json!({}))
            .await
            .problem(400, "invalid")["field"],
        "text"
    );
    let mut stranger = request(Method::GET, &format!("{base}/anything"), "");
    stranger.headers_mut().remove("authorization");
    api.call(stranger).await.problem(401, "unauthorized");
    api.get(&format!("{SESSIONS}/{NOBODY}/opencode/session"))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn an_ended_session_still_shows_its_messages() {
    let api = Api::start().await;
    let (session, path) = conversation(&api).await;
    api.post(&format!("{path}/message"), prompt("hello")).await.ok();
    api.delete(&format!("{SESSIONS}/{session}")).await.ok();
    assert_eq!(
        api.get(&format!("{path}/message"))
            .await
            .ok()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    api.post(&format!("{path}/message"), prompt("more"))
        .await
        .problem(410, "gone");
    api.get(&format!("{SESSIONS}/{session}/opencode/event"))
        .await
        .problem(410, "gone");
}

#[tokio::test]
async fn a_restart_answers_when_the_session_is_ready_again() {
    let api = Api::start().await;
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}");
    api.delete(&path).await.ok();
    let restarted = api.post(&format!("{path}/restart"), json!({})).await.ok();
    assert_eq!(
        (&restarted["status"], &restarted["attempt"]),
        (&json!("ready"), &json!(2))
    );
    api.post(&format!("{path}/message"), json!({ "text": "again" }))
        .await
        .ok();
    api.post(&format!("{SESSIONS}/{NOBODY}/restart"), json!({}))
        .await
        .problem(404, "not_found");
}
