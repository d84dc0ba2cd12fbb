//! How far the sandbox is, for everybody who waits for it.

use lap_harness::health::Readiness;
use tokio::sync::watch;

/// Details come from programs' output; more than this is noise.
const MAX_DETAIL: usize = 2000;

/// Readiness, phase, detail.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) state: Readiness,
    pub(crate) phase: &'static str,
    pub(crate) detail: String,
}

/// The one place where progress is kept.
#[derive(Debug)]
pub(crate) struct Status {
    progress: watch::Sender<Progress>,
}

impl Status {
    pub(crate) fn new() -> Self {
        let progress = Progress {
            state: Readiness::Preparing,
            phase: "creating_sandbox",
            detail: String::new(),
        };
        Self {
            progress: watch::Sender::new(progress),
        }
    }

    pub(crate) fn phase(&self, phase: &'static str) {
        self.set(Readiness::Preparing, phase, String::new());
    }

    pub(crate) fn detail(&self, detail: &str) {
        self.progress
            .send_modify(|progress| progress.detail = bounded(detail));
    }

    pub(crate) fn ready(&self) {
        self.set(Readiness::Ready, "ready", String::new());
    }

    /// Fails in the phase that is running.
    pub(crate) fn failed(&self, reason: &str) {
        tracing::warn!(reason, "the sandbox cannot be prepared");
        self.progress.send_modify(|progress| {
            progress.state = Readiness::Failed;
            progress.detail = bounded(reason);
        });
    }

    pub(crate) fn now(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Waits until the sandbox is ready or has failed.
    pub(crate) async fn settled(&self) {
        let mut seen = self.progress.subscribe();
        // The sender lives as long as self, so the wait ends only by the condition.
        let _ = seen
            .wait_for(|progress| progress.state != Readiness::Preparing)
            .await;
    }

    fn set(&self, state: Readiness, phase: &'static str, detail: String) {
        tracing::debug!(phase, "progress");
        self.progress.send_replace(Progress { state, phase, detail });
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_DETAIL).collect()
}
