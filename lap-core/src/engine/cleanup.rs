//! Work kind `cleanup`: removes what is left of a sandbox. Keyed by sandbox.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::work::Next;
use crate::error::Result;
use crate::store::WorkItem;

/// How long a call of a bring-up that has lost its sandbox may still be on its way to the vault or the runtime.
const STRAGGLE: Duration = Duration::from_secs(60);

/// First the stubs die, then the processes and files go, then the row says so.
///
/// Vault and runtime know no fences. A sandbox that ended before it had an address may still be attached or launched
/// by a bring-up that has not noticed, so it is removed once more when no such call can be left.
pub(super) async fn run(core: &Arc<Core>, item: &WorkItem) -> Result<Next> {
    let sandbox = item.key().parse()?;
    core.parts.vault.detach(sandbox).await?;
    core.parts.runtime.stop(sandbox, core.config.stop_grace).await?;
    if let Some(row) = core.parts.store.sandbox(sandbox).await?
        && row.address.is_none()
    {
        let age = core.parts.clock.now().since(row.state_since);
        if age < STRAGGLE {
            return Ok(Next::Again(STRAGGLE - age));
        }
    }
    core.parts.store.bury_sandbox(sandbox).await?;
    Ok(Next::Done)
}
