use std::time::Duration;

use lap_core::caller::Caller;
use lap_core::engine::{AgentDefinition, CreateAgent};
use lap_core::session::{EndedBy, SessionState};
use lap_core::store::{Sandboxes as _, Sessions as _};
use lap_core::turn::TurnState;

use super::{room, room_with, settle};

#[test]
fn a_cold_open_is_two_commits_until_ready() {
    room(async |room| {
        let agent = room.actor.agent().await.unwrap();
        room.writes();
        let session = room.actor.open(agent, "open", None).await.unwrap();
        room.actor.brought_up(session).await.unwrap();
        settle().await;
        assert_eq!(room.writes(), ["open", "advance"]);
    });
}

#[test]
fn a_warm_open_is_two_commits_and_launches_nothing() {
    room(async |room| {
        let agent = room.actor.agent().await.unwrap();
        let warm = room.actor.stage.warm(agent).await.unwrap();
        room.writes();
        let session = room.actor.open(agent, "open", None).await.unwrap();
        let session = room.actor.brought_up(session).await.unwrap();
        settle().await;
        assert_eq!(session.sandbox, warm);
        assert_eq!(room.writes(), ["open", "advance"]);
        assert_eq!(room.actor.stage.world.launched().len(), 1);
    });
}

#[test]
fn an_idle_session_is_reaped_and_a_used_one_is_not() {
    room_with(
        |config| config.idle_timeout = Duration::from_secs(60),
        async |room| {
            let session = room.ready().await;
            let engine = room.engine().await;
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                engine.touch(session);
            }
            let found = engine.session(session).await.unwrap();
            assert_eq!(found.state, SessionState::Ready, "it was used all the time");
            tokio::time::sleep(Duration::from_secs(80)).await;
            let found = engine.session(session).await.unwrap();
            assert_eq!(found.ended_by, Some(EndedBy::Idle));
        },
    );
}

#[test]
fn a_session_with_a_running_turn_is_not_idle() {
    room_with(
        |config| config.idle_timeout = Duration::from_secs(30),
        async |room| {
            let session = room.ready().await;
            let turn = room.actor.send(session, "a", "HANG").await.unwrap();
            tokio::time::sleep(Duration::from_secs(200)).await;
            let engine = room.engine().await;
            let found = engine.turn(session, turn.id).await.unwrap();
            assert_eq!(found.state, TurnState::Running);
        },
    );
}

#[test]
fn a_deleted_agent_takes_everything_along() {
    room(async |room| {
        let session = room.ready().await;
        let turn = room.actor.send(session, "a", "HANG").await.unwrap();
        let queued = room.actor.send(session, "b", "hello").await.unwrap();
        settle().await;
        let found = room.actor.stage.store.session(session).await.unwrap().unwrap();
        room.actor.delete(found.agent).await.unwrap();
        for turn in [turn, queued] {
            let turn = room.actor.outcome(session, turn.id).await.unwrap();
            assert_eq!(turn.state, TurnState::Aborted);
        }
        settle().await;
        assert_eq!(room.actor.stage.world.launched(), []);
        assert_eq!(room.actor.stage.vault.attached(), []);
        let row = room
            .actor
            .stage
            .store
            .sandbox(found.sandbox.unwrap())
            .await
            .unwrap()
            .unwrap();
        assert!(!row.state.is_live());
    });
}

#[test]
fn a_secret_in_the_plain_environment_is_refused() {
    room_with(
        |config| {
            config
                .platform
                .env
                .insert("NOTES".to_owned(), "the key is very-secret-value".to_owned());
        },
        async |room| {
            let engine = room.engine().await;
            let secret = lap_core::secret::Secret::new("very-secret-value");
            let new = CreateAgent {
                definition: AgentDefinition {
                    model: "m".to_owned(),
                    env_vars: [("API_TOKEN".to_owned(), secret)].into(),
                    ..AgentDefinition::default()
                },
                idempotency_key: None,
            };
            let agent = engine.create_agent(&Caller::new("test"), new).await.unwrap();
            let session = room.actor.open(agent.id, "open", None).await.unwrap();
            let session = room.actor.brought_up(session).await.unwrap();
            assert_eq!(session.state, SessionState::Failed);
            let failure = session.failure.unwrap();
            assert!(
                failure.contains("NOTES") && failure.contains("API_TOKEN"),
                "{failure}"
            );
            assert!(!failure.contains("very-secret-value"), "{failure}");
            assert_eq!(
                room.actor.stage.world.launched(),
                [],
                "nothing was launched with it"
            );
        },
    );
}
