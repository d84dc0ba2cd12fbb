//! The laws every store obeys, on SQLite.

use std::sync::Arc;

use lap_conformance::{ManualClock, StoreUnderTest};
use lap_store_sqlite::{SqliteOptions, SqliteStore};

mod sqlite {
    use super::*;

    lap_conformance::store_suite!(async {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let options = SqliteOptions::new(folder.path().join("lap.db"), Arc::new(clock.clone()));
        let store = SqliteStore::open(options).await.unwrap();
        StoreUnderTest::with_clock(Arc::new(store), clock).keeping(folder)
    });
}
