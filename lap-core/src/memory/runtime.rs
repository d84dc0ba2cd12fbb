use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::world::{MemoryWorld, Preparation};
use crate::capability::Capabilities;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SandboxId;
use crate::runtime::{Endpoint, LaunchSpec, RuntimeEvent, RuntimeEvents, SandboxRuntime};

/// Starts and stops the sandboxes of a [`MemoryWorld`].
///
/// It knows everything about them, so what is not there is certainly gone. Addresses are `memory:<id>`.
#[derive(Debug, Clone)]
pub struct MemoryRuntime {
    world: MemoryWorld,
}

impl MemoryRuntime {
    pub(super) const fn new(world: MemoryWorld) -> Self {
        Self { world }
    }

    fn look(&self, sandbox: SandboxId) -> Endpoint {
        let state = self.world.state();
        match state
            .sandboxes
            .get(&sandbox)
            .map(|found| (&found.gone, &found.preparation))
        {
            None => Endpoint::Gone {
                reason: "it was never launched here, or stopped".to_owned(),
            },
            Some((Some(reason), _)) => Endpoint::Gone {
                reason: reason.clone(),
            },
            Some((None, Preparation::NoAddress)) => Endpoint::Unknown,
            Some((None, _)) => Endpoint::At(address(sandbox)),
        }
    }
}

/// Where a sandbox of a memory world answers.
pub(super) fn address(sandbox: SandboxId) -> String {
    format!("memory:{sandbox}")
}

#[async_trait]
impl SandboxRuntime for MemoryRuntime {
    fn capabilities(&self) -> Capabilities {
        Capabilities::at(self.world.place())
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<()> {
        self.world
            .state()
            .launch(spec)
            .map_err(|reason| Error::new(ErrorKind::Unavailable, "launch sandbox", reason))
    }

    async fn endpoint(&self, sandbox: SandboxId, within: Duration) -> Result<Endpoint> {
        let until = Instant::now() + within;
        loop {
            let endpoint = self.look(sandbox);
            let left = until.saturating_duration_since(Instant::now());
            if endpoint != Endpoint::Unknown || left.is_zero() {
                return Ok(endpoint);
            }
            tokio::time::sleep(left.min(Duration::from_millis(20))).await;
        }
    }

    async fn bind(&self, sandbox: SandboxId, labels: &BTreeMap<String, String>) -> Result<()> {
        let mut state = self.world.state();
        let found = state
            .sandboxes
            .get_mut(&sandbox)
            .filter(|found| found.gone.is_none());
        let found = found.ok_or_else(|| Error::not_found("bind sandbox", "sandbox", sandbox))?;
        found.labels.extend(labels.clone());
        Ok(())
    }

    async fn stop(&self, sandbox: SandboxId, _grace: Duration) -> Result<()> {
        let mut state = self.world.state();
        state.end(sandbox, "it was stopped");
        state.sandboxes.remove(&sandbox);
        Ok(())
    }

    fn watch(&self) -> RuntimeEvents {
        let (sender, receiver) = unbounded_channel();
        let mut state = self.world.state();
        // Under one lock with the subscription, so that no end falls between the list and the changes.
        let mut first: Vec<_> = state
            .sandboxes
            .keys()
            .map(|id| RuntimeEvent::Exists(*id))
            .collect();
        first.push(RuntimeEvent::Complete);
        // What ended before anyone watched waits for a stop, so it is told like any other end.
        first.extend(state.sandboxes.iter().filter_map(|(id, found)| {
            let reason = found.gone.clone()?;
            Some(RuntimeEvent::Gone { sandbox: *id, reason })
        }));
        state.watchers.push(sender);
        Box::pin(futures_util::stream::iter(first).chain(UnboundedReceiverStream::new(receiver)))
    }

    async fn logs(&self, sandbox: SandboxId, lines: usize) -> Result<String> {
        let state = self.world.state();
        let found = state.sandboxes.get(&sandbox);
        let found = found.ok_or_else(|| Error::not_found("read logs", "sandbox", sandbox))?;
        let log = found.agent.log();
        Ok(log[log.len().saturating_sub(lines)..].join("\n"))
    }
}
