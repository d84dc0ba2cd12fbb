use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use lap_core::id::{Entropy, SandboxId};
use lap_core::opening::Grant;
use lap_core::seal::Sealer;
use lap_core::time::Clock;
use lap_core::vault::GATEWAY_KEY;
use lap_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::state::{State, StateFile};
use crate::redeem::{Binding, HostRule, StubKey};
use crate::relay::{Attached, Credential, Gateway, Limits, Receipt, Receipts, Relay, Tables, bind};

/// What a vault is made of.
#[derive(Debug)]
pub struct Parts {
    /// Folder of the state file; nothing keeps the state in memory.
    pub folder: Option<PathBuf>,
    /// Seals the root key in the state file.
    pub sealer: Sealer,
    /// What bounds the relay.
    pub limits: Limits,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where keys and ports come from.
    pub entropy: Arc<dyn Entropy>,
}

/// What an attached sandbox may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stubs {
    /// The relay's base URL.
    pub base: String,
    /// Stubs by name.
    pub stubs: BTreeMap<String, String>,
}

/// A running vault: the relay and what controls it.
#[derive(Debug)]
pub struct VaultService {
    relay: Arc<Relay>,
    port: u16,
    file: StateFile,
    state: Mutex<State>,
    stop: CancellationToken,
}

impl VaultService {
    /// A vault that serves its relay on a loopback port, with the port and stubs of its stored state.
    ///
    /// # Errors
    /// `Unavailable` when the folder is not usable or no port can be had.
    pub async fn start(parts: Parts) -> Result<Arc<Self>> {
        let Parts {
            folder,
            sealer,
            limits,
            clock,
            entropy,
        } = parts;
        let file = StateFile(folder.as_deref().map(|folder| folder.join("state.json")));
        let mut state = file.load(&sealer, entropy.as_ref())?;
        let listener = listen(&state, entropy.as_ref()).await?;
        let port = listener.local_addr().map_err(|error| no_port(&error))?.port();
        state.port = Some(port);
        file.store(&state)?;
        let key = StubKey::new(&state.root_key(&sealer)?);
        let tables = Arc::new(Tables::new(key, entropy.as_ref(), &limits));
        for (sandbox, names) in state.attached() {
            tables.attach(sandbox, names)?;
        }
        let receipts = Arc::new(Receipts::new(clock.now()));
        let relay = Arc::new(Relay::new(tables, receipts, limits, clock));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&relay).serve(listener, stop.clone()));
        Ok(Arc::new(Self {
            relay,
            port,
            file,
            state: Mutex::new(state),
            stop,
        }))
    }

    /// The relay's port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The relay's base URL, as a sandbox on this machine sees it.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Model calls go to this gateway from now on.
    ///
    /// # Errors
    /// `Invalid` for a base that is no URL or roots that are no certificates; the gateway stays what it was.
    pub fn set_gateway(&self, base: &str, extra_roots: Option<&str>) -> Result<()> {
        self.relay
            .tables
            .set_gateway(Gateway::new(base, extra_roots, &self.relay.limits)?);
        Ok(())
    }

    /// The sandbox has stubs of these names and of [`GATEWAY_KEY`]; they survive a restart. Idempotent.
    ///
    /// # Cancel safety
    /// If dropped, the sandbox is attached or not; repeat the call.
    ///
    /// # Errors
    /// `Invalid` for a name no environment variable can have; `Unavailable` when the state cannot be stored.
    pub async fn attach(&self, sandbox: SandboxId, names: &BTreeSet<String>) -> Result<Stubs> {
        let names: BTreeSet<String> = names.iter().cloned().chain([GATEWAY_KEY.to_owned()]).collect();
        let mut state = self.state.lock().await;
        let stubs = self.relay.tables.attach(sandbox, &names)?;
        let known = state.sandboxes.entry(sandbox.as_uuid()).or_default();
        if !names.is_subset(known) {
            known.extend(names);
            self.store(&state).await?;
        }
        Ok(Stubs {
            base: self.base(),
            stubs,
        })
    }

    /// The sandbox's stubs are redeemed with these values from now on.
    ///
    /// # Errors
    /// `NotFound` when the sandbox is not attached; `Invalid` for a name it has no stub of or a value that no
    /// header can carry. Then nothing changed.
    pub fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        let credential = |grant: &Grant| {
            let binding = binding(&grant.name, &grant.hosts)?;
            Ok((
                grant.name.clone(),
                Credential::new(&grant.name, grant.value.clone(), binding)?,
            ))
        };
        self.relay
            .tables
            .grant(sandbox, grants.iter().map(credential).collect::<Result<_>>()?)
    }

    /// The sandbox's stubs are dead, its values forgotten and its exchanges cut. Idempotent.
    ///
    /// # Errors
    /// `Unavailable` when the state cannot be stored: the stubs are dead, but would be back after a restart.
    pub async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        let mut state = self.state.lock().await;
        if self.relay.tables.detach(sandbox) {
            self.relay.receipts.detached(sandbox);
        }
        if state.sandboxes.remove(&sandbox.as_uuid()).is_some() {
            self.store(&state).await?;
        }
        Ok(())
    }

    /// Every attached sandbox, without values.
    pub fn list(&self) -> Vec<Attached> {
        self.relay.tables.list()
    }

    /// How many sandboxes are attached.
    pub fn attached(&self) -> usize {
        self.relay.tables.attached()
    }

    /// The gateway's base URL, once there is one.
    pub fn gateway(&self) -> Option<String> {
        self.relay
            .tables
            .gateway()
            .map(|gateway| gateway.base.to_string())
    }

    /// Receipts of a sandbox (or, without one, of unknown callers) after a number, oldest first.
    pub fn receipts(&self, sandbox: Option<SandboxId>, after: u64, limit: usize) -> Vec<Receipt> {
        self.relay.receipts.after(sandbox, after, limit)
    }

    /// How many requests the relay has had, for deciding that nobody needs it any more.
    pub fn requests(&self) -> u64 {
        self.relay.requests()
    }

    /// The relay stops listening and every connection is dropped.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    async fn store(&self, state: &State) -> Result<()> {
        let (file, state) = (self.file.clone(), state.clone());
        tokio::task::spawn_blocking(move || file.store(&state))
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "write vault state", "the task ended").with_source(error)
            })?
    }
}

impl Drop for VaultService {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The stored port when it is to be had. With sandboxes attached it is worth waiting for, because they know no
/// other; but a port that somebody else took for good must not keep new sandboxes from working.
async fn listen(state: &State, entropy: &dyn Entropy) -> Result<TcpListener> {
    let attempts = if state.sandboxes.is_empty() { 1 } else { 50 };
    for _ in 0..state.port.map_or(0, |_| attempts) {
        match bind(state.port, entropy).await {
            Ok(listener) => return Ok(listener),
            Err(error) => tracing::debug!(%error, "the relay's port is not free yet"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    if state.port.is_some() && !state.sandboxes.is_empty() {
        tracing::error!(
            port = state.port,
            "the relay's port was taken; running sandboxes lose their model gateway"
        );
    }
    bind(None, entropy).await.map_err(|error| no_port(&error))
}

fn no_port(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "start model relay",
        format!("no loopback port can be had ({error})"),
    )
}

/// The platform's own key goes to the gateway; everything else goes where it was said to go and nowhere else.
fn binding(name: &str, hosts: &[String]) -> Result<Binding> {
    if name == GATEWAY_KEY && hosts.is_empty() {
        return Ok(Binding::to_gateway());
    }
    let hosts = hosts
        .iter()
        .map(|host| HostRule::parse(host))
        .collect::<Result<_>>()?;
    Ok(Binding {
        hosts,
        ..Binding::default()
    })
}
