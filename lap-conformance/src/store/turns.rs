//! How turns are accepted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lap_core::session::{EndedBy, SessionState};
use lap_core::store::{Accept, Accepted, End, NewWork, Step, TurnQuery, WorkKind};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

/// In a ready session without an open turn a turn is sending at once, with its item held by its acceptor.
pub async fn a_turn_of_an_idle_session_starts_at_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    scene.pass(Duration::from_secs(60)).await;
    let accept = Accept {
        queue_limit: 0,
        ..scene.new_accept(session.id)
    };
    let answer = scene.store.accept(accept.clone()).await.unwrap();
    let Accepted::Started(turn, Some(item)) = answer else {
        panic!("nothing was open: {answer:?}")
    };
    assert_eq!(
        (turn.id, turn.session, turn.number),
        (accept.turn.id, session.id, 1)
    );
    assert_eq!((turn.state, turn.abort_requested), (TurnState::Sending, false));
    assert_eq!(
        (&turn.parts, &turn.created_by),
        (&accept.turn.parts, &accept.turn.created_by)
    );
    assert_eq!(turn.started_at, Some(turn.created_at));
    assert_eq!(scene.turn(turn.id).await, turn, "the answer is what is stored");
    assert_eq!(
        (item.hold.kind, item.key()),
        (WorkKind::Turn, session.id.to_string().as_str())
    );
    assert_eq!(
        (item.hold.worker, item.place, item.attempts),
        (scene.worker, Some(scene.place), 1)
    );
    assert_eq!(scene.store.held(scene.worker).await.unwrap(), [item]);
    let after = scene.session(session.id).await;
    assert_eq!(
        (after.preview.as_deref(), after.last_seen_at),
        (Some("hello"), turn.created_at),
        "it is ingress"
    );
    let events = scene.events(session.id).await;
    let last = events.last().expect("there are events");
    assert_eq!((last.kind.as_str(), last.turn), ("turn.accepted", Some(turn.id)));
}

/// Behind an open turn turns wait, whoever sends them; numbers are in order of acceptance.
pub async fn a_turn_waits_behind_the_open_one(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (open, item) = scene.started(session).await;
    let (second, third) = (scene.queued(session).await, scene.queued(session).await);
    assert_eq!((open.number, second.number, third.number), (1, 2, 3));
    assert_eq!((second.state, second.started_at), (TurnState::Queued, None));
    assert_eq!(scene.turn(open.id).await, open, "the open turn goes on");
    assert_eq!(
        scene.store.held(scene.worker).await.unwrap(),
        [item],
        "its item serves the queue too"
    );
    assert!(
        scene.take(&[WorkKind::Turn]).await.is_empty(),
        "nobody else is offered the waiting turns"
    );
}

/// While a session is creating its turns wait, also the first.
pub async fn turns_wait_while_a_session_is_creating(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let turn = scene.queued(session.id).await;
    assert_eq!((turn.number, turn.state), (1, TurnState::Queued));
    assert_eq!(scene.session(session.id).await.preview.as_deref(), Some("hello"));
    assert!(
        scene.take(&[WorkKind::Turn]).await.is_empty(),
        "there is nothing to run yet"
    );
    let held = scene.store.held(scene.worker).await.unwrap();
    assert_eq!(held.iter().map(|item| &item.hold).collect::<Vec<_>>(), [&hold]);
    let early = NewWork {
        kind: WorkKind::Turn,
        key: session.id.to_string(),
        place: None,
        after: Duration::ZERO,
    };
    scene.store.enqueue(vec![early]).await.unwrap();
    let early = scene.take(&[WorkKind::Turn]).await.remove(0);
    let begun = scene.store.begin(session.id, &early.hold).await.unwrap();
    assert_eq!(
        (begun, scene.turn(turn.id).await),
        (None, turn),
        "not even early work begins it"
    );
}

/// No more turns than the limit may wait. A refused turn leaves nothing, and its key is not remembered.
pub async fn the_queue_is_bounded(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (creating, _) = scene.creating().await;
    let ready = scene.ready().await.id;
    let (_, item) = scene.started(ready).await;
    for session in [creating.id, ready] {
        let bounded = || Accept {
            queue_limit: 2,
            idempotency: Some(scene.request("accept", session, "k")),
            ..scene.new_accept(session)
        };
        scene.queued(session).await;
        scene.queued(session).await;
        let count = scene.turns(session).await.len();
        assert_eq!(scene.store.accept(bounded()).await.unwrap(), Accepted::Full);
        assert_eq!(
            scene.turns(session).await.len(),
            count,
            "a refused turn is not stored"
        );
        scene.store.abort(session, None).await.unwrap();
        let answer = scene.store.accept(bounded()).await.unwrap();
        assert!(
            matches!(answer, Accepted::Queued(_)),
            "there is room again: {answer:?}"
        );
    }
    assert!(
        scene.store.done(&item).await.unwrap(),
        "the open turn was never touched"
    );
}

/// A session that failed or died takes no turns, and an unknown one neither.
pub async fn an_ended_session_takes_no_turns(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let unknown = scene.new_accept(scene.session_id());
    assert_eq!(scene.store.accept(unknown).await.unwrap(), Accepted::NoSession);
    let (failed, hold) = scene.creating().await;
    scene
        .stepped(failed.id, &hold, Step::Failed("no".to_owned()))
        .await;
    let dead = scene.ready().await;
    scene
        .store
        .end(End {
            session: dead.id,
            by: EndedBy::User,
            reason: None,
            only_if_idle_for: None,
        })
        .await
        .unwrap();
    for (session, state) in [(failed.id, SessionState::Failed), (dead.id, SessionState::Dead)] {
        let accept = scene.new_accept(session);
        let turn = accept.turn.id;
        assert_eq!(scene.store.accept(accept).await.unwrap(), Accepted::Ended(state));
        assert_eq!(
            scene.store.turn(turn).await.unwrap(),
            None,
            "a refused turn is not stored"
        );
    }
}

/// The same request is accepted once, by key or by the turn's id, also after the session has ended.
pub async fn a_repeated_turn_is_replayed(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let keyed = || Accept {
        idempotency: Some(scene.request("accept", session, "k")),
        ..scene.new_accept(session)
    };
    let answer = scene.store.accept(keyed()).await.unwrap();
    let Accepted::Started(turn, Some(_)) = answer else {
        panic!("nothing was open: {answer:?}")
    };
    let before = scene.snapshot().await;
    assert_eq!(
        scene.store.accept(keyed()).await.unwrap(),
        Accepted::Replayed(turn.clone())
    );
    let mut without_key = scene.new_accept(session);
    without_key.turn.id = turn.id;
    assert_eq!(
        scene.store.accept(without_key).await.unwrap(),
        Accepted::Replayed(turn.clone()),
        "the id is a key"
    );
    let mut reused = keyed();
    reused.idempotency.as_mut().unwrap().body_hash = "body-2".to_owned();
    assert_eq!(scene.store.accept(reused).await.unwrap(), Accepted::KeyReused);
    assert_eq!(scene.snapshot().await, before, "neither changes anything");
    scene
        .store
        .end(End {
            session,
            by: EndedBy::User,
            reason: None,
            only_if_idle_for: None,
        })
        .await
        .unwrap();
    let answer = scene.store.accept(keyed()).await.unwrap();
    let ended = scene.turn(turn.id).await;
    assert_eq!(
        answer,
        Accepted::Replayed(ended),
        "the request comes before the state of the session"
    );
}

/// Of concurrent repetitions one is accepted; the others get its turn.
pub async fn concurrent_repetitions_accept_one_turn(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let answers = together(8, |_| {
        let idempotency = Some(scene.request("accept", session, "k"));
        let (store, accept) = (
            Arc::clone(&scene.store),
            Accept {
                idempotency,
                ..scene.new_accept(session)
            },
        );
        async move { store.accept(accept).await.unwrap() }
    })
    .await;
    let (mut started, mut turns) = (0, BTreeSet::new());
    for answer in answers {
        match answer {
            Accepted::Started(turn, Some(_)) => {
                started += 1;
                turns.insert(turn.id);
            }
            Accepted::Replayed(turn) => {
                turns.insert(turn.id);
            }
            other => panic!("each is the first or a repetition, not {other:?}"),
        }
    }
    assert_eq!(
        (started, turns.len(), scene.turns(session).await.len()),
        (1, 1, 1)
    );
}

/// Under concurrency turns are numbered 1, 2, 3, ... without gaps, exactly one starts, and each has its event.
pub async fn turn_numbers_have_no_gaps(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let answers = together(12, |_| {
        let (store, accept) = (Arc::clone(&scene.store), scene.new_accept(session));
        async move { store.accept(accept).await.unwrap() }
    })
    .await;
    let started = answers
        .iter()
        .filter(|answer| matches!(answer, Accepted::Started(..)))
        .count();
    assert_eq!(started, 1, "a session has one open turn");
    let turns = scene.turns(session).await;
    assert_eq!(
        turns.iter().map(|turn| turn.number).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    assert_eq!(
        turns
            .iter()
            .filter(|turn| turn.state == TurnState::Sending)
            .count(),
        1
    );
    assert_eq!(turns[0].state, TurnState::Sending, "and it is the first");
    let events = scene.events(session).await;
    let accepted = events
        .iter()
        .filter(|event| event.kind == "turn.accepted")
        .filter_map(|event| event.turn);
    assert_eq!(
        accepted.collect::<Vec<_>>(),
        turns.iter().map(|turn| turn.id).collect::<Vec<_>>()
    );
}

/// A turn accepted while another worker still holds the session's item is not lost: the item comes again.
pub async fn a_turn_accepted_while_its_item_is_held_is_not_lost(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let item = NewWork {
        kind: WorkKind::Turn,
        key: session.to_string(),
        place: None,
        after: Duration::ZERO,
    };
    scene.store.enqueue(vec![item]).await.unwrap();
    let other = scene.worker_id();
    let held = scene.take_as(other, &[WorkKind::Turn]).await.remove(0);
    assert_eq!(
        scene.store.begin(session, &held.hold).await.unwrap(),
        None,
        "there was no turn"
    );

    let answer = scene.store.accept(scene.new_accept(session)).await.unwrap();
    let Accepted::Started(turn, None) = answer else {
        panic!("the other worker holds the item: {answer:?}")
    };
    assert!(
        scene.store.done(&held).await.unwrap(),
        "the other worker knows nothing of the turn"
    );
    let again = scene.take(&[WorkKind::Turn]).await;
    assert_eq!(again.len(), 1, "the item comes again");
    let begun = scene.store.begin(session, &again[0].hold).await.unwrap();
    assert_eq!(begun.map(|turn| turn.id), Some(turn.id), "and with it the turn");
}

/// Turns are listed oldest first, after a number, at most as many as asked for, of one session only.
pub async fn turns_are_listed_in_pages(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, other) = (scene.creating().await.0.id, scene.creating().await.0.id);
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(scene.queued(session).await);
        scene.queued(other).await;
    }
    let page = |after, limit| {
        scene.store.list_turns(TurnQuery {
            session,
            after,
            limit,
        })
    };
    assert_eq!(page(0, 3).await.unwrap(), turns[..3]);
    assert_eq!(page(3, 3).await.unwrap(), turns[3..]);
    assert_eq!(page(4, 3).await.unwrap(), []);
    assert_eq!(scene.turns(scene.session_id()).await, []);
    assert_eq!(scene.store.turn(scene.turn_id()).await.unwrap(), None);
}
