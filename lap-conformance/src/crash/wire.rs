use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Result};
use lap_core::store::Store;

use super::latch::Latch;
use crate::{Fault, Faulty};

/// The part of the world a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// The store.
    Store,
    /// The runtime.
    Runtime,
    /// The vault.
    Vault,
    /// The harness in a sandbox.
    Harness,
}

/// Where a call goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// The part.
    pub backend: Backend,
    /// Its method, or `event` for one event of a stream.
    pub method: &'static str,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.backend, self.method)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// It goes through.
    Pass,
    /// It has no effect, and the caller gets `Unavailable`.
    FailBefore,
    /// It has its effect, its reply is lost, and the caller gets `Unavailable`.
    FailAfter,
    /// The engine crashes before it.
    CrashBefore,
    /// The engine crashes after its effect.
    CrashAfter,
    /// It goes through after this long.
    Slow(Duration),
}

impl Strike {
    /// Every strike that does harm.
    pub const HARMFUL: [Self; 4] = [
        Self::FailBefore,
        Self::FailAfter,
        Self::CrashBefore,
        Self::CrashAfter,
    ];
}

type Decide = dyn FnMut(usize, Site) -> Strike + Send;
type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all calls of one engine go through. See the [module](super).
pub struct Wire {
    state: Mutex<State>,
    crashed: Latch,
}

struct State {
    decide: Box<Decide>,
    calls: usize,
    struck: BTreeMap<(Site, Strike), u64>,
    /// The strike of the store's call that is under way between its decision and its gate.
    pending: Strike,
}

impl Wire {
    /// `decide` says what happens to each call, by its number from 0 and its site.
    pub fn new(decide: impl FnMut(usize, Site) -> Strike + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                decide: Box::new(decide),
                calls: 0,
                struck: BTreeMap::new(),
                pending: Strike::Pass,
            }),
            crashed: Latch::default(),
        })
    }

    /// Everything passes.
    pub fn sound() -> Arc<Self> {
        Self::new(|_, _| Strike::Pass)
    }

    /// From now on everything passes, unless the engine has crashed.
    pub fn repair(&self) {
        self.state().decide = Box::new(|_, _| Strike::Pass);
    }

    /// The engine crashes now.
    pub fn crash(&self) {
        self.crashed.close();
    }

    /// Whether the engine has crashed.
    pub fn has_crashed(&self) -> bool {
        self.crashed.is_closed()
    }

    /// Returns when the engine has crashed.
    pub async fn crashed(&self) {
        self.crashed.closed().await;
    }

    /// How many calls were decided so far.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// How often each site was struck, and how.
    pub fn struck(&self) -> BTreeMap<(Site, Strike), u64> {
        self.state().struck.clone()
    }

    /// The store behind this wire.
    pub fn store<S: Store + ?Sized>(self: &Arc<Self>, inner: Arc<S>) -> Faulty<S> {
        let (deciding, gating) = (Arc::clone(self), Arc::clone(self));
        Faulty::new(inner)
            .deciding(move |call| {
                let site = Site {
                    backend: Backend::Store,
                    method: call.method,
                };
                let strike = deciding.decide(site);
                deciding.state().pending = strike;
                match strike {
                    Strike::FailBefore => Fault::FailBefore,
                    Strike::FailAfter | Strike::CrashAfter => Fault::FailAfter,
                    Strike::Pass | Strike::CrashBefore | Strike::Slow(_) => Fault::Pass,
                }
            })
            .with_hook(move |_| gating.gate())
    }

    /// Passes when the call whose strike was decided last may go on.
    fn gate(self: &Arc<Self>) -> Gate {
        let strike = self.state().pending;
        if self.has_crashed() {
            return Box::pin(std::future::pending());
        }
        match strike {
            Strike::CrashBefore => {
                self.crash();
                Box::pin(std::future::pending())
            }
            // The reply that says it failed reaches a process that does nothing any more.
            Strike::CrashAfter => {
                self.crash();
                Box::pin(std::future::ready(()))
            }
            Strike::Slow(time) => {
                let wire = Arc::clone(self);
                Box::pin(async move {
                    tokio::time::sleep(time).await;
                    wire.alive().await;
                })
            }
            Strike::Pass | Strike::FailBefore | Strike::FailAfter => Box::pin(std::future::ready(())),
        }
    }

    /// Never returns once the engine has crashed.
    pub(super) async fn alive(&self) {
        if self.has_crashed() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn call<T>(
        &self,
        site: Site,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.alive().await;
        match self.decide(site) {
            Strike::Pass => {}
            Strike::FailBefore => return Err(lost(site)),
            Strike::FailAfter => {
                work.await?;
                self.alive().await;
                return Err(lost(site));
            }
            Strike::CrashBefore => self.crash(),
            Strike::CrashAfter => {
                let _ = work.await;
                self.crash();
                return std::future::pending().await;
            }
            Strike::Slow(time) => tokio::time::sleep(time).await,
        }
        self.alive().await;
        let answer = work.await;
        self.alive().await;
        answer
    }

    pub(super) fn decide(&self, site: Site) -> Strike {
        if self.has_crashed() {
            return Strike::Pass;
        }
        let mut state = self.state();
        let number = state.calls;
        state.calls += 1;
        let strike = (state.decide)(number, site);
        if strike != Strike::Pass {
            let counted = match strike {
                Strike::Slow(_) => Strike::Slow(Duration::ZERO),
                other => other,
            };
            *state.struck.entry((site, counted)).or_default() += 1;
        }
        strike
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("calls", &self.calls())
            .field("has_crashed", &self.has_crashed())
            .finish_non_exhaustive()
    }
}

/// Both failures look the same to the caller: it cannot know whether the call happened.
pub(super) fn lost(site: Site) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "call backend",
        format!("a call of {site} was lost by the test"),
    )
}
