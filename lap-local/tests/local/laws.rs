//! The laws of every runtime, on this one.

use std::sync::Arc;

use lap_conformance::RuntimeUnderTest;
use lap_core::id::SandboxId;

use super::site;
use crate::support::kill_root;

async fn subject() -> RuntimeUnderTest {
    let site = Arc::new(site());
    let runtime = Arc::new(site.runtime().await);
    let (specs, kills) = (Arc::clone(&site), Arc::clone(&site));
    let kill = move |sandbox: SandboxId| {
        let folder = kills.folder(sandbox);
        async move { kill_root(&folder) }
    };
    RuntimeUnderTest::new(runtime, move || specs.spec(""), kill).keeping(site)
}

lap_conformance::runtime_suite!(subject());
