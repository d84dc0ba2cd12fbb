//! Ending sandboxes that take more of the machine than they may.

use std::sync::{Arc, Weak};
use std::time::Duration;

use lap_core::id::SandboxId;

use crate::config::ResourceLimits;
use crate::failure::off_thread;
use crate::life::Life;
use crate::process::{Quarry, Usage, kill_all, usage_of};
use crate::runtime::Shared;

const OPERATION: &str = "measure sandboxes";
/// How often is measured.
const PERIOD: Duration = Duration::from_secs(1);

/// Measures for as long as the runtime lives.
pub(crate) async fn measure(shared: Weak<Shared>) {
    let mut beat = tokio::time::interval(PERIOD);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let running = shared.registry.running();
        if running.is_empty() {
            continue;
        }
        let limits = shared.config.resources;
        let looked = off_thread(OPERATION, move || look(&running, limits)).await;
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "sandboxes cannot be measured"),
            Err(error) => tracing::warn!(%error, "sandboxes cannot be measured"),
        }
    }
}

/// Blocking.
fn look(running: &[(SandboxId, Arc<Life>)], limits: ResourceLimits) -> std::io::Result<()> {
    let roots: Vec<_> = running.iter().map(|(_, life)| life.identity()).collect();
    for ((sandbox, life), usage) in running.iter().zip(usage_of(&roots)?) {
        if let Some(reason) = excess(&usage, limits) {
            tracing::warn!(%sandbox, reason, "a sandbox takes too much and is killed");
            end(*sandbox, life, &reason)?;
        }
    }
    Ok(())
}

fn excess(usage: &Usage, limits: ResourceLimits) -> Option<String> {
    if let Some(limit) = limits.processes
        && usage.processes() > limit as usize
    {
        return Some(format!("it had more than {limit} processes and was killed"));
    }
    let limit = limits.memory_bytes?;
    usage.bytes_above(limit)?;
    Some(used_too_much(limit))
}

/// The reason for both who measures and the kernel.
pub(crate) fn used_too_much(limit_bytes: u64) -> String {
    let mebibytes = limit_bytes / (1024 * 1024);
    format!("it used more than {mebibytes} MiB of memory and was killed")
}

/// The processes below have the memory, so they go now and not when somebody stops the sandbox.
fn end(sandbox: SandboxId, life: &Life, reason: &str) -> std::io::Result<()> {
    if life.ends_as_one() {
        return life.kill(reason);
    }
    life.condemn(reason);
    let mut quarry = Quarry::new(sandbox, life.folder().to_path_buf(), Some(life.identity()));
    kill_all(&mut quarry).map(drop)
}
