use tokio::sync::Semaphore;

/// Something that happens once. Whoever waits for it goes on in the order in which they came, which a watch channel
/// does not promise: a seed would not reproduce a run then.
#[derive(Debug)]
pub(crate) struct Latch {
    semaphore: Semaphore,
}

impl Default for Latch {
    fn default() -> Self {
        Self {
            semaphore: Semaphore::new(0),
        }
    }
}

impl Latch {
    /// It has happened.
    pub(crate) fn close(&self) {
        self.semaphore.close();
    }

    /// Whether it has happened.
    pub(crate) fn is_closed(&self) -> bool {
        self.semaphore.is_closed()
    }

    /// Returns when it has happened.
    pub(crate) async fn closed(&self) {
        // There is no permit, so this ends only with the semaphore.
        let _ = self.semaphore.acquire().await;
    }
}
