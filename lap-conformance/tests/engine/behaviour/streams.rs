use std::time::Duration;

use futures_util::StreamExt as _;
use lap_conformance::crash::{Actor, Stage, Strike, Wire};
use lap_core::engine::{SessionStream, StreamItem};

use super::{room, settle};
use crate::paused::paused;

/// Items until the stream is silent for a while or ends.
async fn heard(stream: &mut SessionStream) -> Vec<StreamItem> {
    let mut items = Vec::new();
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_secs(3), stream.next()).await {
        items.push(item.unwrap());
    }
    items
}

fn ids(items: &[StreamItem]) -> Vec<u64> {
    let id = |item: &StreamItem| match item {
        StreamItem::Event(event) => Some(event.id),
        StreamItem::Passed { id } => Some(*id),
        _ => None,
    };
    items.iter().filter_map(id).collect()
}

/// The text of a reply as a reader puts it together by offsets. What was said live before the reader listened is
/// told by the log later.
fn read_text(items: &[StreamItem]) -> String {
    let mut text = Vec::new();
    for item in items {
        let body = match item {
            StreamItem::Live { kind, properties, .. } if kind == "message.part.delta" => properties,
            StreamItem::Event(event) if event.kind == "message.part.delta" => &event.body,
            _ => continue,
        };
        let offset = usize::try_from(body["offset"].as_u64().unwrap()).unwrap();
        let delta = body["delta"].as_str().unwrap().as_bytes();
        if text.len() < offset + delta.len() {
            text.resize(offset + delta.len(), b'?');
        }
        text[offset..offset + delta.len()].copy_from_slice(delta);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_stream_tells_live_first_and_then_the_ids() {
    room(async |room| {
        let session = room.ready().await;
        let engine = room.engine().await;
        let mut stream = engine.stream(session, Some(0)).await.unwrap();
        room.actor.send(session, "a", "SLOW 4").await.unwrap();
        let items = heard(&mut stream).await;
        let ids = ids(&items);
        assert_eq!(
            ids,
            (1..=ids.len() as u64).collect::<Vec<_>>(),
            "every id once and in order"
        );
        assert!(
            items.iter().any(|item| matches!(item, StreamItem::Passed { .. })),
            "{items:?}"
        );
        assert_eq!(read_text(&items), "chunk 1 chunk 2 chunk 3 chunk 4 ");
        let stored_deltas = items
            .iter()
            .filter(|item| matches!(item, StreamItem::Event(event) if event.kind == "message.part.delta"));
        assert_eq!(stored_deltas.count(), 0, "what was told live is not told again");
    });
}

#[test]
fn a_stream_resumes_where_it_broke_off() {
    room(async |room| {
        let session = room.ready().await;
        let engine = room.engine().await;
        room.actor.send(session, "a", "SLOW 4").await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut whole = engine.stream(session, Some(0)).await.unwrap();
        let whole = heard(&mut whole).await;
        for after in 0..ids(&whole).len() as u64 {
            let mut rest = engine.stream(session, Some(after)).await.unwrap();
            let rest = heard(&mut rest).await;
            assert_eq!(rest, whole[usize::try_from(after).unwrap()..], "after {after}");
        }
    });
}

/// Readers come at every moment of a turn, also between what is said and its storing: events arrive 10 ms apart here
/// and are stored every 50 ms.
#[test]
fn a_reader_that_comes_late_misses_nothing() {
    for moment in (0..200).step_by(15) {
        paused(async {
            let wire = Wire::new(|_, site| match site.method {
                "event" => Strike::Slow(Duration::from_millis(10)),
                _ => Strike::Pass,
            });
            let actor = Actor::new(Stage::new(5), &wire);
            let agent = actor.agent().await.unwrap();
            let session = actor.open(agent, "open", None).await.unwrap();
            actor.brought_up(session).await.unwrap();
            actor
                .send(session, "a", "one two three four five six")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let engine = actor.engine().await.unwrap().0;
            let mut stream = engine.stream(session, Some(0)).await.unwrap();
            let items = heard(&mut stream).await;
            assert_eq!(
                read_text(&items),
                "PONG one two three four five six",
                "after {moment} ms"
            );
        });
    }
}

#[test]
fn a_slow_reader_reads_the_log_and_misses_nothing() {
    room(async |room| {
        let session = room.ready().await;
        let engine = room.engine().await;
        let mut stream = engine.stream(session, Some(0)).await.unwrap();
        let words = "word ".repeat(3000);
        room.actor.send(session, "a", &words).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let items = heard(&mut stream).await;
        let ids = ids(&items);
        assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
        assert_eq!(read_text(&items), format!("PONG {words}"));
    });
}

#[test]
fn a_stream_ends_with_its_session() {
    room(async |room| {
        let session = room.ready().await;
        let engine = room.engine().await;
        let stream = engine.stream(session, None).await.unwrap();
        room.actor.close(session).await.unwrap();
        let rest = tokio::time::timeout(Duration::from_secs(3), stream.collect::<Vec<_>>()).await;
        let items = rest.expect("it ends");
        let last = items.last().unwrap().as_ref().unwrap();
        assert!(
            matches!(last, StreamItem::Event(event) if event.kind == "session.ended"),
            "{last:?}"
        );
    });
}

#[test]
fn a_draining_engine_says_where_to_resume() {
    room(async |room| {
        let session = room.ready().await;
        let engine = room.engine().await;
        let mut stream = engine.stream(session, Some(0)).await.unwrap();
        let before = heard(&mut stream).await;
        let last = *ids(&before).last().unwrap();
        engine.drain(Duration::from_secs(1)).await;
        let after = heard(&mut stream).await;
        assert_eq!(after, [StreamItem::Draining { resume_after: last }]);
        room.actor.replace();
        settle().await;
    });
}
