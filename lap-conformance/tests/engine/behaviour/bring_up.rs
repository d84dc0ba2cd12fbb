use std::time::Duration;

use lap_core::memory::Preparation;
use lap_core::session::{Phase, SessionState};
use lap_core::store::{Events as _, Sandboxes as _};

use super::{room, room_with};

const NEVER: Preparation = Preparation::Takes(Duration::from_secs(100_000));

#[test]
fn broken_warm_sandboxes_are_replaced_twice_and_then_a_cold_one_serves() {
    room(async |room| {
        let (actor, world) = (&room.actor, &room.actor.stage.world);
        let agent = actor.agent().await.unwrap();
        world.prepare(NEVER);
        let mut broken = Vec::new();
        for _ in 0..2 {
            broken.push(actor.stage.warm(agent).await.unwrap().unwrap());
        }
        world.prepare(Preparation::Instant);
        let session = actor.open(agent, "open", None).await.unwrap();
        let session = actor.brought_up(session).await.unwrap();
        assert_eq!(session.state, SessionState::Ready);
        assert!(!broken.contains(&session.sandbox.unwrap()));
        for sandbox in broken {
            let row = actor.stage.store.sandbox(sandbox).await.unwrap().unwrap();
            assert!(!row.state.is_live(), "{row:?}");
        }
    });
}

#[test]
fn the_third_broken_sandbox_is_the_last() {
    room(async |room| {
        let (actor, world) = (&room.actor, &room.actor.stage.world);
        let agent = actor.agent().await.unwrap();
        world.prepare(NEVER);
        for _ in 0..4 {
            actor.stage.warm(agent).await.unwrap();
        }
        world.prepare(Preparation::Instant);
        let session = actor.open(agent, "open", Some("hello")).await.unwrap();
        let session = actor.brought_up(session).await.unwrap();
        assert_eq!(session.state, SessionState::Failed, "{session:?}");
        for sandbox in world.launched() {
            world.kill(sandbox, "the fourth is the pool's");
        }
    });
}

#[test]
fn a_hopeless_preparation_fails_at_once_with_its_reason() {
    room(async |room| {
        let actor = &room.actor;
        actor
            .stage
            .world
            .prepare(Preparation::Fails("no such branch".to_owned()));
        let agent = actor.agent().await.unwrap();
        let began = tokio::time::Instant::now();
        let session = actor.open(agent, "open", Some("hello")).await.unwrap();
        let session = actor.brought_up(session).await.unwrap();
        assert_eq!(session.state, SessionState::Failed);
        assert_eq!(session.failure.as_deref(), Some("no such branch"));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    });
}

#[test]
fn a_slow_preparation_tells_its_phases_in_order() {
    room(async |room| {
        let actor = &room.actor;
        actor
            .stage
            .world
            .prepare(Preparation::Takes(Duration::from_secs(5)));
        let session = room.ready().await;
        let page = actor.stage.store.events(session, 0, 100).await.unwrap().unwrap();
        let told: Vec<_> = page
            .events
            .iter()
            .filter(|event| event.kind == "session.phase")
            .filter_map(|event| Phase::from_name(event.body["phase"].as_str()?))
            .collect();
        assert!(!told.is_empty() && told.is_sorted(), "{told:?}");
    });
}

#[test]
fn a_bring_up_has_a_deadline() {
    room_with(
        |config| config.bring_up_timeout = Duration::from_secs(30),
        async |room| {
            let actor = &room.actor;
            actor.stage.world.prepare(Preparation::NoAddress);
            let agent = actor.agent().await.unwrap();
            let began = tokio::time::Instant::now();
            let session = actor.open(agent, "open", Some("hello")).await.unwrap();
            let session = actor.brought_up(session).await.unwrap();
            assert_eq!(session.state, SessionState::Failed);
            assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        },
    );
}
