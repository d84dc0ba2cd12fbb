//! Telling what happens to sandboxes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use lap_core::id::SandboxId;
use lap_core::runtime::{RuntimeEvent, RuntimeEvents};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::failure::off_thread;
use crate::registry::{Registry, Sight};

type Sender = mpsc::UnboundedSender<RuntimeEvent>;

/// Everybody who watches. There is at most one event per sandbox, so queues need no other bound.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    senders: Mutex<Vec<Sender>>,
}

impl Watchers {
    pub(crate) fn tell(&self, event: &RuntimeEvent) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| sender.send(event.clone()).is_ok());
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        receiver
    }
}

/// See [`SandboxRuntime::watch`](lap_core::runtime::SandboxRuntime::watch). The stream ends early only when the data
/// folder cannot be read.
pub(crate) fn watch(registry: Arc<Registry>) -> RuntimeEvents {
    let (sender, receiver) = mpsc::unbounded_channel();
    // Ends are collected from here on, before the list is made, so that none falls between the two.
    let ends = registry.watchers().subscribe();
    let tasks = registry.tasks().clone();
    tasks.spawn(async move {
        match list(registry).await {
            Some(seen) => relay(seen, ends, sender).await,
            None => tracing::warn!("the list of sandboxes could not be made"),
        }
    });
    Box::pin(UnboundedReceiverStream::new(receiver))
}

struct Seen {
    existing: Vec<SandboxId>,
    ended: Vec<(SandboxId, String)>,
}

async fn list(registry: Arc<Registry>) -> Option<Seen> {
    let seen = off_thread("list sandboxes", move || -> std::io::Result<Seen> {
        let mut seen = Seen {
            existing: Vec::new(),
            ended: Vec::new(),
        };
        for sandbox in registry.on_disk()? {
            match registry.look(sandbox)? {
                Sight::Absent | Sight::Foreign => {}
                Sight::Planned | Sight::Alive(_) => seen.existing.push(sandbox),
                // Its folder exists and wants to be removed, so it is told although it ended before anyone watched.
                Sight::Ended(reason) => {
                    seen.existing.push(sandbox);
                    seen.ended.push((sandbox, reason));
                }
            }
        }
        Ok(seen)
    });
    seen.await.ok()?.ok()
}

async fn relay(seen: Seen, mut ends: mpsc::UnboundedReceiver<RuntimeEvent>, watcher: Sender) {
    let mut told: BTreeSet<SandboxId> = seen.ended.iter().map(|(sandbox, _)| *sandbox).collect();
    let first = seen
        .existing
        .into_iter()
        .map(RuntimeEvent::Exists)
        .chain([RuntimeEvent::Complete]);
    let gone = seen
        .ended
        .into_iter()
        .map(|(sandbox, reason)| RuntimeEvent::Gone { sandbox, reason });
    for event in first.chain(gone) {
        if watcher.send(event).is_err() {
            return;
        }
    }
    loop {
        let event = tokio::select! {
            () = watcher.closed() => return,
            event = ends.recv() => event,
        };
        let Some(event) = event else { return };
        let is_known = matches!(&event, RuntimeEvent::Gone { sandbox, .. } if told.remove(sandbox));
        if !is_known && watcher.send(event).is_err() {
            return;
        }
    }
}
