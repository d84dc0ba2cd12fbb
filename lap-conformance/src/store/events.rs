//! The log of a session.

use std::sync::Arc;

use lap_core::event::NewEvent;
use lap_core::id::{SandboxId, SessionId};
use lap_core::store::{Append, Appended, EventPage, Ingest, WorkKind};
use lap_core::turn::TurnState;
use serde_json::json;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

fn event(text: &str) -> NewEvent {
    let body = json!({ "properties": { "text": text, "naïve": [1, null, 2.5] } });
    NewEvent {
        kind: "message.part.updated".to_owned(),
        turn: None,
        body,
        origin: Some(7),
    }
}

fn append(session: SessionId, texts: &[&str]) -> Append {
    let events = texts.iter().map(|text| event(text)).collect();
    Append {
        session,
        hold: None,
        ingest: None,
        running: None,
        events,
    }
}

fn ingest(session: SessionId, source: SandboxId, expected: u64, cursor: u64) -> Append {
    Append {
        ingest: Some(Ingest {
            source,
            expected,
            cursor,
        }),
        ..append(session, &["ingested"])
    }
}

/// Under concurrency the ids of each session are 1, 2, 3, ... and one append's events stand together, in order.
pub async fn event_ids_have_no_gaps(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let sessions = [scene.creating().await.0.id, scene.creating().await.0.id];
    let answers = together(12, |index| {
        let (store, session) = (Arc::clone(&scene.store), sessions[index % 2]);
        async move {
            store
                .append(vec![append(session, &["a", "b", "c"])])
                .await
                .unwrap()
        }
    })
    .await;
    for answer in answers {
        let [Appended::Done(events)] = &answer[..] else {
            panic!("it was appended: {answer:?}")
        };
        let follows = events.windows(2).all(|pair| pair[1].id == pair[0].id + 1);
        assert!(
            events.len() == 3 && follows,
            "one append stands together: {events:?}"
        );
    }
    for session in sessions {
        let ids: Vec<_> = scene.events(session).await.iter().map(|event| event.id).collect();
        assert_eq!(
            ids,
            (1..=19).collect::<Vec<_>>(),
            "session.created and six times three"
        );
    }
}

/// An event is read as it was given and as it was answered.
pub async fn events_are_kept_as_given(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, _) = scene.started(session).await;
    let head = scene.events(session).await.len();
    let given = vec![
        NewEvent {
            turn: Some(turn.id),
            ..event("first\n\u{1F600}")
        },
        event("second"),
    ];
    let one = Append {
        session,
        hold: None,
        ingest: None,
        running: None,
        events: given.clone(),
    };
    let answers = scene.store.append(vec![one]).await.unwrap();
    let [Appended::Done(stored)] = &answers[..] else {
        panic!("it was appended: {answers:?}")
    };
    assert_eq!(
        scene.events(session).await[head..],
        stored[..],
        "the answer is what is stored"
    );
    for (given, stored) in given.into_iter().zip(stored) {
        let NewEvent {
            kind,
            turn,
            body,
            origin,
        } = given;
        assert_eq!(stored.session, session);
        assert_eq!(
            (&stored.kind, stored.turn, &stored.body, stored.origin),
            (&kind, turn, &body, origin)
        );
        assert!(
            stored.at >= scene.session(session).await.created_at,
            "it has the store's time"
        );
    }
}

/// Events of a source are taken only at the expected cursor, so a repetition takes nothing twice.
pub async fn events_are_ingested_exactly_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.creating().await.0;
    let (id, source) = (session.id, session.sandbox.unwrap());
    assert_eq!(scene.store.cursor(id, source).await.unwrap(), 0);
    let answers = scene.store.append(vec![ingest(id, source, 0, 5)]).await.unwrap();
    assert!(
        matches!(&answers[..], [Appended::Done(events)] if events.len() == 1),
        "{answers:?}"
    );
    assert_eq!(scene.store.cursor(id, source).await.unwrap(), 5);
    let before = scene.snapshot().await;
    for (expected, cursor) in [(0, 5), (4, 6), (6, 7)] {
        let answers = scene
            .store
            .append(vec![ingest(id, source, expected, cursor)])
            .await
            .unwrap();
        assert_eq!(answers, [Appended::CursorAt(5)], "the stored cursor is told");
    }
    assert_eq!(scene.snapshot().await, before, "a repetition changes nothing");
    assert_eq!(scene.store.cursor(id, source).await.unwrap(), 5);
    let answers = scene.store.append(vec![ingest(id, source, 5, 9)]).await.unwrap();
    assert!(
        matches!(answers[..], [Appended::Done(_)]),
        "from there it goes on"
    );
    assert_eq!(scene.store.cursor(id, source).await.unwrap(), 9);
}

/// Of concurrent ingests at one cursor exactly one is taken.
pub async fn concurrent_ingests_have_one_winner(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.creating().await.0;
    let (id, source) = (session.id, session.sandbox.unwrap());
    let answers = together(8, |_| {
        let store = Arc::clone(&scene.store);
        async move {
            store
                .append(vec![ingest(id, source, 0, 3)])
                .await
                .unwrap()
                .remove(0)
        }
    })
    .await;
    let taken = answers
        .iter()
        .filter(|answer| matches!(answer, Appended::Done(_)))
        .count();
    let refused = answers
        .iter()
        .filter(|answer| **answer == Appended::CursorAt(3))
        .count();
    assert_eq!((taken, refused), (1, 7));
    assert_eq!(scene.events(id).await.len(), 2, "session.created and one event");
}

/// Every session has a cursor of its own for every source.
pub async fn cursors_are_per_session_and_source(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (first, second) = (scene.creating().await.0.id, scene.creating().await.0.id);
    let (a, b) = (scene.sandbox_id(), scene.sandbox_id());
    let batch = vec![
        ingest(first, a, 0, 1),
        ingest(first, b, 0, 2),
        ingest(second, a, 0, 3),
        ingest(first, a, 1, 4),
    ];
    let answers = scene.store.append(batch).await.unwrap();
    assert!(
        answers.iter().all(|answer| matches!(answer, Appended::Done(_))),
        "{answers:?}"
    );
    for (session, source, expected) in [(first, a, 4), (first, b, 2), (second, a, 3), (second, b, 0)] {
        assert_eq!(scene.store.cursor(session, source).await.unwrap(), expected);
    }
}

/// The first append of a turn takes it from sending to running, with its event first; later ones do not.
pub async fn the_first_append_of_a_turn_says_that_it_runs(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, item) = scene.started(session).await;
    let queued = scene.queued(session).await;
    let running = Append {
        hold: Some(item.hold.clone()),
        running: Some(turn.id),
        ..append(session, &["first"])
    };
    let kinds = |answer: &Appended| match answer {
        Appended::Done(events) => events
            .iter()
            .map(|event| (event.kind.clone(), event.turn))
            .collect::<Vec<_>>(),
        other => panic!("it was appended, not {other:?}"),
    };
    let answers = scene
        .store
        .append(vec![running.clone(), running.clone()])
        .await
        .unwrap();
    let text = ("message.part.updated".to_owned(), None);
    assert_eq!(
        kinds(&answers[0]),
        [("turn.running".to_owned(), Some(turn.id)), text.clone()]
    );
    assert_eq!(kinds(&answers[1]), std::slice::from_ref(&text), "it runs already");
    assert_eq!(scene.turn(turn.id).await.state, TurnState::Running);
    let not_sent = Append {
        running: Some(queued.id),
        ..running
    };
    let answers = scene.store.append(vec![not_sent]).await.unwrap();
    assert_eq!(kinds(&answers[0]), [text]);
    assert_eq!(
        scene.turn(queued.id).await.state,
        TurnState::Queued,
        "a queued turn does not run"
    );
    let (sent, _) = scene.started(scene.ready().await.id).await;
    let foreign = Append {
        running: Some(sent.id),
        ..append(session, &["foreign"])
    };
    scene.store.append(vec![foreign]).await.unwrap();
    assert_eq!(
        scene.turn(sent.id).await.state,
        TurnState::Sending,
        "another session's turn is left alone"
    );
}

/// In a batch each entry has its own answer: a stale one, or one without a session, does not stop the others.
pub async fn a_stale_entry_does_not_stop_the_others(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (stale, fine) = (scene.ready().await.id, scene.creating().await.0.id);
    let (turn, old) = scene.started(stale).await;
    let new = scene.taken_over(WorkKind::Turn).await;
    let source = scene.sandbox_id();
    let head = scene.events(stale).await.len();
    let late = Append {
        hold: Some(old.hold),
        running: Some(turn.id),
        ..ingest(stale, source, 0, 5)
    };
    let current = Append {
        hold: Some(new.hold),
        ..append(stale, &["current"])
    };
    let nowhere = append(scene.session_id(), &["nowhere"]);
    let answers = scene
        .store
        .append(vec![late, nowhere, append(fine, &["fine"]), current])
        .await
        .unwrap();
    assert_eq!(answers.len(), 4, "one answer each");
    assert_eq!(answers[..2], [Appended::Stale, Appended::NoSession]);
    assert!(
        answers[2..]
            .iter()
            .all(|answer| matches!(answer, Appended::Done(events) if events.len() == 1))
    );
    assert_eq!(
        scene.events(stale).await.len(),
        head + 1,
        "only the current holder's event was added"
    );
    assert_eq!(
        scene.turn(turn.id).await.state,
        TurnState::Sending,
        "the stale entry left the turn alone"
    );
    assert_eq!(
        scene.store.cursor(stale, source).await.unwrap(),
        0,
        "and the cursor"
    );
    assert_eq!(scene.events(fine).await.len(), 2);
}

/// Events are read after an id, at most as many as asked for, with the head and the oldest kept.
pub async fn events_are_read_in_pages(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.creating().await.0.id;
    scene
        .store
        .append(vec![append(session, &["2", "3", "4", "5"])])
        .await
        .unwrap();
    let all = scene.events(session).await;
    for (after, limit, expected) in [
        (0, 2, 0..2),
        (2, 2, 2..4),
        (4, 9, 4..5),
        (5, 9, 5..5),
        (99, 9, 5..5),
    ] {
        let page = scene.store.events(session, after, limit).await.unwrap();
        let events = all[expected].to_vec();
        assert_eq!(
            page,
            Some(EventPage {
                events,
                first_kept: 1,
                head: 5
            }),
            "after {after}, at most {limit}"
        );
    }
    assert_eq!(
        scene.store.events(scene.session_id(), 0, 9).await.unwrap(),
        None,
        "there is no such session"
    );
}
