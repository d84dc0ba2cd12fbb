//! The orderly end of a process.

use std::time::Duration;

use super::Engine;
use crate::error::chain;

impl Engine {
    /// The engine takes no new work, ends its streams with a resume point, and gives back what it holds, so that
    /// the next process goes on at once. Turns go on in their sandboxes meanwhile; none is lost. Sandboxes and
    /// vault stay. Waits at most `within` for handlers. Idempotent.
    pub async fn drain(&self, within: Duration) {
        let core = &self.core;
        core.draining.cancel();
        core.tasks.close();
        let given_back = async {
            while !core.runs.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(within, given_back).await.is_err() {
            tracing::warn!("some work did not end in time; the next process goes on with it");
        }
        core.stopped.cancel();
        if tokio::time::timeout(Duration::from_secs(1), core.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some tasks of the engine did not end in time");
        }
        if let Err(error) = core.parts.store.retire(core.worker.id).await {
            tracing::warn!(error = %chain(&error), "work was not given back; it is taken over when it lapses");
        }
    }
}
