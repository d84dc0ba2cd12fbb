//! Who gets a turn, by the place of its sandbox.

use lap_core::sandbox::Place;
use lap_core::store::{Accepted, NewSandbox, WorkKind};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::Scene;

/// A turn for a sandbox out of the acceptor's reach is left due for whoever reaches it.
pub async fn a_far_turn_is_left_to_its_place(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let far = Place::Host(scene.host_id());
    scene
        .warm_as(NewSandbox {
            place: far,
            ..scene.new_sandbox(&agent)
        })
        .await;
    let session = scene.open(scene.new_open(&agent)).await.session.id;
    let other = scene.worker_id();
    let hold = scene
        .take_at(other, &[WorkKind::BringUp], vec![far])
        .await
        .remove(0)
        .hold;
    scene.stepped(session, &hold, scene.ready_step()).await;

    let answer = scene.store.accept(scene.new_accept(session)).await.unwrap();
    let Accepted::Started(turn, None) = answer else {
        panic!("it starts, elsewhere: {answer:?}")
    };
    assert_eq!(turn.state, TurnState::Sending);
    assert!(
        scene.take(&[WorkKind::Turn]).await.is_empty(),
        "the acceptor is not offered it"
    );
    let taken = scene.take_at(other, &[WorkKind::Turn], vec![far]).await;
    assert_eq!(taken.len(), 1, "who reaches the place finds it due");
    assert_eq!(
        scene
            .store
            .begin(session, &taken[0].hold)
            .await
            .unwrap()
            .map(|turn| turn.id),
        Some(turn.id)
    );
}

/// A turn for a sandbox of the cluster is within everybody's reach, so its acceptor holds it.
pub async fn a_turn_in_the_cluster_is_its_acceptors(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    scene
        .warm_as(NewSandbox {
            place: Place::Cluster,
            ..scene.new_sandbox(&agent)
        })
        .await;
    let opened = scene.open(scene.new_open(&agent)).await;
    let session = opened.session.id;
    scene
        .stepped(session, &opened.work.unwrap().hold, scene.ready_step())
        .await;
    let (_, item) = scene.started(session).await;
    assert_eq!(item.place, Some(Place::Cluster));
}
