//! A store that loses calls and replies on demand.

mod forward;

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Result};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It goes through.
    Pass,
    /// It does not happen, and the caller gets `Unavailable`.
    FailBefore,
    /// It happens, its reply is lost, and the caller gets `Unavailable`. This one finds double claims.
    FailAfter,
}

/// One call of a store's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// 0 for the first call.
    pub number: usize,
    /// The method's name.
    pub method: &'static str,
}

type Decide = dyn FnMut(Call) -> Fault + Send;
type Hook = dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Forwards every call to a store, after asking a script what is to happen to it, and remembers the calls.
///
/// Hints are not calls: they are forwarded, or all lost with [`Faulty::losing_hints`].
pub struct Faulty<S: ?Sized> {
    inner: Arc<S>,
    decide: Mutex<Box<Decide>>,
    calls: Mutex<Vec<&'static str>>,
    hook: Option<Box<Hook>>,
    loses_hints: bool,
}

impl<S: ?Sized> Faulty<S> {
    /// Everything passes.
    pub fn new(inner: Arc<S>) -> Self {
        Self {
            inner,
            decide: Mutex::new(Box::new(|_| Fault::Pass)),
            calls: Mutex::default(),
            hook: None,
            loses_hints: false,
        }
    }

    /// Calls meet these faults in order of their numbers; later calls pass.
    #[must_use]
    pub fn with_script(self, script: impl IntoIterator<Item = Fault>) -> Self {
        let mut script: VecDeque<_> = script.into_iter().collect();
        self.deciding(move |_| script.pop_front().unwrap_or(Fault::Pass))
    }

    /// `decide` says what happens to each call.
    #[must_use]
    pub fn deciding(mut self, decide: impl FnMut(Call) -> Fault + Send + 'static) -> Self {
        self.decide = Mutex::new(Box::new(decide));
        self
    }

    /// Waits for `hook` before each call, for example to stop at one of them.
    #[must_use]
    pub fn with_hook<F>(mut self, hook: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hook = Some(Box::new(move |call| Box::pin(hook(call))));
        self
    }

    /// Sleeps this long before each call. The sleep is tokio's, so paused time skips it.
    #[must_use]
    pub fn with_latency(self, latency: Duration) -> Self {
        self.with_hook(move |_| tokio::time::sleep(latency))
    }

    /// No hint reaches anybody.
    #[must_use]
    pub const fn losing_hints(mut self) -> Self {
        self.loses_hints = true;
        self
    }

    /// The store behind.
    pub fn inner(&self) -> Arc<S> {
        Arc::clone(&self.inner)
    }

    /// The methods called so far, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the methods called so far and starts to count anew.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn call<T>(&self, method: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let call = self.remember(method);
        let fault = (self.decide.lock().unwrap_or_else(PoisonError::into_inner))(call);
        if let Some(hook) = &self.hook {
            hook(call).await;
        }
        match fault {
            Fault::Pass => work.await,
            Fault::FailBefore => Err(lost(call)),
            Fault::FailAfter => {
                work.await?;
                Err(lost(call))
            }
        }
    }

    fn remember(&self, method: &'static str) -> Call {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(method);
        Call {
            number: calls.len() - 1,
            method,
        }
    }
}

/// Both faults look the same to the caller: it cannot know whether the call happened.
fn lost(call: Call) -> Error {
    let message = format!("call {} ({}) was lost by the test", call.number, call.method);
    Error::new(ErrorKind::Unavailable, "call store", message)
}

impl<S: ?Sized + fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
