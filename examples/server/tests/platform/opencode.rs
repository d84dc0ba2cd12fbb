//! The whole chain with real parts: this server, its vault, sandboxd, opencode from npm, a LiteLLM proxy from PyPI, and
//! behind it a model that notes what it saw.

use serde_json::{Value, json};

use crate::client::{Answer, Frame, eventually};
use crate::lab::{GATEWAY_KEY, Lab, UPSTREAM_KEY};
use crate::model::Seen;
use crate::server::Server;

async fn ready(server: &Server, session: &str) -> Value {
    eventually("the session is ready", async || {
        let (_, found) = server.client.get(&format!("/sessions/{session}")).await;
        match found["status"].as_str() {
            Some("ready") => Ok(found),
            Some("failed" | "dead") => panic!("{found}"),
            _ => Err(found.to_string()),
        }
    })
    .await
}

fn opencode_agent(more: Value) -> Value {
    let mut agent = json!({"harness_id": "opencode", "model": "test-model"});
    for (name, value) in more.as_object().unwrap() {
        agent[name] = value.clone();
    }
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn opencode_works_through_the_platform() {
    let Some(lab) = Lab::get() else { return };
    let server = lab.server(&[]).await;
    let client = &server.client;
    let agent = client
        .agent(opencode_agent(
            json!({"prompt": "Answer like a lighthouse keeper."}),
        ))
        .await;
    let session = client.session(&agent, json!({"title": "first"})).await;
    ready(&server, &session).await;
    let watching = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move {
            client
                .events_until(&session, 0, |frame| frame.is("turn.finished"))
                .await
        })
    };
    let text =
        "TOOL: echo made-by-opencode > made.txt; echo SID=$SESSION_ID KEY=$LITELLM_API_KEY; cat made.txt";
    let (status, reply) = client.message(&session, text).await;
    assert_eq!(status, 200, "{reply}");
    let said = reply["parts"].to_string();
    assert!(
        said.contains("TOOL_RESULT_SEEN") && said.contains("made-by-opencode"),
        "{said}"
    );
    assert!(
        said.contains(&format!("SID={session}")) && said.contains("KEY=stub_"),
        "{said}"
    );
    let made = server.sandbox_folders()[0].join("workspace/made.txt");
    assert_eq!(std::fs::read_to_string(made).unwrap(), "made-by-opencode\n");

    check_stream(&watching.await.unwrap());
    check_upstream(lab, "made-by-opencode");

    let (status, reply) = client.message(&session, "and again").await;
    assert_eq!(status, 200, "{reply}");
    assert!(reply["parts"].to_string().contains("PONG and again"), "{reply}");
    let (_, messages) = client.get(&format!("/sessions/{session}/messages")).await;
    let roles: Vec<_> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["info"]["role"].clone())
        .collect();
    assert_eq!(
        roles,
        ["user", "assistant", "assistant", "user", "assistant"],
        "{messages}"
    );

    let (status, _) = client.delete(&format!("/sessions/{session}")).await;
    assert_eq!(status, 200);
    server.nothing_left().await;
}

/// The log of a turn with a tool call, up to its end.
fn check_stream(frames: &[Frame]) {
    let ids: Vec<_> = frames.iter().filter_map(|frame| frame.id).collect();
    assert_eq!(
        ids,
        (1..=ids.len() as u64).collect::<Vec<_>>(),
        "ids without gaps"
    );
    let events: Vec<&Value> = frames.iter().map(|frame| &frame.data["event"]).collect();
    assert!(
        events.iter().any(|event| event["type"] == "message.part.delta"),
        "streamed text"
    );
    assert!(
        events
            .iter()
            .any(|event| event["properties"]["part"]["state"]["status"] == "completed"),
        "a tool ran"
    );
}

/// What the model saw of the turn with these words: the agent's prompt, the proxy's key, nobody else's.
fn check_upstream(lab: &Lab, words: &str) {
    let upstream: Vec<_> = lab
        .model
        .seen()
        .into_iter()
        .filter(|seen| seen.body.to_string().contains(words))
        .collect();
    assert!(upstream.len() >= 2, "two model calls");
    assert!(
        upstream[0].body.to_string().contains("lighthouse keeper"),
        "the agent's prompt"
    );
    for seen in &upstream {
        assert_eq!(
            seen.headers["authorization"],
            format!("Bearer {UPSTREAM_KEY}").as_str()
        );
        assert!(!seen.body.to_string().contains(GATEWAY_KEY));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_reaches_the_model_and_errors_reach_the_client() {
    let Some(lab) = Lab::get() else { return };
    let server = lab.server(&[]).await;
    let client = &server.client;
    let agent = client.agent(opencode_agent(json!({}))).await;
    let session = client.session(&agent, json!({})).await;
    ready(&server, &session).await;
    let waiting = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.message(&session, "SLOW 401").await })
    };
    eventually("the model is asked", async || {
        (lab.model.asked("SLOW 401") > 0)
            .then_some(())
            .ok_or_else(String::new)
    })
    .await;
    let (status, _) = client
        .post(&format!("/sessions/{session}/abort"), &json!({}))
        .await;
    assert_eq!(status, 200);
    let (status, answer) = waiting.await.unwrap();
    assert_eq!(status, 409, "{answer}");
    eventually("the model is told to stop", async || {
        lab.model
            .was_cut_off("SLOW 401")
            .then_some(())
            .ok_or_else(String::new)
    })
    .await;

    let (status, answer) = client.message(&session, "FAIL 403").await;
    assert_eq!(status, 502, "{answer}");
    assert!(
        answer.to_string().contains("the model is out of order"),
        "{answer}"
    );
    let (status, reply) = client.message(&session, "still here").await;
    assert_eq!(status, 200, "{reply}");
    assert!(reply["parts"].to_string().contains("PONG still here"), "{reply}");
    assert_eq!(
        client.turn_states(&session).await,
        ["aborted", "failed", "completed"]
    );
}

/// The first request of this kind that is not known yet.
async fn asked(server: &Server, session: &str, kind: &str, known: &[Value]) -> Value {
    let is_new = |frame: &Frame| {
        let event = &frame.data["event"];
        event["type"] == kind && !known.contains(&event["properties"])
    };
    let frames = server
        .client
        .events_until(session, 0, |frame| is_new(frame))
        .await;
    let last = frames
        .last()
        .filter(|frame| is_new(frame))
        .expect("somebody asks");
    last.data["event"]["properties"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_checked_when_it_is_given() {
    let server = Server::start().await;
    for policy in [
        json!("perhaps"),
        json!({"bash": "perhaps"}),
        json!({"bash": {"*": 1}}),
        json!(["ask"]),
    ] {
        let agent = opencode_agent(json!({ "permission": policy }));
        let (status, refused) = server.client.post("/agents", &agent).await;
        assert_eq!(status, 400, "{refused}");
        assert!(refused.to_string().contains("permission"), "{refused}");
    }
}

/// A session whose agent must ask.
struct Asking {
    server: Server,
    session: String,
}

impl Asking {
    async fn new(lab: &Lab) -> Self {
        let server = lab.server(&[]).await;
        let policy =
            json!({"bash": {"*": "ask", "echo free*": "allow"}, "webfetch": "deny", "question": "ask"});
        let agent = opencode_agent(json!({ "permission": policy }));
        let agent = server.client.agent(agent).await;
        let session = server.client.session(&agent, json!({})).await;
        ready(&server, &session).await;
        Self { server, session }
    }

    fn say(&self, text: &'static str) -> tokio::task::JoinHandle<Answer> {
        let (client, session) = (self.server.client.clone(), self.session.clone());
        tokio::spawn(async move { client.message(&session, text).await })
    }

    async fn asked(&self, kind: &str, known: &[Value]) -> Value {
        asked(&self.server, &self.session, kind, known).await
    }

    async fn answer(&self, request: &Value, reply: Value) -> u16 {
        let path = format!("/sessions/{}/answer", self.session);
        let body = json!({"request": request["id"], "reply": reply});
        self.server.client.post(&path, &body).await.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_asks_is_answered_through_the_api() {
    let Some(lab) = Lab::get() else { return };
    let asking = Asking::new(lab).await;
    let (status, reply) = asking.say("TOOL: echo free > free.txt").await.unwrap();
    assert_eq!(status, 200, "{reply}");

    let waiting = asking.say("TOOL: touch allowed.txt");
    let request = asking.asked("permission.asked", &[]).await;
    assert_eq!(request["permission"], "bash", "{request}");
    assert_eq!(asking.answer(&request, json!({"reply": "once"})).await, 200);
    assert_eq!(waiting.await.unwrap().0, 200);
    assert_eq!(
        asking.answer(&request, json!({"reply": "once"})).await,
        404,
        "answered once"
    );

    let waiting = asking.say("TOOL: touch refused.txt");
    let request = asking.asked("permission.asked", &[request]).await;
    let reply = json!({"reply": "reject", "message": "not that file"});
    assert_eq!(asking.answer(&request, reply).await, 200);
    let (status, reply) = waiting.await.unwrap();
    assert_eq!(status, 200, "{reply}");
    let seen = lab.model.seen();
    let told = |seen: &Seen| seen.body.to_string().contains("not that file");
    assert!(seen.iter().any(told), "the model is told why");

    let question = r#"CALL question {"questions": [{"question": "Which?", "header": "Pick", "options": [{"label": "Blue", "description": "b"}, {"label": "Red", "description": "r"}]}]}"#;
    let waiting = asking.say(question);
    let request = asking.asked("question.asked", &[]).await;
    assert_eq!(asking.answer(&request, json!({"answers": [["Blue"]]})).await, 200);
    let (status, reply) = waiting.await.unwrap();
    assert_eq!(status, 200, "{reply}");
    assert!(reply["parts"].to_string().contains("Blue"), "{reply}");

    let workspace = asking.server.sandbox_folders()[0].join("workspace");
    let there = ["free.txt", "allowed.txt", "refused.txt"].map(|name| workspace.join(name).exists());
    assert_eq!(there, [true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_remembers_and_takes_what_is_new() {
    let Some(lab) = Lab::get() else { return };
    let server = lab.server(&[]).await;
    let client = &server.client;
    let agent = client.agent(opencode_agent(json!({}))).await;
    let session = client.session(&agent, json!({})).await;
    ready(&server, &session).await;
    let (status, reply) = client.message(&session, "the codeword is kingfisher").await;
    assert_eq!(status, 200, "{reply}");
    let (status, reply) = client.message(&session, "TOOL: echo kept > kept.txt").await;
    assert_eq!(status, 200, "{reply}");

    let (status, restarted) = client
        .post(&format!("/sessions/{session}/restart"), &json!({}))
        .await;
    assert_eq!(status, 200, "{restarted}");
    ready(&server, &session).await;
    let turn = json!({"parts": [{"type": "text", "text": "after the restart"}], "model": "other-model"});
    let (status, reply) = client.post(&format!("/sessions/{session}/message"), &turn).await;
    assert_eq!(status, 200, "{reply}");
    let seen = lab.model.seen();
    let last = seen
        .iter()
        .rfind(|seen| seen.body.to_string().contains("after the restart"))
        .unwrap();
    assert!(last.body.to_string().contains("kingfisher"), "{}", last.body);
    assert_eq!(last.body["model"], "other-model");
    let (status, reply) = client.message(&session, "TOOL: cat kept.txt").await;
    assert_eq!(status, 200, "{reply}");
    assert!(reply["parts"].to_string().contains("kept"), "{reply}");
    let (_, messages) = client.get(&format!("/sessions/{session}/messages")).await;
    let text = messages.to_string();
    assert!(
        text.contains("kingfisher") && !text.contains("goes on from an earlier one"),
        "{text}"
    );
    client.delete(&format!("/sessions/{session}")).await;
    server.nothing_left().await;
}
