use std::time::Duration;

use lap_conformance::crash::{Strike, Wire, text};
use lap_core::caller::Caller;
use lap_core::engine::SendTurn;
use lap_core::error::ErrorKind;
use lap_core::turn::TurnState;

use super::{room, room_with, settle};

#[test]
fn a_turn_is_three_commits_at_most() {
    room(async |room| {
        let session = room.ready().await;
        settle().await;
        room.writes();
        let turn = room.actor.send(session, "a", "hello").await.unwrap();
        let turn = room.actor.outcome(session, turn.id).await.unwrap();
        assert_eq!(turn.state, TurnState::Completed);
        settle().await;
        let writes = room.writes();
        assert!(writes.len() <= 3, "{writes:?}");
        assert_eq!(writes.first(), Some(&"accept"));
        assert_eq!(writes.iter().filter(|method| **method == "accept").count(), 1);
    });
}

#[test]
fn a_queue_keeps_its_order() {
    room(async |room| {
        let session = room.ready().await;
        let mut turns = Vec::new();
        for words in ["SLOW 2", "second", "third", "fourth"] {
            turns.push(room.actor.send(session, words, words).await.unwrap());
        }
        assert_eq!(turns[0].state, TurnState::Sending);
        assert!(turns[1..].iter().all(|turn| turn.state == TurnState::Queued));
        let mut finished = Vec::new();
        for turn in &turns {
            let turn = room.actor.outcome(session, turn.id).await.unwrap();
            assert_eq!(turn.state, TurnState::Completed);
            finished.push((turn.number, turn.started_at, turn.finished_at));
        }
        assert!(finished.is_sorted(), "{finished:?}");
    });
}

#[test]
fn a_full_queue_refuses() {
    room_with(
        |config| config.queue_limit = 2,
        async |room| {
            let session = room.ready().await;
            for key in ["open", "first", "second"] {
                room.actor.send(session, key, "HANG").await.unwrap();
            }
            let engine = room.engine().await;
            let send = SendTurn {
                session,
                parts: text("too much"),
                model: None,
                idempotency_key: None,
            };
            let refused = engine.send_turn(&Caller::new("test"), send).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Busy);
            assert!(refused.is_retryable());
        },
    );
}

#[test]
fn an_abort_of_one_turn_spares_those_behind_it() {
    room(async |room| {
        let session = room.ready().await;
        let open = room.actor.send(session, "a", "HANG").await.unwrap();
        let queued = room.actor.send(session, "b", "hello").await.unwrap();
        settle().await;
        room.actor.abort(session, Some(open.id)).await.unwrap();
        let open = room.actor.outcome(session, open.id).await.unwrap();
        assert_eq!(open.state, TurnState::Aborted);
        let queued = room.actor.outcome(session, queued.id).await.unwrap();
        assert_eq!(queued.state, TurnState::Completed);
    });
}

#[test]
fn an_abort_of_all_ends_the_queue_too() {
    room(async |room| {
        let session = room.ready().await;
        let mut turns = Vec::new();
        for key in ["a", "b", "c"] {
            turns.push(room.actor.send(session, key, "HANG").await.unwrap());
        }
        room.actor.abort(session, None).await.unwrap();
        for turn in turns {
            let turn = room.actor.outcome(session, turn.id).await.unwrap();
            assert_eq!(turn.state, TurnState::Aborted);
        }
    });
}

/// The harness never answers a delivery, and the turn is stopped meanwhile.
#[test]
fn a_turn_that_was_not_sent_yet_is_aborted() {
    super::paused(async {
        let wire = Wire::new(|_, site| match site.method {
            "send" | "has_turn" => Strike::FailBefore,
            _ => Strike::Pass,
        });
        let actor = lap_conformance::crash::Actor::new(lap_conformance::crash::Stage::new(5), &wire);
        let agent = actor.agent().await.unwrap();
        let session = actor.open(agent, "open", None).await.unwrap();
        actor.brought_up(session).await.unwrap();
        let turn = actor.send(session, "a", "hello").await.unwrap();
        settle().await;
        actor.abort(session, None).await.unwrap();
        let asked = tokio::time::Instant::now();
        let turn = actor.outcome(session, turn.id).await.unwrap();
        assert_eq!(turn.state, TurnState::Aborted);
        assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        actor.play(async { Ok(()) }).await.unwrap();
    });
}

/// The turn runs, its sandbox is not reached any more, and it is stopped.
#[test]
fn an_abort_works_although_the_sandbox_is_not_reached() {
    super::paused(async {
        let cut = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_cut = std::sync::Arc::clone(&cut);
        let wire = Wire::new(move |_, site| {
            let is_harness = site.backend == lap_conformance::crash::Backend::Harness;
            if is_harness && is_cut.load(std::sync::atomic::Ordering::SeqCst) {
                Strike::FailBefore
            } else {
                Strike::Pass
            }
        });
        let actor = lap_conformance::crash::Actor::new(lap_conformance::crash::Stage::new(5), &wire);
        let agent = actor.agent().await.unwrap();
        let session = actor.open(agent, "open", None).await.unwrap();
        actor.brought_up(session).await.unwrap();
        let turn = actor.send(session, "a", "SLOW 100").await.unwrap();
        settle().await;
        cut.store(true, std::sync::atomic::Ordering::SeqCst);
        settle().await;
        actor.abort(session, None).await.unwrap();
        let asked = tokio::time::Instant::now();
        let turn = actor.outcome(session, turn.id).await.unwrap();
        assert_eq!(turn.state, TurnState::Aborted);
        assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        actor.play(async { Ok(()) }).await.unwrap();
    });
}

#[test]
fn a_turn_has_a_deadline() {
    room_with(
        |config| config.turn_timeout = Duration::from_secs(5),
        async |room| {
            let session = room.ready().await;
            let began = tokio::time::Instant::now();
            let turn = room.actor.send(session, "a", "HANG").await.unwrap();
            let turn = room.actor.outcome(session, turn.id).await.unwrap();
            assert_eq!(turn.state, TurnState::Failed);
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        },
    );
}
