//! How a broken sandbox of a session is replaced.

use lap_core::sandbox::{Place, SandboxState};
use lap_core::session::{Session, SessionState};
use lap_core::store::{Hold, NewSandbox, Replace, Replaced, WorkKind};

use crate::StoreUnderTest;
use crate::scene::Scene;

fn replace(scene: &Scene<'_>, session: &Session, hold: &Hold) -> Replace {
    Replace {
        session: session.id,
        hold: hold.clone(),
        broken: session.sandbox.unwrap(),
        reason: "no answer".to_owned(),
        cold_sandbox: scene.sandbox_id(),
        place: scene.place,
        warm: true,
    }
}

/// The session gets the oldest warm sandbox of its key; the broken one is dead with its cleanup due.
pub async fn a_broken_sandbox_is_replaced_by_a_warm_one(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let agent = scene.store.agent(session.agent).await.unwrap().unwrap();
    let warm = scene
        .warm_as(NewSandbox {
            place: Place::Cluster,
            ..scene.new_sandbox(&agent)
        })
        .await;
    scene.warm(&agent).await;
    let order = replace(&scene, &session, &hold);
    let answer = scene.store.replace_sandbox(order.clone()).await.unwrap();
    let Replaced::Warm(new) = answer else {
        panic!("one was warm: {answer:?}")
    };
    assert_eq!(
        (new.id, new.state, new.session),
        (warm, SandboxState::Claimed, Some(session.id))
    );
    assert_eq!(scene.sandbox(warm).await, new);
    let broken = scene.sandbox(order.broken).await;
    assert_eq!(
        (broken.state, broken.reason.as_deref()),
        (SandboxState::Dead, Some("no answer"))
    );
    let after = scene.session(session.id).await;
    assert_eq!((after.state, after.sandbox), (SessionState::Creating, Some(warm)));
    assert_eq!(after.address, new.address);
    assert_eq!(
        scene.store.bring_up(session.id).await.unwrap().unwrap().sandbox,
        new
    );
    assert_eq!(
        scene.store.sandbox(order.cold_sandbox).await.unwrap(),
        None,
        "no cold one is planned"
    );
    let held = scene.store.held(scene.worker).await.unwrap();
    assert_eq!(
        (&held[0].hold, held[0].place),
        (&hold, Some(Place::Cluster)),
        "the bring-up follows the sandbox"
    );
    let due = scene.take(&[WorkKind::Cleanup]).await;
    assert_eq!((due.len(), due[0].key()), (1, order.broken.to_string().as_str()));
    let (ready, _) = scene.stepped(session.id, &hold, scene.ready_step()).await;
    assert_eq!(
        (ready.state, ready.sandbox),
        (SessionState::Ready, Some(warm)),
        "the bring-up goes on"
    );
}

/// Without a warm one, or when none is wanted, a cold sandbox of the same key is planned for the session.
pub async fn a_broken_sandbox_is_replaced_by_a_cold_one(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let agent = scene.store.agent(session.agent).await.unwrap().unwrap();
    let order = replace(&scene, &session, &hold);
    let answer = scene.store.replace_sandbox(order.clone()).await.unwrap();
    let Replaced::Cold(first) = answer else {
        panic!("none was warm: {answer:?}")
    };
    assert_eq!(
        (first.id, first.state),
        (order.cold_sandbox, SandboxState::Provisioning)
    );
    assert_eq!((first.session, first.place), (Some(session.id), scene.place));
    assert_eq!(
        (&first.blueprint_hash, &first.platform_hash),
        (&agent.blueprint_hash, &scene.platform)
    );

    let spared = scene.warm(&agent).await;
    let session = scene.session(session.id).await;
    assert_eq!(session.sandbox, Some(first.id));
    let order = Replace {
        warm: false,
        ..replace(&scene, &session, &hold)
    };
    let answer = scene.store.replace_sandbox(order.clone()).await.unwrap();
    assert!(
        matches!(answer, Replaced::Cold(new) if new.id == order.cold_sandbox),
        "no warm one was wanted"
    );
    assert_eq!(scene.sandbox(spared).await.state, SandboxState::Warm);
    assert_eq!(scene.sandbox(first.id).await.state, SandboxState::Dead);
}

/// A replacement of the same broken sandbox happens once; a repetition takes no second one.
pub async fn a_repeated_replacement_takes_one(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let agent = scene.store.agent(session.agent).await.unwrap().unwrap();
    scene.warm(&agent).await;
    scene.warm(&agent).await;
    let order = replace(&scene, &session, &hold);
    assert!(matches!(
        scene.store.replace_sandbox(order.clone()).await.unwrap(),
        Replaced::Warm(_)
    ));
    let before = scene.snapshot().await;
    let with_new_id = Replace {
        cold_sandbox: scene.sandbox_id(),
        ..order.clone()
    };
    for again in [order, with_new_id] {
        assert_eq!(scene.store.replace_sandbox(again).await.unwrap(), Replaced::Stale);
    }
    assert_eq!(scene.snapshot().await, before);
    assert_eq!(scene.count(SandboxState::Warm).await, 1);
}

/// A replacement under a lost hold, or for a session that is not creating any more, changes nothing.
pub async fn a_late_replacement_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (taken, old) = scene.creating().await;
    let new = scene.taken_over(WorkKind::BringUp).await.hold;
    let agent = scene.store.agent(taken.agent).await.unwrap().unwrap();
    scene.warm(&agent).await;
    let order = replace(&scene, &taken, &old);
    assert_eq!(
        scene.store.replace_sandbox(order).await.unwrap(),
        Replaced::Stale,
        "another worker holds it"
    );
    let order = Replace {
        broken: scene.sandbox_id(),
        ..replace(&scene, &taken, &new)
    };
    assert_eq!(
        scene.store.replace_sandbox(order).await.unwrap(),
        Replaced::Stale,
        "that is not its sandbox"
    );
    let order = Replace {
        hold: new.clone(),
        ..replace(&scene, &taken, &new)
    };
    scene.stepped(taken.id, &new, scene.ready_step()).await;
    assert_eq!(
        scene.store.replace_sandbox(order).await.unwrap(),
        Replaced::Stale,
        "it is ready"
    );
    assert_eq!(scene.session(taken.id).await.sandbox, taken.sandbox);
    assert_eq!(
        scene.sandbox(taken.sandbox.unwrap()).await.state,
        SandboxState::Claimed
    );
    assert_eq!(scene.count(SandboxState::Warm).await, 1);
}
