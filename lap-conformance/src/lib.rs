//! The laws every LAP backend obeys, with fault injectors.
//!
//! A backend proves itself with one macro line in its tests, which makes one named test per law:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use lap_conformance::{ManualClock, StoreUnderTest};
//! use lap_core::memory::MemoryStore;
//!
//! mod laws {
//!     use super::*;
//!
//!     lap_conformance::store_suite!(async {
//!         let clock = ManualClock::default();
//!         let store = MemoryStore::new(Arc::new(clock.clone()));
//!         StoreUnderTest::with_clock(Arc::new(store), clock)
//!     });
//! }
//! ```
//!
//! The list of laws lives here, so a backend cannot leave one out. Every law gets an empty store of its own.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a law panics when it is broken"
)]

mod clock;
pub mod crash;
mod fault;
mod run;
pub mod runtime;
mod scene;
pub mod simulation;
mod snapshot;
pub mod store;
mod subject;
mod suite;
pub mod vault;

pub use clock::ManualClock;
pub use fault::{Call, Fault, Faulty};
pub use run::run;
pub use runtime::RuntimeUnderTest;
pub use subject::StoreUnderTest;
pub use suite::Law;
pub use vault::VaultUnderTest;
