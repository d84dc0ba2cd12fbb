//! The memory backends obey every law.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::collections::BTreeMap;
use std::sync::Arc;

use lap_conformance::{ManualClock, RuntimeUnderTest, StoreUnderTest, VaultUnderTest};
use lap_core::agent::AgentSpec;
use lap_core::blueprint::{Blueprint, LateBindable};
use lap_core::id::{InstanceId, SandboxId, SeededEntropy};
use lap_core::memory::{MemoryStore, MemoryVault, MemoryWorld};
use lap_core::runtime::LaunchSpec;
use lap_core::time::{Clock, SystemClock};
use lap_core::token::SigningKey;
use lap_core::vault::GatewayAccess;

fn spec(entropy: &SeededEntropy) -> LaunchSpec {
    let now = SystemClock.now();
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

mod store {
    use super::*;

    lap_conformance::store_suite!(async {
        let clock = ManualClock::default();
        let store = MemoryStore::new(Arc::new(clock.clone()));
        StoreUnderTest::with_clock(Arc::new(store), clock)
    });
}

mod runtime {
    use super::*;

    lap_conformance::runtime_suite!(async {
        let world = MemoryWorld::new(Arc::new(SystemClock));
        let entropy = SeededEntropy::new(1);
        let runtime = Arc::new(world.runtime());
        RuntimeUnderTest::new(
            runtime,
            move || spec(&entropy),
            move |sandbox| {
                world.kill(sandbox, "killed by the test");
                std::future::ready(())
            },
        )
    });
}

mod vault {
    use super::*;

    lap_conformance::vault_suite!(async {
        let vault = Arc::new(MemoryVault::new());
        let gateway = Arc::clone(&vault);
        VaultUnderTest::new(vault, move |access| {
            let value = gateway.redeem(&access.key).map(|value| value.expose().to_owned());
            std::future::ready(value)
        })
    });
}
