//! The job the platform exists for.

use std::process::Command;

use serde_json::json;

use crate::client::eventually;
use crate::model::Model;
use crate::server::{BINARY, Server};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_works_in_its_workspace_and_leaves_nothing_behind() {
    let server = Server::start().await;
    let client = &server.client;
    let agent = client
        .agent(json!({"name": "first", "model": "demo-model"}))
        .await;
    let session = client.session(&agent, json!({})).await;
    let watching = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move {
            client
                .events_until(&session, 0, |frame| frame.is("turn.finished"))
                .await
        })
    };
    let (status, reply) = client.message(&session, "Look around and leave me a note.").await;
    assert_eq!(status, 200, "{reply}");
    assert!(reply["parts"].to_string().contains("lap-notes.md"), "{reply}");

    let frames = watching.await.unwrap();
    let ids: Vec<_> = frames.iter().filter_map(|frame| frame.id).collect();
    assert_eq!(
        ids,
        (1..=ids.len() as u64).collect::<Vec<_>>(),
        "ids without gaps"
    );
    assert!(
        frames
            .iter()
            .any(|frame| frame.data["event"]["type"] == "message.part.delta"),
        "streamed text"
    );
    assert!(
        frames
            .iter()
            .any(|frame| frame.data.to_string().contains("\"status\":\"completed\"")),
        "a tool ran"
    );

    let folders = server.sandbox_folders();
    assert_eq!(folders.len(), 1);
    let note = std::fs::read_to_string(folders[0].join("workspace/lap-notes.md")).unwrap();
    assert!(note.contains("leave me a note"), "{note}");
    let (status, messages) = client.get(&format!("/sessions/{session}/messages")).await;
    assert_eq!(
        (status, messages[0]["info"]["role"].as_str()),
        (200, Some("user"))
    );

    let (status, deleted) = client.delete(&format!("/sessions/{session}")).await;
    assert_eq!((status, deleted["status"].as_str()), (200, Some("deleted")));
    server.nothing_left().await;
    let (status, _) = client.message(&session, "again").await;
    assert_eq!(status, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initial_prompt_runs_and_deleting_the_agent_stops_everything() {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", "sk-real-gateway-key"),
    ])
    .await;
    let client = &server.client;
    let agent = client.agent(json!({"model": "some/model"})).await;
    let session = client
        .session(&agent, json!({"initial_prompt": "SLOW 400"}))
        .await;
    client.turns_are(&session, &["running"]).await;
    let (status, _) = client.delete(&format!("/agents/{agent}")).await;
    assert_eq!(status, 204);
    server.nothing_left().await;
    assert_eq!(client.turn_states(&session).await, ["aborted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_cloned_on_its_branch() {
    let origin = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        let done = Command::new("git")
            .args(identity)
            .args(arguments)
            .current_dir(origin.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q", "-b", "trunk"]);
    std::fs::write(origin.path().join("hello.txt"), "from the repository").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    // A folder of this machine is not seen from inside of an isolated sandbox.
    let server = Server::start_with(&[("LAP_ISOLATION", "none")]).await;
    let client = &server.client;
    let url = format!("file://{}", origin.path().display());
    let agent = client
        .agent(json!({"model": "demo-model", "repo_url": url, "branch": "trunk"}))
        .await;
    let session = client.session(&agent, json!({})).await;
    let (status, reply) = client
        .message(&session, "TOOL: cat hello.txt; git branch --show-current")
        .await;
    assert_eq!(status, 200, "{reply}");
    let text = reply["parts"].to_string();
    assert!(
        text.contains("from the repository") && text.contains("trunk"),
        "{text}"
    );

    let missing = client
        .agent(json!({"model": "demo-model", "repo_url": format!("{url}-missing")}))
        .await;
    let session = client.session(&missing, json!({})).await;
    let failed = eventually("the session fails", async || {
        let (_, session) = client.get(&format!("/sessions/{session}")).await;
        if session["status"] == "failed" {
            Ok(session)
        } else {
            Err(session.to_string())
        }
    })
    .await;
    assert!(
        failed["failure_reason"].as_str().unwrap().contains("repository"),
        "{failed}"
    );
}

#[test]
fn try_does_it_once_in_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY)
        .args(["try", "TOOL: echo made-by-the-agent"])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("TOOL_RESULT_SEEN: made-by-the-agent"), "{said}");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn try_fails_when_the_turn_fails() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY)
        .args(["try", "FAIL 400"])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_aborted_and_the_session_goes_on() {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", "sk-real-gateway-key"),
    ])
    .await;
    let client = &server.client;
    let agent = client.agent(json!({"model": "some/model"})).await;
    let session = client.session(&agent, json!({})).await;
    let waiting = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.message(&session, "SLOW 400").await })
    };
    eventually("the model is asked", async || {
        if model.asked("SLOW 400") > 0 {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    let (status, _) = client
        .post(&format!("/sessions/{session}/abort"), &json!({}))
        .await;
    assert_eq!(status, 200);
    let (status, answer) = waiting.await.unwrap();
    assert_eq!(status, 409, "{answer}");
    let (status, reply) = client.message(&session, "and now").await;
    assert_eq!(status, 200, "{reply}");
    assert!(reply["parts"].to_string().contains("PONG and now"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_error_fails_the_turn_and_the_session_stays_usable() {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", "sk-real-gateway-key"),
    ])
    .await;
    let client = &server.client;
    let agent = client.agent(json!({"model": "some/model"})).await;
    let session = client.session(&agent, json!({})).await;
    let (status, answer) = client.message(&session, "FAIL 400").await;
    assert_eq!(status, 502, "{answer}");
    assert!(
        answer.to_string().contains("the model is out of order"),
        "{answer}"
    );
    let (status, reply) = client.message(&session, "hello").await;
    assert_eq!(status, 200, "{reply}");
}
