use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::id::{SessionId, WorkerId};

/// A wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Some work is due.
    Work,
    /// A session has new events or another state.
    Session {
        /// Which.
        session: SessionId,
        /// The process that changed it, which knows already.
        from: WorkerId,
    },
    /// Hints were lost: look at everything.
    Missed,
}

/// A stream of hints.
pub type HintStream = Pin<Box<dyn Stream<Item = Hint> + Send>>;

/// Lossy wake-ups between processes. Correctness never depends on them; losing one costs latency only.
pub trait Hints {
    /// Tells the other processes, and this one. Returns at once.
    fn hint(&self, hint: Hint);

    /// Hints from now on.
    fn hints(&self) -> HintStream;
}

/// Hints within one process, for stores that only one process uses.
#[derive(Debug, Clone)]
pub struct HintBus {
    sender: broadcast::Sender<Hint>,
}

impl HintBus {
    /// A bus that keeps up to `capacity` hints for slow readers, who then see [`Hint::Missed`].
    pub fn new(capacity: usize) -> Self {
        Self {
            sender: broadcast::channel(capacity.max(1)).0,
        }
    }
}

impl Default for HintBus {
    fn default() -> Self {
        Self::new(1024)
    }
}

impl Hints for HintBus {
    fn hint(&self, hint: Hint) {
        // An error means that nobody listens, which is fine for a hint.
        let _ = self.sender.send(hint);
    }

    fn hints(&self) -> HintStream {
        Box::pin(BroadcastStream::new(self.sender.subscribe()).map(|hint| hint.unwrap_or(Hint::Missed)))
    }
}
