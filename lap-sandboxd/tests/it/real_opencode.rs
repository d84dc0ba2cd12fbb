//! The adapter of opencode with the real program, where `LAP_TEST_OPENCODE` names it (`cargo xtask test` does).

use std::path::{Path, PathBuf};
use std::time::Duration;

use lap_core::harness::{Harness, Readiness};
use lap_core::turn::TurnState;
use lap_sandboxd::{Sandboxd, Surroundings};
use serde_json::json;

use crate::support::model::{Line, Model, bash, say};
use crate::support::{PATIENCE, Place, Running, delivery, surroundings, to_the_end, until};

/// The program's folder. Without it the tests pass with a remark, except in CI.
#[expect(
    clippy::print_stderr,
    reason = "whoever runs the tests must see what was not tested"
)]
fn opencode() -> Option<PathBuf> {
    let program = std::env::var_os("LAP_TEST_OPENCODE").map(PathBuf::from);
    let folder = program
        .filter(|program| program.is_file())
        .and_then(|program| Some(program.parent()?.to_owned()));
    if folder.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "LAP_TEST_OPENCODE names no program"
        );
        eprintln!("NOT TESTED: LAP_TEST_OPENCODE names no program; `cargo xtask test` installs it");
    }
    folder
}

fn with_opencode(folder: &Path) -> Surroundings {
    let mut surroundings = surroundings();
    for (name, value) in &mut surroundings.environment {
        if name == "PATH" {
            *value = format!("{}:{value}", folder.display());
        }
    }
    surroundings
}

async fn start<'a>(place: &'a Place, folder: &Path, model: &Model) -> Running<'a> {
    let document = place.document(
        &model.base,
        json!({"harness": "opencode", "env": {"LITELLM_DEFAULT_MODEL": "test/model"}}),
    );
    let sandboxd = Sandboxd::start(&document, with_opencode(folder)).await.unwrap();
    let contact = place.contact(&sandboxd.endpoint().address.to_string());
    Running {
        place,
        sandboxd,
        contact,
    }
}

async fn ready(running: &Running<'_>) {
    let probe = running.harness().probe(&running.contact, PATIENCE).await.unwrap();
    assert_eq!(probe.readiness, Readiness::Ready, "{probe:?}");
}

fn refuse(times: usize) -> Vec<Line> {
    vec![Line::Refuse(500, json!({"error": {"message": "out of order"}}).to_string()); times]
}

#[tokio::test]
async fn a_request_that_nobody_answers_expires_and_the_agent_goes_on() {
    let Some(folder) = opencode() else { return };
    let model = Model::start([bash("touch never"), say("went on without")]).await;
    let place = Place::new();
    let running = start(&place, &folder, &model).await;
    ready(&running).await;
    let mut opening = place.opening();
    opening.permission = json!({"bash": "ask"});
    opening.answer_timeout = Duration::from_millis(300);
    running.harness().open(&running.contact, &opening).await.unwrap();
    let (events, outcome) = running.turn(&delivery("do it")).await;
    assert_eq!(outcome.state, TurnState::Completed, "{outcome:?}");
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let at = |kind: &str| kinds.iter().position(|found| *found == kind);
    assert!(
        at("permission.asked") < at("permission.timeout")
            && at("permission.timeout") < at("permission.replied"),
        "{kinds:?}"
    );
    assert!(at("permission.asked").is_some());
    let told = model.requests().last().unwrap().1.to_string();
    assert!(told.contains("Nobody answered within 0.3 s"), "{told}");
    assert!(!place.path("workspace/never").exists());
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn endless_retries_end_at_the_deadline() {
    let Some(folder) = opencode() else { return };
    let model = Model::start(refuse(50)).await;
    let place = Place::new();
    let running = start(&place, &folder, &model).await;
    ready(&running).await;
    let running = running.opened().await;
    let mut late = delivery("hello");
    late.deadline = Duration::from_secs(4);
    let (events, outcome) = running.turn(&late).await;
    assert_eq!(outcome.state, TurnState::Failed);
    assert!(
        outcome.failure.as_ref().unwrap().contains("deadline"),
        "{outcome:?}"
    );
    assert!(
        events
            .iter()
            .any(|event| event.properties["status"]["type"] == "retry"),
        "retries are told"
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_dead_opencode_fails_its_turn_and_its_sandbox() {
    let Some(folder) = opencode() else { return };
    let model = Model::start([Line::Hang("thinking".to_owned())]).await;
    let place = Place::new();
    let running = start(&place, &folder, &model).await;
    ready(&running).await;
    let running = running.opened().await;
    let mut events = running.send(&delivery("hello")).await;
    until(&mut events, |event| event.kind == "message.part.delta").await;
    kill(&place);
    let (_, outcome) = to_the_end(events).await;
    assert_eq!(outcome.state, TurnState::Failed);
    assert!(
        outcome.failure.as_ref().unwrap().contains("opencode ended"),
        "{outcome:?}"
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !matches!(
        running
            .harness()
            .probe(&running.contact, Duration::ZERO)
            .await
            .unwrap()
            .readiness,
        Readiness::Failed(_)
    ) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the sandbox does not notice"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn the_conversation_and_the_secrets_of_opencode_after_a_restart() {
    let Some(folder) = opencode() else { return };
    let look =
        "echo PASSWORD=[$OPENCODE_SERVER_PASSWORD] SECRET=$SESSION_SECRET PLAIN=$PLAIN TOKEN=$GIT_TOKEN";
    let model = Model::start([say("noted"), bash(look), say("done")]).await;
    let place = Place::new();
    let running = start(&place, &folder, &model).await;
    ready(&running).await;
    let conversation = running
        .harness()
        .open(&running.contact, &place.opening())
        .await
        .unwrap();
    let (_, outcome) = running.turn(&delivery("the word is heron")).await;
    assert_eq!(outcome.state, TurnState::Completed, "{outcome:?}");
    running.sandboxd.stop().await;

    let running = start(&place, &folder, &model).await;
    ready(&running).await;
    let again = running
        .harness()
        .open(&running.contact, &place.opening())
        .await
        .unwrap();
    assert_eq!(again, conversation);
    let (events, outcome) = running.turn(&delivery("look around")).await;
    assert_eq!(outcome.state, TurnState::Completed, "{outcome:?}");
    let told = model.requests().last().unwrap().1.to_string();
    assert!(
        told.contains("the word is heron") && told.contains("Speak like a pirate."),
        "{told}"
    );
    let seen = events
        .iter()
        .map(|event| event.properties.to_string())
        .collect::<String>();
    assert!(
        seen.contains("PASSWORD=[] SECRET=from-open PLAIN= TOKEN="),
        "{seen}"
    );
    let messages = running.harness().messages(&running.contact).await.unwrap();
    assert!(messages.len() >= 5, "{messages:?}");
    // The start wrote everything into its own folder, and nothing of the package that opencode would install.
    let own = place.path("home/.config/opencode/node_modules");
    assert_eq!(std::fs::read_dir(own).unwrap().count(), 0);
    running.sandboxd.stop().await;
}

/// Kills opencode itself.
fn kill(place: &Place) {
    let marker = format!("LAP_SANDBOX_ID={}", place.sandbox);
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let environ = std::fs::read(entry.path().join("environ")).ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let holds = |bytes: &[u8], text: &str| String::from_utf8_lossy(bytes).contains(text);
        (holds(&environ, &marker) && holds(&command, "serve")).then_some(pid)
    });
    let found: Vec<u32> = found.collect();
    assert_eq!(found.len(), 1, "one opencode");
    let killed = std::process::Command::new("kill")
        .args(["-9", &found[0].to_string()])
        .status();
    assert!(killed.unwrap().success());
}
