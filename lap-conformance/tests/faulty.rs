//! The fault injector does what its script says.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::sync::Arc;
use std::time::Duration;

use lap_conformance::{Call, Fault, Faulty, ManualClock};
use lap_core::ErrorKind;
use lap_core::id::{RecordId, SeededEntropy};
use lap_core::memory::MemoryStore;
use lap_core::store::{NewRecord, Put, Record, Records};
use lap_core::time::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

fn faulty() -> Faulty<MemoryStore> {
    Faulty::new(Arc::new(MemoryStore::new(Arc::new(ManualClock::default()))))
}

fn note() -> NewRecord {
    NewRecord {
        id: RecordId::fresh(&SeededEntropy::new(1), Timestamp::from_unix_millis(1)),
        kind: "note".to_owned(),
        owner: String::new(),
        unique_key: None,
        body: Value::Null,
        expected_version: 0,
    }
}

async fn stored(store: &Faulty<MemoryStore>) -> Option<Record> {
    store.inner().record(note().id).await.unwrap()
}

#[tokio::test]
async fn a_call_is_lost_before_or_after_it_happens() {
    let store = faulty().with_script([Fault::FailBefore, Fault::FailAfter]);
    let lost = store.put_record(note()).await.unwrap_err();
    assert_eq!((lost.kind(), lost.is_retryable()), (ErrorKind::Unavailable, true));
    assert_eq!(stored(&store).await, None, "it did not happen");
    let lost = store.put_record(note()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    assert!(
        stored(&store).await.is_some(),
        "it happened, only the reply is lost"
    );
    assert_eq!(
        store.put_record(note()).await.unwrap(),
        Put::VersionIs(1),
        "after the script calls pass"
    );
    assert_eq!(store.take_calls(), ["put_record"; 3]);
    store.record(note().id).await.unwrap();
    assert_eq!(store.calls(), ["record"]);
}

#[tokio::test(start_paused = true)]
async fn faults_and_latency_are_chosen_by_call() {
    let store = faulty()
        .deciding(|call| {
            if call.method == "delete_record" {
                Fault::FailBefore
            } else {
                Fault::Pass
            }
        })
        .with_latency(Duration::from_secs(1));
    let begun = Instant::now();
    store.put_record(note()).await.unwrap();
    store.delete_record(note().id).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert!(stored(&store).await.is_some());
}

#[tokio::test]
async fn a_hook_stops_at_a_call() {
    let (sender, receiver) = tokio::sync::watch::channel(None);
    let store = Arc::new(faulty().with_hook(move |call| {
        sender.send_replace(Some(call));
        std::future::pending()
    }));
    let put = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put_record(note()).await }
    });
    let mut receiver = receiver;
    let call = *receiver.wait_for(Option::is_some).await.unwrap();
    assert_eq!(
        call,
        Some(Call {
            number: 0,
            method: "put_record"
        })
    );
    put.abort();
    assert!(
        put.await.unwrap_err().is_cancelled(),
        "the caller never gets past it"
    );
    assert_eq!(stored(&store).await, None);
}
