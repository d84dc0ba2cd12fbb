//! The one list of parts an engine is made of.

use std::sync::Arc;

use crate::harness::Harness;
use crate::id::{Entropy, SystemEntropy};
use crate::memory::{MemoryStore, MemoryVault, MemoryWorld};
use crate::runtime::SandboxRuntime;
use crate::seal::Sealer;
use crate::store::Store;
use crate::time::{Clock, SystemClock};
use crate::vault::Vault;

/// Replace any part with your own: `Backends { store: Arc::new(MyStore::new()), ..parts }`.
#[derive(Debug, Clone)]
pub struct Backends {
    /// Keeps everything.
    pub store: Arc<dyn Store>,
    /// Starts and stops sandboxes.
    pub runtime: Arc<dyn SandboxRuntime>,
    /// Holds real credentials.
    pub vault: Arc<dyn Vault>,
    /// Talks to what runs inside sandboxes.
    pub harness: Arc<dyn Harness>,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
    /// Makes ids, nonces and keys.
    pub entropy: Arc<dyn Entropy>,
    /// Encrypts values at rest.
    pub sealer: Arc<Sealer>,
}

impl Backends {
    /// Reference backends that keep everything in memory and run scripted agents (see [`memory`](crate::memory)):
    /// for tests and examples, and as a start from which to replace one part after the other.
    pub fn in_memory() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let world = MemoryWorld::new(Arc::clone(&clock));
        Self {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
            runtime: Arc::new(world.runtime()),
            vault: Arc::new(MemoryVault::new()),
            harness: Arc::new(world.harness()),
            clock,
            entropy: Arc::new(SystemEntropy::new()),
            sealer: Arc::new(Sealer::plaintext()),
        }
    }
}
