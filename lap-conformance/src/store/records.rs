//! Records of low-traffic nouns.

use std::sync::Arc;
use std::time::Duration;

use lap_core::store::{NewRecord, Put, Record, RecordQuery};
use serde_json::json;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};
use crate::snapshot::RECORD_KIND;

impl Scene<'_> {
    pub(crate) fn new_record(&self, owner: &str, unique_key: Option<&str>) -> NewRecord {
        NewRecord {
            id: self.record_id(),
            kind: RECORD_KIND.to_owned(),
            owner: owner.to_owned(),
            unique_key: unique_key.map(str::to_owned),
            body: json!({ "text": "naïve \u{1F600}", "list": [1, null, 2.5] }),
            expected_version: 0,
        }
    }

    pub(crate) async fn put(&self, record: NewRecord) -> Record {
        match self.store.put_record(record).await.unwrap() {
            Put::Done(record) => record,
            other => panic!("the record is put, not {other:?}"),
        }
    }
}

/// A record is put only at its expected version, which grows by one; it is read as it was given.
pub async fn a_record_is_put_at_its_version(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let new = scene.new_record("agent", Some("slug"));
    let first = scene.put(new.clone()).await;
    assert_eq!(
        (first.id, first.version, &first.kind, &first.owner),
        (new.id, 1, &new.kind, &new.owner)
    );
    assert_eq!((&first.unique_key, &first.body), (&new.unique_key, &new.body));
    assert_eq!(scene.store.record(new.id).await.unwrap(), Some(first.clone()));
    scene.pass(Duration::from_secs(1)).await;
    let changed = NewRecord {
        body: json!({ "text": "new" }),
        expected_version: 1,
        ..new.clone()
    };
    let second = scene.put(changed.clone()).await;
    assert_eq!(
        (second.version, &second.body, second.created_at),
        (2, &changed.body, first.created_at)
    );
    assert!(second.updated_at > first.updated_at);
    for expected_version in [0, 1, 3] {
        let late = NewRecord {
            expected_version,
            ..new.clone()
        };
        assert_eq!(scene.store.put_record(late).await.unwrap(), Put::VersionIs(2));
    }
    assert_eq!(
        scene.store.record(new.id).await.unwrap(),
        Some(second),
        "a refused put changes nothing"
    );
    let unknown = NewRecord {
        expected_version: 1,
        ..scene.new_record("agent", None)
    };
    assert_eq!(
        scene.store.put_record(unknown.clone()).await.unwrap(),
        Put::VersionIs(0)
    );
    assert_eq!(scene.store.record(unknown.id).await.unwrap(), None);
}

/// Of concurrent puts at one version, and of concurrent puts of one unique key, exactly one is done.
pub async fn concurrent_puts_have_one_winner(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let record = scene.put(scene.new_record("agent", None)).await;
    let mine = scene.new_record("agent", None);
    let answers = together(16, |index| {
        let at_version = NewRecord {
            id: record.id,
            expected_version: 1,
            body: json!(index),
            ..mine.clone()
        };
        let of_key = scene.new_record("agent", Some("slug"));
        let put = if index % 2 == 0 { at_version } else { of_key };
        let store = Arc::clone(&scene.store);
        async move { store.put_record(put).await.unwrap() }
    })
    .await;
    let done = |answers: Vec<&Put>| {
        answers
            .into_iter()
            .filter(|answer| matches!(answer, Put::Done(_)))
            .count()
    };
    assert_eq!(
        done(answers.iter().step_by(2).collect()),
        1,
        "one put at the version is done"
    );
    assert_eq!(
        done(answers.iter().skip(1).step_by(2).collect()),
        1,
        "one record has the key"
    );
    assert_eq!(scene.store.record(record.id).await.unwrap().unwrap().version, 2);
}

/// A unique key belongs to one record of a kind and owner, until that record gives it up.
pub async fn a_unique_key_has_one_record(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let holder = scene.put(scene.new_record("agent", Some("slug"))).await;
    let rival = scene.new_record("agent", Some("slug"));
    assert_eq!(
        scene.store.put_record(rival.clone()).await.unwrap(),
        Put::KeyTaken(holder.id)
    );
    assert_eq!(scene.store.record(rival.id).await.unwrap(), None);
    scene.put(scene.new_record("other", Some("slug"))).await;
    scene
        .put(NewRecord {
            kind: "other".to_owned(),
            ..scene.new_record("agent", Some("slug"))
        })
        .await;
    scene.put(scene.new_record("agent", None)).await;
    scene.put(scene.new_record("agent", None)).await;
    let rename = NewRecord {
        id: holder.id,
        expected_version: 1,
        ..scene.new_record("agent", Some("new slug"))
    };
    scene.put(rename).await;
    let rival = scene.put(rival).await;
    let back = NewRecord {
        id: holder.id,
        expected_version: 2,
        ..scene.new_record("agent", Some("slug"))
    };
    assert_eq!(
        scene.store.put_record(back).await.unwrap(),
        Put::KeyTaken(rival.id)
    );
}

/// Records are listed newest first, by kind, owner and unique key, in pages that follow a record.
pub async fn records_are_listed_newest_first(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let mut ids = Vec::new();
    for (owner, key) in [("a", Some("k")), ("a", None), ("b", Some("k")), ("a", None)] {
        ids.insert(0, scene.put(scene.new_record(owner, key)).await.id);
        scene.pass(Duration::from_secs(1)).await;
    }
    scene
        .put(NewRecord {
            kind: "other".to_owned(),
            ..scene.new_record("a", None)
        })
        .await;
    let all = RecordQuery {
        kind: RECORD_KIND.to_owned(),
        limit: 10,
        ..RecordQuery::default()
    };
    let of_a = RecordQuery {
        owner: Some("a".to_owned()),
        ..all.clone()
    };
    let with_key = RecordQuery {
        unique_key: Some("k".to_owned()),
        ..all.clone()
    };
    let page = RecordQuery {
        limit: 2,
        ..all.clone()
    };
    let next = RecordQuery {
        before: Some(ids[1]),
        ..page.clone()
    };
    let expectations = [
        (all, ids.clone()),
        (of_a, vec![ids[0], ids[2], ids[3]]),
        (with_key, vec![ids[1], ids[3]]),
        (page, ids[..2].to_vec()),
        (next, ids[2..].to_vec()),
    ];
    for (query, expected) in expectations {
        let listed = scene.store.list_records(query.clone()).await.unwrap();
        assert_eq!(
            listed.iter().map(|record| record.id).collect::<Vec<_>>(),
            expected,
            "{query:?}"
        );
    }
}

/// A deleted record is gone, once, and its unique key is free.
pub async fn a_deleted_record_is_gone(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let new = scene.new_record("agent", Some("slug"));
    scene.put(new.clone()).await;
    assert!(
        !scene.store.delete_record(scene.record_id()).await.unwrap(),
        "there is no such record"
    );
    assert!(scene.store.delete_record(new.id).await.unwrap());
    assert!(!scene.store.delete_record(new.id).await.unwrap());
    assert_eq!(scene.store.record(new.id).await.unwrap(), None);
    scene.put(scene.new_record("agent", Some("slug"))).await;
    let rest = RecordQuery {
        kind: RECORD_KIND.to_owned(),
        limit: 10,
        ..RecordQuery::default()
    };
    assert_eq!(scene.store.list_records(rest).await.unwrap().len(), 1);
}
