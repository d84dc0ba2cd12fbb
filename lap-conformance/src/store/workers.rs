//! Workers: how their work is freed, and what they hold.

use std::time::Duration;

use lap_core::store::{WORKER_LAPSE, WorkKind};

use crate::StoreUnderTest;
use crate::scene::Scene;

const KIND: WorkKind = WorkKind::Automation;
const SECOND: Duration = Duration::from_secs(1);

/// Items of a worker that was silent too long are freed by the next beat and due at once; a beating one keeps its own.
pub async fn a_silent_workers_items_are_freed(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (silent, alive) = (scene.worker_id(), scene.worker_id());
    scene.beat(silent).await;
    scene.beat(alive).await;
    scene.enqueue("silent's", Duration::ZERO).await;
    let lost = scene.take_as(silent, &[KIND]).await.remove(0);
    scene.enqueue("alive's", Duration::ZERO).await;
    let kept = scene.take_as(alive, &[KIND]).await.remove(0);
    scene.pass(WORKER_LAPSE - SECOND).await;
    assert_eq!(scene.beat(alive).await, 0, "nobody was silent too long yet");
    assert!(scene.take(&[KIND]).await.is_empty());
    scene.pass(2 * SECOND).await;
    assert_eq!(scene.beat(alive).await, 1);
    assert_eq!(scene.beat(alive).await, 0, "it is freed once");
    let taken = scene.take_one().await;
    assert_eq!((taken.key(), taken.attempts), ("silent's", 2));
    assert!(taken.hold.fence > lost.hold.fence);
    assert!(
        !scene.store.done(&lost).await.unwrap(),
        "the silent one has lost its hold"
    );
    assert!(scene.store.done(&kept).await.unwrap(), "the other one has not");
}

/// Items of a worker that has never been heard are freed by the next beat.
pub async fn an_unknown_workers_items_are_freed(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let unknown = scene.worker_id();
    scene.enqueue("a", Duration::ZERO).await;
    let lost = scene.take_as(unknown, &[KIND]).await.remove(0);
    assert_eq!(scene.beat(scene.worker).await, 1);
    let taken = scene.take_one().await;
    assert!(taken.hold.fence > lost.hold.fence);
    assert!(!scene.store.again(&lost, Duration::ZERO).await.unwrap());
    assert_eq!(
        scene.beat(scene.worker).await,
        0,
        "the beating worker keeps its own"
    );
    assert!(scene.store.done(&taken).await.unwrap());
}

/// A retired worker's items are free and due at once; another worker's are not.
pub async fn a_retired_workers_items_are_free(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (leaving, staying) = (scene.worker_id(), scene.worker_id());
    scene.beat(leaving).await;
    scene.beat(staying).await;
    scene.enqueue("leaving's", Duration::ZERO).await;
    let lost = scene.take_as(leaving, &[KIND]).await.remove(0);
    scene.enqueue("staying's", Duration::ZERO).await;
    let kept = scene.take_as(staying, &[KIND]).await.remove(0);
    for _ in 0..2 {
        scene.store.retire(leaving).await.unwrap();
    }
    let taken = scene.take_one().await;
    assert_eq!((taken.key(), taken.attempts), ("leaving's", 2));
    assert!(!scene.store.done(&lost).await.unwrap());
    assert!(scene.store.done(&kept).await.unwrap());
}

/// A worker finds everything it holds, and nothing else.
pub async fn a_worker_finds_what_it_holds(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let other = scene.worker_id();
    scene.enqueue("a", Duration::ZERO).await;
    scene.enqueue("b", Duration::ZERO).await;
    let mut mine = scene.take(&[KIND]).await;
    scene.enqueue("c", Duration::ZERO).await;
    let others = scene.take_as(other, &[KIND]).await;
    scene.enqueue("free", Duration::ZERO).await;
    let mut held = scene.store.held(scene.worker).await.unwrap();
    held.sort_by(|a, b| a.key().cmp(b.key()));
    mine.sort_by(|a, b| a.key().cmp(b.key()));
    assert_eq!(held, mine);
    assert_eq!(scene.store.held(other).await.unwrap(), others);
    scene.enqueue("a", Duration::ZERO).await;
    let held = scene.store.held(scene.worker).await.unwrap();
    let a = held
        .iter()
        .find(|item| item.key() == "a")
        .expect("it is held still");
    assert_eq!(
        (&a.hold, a.generation),
        (&mine[0].hold, mine[0].generation + 1),
        "at its present generation"
    );
    for item in &held {
        assert!(scene.store.done(item).await.unwrap());
    }
    assert_eq!(scene.store.held(scene.worker).await.unwrap(), []);
    assert_eq!(scene.store.held(scene.worker_id()).await.unwrap(), []);
}
