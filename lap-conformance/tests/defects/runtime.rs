//! The laws of a runtime.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lap_conformance::RuntimeUnderTest;
use lap_conformance::runtime::LAWS;
use lap_core::agent::AgentSpec;
use lap_core::blueprint::{Blueprint, LateBindable};
use lap_core::capability::Capabilities;
use lap_core::error::{Error, Result};
use lap_core::id::{InstanceId, SandboxId, SeededEntropy};
use lap_core::memory::{MemoryRuntime, MemoryWorld};
use lap_core::runtime::{Endpoint, LaunchSpec, RuntimeEvent, RuntimeEvents, SandboxRuntime};
use lap_core::time::{SystemClock, Timestamp};
use lap_core::token::SigningKey;
use lap_core::vault::GatewayAccess;

use crate::trial::{Trial, defects, trial};

const TRIAL: Trial<RuntimeUnderTest, Defect> = Trial {
    laws: LAWS,
    trips: TRIPS,
    none: Defect::None,
    make,
};

trial!(TRIAL);

defects! {
    SharesAddresses: a_launched_sandbox_gets_an_address;
    /// A repeated launch starts the sandbox again, elsewhere.
    LaunchesAgain: a_launch_is_idempotent;
    KnowsEverything: an_unknown_sandbox_is_not_there;
    StopsNothing: a_stop_is_idempotent, a_stop_overtakes_a_start;
    WatchesFromNowOn: a_watch_begins_with_what_exists;
    WatchesOnce: a_watch_tells_every_end, an_unwatched_end_is_told_later;
    TakesNoLabels: a_sandbox_takes_labels_and_has_a_log;
}

#[derive(Debug)]
struct Broken {
    runtime: MemoryRuntime,
    defect: Defect,
    launched: Mutex<BTreeMap<SandboxId, u32>>,
}

fn make(defect: Defect) -> RuntimeUnderTest {
    let world = MemoryWorld::new(Arc::new(SystemClock));
    let launched = Mutex::default();
    let runtime = Broken {
        runtime: world.runtime(),
        defect,
        launched,
    };
    let entropy = SeededEntropy::new(1);
    let kill = move |sandbox| {
        world.kill(sandbox, "killed by the test");
        std::future::ready(())
    };
    RuntimeUnderTest::new(Arc::new(runtime), move || spec(&entropy), kill)
}

fn spec(entropy: &SeededEntropy) -> LaunchSpec {
    let now = Timestamp::from_unix_millis(1);
    LaunchSpec {
        sandbox: SandboxId::fresh(entropy, now),
        instance: InstanceId::fresh(entropy, now),
        public_key: SigningKey::from_seed(&[7; 32]).unwrap().verifying_key(),
        blueprint: Blueprint::of(&AgentSpec::default(), LateBindable::ALL),
        env: BTreeMap::new(),
        git_token: None,
        gateway: GatewayAccess {
            base: String::new(),
            key: String::new(),
        },
        labels: BTreeMap::new(),
    }
}

#[async_trait]
impl SandboxRuntime for Broken {
    fn capabilities(&self) -> Capabilities {
        self.runtime.capabilities()
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<()> {
        *self.launched.lock().unwrap().entry(spec.sandbox).or_default() += 1;
        self.runtime.launch(spec).await
    }

    async fn endpoint(&self, sandbox: SandboxId, within: Duration) -> Result<Endpoint> {
        let launches = self.launched.lock().unwrap().get(&sandbox).copied();
        Ok(
            match (self.runtime.endpoint(sandbox, within).await?, self.defect) {
                (Endpoint::At(_), Defect::SharesAddresses) => Endpoint::At("memory".to_owned()),
                (Endpoint::At(address), Defect::LaunchesAgain) => {
                    Endpoint::At(format!("{address}#{launches:?}"))
                }
                (Endpoint::Gone { .. }, Defect::KnowsEverything) => Endpoint::At("memory".to_owned()),
                (endpoint, _) => endpoint,
            },
        )
    }

    async fn bind(&self, sandbox: SandboxId, labels: &BTreeMap<String, String>) -> Result<()> {
        if self.defect == Defect::TakesNoLabels {
            return Err(Error::not_found("bind sandbox", "sandbox", sandbox));
        }
        self.runtime.bind(sandbox, labels).await
    }

    async fn stop(&self, sandbox: SandboxId, grace: Duration) -> Result<()> {
        if self.defect == Defect::StopsNothing {
            Ok(())
        } else {
            self.runtime.stop(sandbox, grace).await
        }
    }

    fn watch(&self) -> RuntimeEvents {
        let events = self.runtime.watch();
        match self.defect {
            Defect::WatchesFromNowOn => {
                let is_news = |event: &RuntimeEvent| !matches!(event, RuntimeEvent::Exists(_));
                Box::pin(events.filter(move |event| std::future::ready(is_news(event))))
            }
            Defect::WatchesOnce => {
                let is_first = |event: &RuntimeEvent| !matches!(event, RuntimeEvent::Gone { .. });
                Box::pin(events.filter(move |event| std::future::ready(is_first(event))))
            }
            _ => events,
        }
    }

    async fn logs(&self, sandbox: SandboxId, lines: usize) -> Result<String> {
        self.runtime.logs(sandbox, lines).await
    }
}
