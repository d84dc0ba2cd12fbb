//! The laws of a vault.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use lap_conformance::VaultUnderTest;
use lap_conformance::vault::LAWS;
use lap_core::error::{ErrorKind, Result};
use lap_core::id::SandboxId;
use lap_core::memory::MemoryVault;
use lap_core::opening::Grant;
use lap_core::vault::{Attach, Attachment, GatewayAccess, Receipt, Vault};

use crate::trial::{Trial, defects, trial};

const TRIAL: Trial<VaultUnderTest, Defect> = Trial {
    laws: LAWS,
    trips: TRIPS,
    none: Defect::None,
    make,
};

trial!(TRIAL);

defects! {
    /// Every attachment makes new stubs.
    MintsStubs: an_attachment_is_stable;
    /// A stub depends on the name only.
    SharesStubs: sandboxes_share_no_stub;
    ShowsValues: an_attachment_shows_no_real_value;
    KeepsFirstGrants: a_granted_key_reaches_the_gateway;
    /// A stub is compared up to its own length.
    ComparesPrefixes: a_stub_is_worth_its_own_value_only;
    DetachesNothing: a_detached_stub_is_dead;
    TakesAnyGrant: a_grant_needs_an_attachment;
}

#[derive(Debug)]
struct Broken {
    vault: MemoryVault,
    defect: Defect,
    attachments: AtomicU32,
}

fn make(defect: Defect) -> VaultUnderTest {
    let vault = Broken {
        vault: MemoryVault::new(),
        defect,
        attachments: AtomicU32::new(0),
    };
    let vault = Arc::new(vault);
    let gateway = Arc::clone(&vault);
    VaultUnderTest::new(vault, move |access| std::future::ready(gateway.redeem(&access)))
}

impl Broken {
    fn redeem(&self, access: &GatewayAccess) -> Option<String> {
        let key = access.key.as_str();
        let key = if self.defect == Defect::ComparesPrefixes {
            key.trim_end_matches('x')
        } else {
            key
        };
        self.vault.redeem(key).map(|value| value.expose().to_owned())
    }
}

#[async_trait]
impl Vault for Broken {
    async fn attach(&self, attach: &Attach) -> Result<Attachment> {
        let mut attachment = self.vault.attach(attach).await?;
        let count = self.attachments.fetch_add(1, Ordering::Relaxed);
        match self.defect {
            Defect::MintsStubs => attachment.gateway.key = format!("stub_{count}"),
            Defect::SharesStubs => attachment
                .env
                .values_mut()
                .for_each(|stub| "stub".clone_into(stub)),
            Defect::ShowsValues => {
                for grant in self.vault.granted(attach.sandbox) {
                    attachment.env.insert(grant.name, grant.value.expose().to_owned());
                }
            }
            _ => {}
        }
        Ok(attachment)
    }

    async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        if self.defect == Defect::KeepsFirstGrants && !self.vault.granted(sandbox).is_empty() {
            return Ok(());
        }
        match self.vault.grant(sandbox, grants).await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.defect == Defect::TakesAnyGrant => {
                Ok(())
            }
            answer => answer,
        }
    }

    async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        if self.defect == Defect::DetachesNothing {
            Ok(())
        } else {
            self.vault.detach(sandbox).await
        }
    }

    async fn receipts(&self, sandbox: SandboxId, after: u64, limit: usize) -> Result<Vec<Receipt>> {
        self.vault.receipts(sandbox, after, limit).await
    }
}
