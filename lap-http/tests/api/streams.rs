//! Event streams through the API.

use http::Method;
use serde_json::{Value, json};

use crate::support::{AGENTS, Api, Frame, HANG, SESSIONS, SLOW, options, request};

fn ids(frames: &[Frame]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame.id).collect()
}

fn without_gap(ids: &[u64]) -> bool {
    ids.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[tokio::test]
async fn message_stream_tells_the_turn_in_the_originals_frames() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let body = json!({ "text": "hello" }).to_string();
    let frames = api
        .stream(request(Method::POST, &format!("{path}/message_stream"), body))
        .await
        .rest()
        .await;
    assert_eq!(
        (frames[0].kind(), frames.last().unwrap().kind()),
        ("ready", "done")
    );
    let said: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame.kind() == "harness_event")
        .map(|frame| &frame.data.as_ref().unwrap()["event"])
        .collect();
    assert!(!said.is_empty(), "{frames:#?}");
    assert!(
        said.iter()
            .all(|event| event["type"].is_string() && event["properties"].is_object()),
        "{said:#?}"
    );
    let turn = &api.get(&format!("{path}/turns")).await.ok()["data"][0]["id"];
    for frame in &frames[1..frames.len() - 1] {
        if let Some(data) = &frame.data {
            assert_eq!(&data["turn_id"], turn, "{data}");
        }
    }
}

#[tokio::test]
async fn the_log_is_streamed_from_any_point_without_gap_or_repetition() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    api.post(&format!("{path}/message"), json!({ "text": "hello" }))
        .await
        .ok();
    let events = format!("{path}/events");
    let all = api
        .stream(request(Method::GET, &format!("{events}?after=0"), ""))
        .await
        .up_to("turn.finished")
        .await;
    assert_eq!(all[0].kind(), "ready");
    let numbers = ids(&all);
    assert!(numbers[0] == 1 && without_gap(&numbers), "{numbers:?}");
    let kinds: Vec<_> = all.iter().map(Frame::kind).collect();
    for kind in [
        "session.created",
        "session.ready",
        "turn.accepted",
        "turn.running",
        "harness_event",
    ] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    let created = all
        .iter()
        .find(|frame| frame.kind() == "session.created")
        .unwrap()
        .data
        .clone()
        .unwrap();
    assert_eq!(
        (&created["id"], &created["properties"]["created_by"]),
        (&json!(1), &json!("ui"))
    );
    assert!(created["at"].as_str().unwrap().ends_with('Z'));

    for after in [1, numbers.len() as u64 / 2] {
        let mut resume = request(Method::GET, &format!("{events}?after=0"), "");
        resume
            .headers_mut()
            .insert("last-event-id", after.to_string().parse().unwrap());
        let rest = api.stream(resume).await.up_to("turn.finished").await;
        let expected: Vec<_> = all
            .iter()
            .filter(|frame| frame.id.is_some_and(|id| id > after))
            .cloned()
            .collect();
        assert_eq!(rest[1..], expected, "after {after}");
    }
}

#[tokio::test]
async fn what_a_harness_says_comes_at_once_and_its_id_follows() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let mut live = api
        .stream(request(Method::GET, &format!("{path}/events?follow=1"), ""))
        .await;
    let message = format!("{path}/message");
    let (reply, seen) = tokio::join!(
        api.post(&message, json!({ "text": SLOW })),
        live.up_to("turn.finished")
    );
    reply.ok();
    assert!(without_gap(&ids(&seen)), "{seen:#?}");
    let before: Vec<_> = seen
        .iter()
        .filter(|frame| frame.kind() == "harness_event" && frame.id.is_none())
        .collect();
    assert!(!before.is_empty(), "{seen:#?}");

    // Whoever was there heard the text exactly once, as deltas or as stored parts.
    let stored = api
        .stream(request(Method::GET, &format!("{path}/events?after=0"), ""))
        .await
        .up_to("turn.finished")
        .await;
    assert_eq!(spoken(&seen), spoken(&stored));
    // The stream is open: the next turn follows.
    api.post(&format!("{path}/message"), json!({ "text": "again" }))
        .await
        .ok();
    assert!(without_gap(&ids(&live.up_to("turn.finished").await)));
}

/// The text of the deltas, in order.
fn spoken(frames: &[Frame]) -> String {
    let events = frames
        .iter()
        .filter_map(|frame| frame.data.as_ref().map(|data| &data["event"]));
    let deltas = events.filter(|event| event["type"] == "message.part.delta");
    deltas
        .filter_map(|event| event["properties"]["delta"].as_str())
        .collect()
}

#[tokio::test]
async fn a_plain_stream_ends_with_the_turn_as_in_the_original() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    for (route, first) in [("events", "ready"), ("stream", "stream.opened")] {
        let mut stream = api
            .stream(request(Method::GET, &format!("{path}/{route}"), ""))
            .await;
        assert_eq!(stream.next().await.unwrap().kind(), first);
        api.post(&format!("{path}/message"), json!({ "text": "hello" }))
            .await
            .ok();
        let frames = stream.rest().await;
        assert_eq!(frames.last().unwrap().kind(), "done");
        let harness = frames.iter().any(|frame| frame.kind() == "harness_event");
        assert_eq!(harness, route == "events", "{route}: {frames:#?}");
        assert!(frames.iter().any(|frame| frame.kind().starts_with("message.")) != harness);
    }
}

#[tokio::test]
async fn a_stream_of_a_new_session_shows_its_bring_up() {
    let api = Api::start().await;
    let agent = api.agent().await;
    let session = api
        .post(&format!("{AGENTS}/{agent}/session"), json!({}))
        .await
        .ok();
    let events = format!("{SESSIONS}/{}/events?after=0", session["id"].as_str().unwrap());
    let frames = api
        .stream(request(Method::GET, &events, ""))
        .await
        .up_to("session.ready")
        .await;
    assert_eq!(frames[1].kind(), "session.created", "{frames:#?}");
    assert!(without_gap(&ids(&frames)));
}

#[tokio::test]
async fn a_stream_ends_with_the_session_and_its_rest_can_be_read() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    let open = api
        .stream(request(Method::GET, &format!("{path}/events?follow=1"), ""))
        .await;
    api.delete(&path).await.ok();
    let frames = open.rest().await;
    let kinds: Vec<_> = frames.iter().map(Frame::kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["session.ended", "done"]);
    let last = frames.iter().filter_map(|frame| frame.id).max().unwrap();

    let rest = api
        .stream(request(Method::GET, &format!("{path}/events?after=0"), ""))
        .await
        .rest()
        .await;
    assert_eq!(
        (ids(&rest).len() as u64, rest.last().unwrap().kind()),
        (last, "done")
    );
    assert_eq!(api.get(&format!("{path}/events?after={last}")).await.status, 204);
    assert_eq!(
        api.get(&format!("{path}/events?after={}", last + 100))
            .await
            .status,
        204
    );
    api.get(&format!("{path}/events")).await.problem(410, "gone");
    api.get(&format!("{path}/stream?follow=1"))
        .await
        .problem(410, "gone");
}

#[tokio::test]
async fn idle_streams_are_kept_open_by_comments_and_end_with_the_process() {
    let mut options = options();
    options.keep_alive = std::time::Duration::from_millis(20);
    let api = Api::with(lap_core::engine::EngineConfig::default(), options).await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    api.post(&format!("{path}/turns"), json!({ "text": HANG })).await;
    api.until(&format!("{path}/turns"), |turns| {
        turns["data"][0]["status"] == "running"
    })
    .await;
    let mut stream = api
        .stream(request(Method::GET, &format!("{path}/events?after=0"), ""))
        .await;
    stream.up_to("turn.running").await;
    stream.until_raw("\n:\n").await;
    assert!(stream.raw().contains("retry:"));
    api.engine.drain(std::time::Duration::from_millis(100)).await;
    let frames = stream.rest().await;
    let last = frames.last().unwrap().data.clone().unwrap();
    assert_eq!(last["type"], "draining");
    assert!(last["resume_after"].as_u64().unwrap() >= 1);
    api.get("/readyz").await.problem(503, "unavailable");
    api.get("/healthz").await.ok();
}

#[tokio::test]
async fn message_stream_of_a_queued_message_passes_over_the_turn_before() {
    let api = Api::start().await;
    let path = format!("{SESSIONS}/{}", api.session().await);
    api.post(&format!("{path}/turns"), json!({ "text": SLOW })).await;
    let body = json!({ "text": "mine" }).to_string();
    let frames = api
        .stream(request(Method::POST, &format!("{path}/message_stream"), body))
        .await
        .rest()
        .await;
    let turns = api.get(&format!("{path}/turns")).await.ok();
    assert_eq!(
        (&turns["data"][0]["status"], &turns["data"][1]["status"]),
        (&json!("completed"), &json!("completed"))
    );
    let told: Vec<_> = frames
        .iter()
        .filter_map(|frame| frame.data.as_ref()?.get("turn_id"))
        .collect();
    assert!(
        !told.is_empty() && told.iter().all(|turn| *turn == &turns["data"][1]["id"]),
        "{frames:#?}"
    );
    assert_eq!(frames.last().unwrap().kind(), "done");
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_nothing_twice() {
    let api = Api::start().await;
    let session = api.session().await;
    let path = format!("{SESSIONS}/{session}/events?follow=1");
    let behind = api.stream(request(Method::GET, &path, "")).await;
    // While nobody reads, the turn is said, stored and finished.
    let text = "word ".repeat(50);
    api.post(&format!("{SESSIONS}/{session}/message"), json!({ "text": text }))
        .await
        .ok();
    api.delete(&format!("{SESSIONS}/{session}")).await.ok();
    let frames = behind.rest().await;
    let delta = |frame: &Frame| {
        let properties = frame.data.as_ref()?.pointer("/event/properties")?.clone();
        Some((
            properties["offset"].as_u64()?,
            properties["delta"].as_str()?.to_owned(),
        ))
    };
    let (mut told, mut kinds) = (String::new(), Vec::new());
    for frame in &frames {
        kinds.push(frame.kind().to_owned());
        if let Some((offset, text)) = delta(frame) {
            assert_eq!(
                offset,
                told.len() as u64,
                "each piece follows the last one: {frame:?}"
            );
            told.push_str(&text);
        }
    }
    assert_eq!(told.trim_end(), format!("PONG {text}").trim_end());
    let finished = kinds.iter().position(|kind| kind == "turn.finished").unwrap();
    assert!(
        !kinds[finished..].contains(&"harness_event".to_owned()),
        "{kinds:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_one_and_of_many_sessions_all_see_the_end() {
    const READERS: usize = 120;
    let api = Api::start().await;
    let one = api.session().await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(api.session().await);
    }
    let mut reading = tokio::task::JoinSet::new();
    let spread = (0..READERS).map(|reader| &sessions[reader % sessions.len()]);
    for session in std::iter::repeat_n(&one, READERS).chain(spread) {
        let path = format!("{SESSIONS}/{session}/events?follow=1");
        let mut frames = api.stream(request(Method::GET, &path, "")).await;
        reading.spawn(async move { frames.up_to("turn.finished").await.len() });
    }
    for session in sessions.iter().chain([&one]) {
        let sent = api
            .post(
                &format!("{SESSIONS}/{session}/turns"),
                json!({ "text": "word ".repeat(50) }),
            )
            .await;
        assert_eq!(sent.status, 202);
    }
    let mut seen = 0;
    while let Some(frames) = reading.join_next().await {
        assert!(frames.unwrap() > 5);
        seen += 1;
    }
    assert_eq!(seen, 2 * READERS);
}
