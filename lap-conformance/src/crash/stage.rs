use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lap_core::backends::Backends;
use lap_core::blueprint::{Blueprint, LateBindable};
use lap_core::engine::{Engine, EngineConfig, Gateway, Identity};
use lap_core::error::Result;
use lap_core::harness::Harness;
use lap_core::id::{AgentId, Entropy, SandboxId, SeededEntropy};
use lap_core::memory::{MemoryStore, MemoryVault, MemoryWorld};
use lap_core::runtime::{LaunchSpec, RuntimeEvent, SandboxRuntime as _};
use lap_core::sandbox::Place;
use lap_core::seal::Sealer;
use lap_core::secret::Secret;
use lap_core::store::{Agents as _, NewSandbox, Sandboxes as _, Store};
use lap_core::time::{Clock, Timestamp, TokioClock};
use lap_core::vault::{Attach, Vault as _};

use super::wire::Wire;
use super::wired::Wired;

/// The real key of the model gateway on a stage. It must never be seen in a sandbox or an event.
pub const GATEWAY_SECRET: &str = "gateway-secret-value";

/// What the engines of one test share: a store, a world of sandboxes, a vault and a clock that moves with tokio's.
///
/// Randomness comes from a seed and time from tokio, so in a single-threaded runtime with paused time a run on a
/// stage is reproducible.
#[derive(Debug)]
pub struct Stage {
    /// The truth, for looking at it.
    pub store: Arc<MemoryStore>,
    /// The store that engines get.
    pub front: Arc<dyn Store>,
    /// Where sandboxes exist.
    pub world: MemoryWorld,
    /// What engines talk to in sandboxes.
    pub harness: Arc<dyn Harness>,
    /// Where credentials are.
    pub vault: Arc<MemoryVault>,
    /// The time of everything.
    pub clock: Arc<dyn Clock>,
    /// The randomness of all engines.
    pub entropy: Arc<dyn Entropy>,
    /// No hint reaches any engine that starts.
    pub loses_hints: bool,
    /// The settings of engines that start.
    pub config: EngineConfig,
}

impl Stage {
    /// An empty stage. Call it inside a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let epoch = Timestamp::from_unix_millis(1_767_225_600_000);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(epoch));
        let world = MemoryWorld::new(Arc::clone(&clock));
        let store = Arc::new(MemoryStore::new(Arc::clone(&clock)));
        let mut config = EngineConfig::default();
        config.gateway = Gateway {
            key: Secret::new(GATEWAY_SECRET),
        };
        Self {
            front: Arc::clone(&store) as Arc<dyn Store>,
            store,
            harness: Arc::new(world.harness()),
            world,
            vault: Arc::new(MemoryVault::new()),
            clock,
            entropy: Arc::new(SeededEntropy::new(seed)),
            loses_hints: false,
            config,
        }
    }

    /// The parts of an engine whose calls go through `wire`.
    pub fn parts(&self, wire: &Arc<Wire>) -> Backends {
        let store = wire.store(Arc::clone(&self.front));
        Backends {
            store: Arc::new(if self.loses_hints {
                store.losing_hints()
            } else {
                store
            }),
            runtime: Arc::new(Wired::new(Arc::new(self.world.runtime()), wire)),
            vault: Arc::new(Wired::new(Arc::clone(&self.vault), wire)),
            harness: Arc::new(Wired::new(Arc::clone(&self.harness), wire)),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            sealer: Arc::new(Sealer::plaintext()),
        }
    }

    /// Another engine whose calls go through `wire`.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn engine(&self, wire: &Arc<Wire>) -> Result<Engine> {
        Engine::start(self.parts(wire), self.config.clone()).await
    }

    /// A warm sandbox for sessions of this agent, made as the pool would make it. `None` when there is no such agent.
    ///
    /// # Errors
    /// What the backends say.
    pub async fn warm(&self, agent: AgentId) -> Result<Option<SandboxId>> {
        let Some(agent) = self.store.agent(agent).await? else {
            return Ok(None);
        };
        let id = SandboxId::fresh(&*self.entropy, self.clock.now());
        self.store
            .plan_sandbox(NewSandbox {
                id,
                blueprint_hash: agent.blueprint_hash.clone(),
                platform_hash: self.config.platform.hash(),
                place: Place::Cluster,
            })
            .await?;
        let blueprint = Blueprint::of(&agent.spec, LateBindable::ALL);
        let attach = Attach {
            sandbox: id,
            secrets: blueprint.secrets.clone(),
            allow_out: Vec::new(),
            deny_out: Vec::new(),
        };
        let attachment = self.vault.attach(&attach).await?;
        let identity =
            Identity::load(&*self.store, &Sealer::plaintext(), &*self.entropy, &*self.clock).await?;
        let spec = LaunchSpec {
            sandbox: id,
            instance: identity.instance(),
            public_key: identity.verifying_key(),
            blueprint,
            env: attachment.env,
            git_token: None,
            gateway: attachment.gateway,
            labels: BTreeMap::new(),
        };
        if let Err(error) = self.world.runtime().launch(&spec).await {
            // There is no engine behind this one that would give it up.
            self.store.lose_sandbox(id, "it was not launched").await?;
            return Err(error);
        }
        self.store.warm_sandbox(id, &self.world.address(id)).await?;
        Ok(Some(id))
    }

    /// Everything the runtime still has something of, dead sandboxes included.
    pub async fn remains(&self) -> Vec<SandboxId> {
        let told = self
            .world
            .runtime()
            .watch()
            .take_while(|event| std::future::ready(*event != RuntimeEvent::Complete));
        let exists = told.filter_map(|event| {
            std::future::ready(match event {
                RuntimeEvent::Exists(id) => Some(id),
                _ => None,
            })
        });
        exists.collect().await
    }

    /// Waits until `holds` says so, looking every 20 ms of tokio's time. `false` when it does not within `patience`.
    pub async fn wait_until<F: Future<Output = bool>>(
        &self,
        patience: Duration,
        holds: impl Fn() -> F,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if holds().await {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
