//! Work kind `cleanup`: removes what is left of a sandbox. Keyed by sandbox.

use std::sync::Arc;

use super::core::Core;
use super::work::Next;
use crate::error::Result;
use crate::store::WorkItem;

/// First the stubs die, then the processes and files go, then the row says so.
pub(super) async fn run(core: &Arc<Core>, item: &WorkItem) -> Result<Next> {
    let sandbox = item.key().parse()?;
    core.parts.vault.detach(sandbox).await?;
    core.parts.runtime.stop(sandbox, core.config.stop_grace).await?;
    core.parts.store.bury_sandbox(sandbox).await?;
    Ok(Next::Done)
}
