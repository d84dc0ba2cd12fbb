//! The work queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lap_core::id::WorkerId;
use lap_core::sandbox::Place;
use lap_core::store::{Hold, NewWork, Take, WorkItem, WorkKind};

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

const KIND: WorkKind = WorkKind::Automation;
const MINUTE: Duration = Duration::from_secs(60);

fn item(key: &str, after: Duration) -> NewWork {
    NewWork {
        kind: KIND,
        key: key.to_owned(),
        place: None,
        after,
    }
}

fn keys(items: &[WorkItem]) -> Vec<&str> {
    items.iter().map(WorkItem::key).collect()
}

impl Scene<'_> {
    pub(crate) async fn enqueue(&self, key: &str, after: Duration) {
        self.store.enqueue(vec![item(key, after)]).await.unwrap();
    }

    /// The only item that is due, taken by the scene's worker.
    pub(crate) async fn take_one(&self) -> WorkItem {
        let mut taken = self.take(&[KIND]).await;
        assert_eq!(taken.len(), 1, "one item is due: {taken:?}");
        taken.remove(0)
    }
}

/// There is one item per kind and key, however often it is enqueued, also within one call.
pub async fn an_item_is_unique_by_kind_and_key(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let other_kind = NewWork {
        kind: WorkKind::Deliver,
        ..item("a", Duration::ZERO)
    };
    let twice = vec![
        item("a", Duration::ZERO),
        item("a", MINUTE),
        other_kind,
        item("b", Duration::ZERO),
    ];
    scene.store.enqueue(twice).await.unwrap();
    scene.enqueue("a", Duration::ZERO).await;
    let taken = scene.take(&WorkKind::ALL).await;
    let found: BTreeSet<_> = taken.iter().map(|item| (item.hold.kind, item.key())).collect();
    assert_eq!(
        found,
        BTreeSet::from([(KIND, "a"), (KIND, "b"), (WorkKind::Deliver, "a")])
    );
    assert_eq!(taken.len(), 3);
    for item in &taken {
        assert!(scene.store.done(item).await.unwrap());
    }
    scene.pass(2 * MINUTE).await;
    assert!(scene.take(&WorkKind::ALL).await.is_empty(), "done items are gone");
}

/// Of two dues the earlier one counts, whichever came first.
pub async fn an_earlier_due_wins(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for (key, dues) in [
        ("later first", [2 * MINUTE, MINUTE]),
        ("earlier first", [MINUTE, 2 * MINUTE]),
    ] {
        for due in dues {
            scene.enqueue(key, due).await;
        }
        scene.pass(MINUTE - Duration::from_secs(1)).await;
        assert!(scene.take(&[KIND]).await.is_empty(), "{key}: it is not due yet");
        scene.pass(Duration::from_secs(1)).await;
        let taken = scene.take_one().await;
        assert!(scene.store.done(&taken).await.unwrap());
        scene.pass(2 * MINUTE).await;
        assert!(
            scene.take(&[KIND]).await.is_empty(),
            "{key}: the later due is forgotten"
        );
    }
}

/// An item that was enqueued while it was held comes again after its end, whatever the end.
pub async fn an_item_enqueued_while_held_comes_again(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    scene.enqueue("a", Duration::ZERO).await;
    let first = scene.take_one().await;
    scene.enqueue("a", Duration::ZERO).await;
    assert!(scene.take(&[KIND]).await.is_empty(), "it stays held");
    assert!(scene.store.done(&first).await.unwrap());
    let second = scene.take_one().await;
    assert!(
        second.generation > first.generation,
        "the generation grows with each enqueue"
    );
    assert_eq!(second.attempts, 1);
    scene.enqueue("a", Duration::ZERO).await;
    assert!(scene.store.again(&second, MINUTE).await.unwrap());
    let third = scene.take_one().await;
    scene.enqueue("a", Duration::ZERO).await;
    assert!(scene.store.fail(&third, MINUTE).await.unwrap());
    let fourth = scene.take_one().await;
    scene.enqueue("a", MINUTE).await;
    assert!(scene.store.done(&fourth).await.unwrap());
    scene.pass(MINUTE).await;
    let last = scene.take_one().await;
    assert!(scene.store.done(&last).await.unwrap());
    scene.pass(2 * MINUTE).await;
    assert!(
        scene.take(&[KIND]).await.is_empty(),
        "without an enqueue done is the end"
    );
}

/// Under concurrency each item is given to one taker.
pub async fn a_take_is_exclusive(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let all: Vec<_> = (0..40)
        .map(|index| item(&format!("item {index}"), Duration::ZERO))
        .collect();
    scene.store.enqueue(all).await.unwrap();
    let taken = together(8, |_| {
        let (store, worker) = (Arc::clone(&scene.store), scene.worker_id());
        async move {
            let mut mine = Vec::new();
            loop {
                let take = Take {
                    worker,
                    kinds: vec![KIND],
                    places: Vec::new(),
                    limit: 3,
                };
                let some = store.take(take).await.unwrap();
                assert!(some.len() <= 3, "no more than asked for");
                assert!(
                    some.iter().all(|item| item.hold.worker == worker),
                    "the taker is the holder"
                );
                if some.is_empty() {
                    return mine;
                }
                mine.extend(some);
            }
        }
    })
    .await
    .concat();
    let keys: BTreeSet<_> = taken.iter().map(WorkItem::key).collect();
    let fences: BTreeSet<_> = taken.iter().map(|item| item.hold.fence).collect();
    assert_eq!(
        (taken.len(), keys.len(), fences.len()),
        (40, 40, 40),
        "each item once, each under a fence of its own"
    );
}

/// A take gives items of the asked kinds, without a place or at an asked place, and no others.
pub async fn a_take_respects_kinds_and_places(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (here, there) = (scene.place, Place::Host(scene.host_id()));
    let at = |key: &str, place| NewWork {
        place,
        ..item(key, Duration::ZERO)
    };
    let other_kind = NewWork {
        kind: WorkKind::Deliver,
        ..item("other kind", Duration::ZERO)
    };
    let all = vec![
        at("anywhere", None),
        at("cluster", Some(Place::Cluster)),
        at("here", Some(here)),
        at("there", Some(there)),
        other_kind,
    ];
    scene.store.enqueue(all).await.unwrap();
    let take = |places| async {
        let taken = scene.take_at(scene.worker, &[KIND], places).await;
        taken
            .iter()
            .map(|item| item.key().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let set = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(take(Vec::new()).await, set(&["anywhere"]));
    assert_eq!(take(vec![Place::Cluster, here]).await, set(&["cluster", "here"]));
    let taken = scene
        .take_at(scene.worker, &[WorkKind::Deliver], Vec::new())
        .await;
    assert_eq!((keys(&taken), taken[0].place), (vec!["other kind"], None));
    let moved = at("there", Some(here));
    scene.store.enqueue(vec![moved]).await.unwrap();
    let taken = scene.take_at(scene.worker, &[KIND], vec![here]).await;
    assert_eq!(
        (keys(&taken), taken[0].place),
        (vec!["there"], Some(here)),
        "the newest place counts"
    );
}

/// What has been due longest is taken first.
pub async fn a_take_prefers_the_longest_due(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for (key, after) in [("a", 3), ("b", 1), ("c", 2)] {
        scene.enqueue(key, Duration::from_secs(after)).await;
    }
    scene.pass(MINUTE).await;
    for expected in ["b", "c", "a"] {
        let take = Take {
            worker: scene.worker,
            kinds: vec![KIND],
            places: Vec::new(),
            limit: 1,
        };
        assert_eq!(keys(&scene.store.take(take).await.unwrap()), [expected]);
    }
}

/// Each take, of whatever item, draws a greater fence than every take before.
pub async fn fences_only_grow(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let mut last = 0;
    for round in 0..3 {
        let opener = scene.creating().await.1;
        scene.enqueue("a", Duration::ZERO).await;
        scene.enqueue(&format!("item {round}"), Duration::ZERO).await;
        let mut fences = vec![opener.fence];
        for item in scene.take(&[KIND]).await {
            fences.push(item.hold.fence);
            assert!(scene.store.done(&item).await.unwrap());
        }
        assert_eq!(
            fences.iter().collect::<BTreeSet<_>>().len(),
            3,
            "each fence is drawn once"
        );
        assert!(
            fences[1..].iter().all(|fence| *fence > opener.fence) && opener.fence > last,
            "{fences:?} after {last}"
        );
        last = fences.into_iter().max().unwrap_or_default();
    }
}

/// Attempts count takes until the item ends well: a failure and a lost worker keep them, again forgets them.
pub async fn attempts_count_until_an_end(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    scene.enqueue("a", Duration::ZERO).await;
    let first = scene.take_one().await;
    assert_eq!(first.attempts, 1);
    assert!(scene.store.fail(&first, MINUTE).await.unwrap());
    assert!(scene.take(&[KIND]).await.is_empty(), "a failed item waits");
    scene.pass(MINUTE).await;
    let second = scene.take_one().await;
    assert_eq!(second.attempts, 2);
    let third = scene.taken_over(KIND).await;
    assert_eq!(third.attempts, 3);
    assert!(scene.store.again(&third, MINUTE).await.unwrap());
    assert!(scene.take(&[KIND]).await.is_empty(), "it asked for later");
    scene.pass(MINUTE).await;
    let fourth = scene.take_one().await;
    assert_eq!(fourth.attempts, 1);
    assert_eq!(
        fourth.generation, first.generation,
        "only an enqueue makes a generation"
    );
}

/// A worker whose hold was lost can end nothing, and the new holder's item is untouched.
pub async fn a_lost_hold_ends_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    scene.enqueue("a", Duration::ZERO).await;
    let old = scene.take_one().await;
    let new = scene.taken_over(KIND).await;
    let wrong_worker = WorkItem {
        hold: Hold {
            fence: new.hold.fence,
            ..old.hold.clone()
        },
        ..old.clone()
    };
    let wrong_fence = WorkItem {
        hold: Hold {
            worker: new.hold.worker,
            ..old.hold.clone()
        },
        ..old.clone()
    };
    for lost in [old, wrong_worker, wrong_fence] {
        assert!(!scene.store.done(&lost).await.unwrap());
        assert!(!scene.store.again(&lost, Duration::ZERO).await.unwrap());
        assert!(!scene.store.fail(&lost, Duration::ZERO).await.unwrap());
    }
    assert!(scene.take(&[KIND]).await.is_empty(), "the item is still held");
    assert!(scene.store.done(&new).await.unwrap());
    assert!(!scene.store.done(&new).await.unwrap(), "an end happens once");
}

/// Whatever runs meanwhile, an enqueue is followed by a take of its item.
pub async fn no_item_is_lost_between_enqueue_and_done(subject: &StoreUnderTest) {
    const ENQUEUES: u64 = 60;
    let scene = Scene::new(subject);
    let highest = together(3, |index| {
        let (store, worker): (_, WorkerId) = (Arc::clone(&scene.store), scene.worker_id());
        async move {
            let mut highest = 0;
            for _ in 0..ENQUEUES {
                if index == 0 {
                    store.enqueue(vec![item("a", Duration::ZERO)]).await.unwrap();
                    tokio::task::yield_now().await;
                    continue;
                }
                let take = Take {
                    worker,
                    kinds: vec![KIND],
                    places: Vec::new(),
                    limit: 1,
                };
                for item in store.take(take).await.unwrap() {
                    highest = highest.max(item.hold.fence);
                    tokio::task::yield_now().await;
                    assert!(store.done(&item).await.unwrap(), "nobody took the hold away");
                }
            }
            highest
        }
    })
    .await
    .into_iter()
    .max();
    // One more enqueue must be followed by a take, whatever state the race left behind.
    scene.enqueue("a", Duration::ZERO).await;
    let last = scene.take_one().await;
    assert!(Some(last.hold.fence) > highest);
    scene.enqueue("a", Duration::ZERO).await;
    assert!(scene.store.done(&last).await.unwrap());
    assert_eq!(
        scene.take_one().await.key(),
        "a",
        "the enqueue during the hold was not lost"
    );
}
