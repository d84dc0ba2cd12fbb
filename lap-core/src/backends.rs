//! The one list of parts an engine is made of.

use std::sync::Arc;

use crate::harness::Harness;
use crate::id::Entropy;
use crate::runtime::SandboxRuntime;
use crate::seal::Sealer;
use crate::store::Store;
use crate::time::Clock;
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
