//! Sandboxes that want too much.

use std::time::Duration;

use super::site;
use crate::support::{FAKE, SOON, is_alive, listed, next_end, running, until, up};
use lap_core::runtime::{Endpoint, SandboxRuntime};
use lap_local::ResourceLimits;

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn one_that_uses_too_much_memory_is_killed_with_that_reason() {
    let site = site();
    let runtime = site
        .modest(ResourceLimits {
            memory_bytes: Some(150 << 20),
            processes: None,
        })
        .await;
    let mut events = runtime.watch();
    assert!(listed(&mut events).await.is_empty());
    let spec = site.spec("greedy");
    up(&runtime, &spec).await;
    let (sandbox, reason) = next_end(&mut events).await;
    assert_eq!(sandbox, spec.sandbox);
    assert_eq!(reason, "it used more than 150 MiB of memory and was killed");
    assert_eq!(
        runtime.endpoint(spec.sandbox, SOON).await.unwrap(),
        Endpoint::Gone { reason }
    );
    // The memory comes back at once, not when somebody stops what is left.
    let folder = site.folder(spec.sandbox);
    until("the hog is dead", || {
        !running(&format!("{FAKE} hog")).iter().any(|pid| {
            is_alive(*pid)
                && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
        })
    })
    .await;
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn one_that_has_too_many_processes_is_killed_with_that_reason() {
    let site = site();
    let runtime = site
        .modest(ResourceLimits {
            memory_bytes: None,
            processes: Some(8),
        })
        .await;
    let spec = site.spec("prolific");
    runtime.launch(&spec).await.unwrap();
    let mut events = runtime.watch();
    assert_eq!(listed(&mut events).await, [spec.sandbox]);
    let (_, reason) = next_end(&mut events).await;
    assert_eq!(reason, "it had more than 8 processes and was killed");
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn one_that_is_modest_lives() {
    let site = site();
    let runtime = site
        .modest(ResourceLimits {
            memory_bytes: Some(150 << 20),
            processes: Some(8),
        })
        .await;
    let spec = site.spec("");
    let address = up(&runtime, &spec).await;
    // Long enough to be measured twice; there is no event for not being killed.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(
        runtime.endpoint(spec.sandbox, SOON).await.unwrap(),
        Endpoint::At(address)
    );
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
}
