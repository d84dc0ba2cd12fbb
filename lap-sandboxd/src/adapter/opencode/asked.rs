//! Requests that wait for an answer, and when they have waited long enough.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::locked;

/// How long a request waits unless the opening says otherwise.
pub(super) const DEFAULT_PATIENCE: Duration = Duration::from_secs(600);

/// The open requests of the running turn.
#[derive(Debug, Default)]
pub(super) struct Asked {
    open: Mutex<HashMap<String, Instant>>,
}

impl Asked {
    /// Remembers a request until its time is over.
    pub(super) fn add(&self, request: String, patience: Duration) {
        // A patience that overflows the clock is one that never ends; a year is as good.
        let patience = patience.min(Duration::from_secs(365 * 24 * 3600));
        locked(&self.open)
            .entry(request)
            .or_insert_with(|| Instant::now() + patience);
    }

    /// Whether a request is known to wait.
    pub(super) fn knows(&self, request: &str) -> bool {
        locked(&self.open).contains_key(request)
    }

    /// Forgets a request that was answered.
    pub(super) fn remove(&self, request: &str) {
        locked(&self.open).remove(request);
    }

    /// Forgets everything: the turn is over.
    pub(super) fn clear(&self) {
        locked(&self.open).clear();
    }

    /// Waits until a request has waited long enough, forgets it and returns it.
    pub(super) async fn expired(&self) -> String {
        loop {
            let next = locked(&self.open)
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(request, until)| (request.clone(), *until));
            let Some((request, until)) = next else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(until).await;
            // It may have been answered in the meantime.
            if locked(&self.open).remove(&request).is_some() {
                return request;
            }
        }
    }
}
