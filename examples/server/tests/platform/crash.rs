//! kill -9 of the server at the worst moments.

use std::time::Duration;

use serde_json::json;

use crate::client::eventually;
use crate::model::Model;
use crate::server::Server;

async fn with_model() -> (Model, Server) {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", "sk-real-gateway-key"),
    ])
    .await;
    (model, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_outlives_the_server_and_is_delivered_once() {
    let (model, mut server) = with_model().await;
    let agent = server.client.agent(json!({"model": "some/model"})).await;
    let session = server.client.session(&agent, json!({})).await;
    let turns = format!("/sessions/{session}/turns");
    server.client.post(&turns, &json!({"text": "SLOW 12"})).await;
    server.client.post(&turns, &json!({"text": "and then"})).await;
    eventually("the model is asked", async || {
        if model.asked("SLOW 12") > 0 {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    server.kill_9();
    server.start_again();
    server
        .client
        .turns_are(&session, &["completed", "completed"])
        .await;
    let text = server.client.get(&turns).await.1.to_string();
    for number in 0..12 {
        assert!(
            text.contains(&format!("chunk{number} ")),
            "chunk{number} is missing: {text}"
        );
    }
    assert_eq!(
        (model.asked("SLOW 12"), model.asked("and then")),
        (1, 1),
        "each turn reached the model once"
    );
    let frames = server.client.events_until(&session, 0, {
        let mut finished = 0;
        move |frame| {
            finished += usize::from(frame.is("turn.finished"));
            finished == 2
        }
    });
    let ids: Vec<_> = frames.await.iter().filter_map(|frame| frame.id).collect();
    assert_eq!(
        ids,
        (1..=ids.len() as u64).collect::<Vec<_>>(),
        "ids without gaps after the crash"
    );
    server.client.delete(&format!("/sessions/{session}")).await;
    server.nothing_left().await;
}

/// The moments are spread over the claim and the bring-up. Whatever the client got to know, a repetition with the
/// same key finds or opens exactly one session, and that one works.
#[tokio::test(flavor = "multi_thread")]
async fn a_bring_up_outlives_the_server_wherever_it_was() {
    let (_, mut server) = with_model().await;
    let agent = server.client.agent(json!({"model": "some/model"})).await;
    for (round, millis) in [0u64, 2, 4, 6, 8, 11, 15, 20, 30, 60].into_iter().enumerate() {
        let key = format!("open-{round}");
        let opening = {
            let (client, path, key) = (
                server.client.clone(),
                format!("/agents/{agent}/session"),
                key.clone(),
            );
            tokio::spawn(async move {
                client
                    .try_post(&path, &json!({"initial_prompt": "first"}), Some(&key))
                    .await
            })
        };
        // This is the moment of the crash and not a wait for a state.
        tokio::time::sleep(Duration::from_millis(millis)).await;
        server.kill_9();
        let known = opening
            .await
            .unwrap()
            .ok()
            .and_then(|(_, session)| Some(session["id"].as_str()?.to_owned()));
        server.start_again();
        let path = format!("/agents/{agent}/session");
        let (status, session) = server
            .client
            .try_post(&path, &json!({"initial_prompt": "first"}), Some(&key))
            .await
            .unwrap();
        assert_eq!(status, 200, "{session}");
        let session = session["id"].as_str().unwrap().to_owned();
        assert!(
            known.is_none_or(|known| known == session),
            "a second session was opened"
        );
        let (status, reply) = server.client.message(&session, "second").await;
        assert_eq!(status, 200, "round {round}: {reply}");
        assert_eq!(
            server.client.turn_states(&session).await,
            ["completed", "completed"],
            "round {round}"
        );
    }
    let (_, sessions) = server.client.get("/sessions?limit=200").await;
    assert_eq!(sessions.as_array().unwrap().len(), 10);
    server.client.delete(&format!("/agents/{agent}")).await;
    server.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_dies_with_the_server_ends_its_turn_as_unknown() {
    let (model, mut server) = with_model().await;
    let agent = server.client.agent(json!({"model": "some/model"})).await;
    let session = server.client.session(&agent, json!({})).await;
    let turns = format!("/sessions/{session}/turns");
    server.client.post(&turns, &json!({"text": "SLOW 400"})).await;
    server.client.post(&turns, &json!({"text": "never sent"})).await;
    eventually("the model is asked", async || {
        if model.asked("SLOW 400") > 0 {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    server.kill_9();
    for pid in server.sandbox_processes() {
        let _ = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status();
    }
    kill_sandboxd(&server);
    server.start_again();
    server.client.turns_are(&session, &["unknown", "failed"]).await;
    assert_eq!(model.asked("never sent"), 0);
    let (_, found) = server.client.get(&format!("/sessions/{session}")).await;
    assert_eq!(found["status"], "dead", "{found}");
    server.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_dies_under_a_living_server_is_noticed() {
    let (model, server) = with_model().await;
    let agent = server.client.agent(json!({"model": "some/model"})).await;
    let session = server
        .client
        .session(&agent, json!({"initial_prompt": "SLOW 400"}))
        .await;
    eventually("the model is asked", async || {
        if model.asked("SLOW 400") > 0 {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    kill_sandboxd(&server);
    server.client.turns_are(&session, &["unknown"]).await;
    server.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_gives_the_work_to_the_next_start() {
    let (model, mut server) = with_model().await;
    let agent = server.client.agent(json!({"model": "some/model"})).await;
    let session = server.client.session(&agent, json!({})).await;
    server
        .client
        .post(&format!("/sessions/{session}/turns"), &json!({"text": "SLOW 12"}))
        .await;
    eventually("the model is asked", async || {
        if model.asked("SLOW 12") > 0 {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    assert_eq!(server.terminate(), Some(0));
    server.start_again();
    server.client.turns_are(&session, &["completed"]).await;
    assert_eq!(model.asked("SLOW 12"), 1);
}

/// By the number that the server knows it by: sandboxd itself may tell the one it has inside of its namespace.
fn kill_sandboxd(server: &Server) {
    let record = std::fs::read(server.sandbox_folders()[0].join("sandbox.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let pid = record["root"]["pid"].as_u64().unwrap();
    assert!(pid > 1, "{record}");
    let _ = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
}
