use std::time::Duration;

use lap_conformance::crash::Wire;
use lap_core::turn::TurnState;

use super::{room, settle};

#[test]
fn a_drained_engine_gives_back_and_the_next_one_goes_on() {
    room(async |room| {
        let session = room.ready().await;
        let turn = room.actor.send(session, "a", "SLOW 20").await.unwrap();
        settle().await;
        let engine = room.engine().await;
        engine.drain(Duration::from_secs(5)).await;
        assert!(engine.ready().await.is_err(), "it takes no requests any more");
        let held = room
            .actor
            .stage
            .store
            .stored_work()
            .into_iter()
            .filter(|item| item.hold.is_some());
        assert_eq!(held.count(), 0, "everything is given back");
        room.actor.replace();
        let turn = room.actor.outcome(session, turn.id).await.unwrap();
        assert_eq!(turn.state, TurnState::Completed);
        let delivered = room.actor.stage.world.deliveries(turn.id);
        assert_eq!(delivered.values().sum::<u32>(), 1, "it was delivered once");
    });
}

/// Two engines on one store: the one that runs the turn crashes, and the other finishes it.
#[test]
fn a_second_engine_takes_over_from_one_that_crashes() {
    room(async |room| {
        let session = room.ready().await;
        let second = room.actor.stage.engine(&Wire::sound()).await.unwrap();
        let turn = room.actor.send(session, "a", "SLOW 80").await.unwrap();
        settle().await;
        room.wire.crash();
        let within = Duration::from_secs(120);
        let turn = second.wait_turn(session, turn.id, within).await.unwrap();
        assert_eq!(turn.state, TurnState::Completed);
        let delivered = room.actor.stage.world.deliveries(turn.id);
        assert_eq!(delivered.values().sum::<u32>(), 1, "it was delivered once");
    });
}

/// An abort through a process that does not run the turn reaches it, also when no hint does.
#[test]
fn an_abort_through_another_engine_reaches_the_worker() {
    room(async |room| {
        let session = room.ready().await;
        let second = room.actor.stage.engine(&Wire::sound()).await.unwrap();
        let turn = room.actor.send(session, "a", "HANG").await.unwrap();
        settle().await;
        let caller = lap_core::caller::Caller::new("test");
        second.abort(&caller, session, None).await.unwrap();
        let turn = second
            .wait_turn(session, turn.id, Duration::from_secs(20))
            .await
            .unwrap();
        assert_eq!(turn.state, TurnState::Aborted);
    });
}
