//! A restart keeps the work: what was not committed and what was said.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, eventually};
use crate::model::Model;
use crate::server::Server;

/// A clone's worth of repository.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tracked.txt"), "committed\n").unwrap();
    std::fs::write(folder.path().join("unwanted.txt"), "committed\n").unwrap();
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t.invalid",
            "commit",
            "-q",
            "-m",
            "first",
        ],
    ] {
        let done = Command::new("git")
            .current_dir(folder.path())
            .args(arguments)
            .status();
        assert!(done.unwrap().success());
    }
    folder
}

async fn with_session(repository: Option<&Path>) -> (Model, Server, String) {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", "sk-real-gateway-key"),
        // Behind walls a sandbox does not see repositories of this machine.
        (
            "LAP_ISOLATION",
            if repository.is_some() { "none" } else { "auto" },
        ),
    ])
    .await;
    let mut definition = json!({"model": "some/model"});
    if let Some(repository) = repository {
        definition["repo_url"] = json!(format!("file://{}", repository.display()));
    }
    let agent = server.client.agent(definition).await;
    let session = server
        .client
        .session(&agent, json!({"env_vars": {"FLAVOUR": "of this session"}}))
        .await;
    (model, server, session)
}

/// Ends what runs in the sandbox without a word.
fn kill_sandbox(server: &Server) {
    let found = server.sandbox_processes();
    assert!(!found.is_empty());
    for pid in found {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
}

async fn say(client: &Client, session: &str, text: &str) -> String {
    let (status, reply) = client.message(session, text).await;
    assert_eq!(status, 200, "{reply}");
    reply["parts"].to_string()
}

async fn restart(client: &Client, session: &str) -> Value {
    let (status, restarted) = client
        .post(&format!("/sessions/{session}/restart"), &json!({}))
        .await;
    assert_eq!(
        (status, &restarted["status"]),
        (200, &json!("ready")),
        "{restarted}"
    );
    restarted
}

/// What the session was told to have lost, in order, up to its `times`-th bring-up.
async fn losses(client: &Client, session: &str, times: usize) -> Vec<String> {
    let (mut ready, mut last, mut lost) = (0, 0, Vec::new());
    while ready < times {
        // A stream of the past also ends where the session ended before it was restarted; it goes on from there.
        let frames = client.events_until(session, last, |frame| {
            ready += usize::from(frame.is("session.ready"));
            ready == times
        });
        let frames = frames.await;
        let read_to = frames.iter().filter_map(|frame| frame.id).max();
        last = read_to.filter(|id| *id > last).expect("the log does not go on");
        let told = frames.iter().filter(|frame| frame.is("memory.degraded"));
        lost.extend(told.map(|frame| frame.data.to_string()));
    }
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_session_has_its_files_and_its_memory() {
    let repository = repository();
    let (model, server, session) = with_session(Some(repository.path())).await;
    let client = &server.client;
    say(client, &session, "the codeword is plover").await;
    let work = "TOOL: echo changed > tracked.txt; rm unwanted.txt; printf '\\000\\377' > new.bin; mkdir d; echo '#!/bin/sh' > d/run; chmod 755 d/run";
    say(client, &session, work).await;
    let before = server.sandbox_folders();

    restart(client, &session).await;
    eventually("only the new sandbox is left", async || {
        let now = server.sandbox_folders();
        if now.len() == 1 && now != before {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    let workspace = server.sandbox_folders()[0].join("workspace");
    let read = |path: &str| std::fs::read(workspace.join(path)).unwrap();
    assert_eq!(read("tracked.txt"), b"changed\n");
    assert_eq!(read("new.bin"), [0, 255]);
    assert!(!workspace.join("unwanted.txt").exists());

    let seen = say(
        client,
        &session,
        "TOOL: git status --short; ./d/run && echo runs; echo $FLAVOUR",
    )
    .await;
    for expected in [
        " M tracked.txt",
        " D unwanted.txt",
        "?? new.bin",
        "runs",
        "of this session",
    ] {
        assert!(seen.contains(expected), "{expected}: {seen}");
    }
    say(client, &session, "what was the codeword?").await;
    let asked = model.seen().last().unwrap().body.to_string();
    assert!(
        asked.contains("the codeword is plover") && asked.contains("chmod 755"),
        "{asked}"
    );
    let (_, messages) = client.get(&format!("/sessions/{session}/messages")).await;
    assert!(
        messages.to_string().contains("the codeword is plover"),
        "{messages}"
    );
    assert_eq!(losses(client, &session, 2).await, Vec::<String>::new());
    client.delete(&format!("/sessions/{session}")).await;
    server.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_sandbox_was_killed_says_what_it_lost() {
    let (model, server, session) = with_session(None).await;
    let client = &server.client;
    say(client, &session, "the codeword is plover").await;
    say(client, &session, "TOOL: echo gone > work.txt").await;
    kill_sandbox(&server);
    eventually("the session is known to be dead", async || {
        let (_, found) = client.get(&format!("/sessions/{session}")).await;
        if found["status"] == "dead" {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;

    restart(client, &session).await;
    let lost = losses(client, &session, 2).await;
    assert!(
        lost.len() == 1 && lost[0].contains("uncommitted files"),
        "{lost:?}"
    );
    say(client, &session, "what was the codeword?").await;
    let asked = model.seen().last().unwrap().body.to_string();
    assert!(asked.contains("the codeword is plover"), "{asked}");
    client.delete(&format!("/sessions/{session}")).await;
    server.nothing_left().await;
}

/// Both the files and the words of a turn that does not end are kept: a restart stops it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_a_turn_keeps_the_work_too() {
    let (model, server, session) = with_session(None).await;
    let client = &server.client;
    say(client, &session, "TOOL: echo precious > work.txt").await;
    let turns = format!("/sessions/{session}/turns");
    client.post(&turns, &json!({"text": "SLOW 400"})).await;
    eventually("the model is asked", async || {
        if model.asked("SLOW 400") > 0 {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    restart(client, &session).await;
    let seen = say(client, &session, "TOOL: cat work.txt").await;
    assert!(seen.contains("precious"), "{seen}");
    assert_eq!(
        client.turn_states(&session).await,
        ["completed", "aborted", "completed"]
    );
}

/// A snapshot of an earlier restart is not taken for the whole truth.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_is_used_and_what_came_after_it_is_named() {
    let (model, server, session) = with_session(None).await;
    let client = &server.client;
    say(client, &session, "TOOL: echo early > early.txt").await;
    restart(client, &session).await;
    say(client, &session, "the codeword is plover").await;
    kill_sandbox(&server);
    eventually("the session is known to be dead", async || {
        let (_, found) = client.get(&format!("/sessions/{session}")).await;
        if found["status"] == "dead" {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;
    restart(client, &session).await;
    let seen = say(client, &session, "TOOL: cat early.txt").await;
    assert!(seen.contains("early"), "{seen}");
    let asked = model.seen().last().unwrap().body.to_string();
    assert!(asked.contains("the codeword is plover"), "{asked}");
    let told = losses(client, &session, 3).await;
    assert!(
        told.len() == 1 && told[0].contains("since the last snapshot"),
        "{told:?}"
    );
}
