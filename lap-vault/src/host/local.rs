use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lap_core::id::{SandboxId, SystemEntropy};
use lap_core::opening::Grant;
use lap_core::seal::Sealer;
use lap_core::time::{SystemClock, Timestamp};
use lap_core::vault::{Attach, Attachment, GATEWAY_KEY, GatewayAccess, Receipt, Vault};
use lap_core::{Error, ErrorKind, Result};
use tokio::sync::{Mutex, RwLock, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{ControlClient, Presence};
use super::door::Door;
use super::process::{GRACE, VaultProcess, VaultProcessConfig, end};
use crate::relay::Limits;
use crate::service::{Parts, VaultService};

/// How long a call waits for a vault that is being started again.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a [`LocalVault`] is.
#[derive(Debug, Clone)]
pub struct LocalVaultConfig {
    /// Base URL of the model gateway.
    pub gateway: String,
    /// PEM certificates of a private authority that signed the gateway's.
    pub gateway_roots: Option<String>,
}

/// The vault of a server on one machine: a child process per data folder that outlives the server, or for
/// embedders and tests a part of this process.
#[derive(Debug)]
pub struct LocalVault {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    config: LocalVaultConfig,
    memory: Mutex<HashMap<SandboxId, Kept>>,
    /// Held for reading by each call with what it remembers and for writing while a fresh vault is being told everything.
    order: RwLock<()>,
    door: watch::Sender<Option<Door>>,
}

/// What a vault that was restarted must be told again.
#[derive(Debug, Default)]
struct Kept {
    names: BTreeSet<String>,
    grants: BTreeMap<String, Grant>,
}

impl LocalVault {
    /// A vault in a process of its own: the one that an earlier server left behind, else a fresh one. From now
    /// on it is watched: when it dies it is started again with the same port and stubs and gets every value
    /// again.
    ///
    /// # Errors
    /// `Unavailable` when the vault does not start, with the end of its log; `Invalid` for a gateway that is no
    /// URL or a sealing key that is none.
    pub async fn process(config: LocalVaultConfig, process: VaultProcessConfig) -> Result<Self> {
        let vault = Self::closed(config);
        let found = VaultProcess::ensure(&process).await?;
        let presence = vault.inner.open(&found).await?;
        let (inner, stop) = (Arc::clone(&vault.inner), vault.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                // First, so that a vault that was told to end is not started again.
                biased;
                () = stop.cancelled() => {}
                () = inner.watch(process, presence) => {}
            }
        });
        Ok(vault)
    }

    /// A vault that is a part of this process and ends with it. With a `folder` its port and stubs survive.
    ///
    /// # Errors
    /// As [`LocalVault::process`].
    pub async fn in_process(
        config: LocalVaultConfig,
        folder: Option<PathBuf>,
        sealer: Sealer,
        limits: Limits,
    ) -> Result<Self> {
        if let Some(folder) = &folder {
            crate::service::ensure_folder(folder)?;
        }
        let service = VaultService::start(Parts {
            folder,
            sealer,
            limits,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        })
        .await?;
        service.set_gateway(&config.gateway, config.gateway_roots.as_deref())?;
        let vault = Self::closed(config);
        vault.inner.door.send_replace(Some(Door::Here(service)));
        Ok(vault)
    }

    fn closed(config: LocalVaultConfig) -> Self {
        let inner = Inner {
            config,
            memory: Mutex::default(),
            order: RwLock::default(),
            door: watch::Sender::new(None),
        };
        Self {
            inner: Arc::new(inner),
            stop: CancellationToken::new(),
        }
    }

    /// The sandboxes the vault knows, with the names whose values it has. After a restart of the server this
    /// says what to detach and what to grant again.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn attached(&self) -> Result<BTreeMap<SandboxId, BTreeSet<String>>> {
        self.inner
            .call(|door| Box::pin(async move { door.list().await }))
            .await
    }

    /// The vault process is gone, and with it every sandbox's way to models. Dropping the value instead leaves it
    /// running.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    pub async fn shutdown(&self) -> Result<()> {
        self.stop.cancel();
        let door = self.inner.door.borrow().clone();
        match door {
            Some(Door::Process(client, file)) => {
                client.shutdown().await?;
                end(&file, GRACE).await;
                Ok(())
            }
            Some(Door::Here(service)) => {
                service.stop();
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Drop for LocalVault {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    /// Tells a vault everything and lets calls through to it.
    async fn open(&self, found: &VaultProcess) -> Result<Presence> {
        let _order = self.order.write().await;
        let client = &found.client;
        let presence = client.presence().await?;
        client
            .set_gateway(&self.config.gateway, self.config.gateway_roots.as_deref())
            .await?;
        for (sandbox, kept) in self.memory.lock().await.iter() {
            let told = tell(client, *sandbox, kept).await;
            match told {
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    tracing::error!(%sandbox, error = lap_core::error::chain(&error), "the vault refused a sandbox");
                }
                Ok(()) => {}
            }
        }
        tracing::info!(
            pid = found.file.pid,
            port = found.file.port,
            adopted = found.adopted,
            "the vault is ready"
        );
        self.door
            .send_replace(Some(Door::Process(client.clone(), found.file.clone())));
        Ok(presence)
    }

    /// Starts the vault again whenever it is gone.
    async fn watch(&self, process: VaultProcessConfig, mut presence: Presence) {
        loop {
            presence.end().await;
            self.door.send_replace(None);
            tracing::warn!("the vault is gone and is started again");
            presence = self.reopen(&process).await;
        }
    }

    async fn reopen(&self, process: &VaultProcessConfig) -> Presence {
        let mut pause = Duration::from_millis(50);
        loop {
            let opened = match VaultProcess::ensure(process).await {
                Ok(found) => self.open(&found).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(presence) => return presence,
                Err(error) => {
                    tracing::error!(
                        error = lap_core::error::chain(&error),
                        "the vault could not be started"
                    );
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// One idempotent call, repeated while the vault is being started again.
    async fn call<'a, T>(
        &'a self,
        call: impl Fn(Door) -> BoxFuture<'a, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut doors = self.door.subscribe();
        loop {
            let door = match tokio::time::timeout_at(deadline, doors.wait_for(Option::is_some)).await {
                Ok(Ok(door)) => door.clone(),
                _ => None,
            };
            let Some(door) = door else {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "call vault",
                    "the vault is not running",
                ));
            };
            let outcome = {
                let _order = self.order.read().await;
                call(door).await
            };
            match outcome {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                    tracing::debug!(
                        error = lap_core::error::chain(&error),
                        "the vault did not answer a call"
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl Vault for LocalVault {
    async fn attach(&self, attach: &Attach) -> Result<Attachment> {
        let names = &attach.secrets;
        if !attach.allow_out.is_empty() || !attach.deny_out.is_empty() {
            tracing::warn!(sandbox = %attach.sandbox, "egress lists are not enforced by the model relay");
        }
        let sandbox = attach.sandbox;
        let mut stubs = self
            .inner
            .call(|door| {
                Box::pin(async move {
                    let stubs = door.attach(sandbox, names).await?;
                    self.inner
                        .memory
                        .lock()
                        .await
                        .entry(sandbox)
                        .or_default()
                        .names
                        .extend(names.iter().cloned());
                    Ok(stubs)
                })
            })
            .await?;
        let key = stubs.stubs.remove(GATEWAY_KEY).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "attach sandbox",
                "the vault made no stub for the model gateway",
            )
        })?;
        Ok(Attachment {
            env: stubs.stubs,
            gateway: GatewayAccess {
                base: stubs.base,
                key,
            },
        })
    }

    async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        let call = |door: Door| -> BoxFuture<'_, Result<()>> {
            Box::pin(async move {
                door.grant(sandbox, grants).await?;
                let mut memory = self.inner.memory.lock().await;
                let kept = memory.entry(sandbox).or_default();
                kept.grants
                    .extend(grants.iter().map(|grant| (grant.name.clone(), grant.clone())));
                kept.names.extend(grants.iter().map(|grant| grant.name.clone()));
                Ok(())
            })
        };
        self.inner.call(call).await
    }

    async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        let call = |door: Door| -> BoxFuture<'_, Result<()>> {
            Box::pin(async move {
                // Forgotten first: a vault that restarts now must not be told of it again.
                self.inner.memory.lock().await.remove(&sandbox);
                door.detach(sandbox).await
            })
        };
        self.inner.call(call).await
    }

    async fn receipts(&self, sandbox: SandboxId, after: u64, limit: usize) -> Result<Vec<Receipt>> {
        let receipts = self
            .inner
            .call(|door| Box::pin(async move { door.receipts(sandbox, after, limit).await }))
            .await?;
        Ok(receipts.into_iter().map(receipt).collect())
    }
}

/// Tells a vault about one sandbox.
async fn tell(client: &ControlClient, sandbox: SandboxId, kept: &Kept) -> Result<()> {
    client.attach(sandbox, &kept.names).await?;
    let grants: Vec<Grant> = kept.grants.values().cloned().collect();
    client.grant(sandbox, &grants).await
}

fn receipt(receipt: crate::relay::Receipt) -> Receipt {
    Receipt {
        number: receipt.number,
        at: Timestamp::from_unix_millis(receipt.at),
        method: receipt.method,
        host: receipt.host,
        path: receipt.path,
        verdict: receipt.verdict,
        reason: receipt.reason,
        credentials: receipt.credentials,
        status: receipt.status,
    }
}
