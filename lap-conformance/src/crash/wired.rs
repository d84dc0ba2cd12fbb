//! Every method of runtime, vault and harness through a wire. The lint proves that none is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use lap_core::blueprint::LateBindable;
use lap_core::capability::Capabilities;
use lap_core::error::Result;
use lap_core::harness::{Contact, Delivery, Harness, HarnessEvents, OpenConversation, Probe, Sent, Snapshot};
use lap_core::id::{SandboxId, TurnId};
use lap_core::opening::Grant;
use lap_core::runtime::{Endpoint, LaunchSpec, RuntimeEvents, SandboxRuntime};
use lap_core::vault::{Attach, Attachment, Receipt, Vault};
use serde_json::Value;

use super::wire::{Backend, Site, Strike, Wire, lost};

/// A backend whose calls go through a wire.
pub struct Wired<T: ?Sized> {
    inner: Arc<T>,
    wire: Arc<Wire>,
}

impl<T: ?Sized> Wired<T> {
    /// `inner` as seen through `wire`.
    pub fn new(inner: Arc<T>, wire: &Arc<Wire>) -> Self {
        let wire = Arc::clone(wire);
        Self { inner, wire }
    }

    async fn call<R>(
        &self,
        backend: Backend,
        method: &'static str,
        work: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        self.wire.call(Site { backend, method }, work).await
    }

    /// The events until one is struck: then the connection breaks, or the engine crashes and hears nothing more.
    fn events(&self, events: HarnessEvents) -> HarnessEvents {
        let site = Site {
            backend: Backend::Harness,
            method: "event",
        };
        let wire = Arc::clone(&self.wire);
        Box::pin(stream::unfold(Some(events), move |events| {
            let wire = Arc::clone(&wire);
            async move {
                let mut events = events?;
                let event = events.next().await;
                wire.alive().await;
                let event = event?;
                if strike(&wire, site).await {
                    Some((event, Some(events)))
                } else {
                    Some((Err(lost(site)), None))
                }
            }
        }))
    }
}

/// Whether the event arrives. It does not return when the engine crashes.
async fn strike(wire: &Wire, site: Site) -> bool {
    match wire.decide(site) {
        Strike::Pass => true,
        Strike::FailBefore | Strike::FailAfter => false,
        Strike::CrashBefore | Strike::CrashAfter => {
            wire.crash();
            std::future::pending().await
        }
        Strike::Slow(time) => {
            tokio::time::sleep(time).await;
            wire.alive().await;
            true
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Wired<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wired")
            .field("inner", &&self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<R: SandboxRuntime + ?Sized> SandboxRuntime for Wired<R> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<()> {
        self.call(Backend::Runtime, "launch", self.inner.launch(spec))
            .await
    }

    async fn endpoint(&self, sandbox: SandboxId, within: Duration) -> Result<Endpoint> {
        self.call(Backend::Runtime, "endpoint", self.inner.endpoint(sandbox, within))
            .await
    }

    async fn bind(&self, sandbox: SandboxId, labels: &BTreeMap<String, String>) -> Result<()> {
        self.call(Backend::Runtime, "bind", self.inner.bind(sandbox, labels))
            .await
    }

    async fn stop(&self, sandbox: SandboxId, grace: Duration) -> Result<()> {
        self.call(Backend::Runtime, "stop", self.inner.stop(sandbox, grace))
            .await
    }

    /// A struck event ends the watch: the next one tells everything again.
    fn watch(&self) -> RuntimeEvents {
        let site = Site {
            backend: Backend::Runtime,
            method: "watch",
        };
        let wire = Arc::clone(&self.wire);
        Box::pin(stream::unfold(self.inner.watch(), move |mut events| {
            let wire = Arc::clone(&wire);
            async move {
                let event = events.next().await;
                wire.alive().await;
                let event = event?;
                strike(&wire, site).await.then_some((event, events))
            }
        }))
    }

    async fn logs(&self, sandbox: SandboxId, lines: usize) -> Result<String> {
        self.call(Backend::Runtime, "logs", self.inner.logs(sandbox, lines))
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Vault + ?Sized> Vault for Wired<V> {
    async fn attach(&self, attach: &Attach) -> Result<Attachment> {
        self.call(Backend::Vault, "attach", self.inner.attach(attach))
            .await
    }

    async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        self.call(Backend::Vault, "grant", self.inner.grant(sandbox, grants))
            .await
    }

    async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        self.call(Backend::Vault, "detach", self.inner.detach(sandbox))
            .await
    }

    async fn receipts(&self, sandbox: SandboxId, after: u64, limit: usize) -> Result<Vec<Receipt>> {
        self.call(
            Backend::Vault,
            "receipts",
            self.inner.receipts(sandbox, after, limit),
        )
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Harness + ?Sized> Harness for Wired<H> {
    fn late_bindable(&self, harness: &str) -> Option<LateBindable> {
        self.inner.late_bindable(harness)
    }

    async fn probe(&self, at: &Contact, wait: Duration) -> Result<Probe> {
        self.call(Backend::Harness, "probe", self.inner.probe(at, wait))
            .await
    }

    async fn open(&self, at: &Contact, open: &OpenConversation) -> Result<String> {
        self.call(Backend::Harness, "open", self.inner.open(at, open))
            .await
    }

    async fn send(&self, at: &Contact, delivery: &Delivery) -> Result<Sent> {
        let sent = self.call(Backend::Harness, "send", self.inner.send(at, delivery));
        Ok(match sent.await? {
            Sent::Started(events) => Sent::Started(self.events(events)),
            other => other,
        })
    }

    async fn has_turn(&self, at: &Contact, turn: TurnId) -> Result<bool> {
        self.call(Backend::Harness, "has_turn", self.inner.has_turn(at, turn))
            .await
    }

    async fn attach(&self, at: &Contact, after: u64, turn: TurnId) -> Result<HarnessEvents> {
        let events = self.call(Backend::Harness, "attach", self.inner.attach(at, after, turn));
        Ok(self.events(events.await?))
    }

    async fn abort(&self, at: &Contact, turn: TurnId) -> Result<()> {
        self.call(Backend::Harness, "abort", self.inner.abort(at, turn))
            .await
    }

    async fn messages(&self, at: &Contact) -> Result<Vec<Value>> {
        self.call(Backend::Harness, "messages", self.inner.messages(at))
            .await
    }

    async fn answer(&self, at: &Contact, request: &str, reply: &Value) -> Result<()> {
        self.call(Backend::Harness, "answer", self.inner.answer(at, request, reply))
            .await
    }

    async fn snapshot(&self, at: &Contact, limit_bytes: usize) -> Result<Snapshot> {
        self.call(Backend::Harness, "snapshot", self.inner.snapshot(at, limit_bytes))
            .await
    }

    async fn restore(&self, at: &Contact, fence: u64, snapshot: &Snapshot) -> Result<Vec<String>> {
        self.call(
            Backend::Harness,
            "restore",
            self.inner.restore(at, fence, snapshot),
        )
        .await
    }
}
