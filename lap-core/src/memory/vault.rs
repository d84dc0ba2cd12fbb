use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ring::digest;

use crate::error::{Error, Result};
use crate::id::SandboxId;
use crate::opening::Grant;
use crate::secret::Secret;
use crate::vault::{Attach, Attachment, GATEWAY_KEY, GatewayAccess, Receipt, Vault};

/// A vault that derives stubs and remembers grants. Nothing sends traffic through it; a test asks it what a stub
/// stands for.
#[derive(Debug, Default)]
pub struct MemoryVault {
    sandboxes: Mutex<BTreeMap<SandboxId, Attached>>,
}

#[derive(Debug, Default)]
struct Attached {
    names: BTreeSet<String>,
    grants: BTreeMap<String, Grant>,
    receipts: Vec<Receipt>,
}

impl MemoryVault {
    /// A vault to which nothing is attached.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sandboxes that have stubs, in order of their ids.
    pub fn attached(&self) -> Vec<SandboxId> {
        self.sandboxes().keys().copied().collect()
    }

    /// What was granted to the sandbox, in order of the names.
    pub fn granted(&self, sandbox: SandboxId) -> Vec<Grant> {
        self.sandboxes()
            .get(&sandbox)
            .map(|found| found.grants.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The value for which this stub would be swapped now.
    pub fn redeem(&self, stub_text: &str) -> Option<Secret> {
        let sandboxes = self.sandboxes();
        let mut grants = sandboxes
            .iter()
            .flat_map(|(id, found)| found.grants.values().map(move |grant| (id, grant)));
        grants
            .find(|(id, grant)| stub(**id, &grant.name) == stub_text)
            .map(|(_, grant)| grant.value.clone())
    }

    /// The vault keeps this receipt, with the next number.
    pub fn record(&self, sandbox: SandboxId, receipt: Receipt) {
        if let Some(found) = self.sandboxes().get_mut(&sandbox) {
            let number = found.receipts.len() as u64 + 1;
            found.receipts.push(Receipt { number, ..receipt });
        }
    }

    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Attached>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same sandbox and name give the same stub, in every memory vault.
fn stub(sandbox: SandboxId, name: &str) -> String {
    let hash = digest::digest(&digest::SHA256, format!("{sandbox}/{name}").as_bytes());
    let digits: String = hash.as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("stub_{name}_{digits}")
}

#[async_trait]
impl Vault for MemoryVault {
    async fn attach(&self, attach: &Attach) -> Result<Attachment> {
        let mut sandboxes = self.sandboxes();
        let attached = sandboxes.entry(attach.sandbox).or_default();
        attached.names.extend(attach.secrets.iter().cloned());
        attached.names.insert(GATEWAY_KEY.to_owned());
        let stubs = attach
            .secrets
            .iter()
            .map(|name| (name.clone(), stub(attach.sandbox, name)));
        let key = stub(attach.sandbox, GATEWAY_KEY);
        Ok(Attachment {
            env: stubs.collect(),
            gateway: GatewayAccess {
                base: "http://memory.invalid/v1".to_owned(),
                key,
            },
        })
    }

    async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        let mut sandboxes = self.sandboxes();
        let attached = sandboxes.get_mut(&sandbox);
        let attached = attached.ok_or_else(|| Error::not_found("grant credentials", "sandbox", sandbox))?;
        // A credential without a stub could never be used, so it is not kept either.
        let with_stub = grants.iter().filter(|grant| attached.names.contains(&grant.name));
        attached
            .grants
            .extend(with_stub.map(|grant| (grant.name.clone(), grant.clone())));
        Ok(())
    }

    async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        self.sandboxes().remove(&sandbox);
        Ok(())
    }

    async fn receipts(&self, sandbox: SandboxId, after: u64, limit: usize) -> Result<Vec<Receipt>> {
        let sandboxes = self.sandboxes();
        let receipts = sandboxes
            .get(&sandbox)
            .map(|found| found.receipts.as_slice())
            .unwrap_or_default();
        Ok(receipts
            .iter()
            .filter(|receipt| receipt.number > after)
            .take(limit)
            .cloned()
            .collect())
    }
}
