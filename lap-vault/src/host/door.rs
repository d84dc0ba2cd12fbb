use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lap_core::Result;
use lap_core::id::SandboxId;
use lap_core::opening::Grant;

use super::client::ControlClient;
use crate::relay::Receipt;
use crate::service::{PidFile, Stubs, VaultService};

/// The vault as its server reaches it: in another process or in this one.
#[derive(Debug, Clone)]
pub(super) enum Door {
    Process(ControlClient, PidFile),
    Here(Arc<VaultService>),
}

impl Door {
    pub(super) async fn attach(&self, sandbox: SandboxId, names: &BTreeSet<String>) -> Result<Stubs> {
        match self {
            Self::Process(client, _) => client.attach(sandbox, names).await,
            Self::Here(service) => service.attach(sandbox, names).await,
        }
    }

    pub(super) async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        match self {
            Self::Process(client, _) => client.grant(sandbox, grants).await,
            Self::Here(service) => service.grant(sandbox, grants),
        }
    }

    pub(super) async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        match self {
            Self::Process(client, _) => client.detach(sandbox).await,
            Self::Here(service) => service.detach(sandbox).await,
        }
    }

    pub(super) async fn list(&self) -> Result<BTreeMap<SandboxId, BTreeSet<String>>> {
        match self {
            Self::Process(client, _) => client.list().await,
            Self::Here(service) => Ok(service
                .list()
                .into_iter()
                .map(|attached| (attached.sandbox, attached.granted))
                .collect()),
        }
    }

    pub(super) async fn receipts(
        &self,
        sandbox: SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Receipt>> {
        match self {
            Self::Process(client, _) => client.receipts(sandbox, after, limit).await,
            Self::Here(service) => Ok(service.receipts(Some(sandbox), after, limit)),
        }
    }
}
