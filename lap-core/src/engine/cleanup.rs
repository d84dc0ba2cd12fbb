//! Work kind `cleanup`: removes what is left of a sandbox. Keyed by sandbox.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::work::Next;
use crate::error::Result;
use crate::sandbox::SandboxState;
use crate::store::WorkItem;

/// How long a call of a worker that has lost its sandbox may still be on its way to the vault or the runtime.
const STRAGGLE: Duration = Duration::from_secs(60);

/// First the stubs die, then the processes and files go, then the row says so.
///
/// Vault and runtime know no fences: a bring-up or an adoption that has not noticed the end, or a process that crashed
/// meanwhile, may have attached or launched the sandbox after this. So it is removed once more, when no such call can
/// be left.
pub(super) async fn run(core: &Arc<Core>, item: &WorkItem) -> Result<Next> {
    let sandbox = item.key().parse()?;
    core.parts.vault.detach(sandbox).await?;
    core.parts.runtime.stop(sandbox, core.config.stop_grace).await?;
    if let Some(row) = core.parts.store.sandbox(sandbox).await?
        && row.state != SandboxState::Gone
    {
        let ended_for = core.parts.clock.now().since(row.state_since);
        if ended_for < STRAGGLE {
            return Ok(Next::Again(STRAGGLE - ended_for));
        }
    }
    core.parts.store.bury_sandbox(sandbox).await?;
    Ok(Next::Done)
}
