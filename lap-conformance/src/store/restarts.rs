//! The way back from an end.

use lap_core::id::SessionId;
use lap_core::sandbox::SandboxState;
use lap_core::session::SessionState;
use lap_core::store::{OpenedSession, Revive, Revived, WorkKind};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::Scene;

fn revive(scene: &Scene<'_>, session: SessionId) -> Revive {
    Revive {
        session,
        by: "somebody".to_owned(),
        platform_hash: scene.platform.clone(),
        cold_sandbox: scene.sandbox_id(),
        place: scene.place,
        worker: scene.worker,
    }
}

async fn revived(scene: &Scene<'_>, session: SessionId) -> OpenedSession {
    match scene.store.revive(revive(scene, session)).await.unwrap() {
        Revived::Cold(opened) => opened,
        other => panic!("nothing is warm: {other:?}"),
    }
}

/// A restarted session is creating again, in another sandbox, with a bring-up held by who restarts it.
pub async fn a_restarted_session_is_creating_again(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    scene
        .stepped(
            session.id,
            &hold,
            lap_core::store::Step::Failed("no luck".to_owned()),
        )
        .await;
    let failed = scene.session(session.id).await;
    assert_eq!(failed.state, SessionState::Failed);
    let opened = revived(&scene, session.id).await;
    assert_eq!(
        (opened.session.state, opened.session.attempt),
        (SessionState::Creating, 2)
    );
    assert_eq!((opened.session.failure, opened.session.ended_by), (None, None));
    assert_ne!(opened.session.sandbox, failed.sandbox);
    assert_eq!(opened.sandbox.state, SandboxState::Provisioning);
    let work = opened.work.unwrap();
    assert_eq!(
        (work.hold.kind, work.key()),
        (WorkKind::BringUp, session.id.to_string().as_str())
    );
    assert!(work.hold.fence > hold.fence);
    assert_eq!(scene.story(session.id).await.last().unwrap(), "session.restarted");
}

/// A restart of a ready session ends its turns and dismisses its sandbox.
pub async fn a_restart_of_a_ready_session_ends_its_turns(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let (open, _) = scene.started(session.id).await;
    let queued = scene.queued(session.id).await;
    revived(&scene, session.id).await;
    for turn in [open, queued] {
        assert_eq!(scene.turn(turn.id).await.state, TurnState::Aborted);
    }
    let old = scene.sandbox(session.sandbox.unwrap()).await;
    assert_eq!(old.state, SandboxState::Stopping);
    let cleanups = scene.take(&[WorkKind::Cleanup]).await;
    assert!(cleanups.iter().any(|item| item.key() == old.id.to_string()));
}

/// A session that is being brought up is not restarted, so a repetition restarts once.
pub async fn a_repeated_restart_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let first = revived(&scene, session.id).await;
    let again = scene.store.revive(revive(&scene, session.id)).await.unwrap();
    assert_eq!(again, Revived::Creating(first.session));
}

/// Nothing comes back without its agent, and nothing that never was.
pub async fn a_restart_needs_the_agent(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    scene.store.delete_agent(session.agent).await.unwrap();
    assert_eq!(
        scene.store.revive(revive(&scene, session.id)).await.unwrap(),
        Revived::AgentGone
    );
    assert_eq!(scene.session(session.id).await.state, SessionState::Dead);
    let nobody = scene.session_id();
    assert_eq!(
        scene.store.revive(revive(&scene, nobody)).await.unwrap(),
        Revived::Missing
    );
}

/// A restart takes a warm sandbox of the same pool key when there is one.
pub async fn a_restart_claims_a_warm_sandbox(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let agent = scene.store.agent(session.agent).await.unwrap().unwrap();
    let warm = scene.warm(&agent).await;
    match scene.store.revive(revive(&scene, session.id)).await.unwrap() {
        Revived::Warm(opened) => {
            assert_eq!(
                (opened.sandbox.id, opened.sandbox.state),
                (warm, SandboxState::Claimed)
            );
        }
        other => panic!("one is warm: {other:?}"),
    }
}
