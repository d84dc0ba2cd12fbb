//! The life of a sandbox.

use std::time::Duration;

use lap_core::blueprint::BlueprintHash;
use lap_core::sandbox::{Place, SandboxState};
use lap_core::session::{EndedBy, SessionState};
use lap_core::store::{Append, Appended, NewSandbox, WorkKind};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::Scene;

/// A sandbox is planned once and becomes warm once; one that is a session's or unknown never does.
pub async fn a_planned_sandbox_becomes_warm_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let new = scene.new_sandbox(&agent);
    scene.store.plan_sandbox(new.clone()).await.unwrap();
    let planned = scene.sandbox(new.id).await;
    assert_eq!(
        (planned.state, planned.session),
        (SandboxState::Provisioning, None)
    );
    assert_eq!(
        (&planned.blueprint_hash, &planned.platform_hash),
        (&new.blueprint_hash, &new.platform_hash)
    );
    assert_eq!((planned.place, &planned.address), (new.place, &None));
    assert!(scene.store.warm_sandbox(new.id, "127.0.0.1:1").await.unwrap());
    let warm = scene.sandbox(new.id).await;
    assert_eq!(
        (warm.state, warm.address.as_deref()),
        (SandboxState::Warm, Some("127.0.0.1:1"))
    );
    scene.store.plan_sandbox(new.clone()).await.unwrap();
    assert!(
        !scene.store.warm_sandbox(new.id, "127.0.0.1:2").await.unwrap(),
        "it is warm already"
    );
    assert_eq!(scene.sandbox(new.id).await, warm, "a repetition changes nothing");
    assert!(
        !scene
            .store
            .warm_sandbox(scene.sandbox_id(), "127.0.0.1:1")
            .await
            .unwrap(),
        "it is unknown"
    );

    let claimed = scene.open(scene.new_open(&agent)).await.sandbox;
    assert_eq!(claimed.id, new.id, "it can be claimed");
    let cold = scene.open(scene.new_open(&agent)).await.sandbox;
    assert!(
        !scene.store.warm_sandbox(cold.id, "127.0.0.1:1").await.unwrap(),
        "it belongs to a session"
    );
    assert_eq!(scene.sandbox(cold.id).await, cold);
}

/// With a lost sandbox its session is dead by error, its open turn unknown and its queued turns failed.
pub async fn a_lost_sandbox_takes_its_session_along(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let (open, item) = scene.started(session.id).await;
    let queued = scene.queued(session.id).await;
    let sandbox = session.sandbox.unwrap();
    assert!(scene.store.lose_sandbox(sandbox, "out of memory").await.unwrap());
    let lost = scene.sandbox(sandbox).await;
    assert_eq!(
        (lost.state, lost.reason.as_deref()),
        (SandboxState::Dead, Some("out of memory"))
    );
    let dead = scene.session(session.id).await;
    assert_eq!(
        (dead.state, dead.ended_by),
        (SessionState::Dead, Some(EndedBy::Error))
    );
    assert_eq!(
        (dead.failure.as_deref(), dead.address),
        (Some("out of memory"), None)
    );
    assert_eq!(
        scene.turn(open.id).await.state,
        TurnState::Unknown,
        "it may have been running"
    );
    assert_eq!(
        scene.turn(queued.id).await.state,
        TurnState::Failed,
        "the sandbox never saw it"
    );
    let story = scene.story(session.id).await;
    assert_eq!(
        story[story.len() - 3..],
        ["turn.finished", "turn.finished", "session.ended"]
    );
    let append = Append {
        session: session.id,
        hold: Some(item.hold),
        ingest: None,
        running: None,
        events: Vec::new(),
    };
    assert_eq!(
        scene.store.append(vec![append]).await.unwrap(),
        [Appended::Stale],
        "the turn's hold is lost"
    );
    let due = scene.take(&WorkKind::ALL).await;
    assert_eq!(due.len(), 1, "what is left is to clean up");
    assert_eq!(
        (due[0].hold.kind, due[0].key()),
        (WorkKind::Cleanup, sandbox.to_string().as_str())
    );
}

/// Only a live sandbox is lost, once; in every live state.
pub async fn a_lost_sandbox_is_lost_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let (creating, _) = scene.creating().await;
    let planned = scene.new_sandbox(&agent);
    scene.store.plan_sandbox(planned.clone()).await.unwrap();
    let warm = scene
        .warm_as(NewSandbox {
            place: Place::Cluster,
            ..scene.new_sandbox(&agent)
        })
        .await;
    for sandbox in [planned.id, warm, creating.sandbox.unwrap()] {
        assert!(scene.store.lose_sandbox(sandbox, "killed").await.unwrap());
        let due = scene.take(&[WorkKind::Cleanup]).await;
        assert_eq!(due.len(), 1, "each live state leaves a cleanup");
        assert_eq!(due[0].place, Some(scene.sandbox(sandbox).await.place));
        let before = scene.snapshot().await;
        assert!(!scene.store.lose_sandbox(sandbox, "again").await.unwrap());
        assert_eq!(scene.snapshot().await, before, "a repetition changes nothing");
    }
    assert_eq!(scene.session(creating.id).await.state, SessionState::Dead);
    assert!(
        !scene
            .store
            .lose_sandbox(scene.sandbox_id(), "unknown")
            .await
            .unwrap()
    );
}

/// Only a stopping or dead sandbox is buried; a repetition is fine; a live or unknown one is not.
pub async fn only_ended_sandboxes_are_buried(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let (stopping, _) = scene.creating().await;
    let (dead, live) = (scene.warm(&agent).await, scene.warm(&agent).await);
    for sandbox in [dead, stopping.sandbox.unwrap(), live, scene.sandbox_id()] {
        assert!(
            !scene.store.bury_sandbox(sandbox).await.unwrap(),
            "it lives or is unknown"
        );
    }
    assert_eq!(scene.sandbox(live).await.state, SandboxState::Warm);
    scene.store.lose_sandbox(dead, "killed").await.unwrap();
    scene
        .store
        .lose_sandbox(stopping.sandbox.unwrap(), "killed")
        .await
        .unwrap();
    for sandbox in [dead, stopping.sandbox.unwrap()] {
        assert!(scene.store.bury_sandbox(sandbox).await.unwrap());
        let gone = scene.sandbox(sandbox).await;
        assert_eq!(gone.state, SandboxState::Gone);
        scene.pass(Duration::from_secs(1)).await;
        assert!(scene.store.bury_sandbox(sandbox).await.unwrap());
        assert_eq!(scene.sandbox(sandbox).await, gone, "a repetition changes nothing");
        assert!(
            !scene.store.lose_sandbox(sandbox, "late").await.unwrap(),
            "what is gone cannot be lost"
        );
        assert!(!scene.store.warm_sandbox(sandbox, "127.0.0.1:1").await.unwrap());
    }
}

/// Sandboxes that are not gone are found by place and counted by key and state.
pub async fn sandboxes_are_found_and_counted(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let here = [scene.warm(&agent).await, scene.warm(&agent).await];
    let other_key = NewSandbox {
        blueprint_hash: BlueprintHash::from_text("other"),
        ..scene.new_sandbox(&agent)
    };
    let there = scene
        .warm_as(NewSandbox {
            place: Place::Cluster,
            ..other_key.clone()
        })
        .await;
    let gone = scene.warm(&agent).await;
    scene.store.lose_sandbox(gone, "killed").await.unwrap();
    let dead = scene.warm(&agent).await;
    scene.store.lose_sandbox(dead, "killed").await.unwrap();
    scene.store.bury_sandbox(gone).await.unwrap();

    let mut found: Vec<_> = scene.store.sandboxes_at(scene.place).await.unwrap();
    found.sort_by_key(|sandbox| sandbox.id);
    assert_eq!(
        found,
        [
            scene.sandbox(here[0]).await,
            scene.sandbox(here[1]).await,
            scene.sandbox(dead).await
        ]
    );
    assert_eq!(
        scene.store.sandboxes_at(Place::Cluster).await.unwrap(),
        [scene.sandbox(there).await]
    );
    assert_eq!(
        scene
            .store
            .sandboxes_at(Place::Host(scene.host_id()))
            .await
            .unwrap(),
        []
    );

    let counts = scene.store.count_sandboxes().await.unwrap();
    let count = |blueprint: &BlueprintHash, state| {
        let rows = counts
            .iter()
            .filter(|row| row.blueprint_hash == *blueprint && row.state == state);
        rows.inspect(|row| assert_eq!(row.platform_hash, scene.platform))
            .map(|row| row.count)
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&agent.blueprint_hash, SandboxState::Warm), [2]);
    assert_eq!(count(&agent.blueprint_hash, SandboxState::Dead), [1]);
    assert_eq!(count(&other_key.blueprint_hash, SandboxState::Warm), [1]);
    assert_eq!(
        counts.iter().map(|row| row.count).sum::<u64>(),
        4,
        "what is gone is not counted"
    );
}
