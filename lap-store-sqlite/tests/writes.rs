//! What a write costs, and what becomes of it when its caller leaves or its neighbour fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod scene;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use lap_core::error::ErrorKind;
use lap_core::store::{Accepted, Open, TurnQuery};
use lap_core::store::{Agents as _, Events as _, Opened, Sessions as _, Turns as _, Work as _};
use lap_store_sqlite::Counts;
use scene::{Scene, new_agent, sandbox_id};

/// Runs the call; returns its answer and what it cost.
async fn cost<T>(scene: &Scene, call: impl Future<Output = T>) -> (T, Counts) {
    let before = scene.store.counts();
    let answer = call.await;
    let after = scene.store.counts();
    let spent = Counts {
        transactions: after.transactions - before.transactions,
        writes: after.writes - before.writes,
        statements: after.statements - before.statements,
    };
    (answer, spent)
}

/// One transaction is one flush of the disk. The numbers of statements are gates: raise one only with a reason.
#[tokio::test]
async fn every_hot_write_is_one_transaction_of_few_statements() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(&folder.path().join("lap.db")).await;
    let open = scene.new_open();
    let session = open.session;

    let one = |statements| Counts {
        transactions: 1,
        writes: 1,
        statements,
    };
    let (bring_up, spent) = cost(&scene, scene.open(open)).await;
    assert_eq!(spent, one(13), "open");
    let ((turn, item), spent) = cost(&scene, scene.ready(session, &bring_up)).await;
    assert_eq!(spent, one(13), "ready");
    let ((), spent) = cost(&scene, scene.append(session, &item, turn)).await;
    assert_eq!(spent, one(6), "append of two events");
    let ((), spent) = cost(&scene, scene.finish(turn, &item)).await;
    assert_eq!(spent, one(8), "finish");
    let (accepted, spent) = cost(&scene, scene.accept(session)).await;
    assert!(matches!(accepted, Accepted::Started(_, Some(_))), "{accepted:?}");
    assert_eq!(spent, one(9), "accept");
    let (_, spent) = cost(&scene, scene.store.events(session, 0, 100)).await;
    assert_eq!(
        spent,
        Counts {
            transactions: 0,
            writes: 0,
            statements: 1
        },
        "events"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_wait_together_share_a_transaction_and_fail_alone() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Arc::new(Scene::new(&folder.path().join("lap.db")).await);
    let used = scene.new_open();
    let used_sandbox = used.cold_sandbox;
    scene.open(used).await;
    let before = scene.store.counts();
    let (mut calls, mut failed) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let mut open = scene.new_open();
        let fails = number % 3 == 0;
        if fails {
            // The id is taken, so the insert breaks a rule in the middle of the method.
            open.cold_sandbox = used_sandbox;
        }
        let scene = Arc::clone(&scene);
        calls.push(tokio::spawn(async move {
            let answer = scene.store.open(open.clone()).await;
            (open, fails, answer)
        }));
    }
    for call in calls {
        let (open, fails, answer) = call.await.unwrap();
        let stored = scene.store.session(open.session).await.unwrap();
        if fails {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Internal);
            assert_eq!(stored, None);
            failed.push(open);
        } else {
            assert!(matches!(answer.unwrap(), Opened::Cold(_)));
            assert!(stored.is_some());
        }
    }
    let after = scene.store.counts();
    for open in failed {
        // Nothing is left of the first attempt, not even the memory of the request.
        scene
            .open(Open {
                cold_sandbox: sandbox_id(),
                ..open
            })
            .await;
    }
    assert_eq!(after.writes - before.writes, 60);
    let transactions = after.transactions - before.transactions;
    assert!(
        transactions < 30,
        "60 writes that wait together took {transactions} transactions"
    );
}

/// The lock says that the earlier process is gone, so nobody waits for it to lapse.
#[tokio::test]
async fn what_an_earlier_process_held_is_free_at_the_first_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lap.db");
    let earlier = Scene::new(&path).await;
    earlier.beat().await;
    let held = earlier.open(earlier.new_open()).await;
    earlier.store.close().await;
    let later = Scene::new(&path).await;
    assert_eq!(later.beat().await, 1);
    assert!(!later.store.done(&held).await.unwrap());
}

/// Polls a call this often and leaves.
async fn leave_after(polls: usize, call: impl Future) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if call
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            return;
        }
        // Not to wait for anything: the pause spreads the moments at which callers leave.
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_leaves_happens_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(&folder.path().join("lap.db")).await;
    let mut happened = 0;
    for polls in 0..40 {
        let open = scene.new_open();
        let session = open.session;
        leave_after(polls % 8, scene.store.open(open)).await;
        // Jobs run in order, so after this one the other is over.
        scene.store.create_agent(new_agent()).await.unwrap();
        let turns = scene
            .store
            .list_turns(TurnQuery {
                session,
                after: 0,
                limit: 9,
            })
            .await
            .unwrap()
            .len();
        match scene.store.bring_up(session).await.unwrap() {
            Some(_) => {
                happened += 1;
                let head = scene.store.events(session, 0, 9).await.unwrap().unwrap().head;
                assert_eq!((turns, head), (1, 2));
            }
            None => assert_eq!(turns, 0),
        }
    }
    assert_eq!(happened, 35, "every call that was polled once was handed over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_after_one_was_left_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(&folder.path().join("lap.db")).await;
    let open = scene.new_open();
    let session = open.session;
    scene.open(open).await;
    for polls in 0..40 {
        leave_after(polls % 8, scene.store.bring_up(session)).await;
    }
    assert!(scene.store.bring_up(session).await.unwrap().is_some());
}
