use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lap_core::store::Store;

use crate::ManualClock;

type Advance = dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// An empty store, and the way to let time pass for it.
pub struct StoreUnderTest {
    pub(crate) store: Arc<dyn Store>,
    advance: Box<Advance>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl StoreUnderTest {
    /// A store with another clock than a [`ManualClock`], for example a database's own: `advance` lets this much
    /// time pass for it.
    pub fn new<F>(store: Arc<dyn Store>, advance: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            store,
            advance: Box::new(move |by| Box::pin(advance(by))),
            kept: Vec::new(),
        }
    }

    /// A store that was given this clock.
    pub fn with_clock(store: Arc<dyn Store>, clock: ManualClock) -> Self {
        Self::new(store, move |by| {
            clock.advance(by);
            std::future::ready(())
        })
    }

    /// Keeps something as long as the store is used, for example its temporary folder.
    #[must_use]
    pub fn keeping(mut self, thing: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(thing));
        self
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Lets this much time pass for the store.
    pub async fn advance(&self, by: Duration) {
        (self.advance)(by).await;
    }
}

impl fmt::Debug for StoreUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreUnderTest")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
