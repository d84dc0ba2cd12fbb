//! How turns are taken over, stopped and finished.

use std::sync::Arc;
use std::time::Duration;

use lap_core::ErrorKind;
use lap_core::event::NewEvent;
use lap_core::store::{Append, Appended, Finish, Finished, Hold, Ingest, WorkKind};
use lap_core::turn::{Outcome, TurnState, Usage};
use serde_json::json;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

fn completed(text: &str) -> Outcome {
    Outcome {
        state: TurnState::Completed,
        failure: None,
        reply: Some(json!({ "info": { "role": "assistant" }, "parts": [{ "type": "text", "text": text }] })),
        usage: Usage {
            input_tokens: 7,
            output_tokens: 11,
            cost: 0.25,
        },
    }
}

/// Of concurrent finishes exactly one gives the outcome, with one event.
pub async fn a_turn_finishes_exactly_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, item) = scene.started(session).await;
    let answers = together(8, |index| {
        let outcome = if index % 2 == 0 {
            completed("done")
        } else {
            Outcome::failed("no")
        };
        let finish = Finish {
            turn: turn.id,
            hold: item.hold.clone(),
            outcome,
        };
        let store = Arc::clone(&scene.store);
        async move { store.finish(finish).await.unwrap() }
    })
    .await;
    let done: Vec<_> = answers
        .into_iter()
        .filter(|answer| *answer != Finished::Stale)
        .collect();
    assert_eq!(
        done,
        [Finished::Done(scene.turn(turn.id).await, None)],
        "one finish is done and it is the stored one"
    );
    let finished = scene
        .story(session)
        .await
        .iter()
        .filter(|kind| *kind == "turn.finished")
        .count();
    assert_eq!(finished, 1);
}

/// The outcome is kept as given, the item is gone, and the end of a turn is a sign of life.
pub async fn an_outcome_is_kept(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    for outcome in [
        completed("done"),
        Outcome::failed("no"),
        Outcome::aborted("stop"),
        Outcome::unknown("who knows"),
    ] {
        let (turn, item) = scene.started(session).await;
        scene.pass(Duration::from_secs(30)).await;
        let finish = Finish {
            turn: turn.id,
            hold: item.hold.clone(),
            outcome: outcome.clone(),
        };
        let answer = scene.store.finish(finish).await.unwrap();
        let stored = scene.turn(turn.id).await;
        assert_eq!(answer, Finished::Done(stored.clone(), None));
        assert_eq!((stored.state, &stored.failure), (outcome.state, &outcome.failure));
        assert_eq!((&stored.reply, stored.usage), (&outcome.reply, outcome.usage));
        assert_eq!(
            stored.finished_at,
            Some(scene.session(session).await.last_seen_at)
        );
        assert!(stored.finished_at > stored.started_at);
        assert_eq!(
            scene.store.held(scene.worker).await.unwrap(),
            [],
            "the item is gone"
        );
        assert!(!scene.store.done(&item).await.unwrap());
        let events = scene.events(session).await;
        let last = events.last().expect("there are events");
        assert_eq!((last.kind.as_str(), last.turn), ("turn.finished", Some(turn.id)));
        assert_eq!(last.body["outcome"], outcome.state.as_str());
    }
}

/// With the finish of a turn the next one is sending, in order, under the same hold.
pub async fn the_next_turn_starts_with_the_finish(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (first, item) = scene.started(session).await;
    let (second, third) = (scene.queued(session).await, scene.queued(session).await);
    for (turn, expected) in [(first, Some(second.id)), (second, Some(third.id)), (third, None)] {
        let finish = Finish {
            turn: turn.id,
            hold: item.hold.clone(),
            outcome: completed("done"),
        };
        let answer = scene.store.finish(finish).await.unwrap();
        let Finished::Done(done, next) = answer else {
            panic!("the hold is good for all of them: {answer:?}")
        };
        assert_eq!((done.id, done.state), (turn.id, TurnState::Completed));
        assert_eq!(next.as_ref().map(|next| next.id), expected);
        if let Some(next) = next {
            assert_eq!(
                (next.state, next.started_at),
                (TurnState::Sending, done.finished_at)
            );
            assert_eq!(scene.turn(next.id).await, next);
            let held = scene.store.held(scene.worker).await.unwrap();
            assert_eq!(
                held.iter().map(|item| &item.hold).collect::<Vec<_>>(),
                [&item.hold]
            );
        }
    }
    assert!(
        !scene.store.done(&item).await.unwrap(),
        "with the last one the item is gone"
    );
}

/// Once another worker holds the turn, the first one can neither begin, finish nor append.
pub async fn a_stale_hold_cannot_touch_a_turn(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, old) = scene.started(session).await;
    let new = scene.taken_over(WorkKind::Turn).await.hold;
    let story = scene.story(session).await;
    let forged = Hold {
        fence: new.fence,
        ..old.hold.clone()
    };
    for hold in [old.hold, forged] {
        assert_eq!(scene.store.begin(session, &hold).await.unwrap(), None);
        let finish = Finish {
            turn: turn.id,
            hold: hold.clone(),
            outcome: completed("late"),
        };
        assert_eq!(scene.store.finish(finish).await.unwrap(), Finished::Stale);
        let append = Append {
            session,
            hold: Some(hold),
            ingest: None,
            running: Some(turn.id),
            events: Vec::new(),
        };
        assert_eq!(scene.store.append(vec![append]).await.unwrap(), [Appended::Stale]);
    }
    assert_eq!(scene.turn(turn.id).await, turn, "nothing changed");
    assert_eq!(scene.story(session).await, story);
    let finish = Finish {
        turn: turn.id,
        hold: new,
        outcome: completed("done"),
    };
    assert!(
        matches!(scene.store.finish(finish).await.unwrap(), Finished::Done(..)),
        "the new holder finishes"
    );
}

/// A hold on another session's item, or on another kind of item, is no hold on the turn.
pub async fn a_foreign_hold_cannot_touch_a_turn(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, _) = scene.started(session).await;
    let (_, bring_up) = scene.creating().await;
    let other = scene.ready().await.id;
    let foreign = scene.started(other).await.1.hold;
    for hold in [bring_up, foreign] {
        assert_eq!(scene.store.begin(session, &hold).await.unwrap(), None);
        let finish = Finish {
            turn: turn.id,
            hold,
            outcome: completed("not mine"),
        };
        assert_eq!(scene.store.finish(finish).await.unwrap(), Finished::Stale);
    }
    assert_eq!(scene.turn(turn.id).await, turn, "nothing changed");
}

/// After a take-over the new worker begins with the open turn as it is, and not with the next one.
pub async fn a_taken_over_turn_is_begun_again(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, item) = scene.started(session).await;
    scene.queued(session).await;
    let append = Append {
        session,
        hold: Some(item.hold),
        ingest: None,
        running: Some(turn.id),
        events: Vec::new(),
    };
    scene.store.append(vec![append]).await.unwrap();
    let taken = scene.taken_over(WorkKind::Turn).await;
    assert_eq!((taken.attempts, taken.place), (2, Some(scene.place)));
    for _ in 0..2 {
        let begun = scene.store.begin(session, &taken.hold).await.unwrap();
        assert_eq!(
            begun.map(|turn| (turn.id, turn.state)),
            Some((turn.id, TurnState::Running))
        );
    }
    let finish = Finish {
        turn: turn.id,
        hold: taken.hold.clone(),
        outcome: completed("done"),
    };
    let answer = scene.store.finish(finish).await.unwrap();
    assert!(
        matches!(answer, Finished::Done(_, Some(_))),
        "and goes on with the queue: {answer:?}"
    );
    let held = scene.store.held(taken.hold.worker).await.unwrap();
    assert_eq!(
        (held.len(), held[0].attempts),
        (1, 1),
        "the end of one turn forgets its attempts"
    );
}

/// A turn ends in a terminal state or not at all, and only an open turn is finished.
pub async fn only_an_open_turn_gets_a_terminal_outcome(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, item) = scene.started(session).await;
    let queued = scene.queued(session).await;
    for state in TurnState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        let outcome = Outcome {
            state,
            ..completed("?")
        };
        let finish = Finish {
            turn: turn.id,
            hold: item.hold.clone(),
            outcome,
        };
        let error = scene
            .store
            .finish(finish)
            .await
            .expect_err("this is not an outcome");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    for turn in [queued.id, scene.turn_id()] {
        let finish = Finish {
            turn,
            hold: item.hold.clone(),
            outcome: completed("?"),
        };
        assert_eq!(scene.store.finish(finish).await.unwrap(), Finished::Stale);
    }
    assert_eq!(scene.turns(session).await, [turn, queued], "nothing changed");
}

/// The last events of a turn and its outcome are one commit; a refusal changes nothing of either.
pub async fn a_conclusion_is_whole_or_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let (turn, item) = scene.started(session.id).await;
    let source = session.sandbox.unwrap();
    let last = |expected, hold: &Hold| Append {
        session: session.id,
        hold: Some(hold.clone()),
        ingest: Some(Ingest {
            source,
            expected,
            cursor: 7,
        }),
        running: Some(turn.id),
        events: vec![NewEvent {
            kind: "said".to_owned(),
            turn: Some(turn.id),
            body: json!({}),
            origin: Some(7),
        }],
    };
    let finish = Finish {
        turn: turn.id,
        hold: item.hold.clone(),
        outcome: Outcome::failed("enough"),
    };
    let before = scene.story(session.id).await;
    let stale = Hold {
        fence: item.hold.fence + 1,
        ..item.hold.clone()
    };
    let late = Finish {
        hold: stale.clone(),
        ..finish.clone()
    };
    for (last, finish) in [(last(0, &item.hold), late), (last(5, &item.hold), finish.clone())] {
        assert_eq!(scene.store.conclude(last, finish).await.unwrap(), Finished::Stale);
    }
    assert_eq!(scene.story(session.id).await, before);
    assert_eq!(scene.store.cursor(session.id, source).await.unwrap(), 0);
    let done = scene
        .store
        .conclude(last(0, &item.hold), finish.clone())
        .await
        .unwrap();
    assert!(
        matches!(done, Finished::Done(ref ended, None) if ended.state == TurnState::Failed),
        "{done:?}"
    );
    let story = scene.story(session.id).await;
    assert_eq!(story[before.len()..], ["turn.running", "said", "turn.finished"]);
    assert_eq!(scene.store.cursor(session.id, source).await.unwrap(), 7);
    assert_eq!(
        scene.store.conclude(last(7, &item.hold), finish).await.unwrap(),
        Finished::Stale
    );
    assert_eq!(scene.story(session.id).await, story);
}
