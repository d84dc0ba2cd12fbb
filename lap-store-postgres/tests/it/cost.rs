//! What a write costs. The numbers are gates: raise one only with a reason.

use std::future::Future;

use lap_core::store::{Accepted, Events as _, NewWork, Sessions as _, Take, Work as _, WorkKind};
use lap_store_postgres::Counts;

use crate::database::Place;
use crate::scene::Scene;

async fn cost<T>(scene: &Scene, call: impl Future<Output = T>) -> (T, Counts) {
    let before = scene.store.counts();
    let answer = call.await;
    let after = scene.store.counts();
    let spent = Counts {
        transactions: after.transactions - before.transactions,
        statements: after.statements - before.statements,
        repetitions: after.repetitions - before.repetitions,
    };
    (answer, spent)
}

/// One statement outside of a transaction: one round trip and one commit.
const ONE: Counts = Counts {
    transactions: 0,
    statements: 1,
    repetitions: 0,
};

#[tokio::test]
async fn an_open_is_one_statement() {
    let place = Place::new().await;
    let scene = Scene::new(place.connect().await).await;
    let cold = scene.new_open();
    let (_, spent) = cost(&scene, scene.open(cold)).await;
    assert_eq!(spent, ONE, "cold");
    scene.warm().await;
    let warm = scene.new_open();
    let (_, spent) = cost(&scene, scene.open(warm)).await;
    assert_eq!(spent, ONE, "warm");
}

#[tokio::test]
async fn the_hot_writes_are_few_statements() {
    let place = Place::new().await;
    let scene = Scene::new(place.connect().await).await;
    let open = scene.new_open();
    let session = open.session;
    let bring_up = scene.open(open).await;
    let ((turn, item), spent) = cost(&scene, scene.ready(session, &bring_up)).await;
    assert!(
        spent.transactions == 1 && spent.statements <= 13,
        "ready: {spent:?}"
    );
    let ((), spent) = cost(&scene, scene.append(session, &item, turn)).await;
    assert_eq!(spent, ONE, "append");
    let ((), spent) = cost(&scene, scene.finish(turn, &item)).await;
    assert_eq!(spent, ONE, "finish");
    let (accepted, spent) = cost(&scene, scene.accept(session)).await;
    assert!(matches!(accepted, Accepted::Started(_, Some(_))), "{accepted:?}");
    assert_eq!(spent, ONE, "accept");
    let (_, spent) = cost(&scene, scene.store.events(session, 0, 100)).await;
    assert_eq!(spent, ONE, "events");
    let (_, spent) = cost(&scene, scene.store.session(session)).await;
    assert_eq!(spent, ONE, "session");
}

/// The only regular statement of an idle process is its heartbeat.
#[tokio::test]
async fn the_work_queue_is_one_statement_per_verb() {
    let place = Place::new().await;
    let scene = Scene::new(place.connect().await).await;
    let new = NewWork {
        kind: WorkKind::Deliver,
        key: "a".to_owned(),
        place: None,
        after: std::time::Duration::ZERO,
    };
    let (_, spent) = cost(&scene, scene.store.enqueue(vec![new])).await;
    assert_eq!(spent, ONE, "enqueue");
    let take = Take {
        worker: scene.worker,
        kinds: WorkKind::ALL.to_vec(),
        places: Vec::new(),
        limit: 10,
    };
    let (taken, spent) = cost(&scene, scene.store.take(take)).await;
    assert_eq!(spent, ONE, "take");
    let (_, spent) = cost(&scene, scene.beat()).await;
    assert_eq!(spent, ONE, "beat");
    let (done, spent) = cost(&scene, scene.store.done(&taken.unwrap()[0])).await;
    assert!(done.unwrap());
    assert_eq!(spent, ONE, "done");
}
