//! Follows the runtime: what it has and the store does not want is removed, what the store wants and the
//! runtime has lost is written off, and survivors of an earlier process are adopted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::core::Core;
use super::plan;
use crate::error::{Result, chain};
use crate::id::SandboxId;
use crate::opening::Opening;
use crate::runtime::RuntimeEvent;
use crate::sandbox::{Sandbox, SandboxState};
use crate::store::{NewWork, WorkKind};

/// Watches until the engine stops. A watch that ends is begun anew and tells everything again.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        // Read before the runtime makes its list: a sandbox that gets ready in between is not missing from it.
        let mut expected = Vec::new();
        while let Err(error) = expect(&core, &mut expected).await {
            tracing::warn!(error = %chain(&error), "the sandboxes of this place could not be read");
            tokio::select! {
                biased;
                () = core.stopped.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        let mut events = core.parts.runtime.watch();
        let mut existing = HashSet::new();
        loop {
            let event = tokio::select! {
                biased;
                () = core.stopped.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(RuntimeEvent::Exists(sandbox)) => {
                    existing.insert(sandbox);
                    persist(&core, || meet(&core, sandbox)).await;
                }
                Some(RuntimeEvent::Complete) => {
                    expected.retain(|sandbox| !existing.contains(sandbox));
                    persist(&core, || write_off(&core, &expected)).await;
                }
                Some(RuntimeEvent::Gone { sandbox, reason }) => {
                    persist(&core, || lose(&core, sandbox, &reason)).await;
                }
                None => break,
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Repeats while the store or the vault does not answer: an event told once must not be lost.
async fn persist<F: Future<Output = Result<()>>>(core: &Core, step: impl Fn() -> F) {
    let mut pause = Duration::from_millis(100);
    while let Err(error) = step().await {
        tracing::warn!(error = %chain(&error), "an event of the runtime could not be handled");
        if !error.is_retryable() || core.stopped.is_cancelled() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// A sandbox exists. Its row was committed before its launch, so one without a live row is an orphan.
async fn meet(core: &Core, id: SandboxId) -> Result<()> {
    match core.parts.store.sandbox(id).await? {
        Some(sandbox) if sandbox.state.is_live() => adopt(core, &sandbox).await,
        _ => {
            tracing::info!(lap.sandbox.id = %id, "removing a sandbox that belongs to nothing");
            let place = Some(core.parts.runtime.capabilities().place);
            let cleanup = NewWork {
                kind: WorkKind::Cleanup,
                key: id.to_string(),
                place,
                after: Duration::ZERO,
            };
            core.parts.store.enqueue(vec![cleanup]).await?;
            core.work_is_due();
            Ok(())
        }
    }
}

/// The vault gets the values of a survivor again: it keeps none on disk.
async fn adopt(core: &Core, sandbox: &Sandbox) -> Result<()> {
    let Some(session) = sandbox.session.filter(|_| sandbox.state == SandboxState::Claimed) else {
        return Ok(());
    };
    let Some(found) = core.parts.store.bring_up(session).await? else {
        return Ok(());
    };
    let opening = Opening::unseal(session, &found.opening, &core.parts.sealer)?;
    core.parts
        .vault
        .attach(&plan::attach(sandbox.id, &opening.blueprint))
        .await?;
    core.parts
        .vault
        .grant(sandbox.id, &plan::grants(core, &opening))
        .await
}

/// Claimed and warm sandboxes of this place. One that is being provisioned belongs to its bring-up, which finds out
/// by itself what becomes of it.
async fn expect(core: &Core, expected: &mut Vec<SandboxId>) -> Result<()> {
    let place = core.parts.runtime.capabilities().place;
    let all = core.parts.store.sandboxes_at(place).await?;
    let ran = |state| matches!(state, SandboxState::Claimed | SandboxState::Warm);
    expected.extend(
        all.iter()
            .filter(|sandbox| ran(sandbox.state))
            .map(|sandbox| sandbox.id),
    );
    Ok(())
}

/// What the runtime should have and has not is lost.
async fn write_off(core: &Core, missing: &[SandboxId]) -> Result<()> {
    for sandbox in missing {
        lose(core, *sandbox, "its sandbox ended while no server was watching").await?;
    }
    Ok(())
}

/// The sandbox has ended. The store ends what depended on it.
pub(super) async fn lose(core: &Core, id: SandboxId, reason: &str) -> Result<()> {
    if core.parts.store.lose_sandbox(id, reason).await? {
        tracing::warn!(lap.sandbox.id = %id, reason, "a sandbox was lost");
        metrics::counter!("session_death_total", "reason" => "task_disappeared").increment(1);
        if let Some(session) = core
            .parts
            .store
            .sandbox(id)
            .await?
            .and_then(|sandbox| sandbox.session)
        {
            core.runs.end_session(session);
            core.changed(session);
        }
        core.work_is_due();
    }
    Ok(())
}
