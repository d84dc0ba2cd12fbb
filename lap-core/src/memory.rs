//! Reference backends that keep everything in memory.
//!
//! [`MemoryStore`] is the executable specification of [`Store`](crate::store::Store): read it to learn the
//! contract. A [`MemoryWorld`] holds sandboxes: its [`MemoryRuntime`] starts and stops them, and its
//! [`MemoryHarness`] reaches them only while they exist. [`MemoryVault`] holds credentials. All of them are real
//! backends without a disk, a process or a network: doctests, examples, the engine's tests and simulations run on
//! them.
//!
//! ```
//! use std::sync::Arc;
//!
//! use lap_core::backends::Backends;
//! use lap_core::id::SystemEntropy;
//! use lap_core::memory::{MemoryStore, MemoryVault, MemoryWorld};
//! use lap_core::seal::Sealer;
//! use lap_core::time::{Clock, SystemClock};
//!
//! let clock: Arc<dyn Clock> = Arc::new(SystemClock);
//! let world = MemoryWorld::new(Arc::clone(&clock));
//! let parts = Backends {
//!     store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
//!     runtime: Arc::new(world.runtime()),
//!     vault: Arc::new(MemoryVault::new()),
//!     harness: Arc::new(world.harness()),
//!     clock,
//!     entropy: Arc::new(SystemEntropy::new()),
//!     sealer: Arc::new(Sealer::plaintext()),
//! };
//! assert_eq!(parts.runtime.capabilities().place, lap_core::sandbox::Place::Cluster);
//! ```

mod agent;
mod harness;
#[cfg(test)]
mod remembering;
mod runtime;
mod store;
#[cfg(test)]
mod tests;
mod vault;
mod world;

pub use harness::MemoryHarness;
pub use runtime::MemoryRuntime;
pub use store::{MemoryStore, StoredWork};
pub use vault::MemoryVault;
pub use world::{MemoryWorld, Preparation};
