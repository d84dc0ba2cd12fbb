//! The installation, hints, and the freshness of reads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lap_core::id::{InstanceId, SeededEntropy};
use lap_core::seal::Sealed;
use lap_core::store::{Hint, Instance, TurnQuery};
use lap_core::time::Timestamp;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

fn candidate(index: usize) -> Instance {
    let entropy = SeededEntropy::new(index as u64 + 100);
    let id = InstanceId::fresh(&entropy, Timestamp::from_unix_millis(1));
    Instance {
        id,
        signing_seed: Sealed::from_text(format!("seed {index}")),
    }
}

/// Every caller gets the same instance, whichever candidate came first.
pub async fn every_caller_gets_the_same_instance(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let answers = together(8, |index| {
        let store = Arc::clone(&scene.store);
        async move { store.instance(candidate(index)).await.unwrap() }
    })
    .await;
    assert!(
        (0..8).any(|index| answers[0] == candidate(index)),
        "it is one of the candidates"
    );
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "and the same for all: {answers:?}"
    );
    assert_eq!(
        scene.store.instance(candidate(9)).await.unwrap(),
        answers[0],
        "it stays"
    );
}

/// A store that works answers a ping.
pub async fn a_working_store_answers_a_ping(subject: &StoreUnderTest) {
    subject.store().ping().await.expect("the store works");
}

/// A hint reaches every listener of the process that listened before it was given.
pub async fn hints_reach_listeners(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.session_id();
    let mut listeners = [scene.store.hints(), scene.store.hints()];
    for hint in [
        Hint::Work,
        Hint::Session {
            session,
            from: scene.worker,
        },
    ] {
        scene.store.hint(hint);
        for listener in &mut listeners {
            let deadline = Duration::from_secs(30);
            let heard = async { while listener.next().await.expect("the stream goes on") != hint {} };
            tokio::time::timeout(deadline, heard)
                .await
                .expect("the hint is heard");
        }
    }
}

/// Whoever learns of an acknowledged write can read it.
pub async fn an_acknowledged_write_is_read(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for _ in 0..10 {
        let session = scene.ready().await;
        let (turn, _) = scene.started(session.id).await;
        let agent = session.agent;
        let reads = together(4, |_| {
            let store = Arc::clone(&scene.store);
            async move {
                let query = TurnQuery {
                    session: session.id,
                    after: 0,
                    limit: 1,
                };
                let turns = store.list_turns(query).await.unwrap();
                let head = store
                    .events(session.id, 0, 100)
                    .await
                    .unwrap()
                    .map(|page| page.head);
                let stored = store
                    .session(session.id)
                    .await
                    .unwrap()
                    .map(|session| session.state);
                (
                    store.agent(agent).await.unwrap().is_some(),
                    stored,
                    turns.first().map(|turn| turn.id),
                    head,
                )
            }
        })
        .await;
        for read in reads {
            assert_eq!(read, (true, Some(session.state), Some(turn.id), Some(3)));
        }
    }
}
