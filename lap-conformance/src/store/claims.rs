//! Who gets which warm sandbox.

use std::collections::BTreeSet;
use std::sync::Arc;

use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::sandbox::SandboxState;
use lap_core::store::{NewSandbox, Opened};

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

/// With more openers than warm sandboxes, each warm one goes to exactly one session and the rest start cold.
pub async fn claims_are_exclusive(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let mut warm = BTreeSet::new();
    for _ in 0..8 {
        warm.insert(scene.warm(&agent).await);
    }
    let answers = together(20, |_| {
        let (store, open) = (Arc::clone(&scene.store), scene.new_open(&agent));
        async move { store.open(open).await.unwrap() }
    })
    .await;
    let (mut claimed, mut planned) = (Vec::new(), BTreeSet::new());
    for answer in answers {
        match answer {
            Opened::Warm(opened) => claimed.push((opened.sandbox.id, opened.session.id)),
            Opened::Cold(opened) => assert!(
                planned.insert(opened.sandbox.id),
                "a cold sandbox has one session"
            ),
            other => panic!("every open opens, not {other:?}"),
        }
    }
    assert_eq!(claimed.len(), warm.len(), "every warm sandbox is claimed");
    assert_eq!(
        claimed
            .iter()
            .map(|(sandbox, _)| *sandbox)
            .collect::<BTreeSet<_>>(),
        warm,
        "and none of them twice"
    );
    for (sandbox, session) in claimed {
        let sandbox = scene.sandbox(sandbox).await;
        assert_eq!(
            (sandbox.state, sandbox.session),
            (SandboxState::Claimed, Some(session))
        );
    }
    assert_eq!(scene.count(SandboxState::Warm).await, 0);
    assert_eq!(scene.count(SandboxState::Provisioning).await, 12);
}

/// The sandbox that became warm first is claimed first, whatever the order of ids.
pub async fn the_oldest_warm_sandbox_is_claimed_first(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let (younger_id, older_id) = (scene.new_sandbox(&agent), scene.new_sandbox(&agent));
    let first = scene.warm_as(older_id).await;
    let second = scene.warm_as(younger_id).await;
    let third = scene.warm(&agent).await;
    for expected in [first, second, third] {
        let opened = scene.open(scene.new_open(&agent)).await;
        assert_eq!(
            opened.sandbox.id, expected,
            "warm sandboxes are claimed in the order in which they became warm"
        );
    }
}

/// A warm sandbox is claimed only when the agent's and the platform's half of the pool key both match.
pub async fn both_halves_of_the_pool_key_must_match(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let foreign_agent = NewSandbox {
        blueprint_hash: BlueprintHash::from_text("other"),
        ..scene.new_sandbox(&agent)
    };
    let foreign_platform = NewSandbox {
        platform_hash: PlatformHash::from_text("other"),
        ..scene.new_sandbox(&agent)
    };
    scene.warm_as(foreign_agent).await;
    scene.warm_as(foreign_platform).await;
    let answer = scene.store.open(scene.new_open(&agent)).await.unwrap();
    assert!(
        matches!(answer, Opened::Cold(_)),
        "neither half alone is enough: {answer:?}"
    );
    let fitting = scene.warm(&agent).await;
    let answer = scene.store.open(scene.new_open(&agent)).await.unwrap();
    assert!(
        matches!(answer, Opened::Warm(opened) if opened.sandbox.id == fitting),
        "both halves together are"
    );
}

/// A sandbox that is not warm yet, or not any more, is never claimed.
pub async fn only_warm_sandboxes_are_claimed(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    scene.store.plan_sandbox(scene.new_sandbox(&agent)).await.unwrap();
    let (lost, buried) = (scene.warm(&agent).await, scene.warm(&agent).await);
    assert!(scene.store.lose_sandbox(lost, "killed").await.unwrap());
    assert!(scene.store.lose_sandbox(buried, "killed").await.unwrap());
    assert!(scene.store.bury_sandbox(buried).await.unwrap());
    let answer = scene.store.open(scene.new_open(&agent)).await.unwrap();
    assert!(
        matches!(answer, Opened::Cold(_)),
        "provisioning, dead and gone sandboxes are not warm: {answer:?}"
    );
}
