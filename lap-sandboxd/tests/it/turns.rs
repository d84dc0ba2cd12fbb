//! Turns of the built-in harness against a scripted model, through the real client.

use std::time::Duration;

use crate::support::model::{Line, Model, bash, say};
use crate::support::{PATIENCE, Place, delivery, eventually, survivors, text, to_the_end, until};
use lap_core::harness::Harness;
use lap_core::turn::TurnState;
use serde_json::{Value, json};

#[tokio::test]
async fn a_tool_call_changes_the_workspace_and_the_answer_follows() {
    let model = Model::start([
        bash("echo \"$PLAIN $SESSION_SECRET $SESSION_ID\" > made.txt; pwd"),
        say("done"),
    ])
    .await;
    let place = Place::new();
    let running = place
        .start(&format!("{}/v1/", model.base), json!({}))
        .await
        .opened()
        .await;
    let (events, outcome) = running.turn(&delivery("make a file")).await;
    assert_eq!(outcome.state, TurnState::Completed, "{outcome:?}");
    assert_eq!(text(&outcome), "done");
    assert_eq!(
        (outcome.usage.input_tokens, outcome.usage.output_tokens),
        (20, 10)
    );
    let made = std::fs::read_to_string(place.path("workspace/made.txt")).unwrap();
    assert_eq!(made, format!("from-launch from-open {}\n", place.session));

    let states: Vec<&str> = events
        .iter()
        .filter(|event| event.properties["part"]["type"] == "tool")
        .filter_map(|event| event.properties["part"]["state"]["status"].as_str())
        .collect();
    assert_eq!(states, ["pending", "running", "completed"]);
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"turn.started"));
    assert_eq!(kinds.last(), Some(&"turn.finished"));
    assert!(
        kinds
            .windows(2)
            .any(|pair| pair == ["session.idle", "turn.finished"]),
        "{kinds:?}"
    );
    assert!(events.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));

    let requests = model.requests();
    assert_eq!(requests[0].0["authorization"], "Bearer stub_key");
    assert_eq!(requests[0].1["model"], "test/model");
    assert!(
        requests[0].1["messages"][0]["content"]
            .as_str()
            .unwrap()
            .contains("pirate")
    );
    let last = requests[1].1["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(last["role"], "tool");
    assert!(last["content"].as_str().unwrap().contains("workspace"));
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn deltas_carry_offsets_that_rebuild_the_text() {
    let pieces = ["Grüße", " aus", " dem\n", "\"Sandkasten\"", " 🏖"];
    let model = Model::start([Line::Say(pieces.map(str::to_owned).to_vec())]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let (events, outcome) = running.turn(&delivery("hello")).await;
    let mut rebuilt = String::new();
    for event in events.iter().filter(|event| event.kind == "message.part.delta") {
        assert_eq!(event.properties["offset"], rebuilt.len() as u64);
        assert_eq!(event.properties["field"], "text");
        rebuilt.push_str(event.properties["delta"].as_str().unwrap());
    }
    assert_eq!(rebuilt, pieces.concat());
    assert_eq!(text(&outcome), rebuilt);
    assert!(
        events
            .iter()
            .filter(|event| event.kind == "message.part.delta")
            .count()
            > 1
    );
    let messages = running.harness().messages(&running.contact).await.unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(&messages[1], outcome.reply.as_ref().unwrap());
    assert_eq!(messages[0]["parts"][0]["text"], "hello");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn an_abort_in_a_tool_kills_it_and_the_next_turn_works() {
    let model = Model::start([bash("setsid sleep 300 & sleep 300"), say("here again")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let turn = delivery("sleep");
    let mut events = running.send(&turn).await;
    until(&mut events, |event| {
        event.properties["part"]["state"]["status"] == "running"
    })
    .await;
    eventually("the tool runs", || survivors(place.sandbox) >= 2).await;
    running
        .harness()
        .abort(&running.contact, turn.turn)
        .await
        .unwrap();
    let (events, outcome) = to_the_end(events).await;
    assert_eq!(outcome.state, TurnState::Aborted);
    assert!(
        events
            .iter()
            .any(|event| event.properties["part"]["state"]["status"] == "error")
    );
    assert_eq!(
        outcome.reply.as_ref().unwrap()["info"]["error"]["name"],
        "MessageAbortedError"
    );
    eventually("the tool is gone", || survivors(place.sandbox) == 0).await;
    running
        .harness()
        .abort(&running.contact, turn.turn)
        .await
        .unwrap();

    let (_, outcome) = running.turn(&delivery("and now?")).await;
    assert_eq!(text(&outcome), "here again");
    // Every call the model made has a result in the next request, or gateways refuse the conversation.
    let messages = model.requests()[1].1["messages"].clone();
    assert_eq!(messages[2]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(messages[3]["role"], "tool");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn an_abort_in_a_model_call_is_seen_by_the_model() {
    for line in [Line::Hang("partial".to_owned()), Line::Silence] {
        let silent = matches!(line, Line::Silence);
        let model = Model::start([line, say("fine")]).await;
        let place = Place::new();
        let running = place.start(&model.base, json!({})).await.opened().await;
        let turn = delivery("think");
        let mut events = running.send(&turn).await;
        if silent {
            eventually("the model is asked", || !model.requests().is_empty()).await;
        } else {
            until(&mut events, |event| event.kind == "message.part.delta").await;
        }
        running
            .harness()
            .abort(&running.contact, turn.turn)
            .await
            .unwrap();
        let (_, outcome) = to_the_end(events).await;
        assert_eq!(outcome.state, TurnState::Aborted);
        assert_eq!(text(&outcome), if silent { "" } else { "partial" });
        model.dropped().await;
        assert_eq!(text(&running.turn(&delivery("again")).await.1), "fine");
        running.sandboxd.stop().await;
    }
}

#[tokio::test]
async fn a_model_error_fails_the_turn_with_its_message_and_the_session_goes_on() {
    let model = Model::start([
        Line::Refuse(500, json!({"error": {"message": "kaputt"}}).to_string()),
        Line::Refuse(401, json!({"error": {"message": "bad key"}}).to_string()),
        Line::Break("half".to_owned()),
        Line::Cut("half".to_owned()),
        say("well"),
    ])
    .await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    for expected in [
        "the model gateway answered 500: kaputt",
        "the model gateway answered 401: bad key",
        "broke off",
        "broke off before its end",
    ] {
        let (events, outcome) = running.turn(&delivery("go")).await;
        assert_eq!(outcome.state, TurnState::Failed);
        assert!(
            outcome.failure.as_ref().unwrap().contains(expected),
            "{outcome:?}"
        );
        assert!(events.iter().any(|event| event.kind == "session.error"));
        let end = &events.last().unwrap().properties["error"];
        let status = expected
            .split(' ')
            .find_map(|word| word.trim_end_matches(':').parse::<u64>().ok());
        assert_eq!(end["status"].as_u64(), status);
    }
    let (_, outcome) = running.turn(&delivery("go")).await;
    assert_eq!(
        (outcome.state, text(&outcome)),
        (TurnState::Completed, "well".to_owned())
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_briefly_away_is_asked_again() {
    let model = Model::start([
        Line::Refuse(503, "loading".to_owned()),
        Line::Whole("back".to_owned()),
    ])
    .await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let (events, outcome) = running.turn(&delivery("go")).await;
    assert_eq!(text(&outcome), "back");
    let retry = events
        .iter()
        .find(|event| event.properties["status"]["type"] == "retry")
        .unwrap();
    assert_eq!(
        retry.properties["status"]["message"],
        "the model gateway answered 503: loading"
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_turn_that_passes_its_deadline_fails_and_is_stopped() {
    let model = Model::start([bash("sleep 300"), say("next")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let late = lap_core::harness::Delivery {
        deadline: Duration::from_millis(700),
        ..delivery("sleep")
    };
    let (_, outcome) = running.turn(&late).await;
    assert_eq!(outcome.state, TurnState::Failed);
    assert_eq!(
        outcome.failure.as_deref(),
        Some("the turn passed its deadline of 0.7 s")
    );
    eventually("the tool is gone", || survivors(place.sandbox) == 0).await;
    assert_eq!(text(&running.turn(&delivery("go")).await.1), "next");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn wrong_calls_are_told_to_the_model() {
    let calls = vec![
        ("read".to_owned(), json!({"path": "a"})),
        ("list".to_owned(), json!({})),
        ("nonsense".to_owned(), json!({})),
        ("bash".to_owned(), json!("not an object")),
        ("bash".to_owned(), json!({"command": "cat a"})),
    ];
    let model = Model::start([bash("echo content > a"), Line::Call(calls), say("ok")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    assert_eq!(text(&running.turn(&delivery("go")).await.1), "ok");
    let messages = model.requests()[2].1["messages"].as_array().unwrap().clone();
    let results: Vec<&str> = messages
        .iter()
        .filter(|message| message["role"] == "tool")
        .filter_map(|message| message["content"].as_str())
        .collect();
    assert!(results[1].contains("content"), "{results:?}");
    assert_eq!(results[2], "a\n");
    assert!(results[3].contains("no tool named"), "{results:?}");
    assert!(results[4].contains("not a JSON object"), "{results:?}");
    assert_eq!(results[5], "content\n");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_new_sandbox_goes_on_with_the_history_it_is_given() {
    let model = Model::start([bash("echo codeword"), say("remembered"), say("codeword")]).await;
    let (first, second) = (Place::new(), Place::new());
    let running = first.start(&model.base, json!({})).await.opened().await;
    running.turn(&delivery("run it")).await;
    let mut history = running.harness().messages(&running.contact).await.unwrap();
    running.sandboxd.stop().await;
    // What a platform stored may hold what this harness does not know.
    history
        .push(json!({"info": {"id": "x", "role": "assistant"}, "parts": [{"id": "p", "type": "hologram"}]}));
    history.push(json!("nonsense"));

    let running = second.start(&model.base, json!({})).await;
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    let opening = lap_core::harness::OpenConversation {
        history,
        ..second.opening()
    };
    let conversation = running.harness().open(&running.contact, &opening).await.unwrap();
    assert_eq!(
        running.harness().open(&running.contact, &opening).await.unwrap(),
        conversation
    );
    let (_, outcome) = running.turn(&delivery("what was it?")).await;
    assert_eq!(text(&outcome), "codeword");
    let seen = model.requests()[2].1["messages"].clone();
    let roles: Vec<_> = seen
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles,
        ["system", "user", "assistant", "tool", "assistant", "user"]
    );
    assert_eq!(seen[3]["content"], "codeword\n");
    let messages = running.harness().messages(&running.contact).await.unwrap();
    assert!(
        messages
            .iter()
            .all(|message| message["info"]["sessionID"] == conversation)
    );
    running.sandboxd.stop().await;
}

/// Against a real gateway, by hand: `LAP_TEST_GATEWAY`, `LAP_TEST_KEY`, `LAP_TEST_MODEL`, `LAP_TEST_PROMPT`.
#[tokio::test]
#[ignore = "needs a model gateway, named by LAP_TEST_GATEWAY"]
async fn against_a_real_gateway() {
    let given = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let place = Place::new();
    let base = given("LAP_TEST_GATEWAY", "http://127.0.0.1:4000");
    let gateway = json!({"base": base, "key": given("LAP_TEST_KEY", "")});
    let running = place
        .start(&base, json!({"gateway": gateway}))
        .await
        .opened()
        .await;
    let mut turn = delivery(&given(
        "LAP_TEST_PROMPT",
        "TOOL: echo $((40+2)) > answer.txt; cat answer.txt",
    ));
    turn.model = Some(given("LAP_TEST_MODEL", "fake-model"));
    let (events, outcome) = running.turn(&turn).await;
    for event in &events {
        println!("{} {} {}", event.seq, event.kind, event.properties);
    }
    println!("{outcome:?}");
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn parts_the_model_cannot_take_are_refused() {
    let model = Model::start([say("a cat")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await.opened().await;
    let mut odd = delivery("x");
    odd.parts.push(json!({"type": "hologram"}));
    let (_, outcome) = running.turn(&odd).await;
    assert!(outcome.failure.unwrap().contains("hologram"));
    let mut image = delivery("what is this?");
    image
        .parts
        .push(json!({"type": "file", "mime": "image/png", "url": "data:image/png;base64,AA=="}));
    assert_eq!(text(&running.turn(&image).await.1), "a cat");
    let content = model.requests()[0].1["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()["content"]
        .clone();
    assert_eq!(
        content[1],
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}})
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn tools_see_the_agents_environment_and_nothing_of_the_servers() {
    let model = Model::start([bash("env"), say("ok")]).await;
    let place = Place::new();
    let launch = json!({"env": {"PLAIN": "p", "GIT_TOKEN": "ghp_canary", "LITELLM_API_KEY": "sk-real"}, "git_token": "ghp_canary"});
    let running = place.start(&model.base, launch).await.opened().await;
    let (_, outcome) = running.turn(&delivery("go")).await;
    assert_eq!(outcome.state, TurnState::Completed);
    let seen: Value = model.requests()[1].1["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()["content"]
        .clone();
    let seen = seen.as_str().unwrap();
    for expected in [
        "PLAIN=p",
        "LITELLM_API_KEY=stub_key",
        "LITELLM_DEFAULT_MODEL=test/model",
        "HOME=/",
        "PATH=/",
    ] {
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
    // This test's own process has variables that no sandbox may see.
    assert!(
        !seen.contains("CARGO") && !seen.contains("canary") && !seen.contains("sk-real"),
        "{seen}"
    );
    running.sandboxd.stop().await;
}
