//! The schema comes into being once, and a newer one is refused.

use std::sync::Arc;

use lap_core::error::ErrorKind;
use lap_core::store::Installation as _;
use lap_store_postgres::{Migrated, PostgresOptions, PostgresStore};

use crate::database::{Place, link};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_processes_start_at_once() {
    let place = Arc::new(Place::new().await);
    let starts: Vec<_> = (0..10)
        .map(|_| {
            let place = Arc::clone(&place);
            tokio::spawn(async move {
                let mut options = place.options();
                options.connections = Some(1);
                let store = PostgresStore::connect(options).await.unwrap();
                store.ping().await.unwrap();
                store.close().await;
            })
        })
        .collect();
    for start in starts {
        start.await.unwrap();
    }
    let mut connection = link().await;
    let text = format!("SELECT count(*) FROM {}.migrations", place.schema);
    let applied: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let place = Place::new().await;
    let migrated = PostgresStore::migrate(&place.options()).await.unwrap();
    assert_eq!(migrated, Migrated { from: 0, to: 1 });
    let again = PostgresStore::migrate(&place.options()).await.unwrap();
    assert_eq!(again, Migrated { from: 1, to: 1 });
    place
        .run(&format!(
            "INSERT INTO {}.migrations (version, name, written_by) VALUES (99, 'later', '9.9.9')",
            place.schema
        ))
        .await;
    let error = PostgresStore::connect(place.options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for part in ["version 99", "9.9.9", "Nothing was changed"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_address_is_refused_without_an_echo() {
    let url = lap_core::secret::Secret::new("postgres://user:canary@host:notaport/db");
    let error = PostgresStore::connect(PostgresOptions::new(url))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!lap_core::error::chain(&error).contains("canary"), "{error:?}");
}
