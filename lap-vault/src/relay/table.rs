use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lap_core::id::{Entropy, SandboxId};
use lap_core::secret::Secret;
use lap_core::{Error, Result};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{Gateway, Limits};
use crate::redeem::{Binding, Reason, SecretForms, StubIndex, StubKey, StubRef, is_credential_name};

/// A granted credential.
#[derive(Debug)]
pub struct Credential {
    /// The real value.
    pub value: Secret,
    /// Where it may go.
    pub binding: Binding,
    /// How it may come back.
    pub forms: Arc<SecretForms>,
}

impl Credential {
    /// Checks and prepares a value.
    ///
    /// # Errors
    /// `Invalid` for a value that is empty or has bytes no header can carry: swapping it would fail or, worse,
    /// write a header of its own.
    pub fn new(name: &str, value: Secret, binding: Binding) -> Result<Self> {
        let is_plain = |byte: u8| (0x20..0x7f).contains(&byte);
        if value.is_empty()
            || !value.expose().bytes().all(is_plain)
            || value.expose().trim() != value.expose()
        {
            let message =
                format!("the value of {name} is empty or has spaces around it or control characters in it");
            return Err(Error::invalid("grant credential", name, message));
        }
        let forms = Arc::new(SecretForms::new(&value));
        Ok(Self {
            value,
            binding,
            forms,
        })
    }
}

#[derive(Debug)]
struct Sandbox {
    stubs: BTreeMap<String, String>,
    credentials: HashMap<String, Arc<Credential>>,
    /// Cancelled when the sandbox is detached.
    life: CancellationToken,
    slots: Arc<Semaphore>,
}

#[derive(Debug)]
struct Table {
    gateway: Option<Arc<Gateway>>,
    stubs: StubIndex,
    sandboxes: HashMap<SandboxId, Sandbox>,
}

/// Who presented a stub, as of one moment.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) stub: StubRef,
    pub(super) life: CancellationToken,
    pub(super) slots: Arc<Semaphore>,
}

/// The gateway and a credential, as of one moment: an exchange uses these to its end.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) gateway: Arc<Gateway>,
    pub(super) credential: Arc<Credential>,
}

/// One attached sandbox, without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Names of its credentials.
    pub names: BTreeSet<String>,
    /// Those whose values were granted since this process started.
    pub granted: BTreeSet<String>,
}

/// The tables of the relay: the gateway, the stubs, the granted values.
#[derive(Debug)]
pub struct Tables {
    table: watch::Sender<Table>,
    key: StubKey,
    in_flight: usize,
}

impl Tables {
    /// Empty tables whose stubs derive from `key`.
    pub fn new(key: StubKey, entropy: &dyn Entropy, limits: &Limits) -> Self {
        let table = Table {
            gateway: None,
            stubs: StubIndex::new(entropy),
            sandboxes: HashMap::new(),
        };
        Self {
            table: watch::Sender::new(table),
            key,
            in_flight: limits.in_flight,
        }
    }

    /// All requests from now on go to this gateway.
    pub fn set_gateway(&self, gateway: Gateway) {
        self.table
            .send_modify(|table| table.gateway = Some(Arc::new(gateway)));
    }

    /// The sandbox has stubs of these names, in addition to those it had. Returns all its stubs by name.
    ///
    /// # Errors
    /// `Invalid` for a name that no environment variable can have.
    pub fn attach(&self, sandbox: SandboxId, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
        if let Some(name) = names.iter().find(|name| !is_credential_name(name)) {
            let message = "a credential's name consists of letters, digits and underscores";
            return Err(Error::invalid("attach sandbox", name.as_str(), message));
        }
        let mut stubs = BTreeMap::new();
        self.table.send_modify(|table| {
            let entry = table.sandboxes.entry(sandbox).or_insert_with(|| Sandbox {
                stubs: BTreeMap::new(),
                credentials: HashMap::new(),
                life: CancellationToken::new(),
                slots: Arc::new(Semaphore::new(self.in_flight)),
            });
            for name in names
                .iter()
                .filter(|name| !entry.stubs.contains_key(*name))
                .cloned()
                .collect::<Vec<_>>()
            {
                let stub = self.key.stub(sandbox, &name);
                table.stubs.insert(
                    &stub,
                    StubRef {
                        sandbox,
                        name: name.as_str().into(),
                    },
                );
                entry.stubs.insert(name, stub);
            }
            stubs.clone_from(&entry.stubs);
        });
        Ok(stubs)
    }

    /// The sandbox's stubs are redeemed with these values from now on.
    ///
    /// # Errors
    /// `NotFound` when the sandbox is not attached; `Invalid` for a name it has no stub of. Then nothing changed.
    pub fn grant(&self, sandbox: SandboxId, credentials: Vec<(String, Credential)>) -> Result<()> {
        let mut outcome = Ok(());
        self.table.send_if_modified(|table| {
            let Some(entry) = table.sandboxes.get_mut(&sandbox) else {
                outcome = Err(Error::not_found("grant credentials", "attached sandbox", sandbox));
                return false;
            };
            if let Some((name, _)) = credentials
                .iter()
                .find(|(name, _)| !entry.stubs.contains_key(name))
            {
                let message = format!("the sandbox was attached without a stub of {name}");
                outcome = Err(Error::invalid("grant credentials", name.as_str(), message));
                return false;
            }
            entry.credentials.extend(
                credentials
                    .into_iter()
                    .map(|(name, value)| (name, Arc::new(value))),
            );
            true
        });
        outcome
    }

    /// The sandbox's stubs are dead and its exchanges are being cut. Returns whether it was attached.
    pub fn detach(&self, sandbox: SandboxId) -> bool {
        self.table.send_if_modified(|table| {
            let Some(entry) = table.sandboxes.remove(&sandbox) else {
                return false;
            };
            table.stubs.remove(sandbox);
            entry.life.cancel();
            true
        })
    }

    /// Every attached sandbox.
    pub fn list(&self) -> Vec<Attached> {
        let table = self.table.borrow();
        let attached = |(sandbox, entry): (&SandboxId, &Sandbox)| Attached {
            sandbox: *sandbox,
            names: entry.stubs.keys().cloned().collect(),
            granted: entry.credentials.keys().cloned().collect(),
        };
        let mut list: Vec<_> = table.sandboxes.iter().map(attached).collect();
        list.sort_unstable_by_key(|attached| attached.sandbox);
        list
    }

    /// How many sandboxes are attached.
    pub fn attached(&self) -> usize {
        self.table.borrow().sandboxes.len()
    }

    /// The gateway as it is set now.
    pub fn gateway(&self) -> Option<Arc<Gateway>> {
        self.table.borrow().gateway.clone()
    }

    pub(super) fn caller(&self, presented: &str) -> Option<Caller> {
        let table = self.table.borrow();
        let stub = table.stubs.find(presented)?.clone();
        let entry = table.sandboxes.get(&stub.sandbox)?;
        Some(Caller {
            stub,
            life: entry.life.clone(),
            slots: Arc::clone(&entry.slots),
        })
    }

    /// What an exchange of this stub needs, as soon as all of it is known.
    ///
    /// # Errors
    /// What is still missing after `patience`; `Detached` when the sandbox ends meanwhile.
    pub(super) async fn means(&self, stub: &StubRef, patience: std::time::Duration) -> Result<Means, Reason> {
        match self.table.borrow().means(stub) {
            Err(Reason::NotGranted | Reason::NoGateway) => {}
            known => return known,
        }
        let mut changes = self.table.subscribe();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let known = changes.borrow_and_update().means(stub);
            let Err(missing @ (Reason::NotGranted | Reason::NoGateway)) = known else {
                return known;
            };
            if !matches!(
                tokio::time::timeout_at(deadline, changes.changed()).await,
                Ok(Ok(()))
            ) {
                return Err(missing);
            }
        }
    }
}

impl Table {
    fn means(&self, stub: &StubRef) -> Result<Means, Reason> {
        let sandbox = self.sandboxes.get(&stub.sandbox).ok_or(Reason::Detached)?;
        let credential = sandbox.credentials.get(&*stub.name).ok_or(Reason::NotGranted)?;
        let gateway = self.gateway.as_ref().ok_or(Reason::NoGateway)?;
        Ok(Means {
            gateway: Arc::clone(gateway),
            credential: Arc::clone(credential),
        })
    }
}
