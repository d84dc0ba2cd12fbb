//! The memory backends obey every law.

use std::sync::Arc;

use lap_conformance::{ManualClock, StoreUnderTest};
use lap_core::memory::MemoryStore;

mod store {
    use super::*;

    lap_conformance::store_suite!(async {
        let clock = ManualClock::default();
        let store = MemoryStore::new(Arc::new(clock.clone()));
        StoreUnderTest::with_clock(Arc::new(store), clock)
    });
}
