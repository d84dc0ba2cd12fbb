//! Live delivery within this process: what harnesses say reaches readers before it is stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::event::Event;
use crate::harness::HarnessEvent;
use crate::id::SessionId;

/// How many messages a slow reader may be behind before it reads from the store instead.
const BACKLOG: usize = 512;

/// A message to the readers of one session.
#[derive(Debug, Clone)]
pub(super) enum Live {
    /// A harness said this just now. It is not stored yet, and it is not the end of a turn: that is told by the stored
    /// event alone, so that it has an id and comes once.
    Said {
        /// What it said.
        event: Arc<HarnessEvent>,
        /// Its journal has nothing for readers between this number and the event.
        since: u64,
    },
    /// This was stored just now.
    Stored(Arc<Event>),
    /// Something was stored. Look.
    Look,
}

/// Channels of the sessions that have readers. A session without readers costs nothing.
#[derive(Debug, Default)]
pub(super) struct LiveHub {
    channels: Mutex<HashMap<SessionId, broadcast::Sender<Live>>>,
}

impl LiveHub {
    pub(super) fn subscribe(&self, session: SessionId) -> broadcast::Receiver<Live> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // Channels that nobody reads any more are dropped whenever the table has doubled since.
        if channels.len() == channels.capacity() {
            channels.retain(|_, channel| channel.receiver_count() > 0);
        }
        channels
            .entry(session)
            .or_insert_with(|| broadcast::channel(BACKLOG).0)
            .subscribe()
    }

    pub(super) fn say(&self, session: SessionId, event: &Arc<HarnessEvent>, since: u64) {
        self.send(session, || Live::Said {
            event: Arc::clone(event),
            since,
        });
    }

    pub(super) fn stored(&self, session: SessionId, events: Vec<Event>) {
        for event in events {
            self.send(session, || Live::Stored(Arc::new(event)));
        }
    }

    pub(super) fn look(&self, session: SessionId) {
        self.send(session, || Live::Look);
    }

    pub(super) fn look_everywhere(&self) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|_, channel| channel.send(Live::Look).is_ok());
    }

    fn send(&self, session: SessionId, message: impl FnOnce() -> Live) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&session)
            && channel.send(message()).is_err()
        {
            channels.remove(&session);
        }
    }
}
