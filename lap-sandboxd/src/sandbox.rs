//! The sandbox as its HTTP interface sees it.

use std::sync::{Arc, OnceLock};

use lap_core::id::{Entropy, fresh_uuid};
use lap_core::time::Clock;
use lap_harness::limits::MAX_BODY_BYTES;
use lap_harness::{Health, OpenRequest, TurnRequest};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::adapter::{Adapter, Refused};
use crate::binding::{Binding, Bound, Conflict};
use crate::environment::Environment;
use crate::journal::Journal;
use crate::launch::LaunchDocument;
use crate::layout::Layout;
use crate::processes::Processes;
use crate::snapshot;
use crate::status::Status;
use crate::turns::{NotStarted, Turns};

/// The most that one answer gives of a conversation: clients stop reading at [`MAX_BODY_BYTES`].
const MAX_MESSAGES_BYTES: usize = MAX_BODY_BYTES - (2 << 20);

/// All parts of a running sandboxd.
pub(crate) struct Sandbox {
    pub(crate) launch: LaunchDocument,
    pub(crate) boot: Uuid,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) layout: Layout,
    pub(crate) status: Status,
    pub(crate) journal: Arc<Journal>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) binding: Mutex<Binding>,
    /// Held while a snapshot is taken or restored.
    pub(crate) snapshots: Mutex<()>,
    pub(crate) environment: Arc<Environment>,
    pub(crate) processes: Arc<Processes>,
    /// Set when the harness is ready.
    pub(crate) adapter: OnceLock<Arc<dyn Adapter>>,
    /// Cancelled when somebody asks the whole sandbox to stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the last turn has ended: streams and connections end too.
    pub(crate) close: CancellationToken,
}

/// Why an opening did not happen.
#[derive(Debug)]
pub(crate) enum NotOpened {
    NotReady,
    Conflict(Conflict),
    Harness(Refused),
    Broken(std::io::Error),
}

impl Sandbox {
    pub(crate) async fn health(&self) -> Health {
        let progress = self.status.now();
        let binding = self.binding.lock().await;
        let bound = binding.bound();
        Health {
            sandbox: self.launch.sandbox.as_uuid(),
            instance: self.launch.instance.as_uuid(),
            boot: self.boot,
            protocol: lap_harness::PROTOCOL_VERSION,
            state: progress.state,
            phase: progress.phase.to_owned(),
            detail: progress.detail,
            harness: self.launch.harness.clone(),
            session: bound.map(|bound| bound.opening.session),
            conversation: bound.map(|bound| bound.conversation.clone()),
        }
    }

    /// Binds a session, or renews what the same session bound before.
    pub(crate) async fn open(&self, mut opening: OpenRequest) -> Result<String, NotOpened> {
        let adapter = self.adapter.get().ok_or(NotOpened::NotReady)?;
        let mut binding = self.binding.lock().await;
        binding
            .check_open(opening.session, opening.fence)
            .map_err(NotOpened::Conflict)?;
        if opening.history.is_none() {
            opening.history = snapshot::conversation(&self.layout).map_err(NotOpened::Broken)?;
        }
        let conversation = adapter.open(&opening).await.map_err(NotOpened::Harness)?;
        // The harness keeps the history from here on; a second copy would be read at every start.
        let opening = OpenRequest {
            history: None,
            ..opening
        };
        let bound = Bound {
            opening,
            conversation: conversation.clone(),
        };
        binding.bind(bound).map_err(NotOpened::Broken)?;
        Ok(conversation)
    }

    /// Starts a turn; returns the sequence after which its events come.
    pub(crate) async fn start_turn(&self, request: TurnRequest) -> Result<u64, NotStarted> {
        let unbound = NotStarted::Conflict(Conflict::Unbound);
        let adapter = Arc::clone(self.adapter.get().ok_or(unbound)?);
        let mut binding = self.binding.lock().await;
        self.turns.start(request, &mut binding, adapter)
    }

    pub(crate) async fn bound(&self) -> Option<Bound> {
        self.binding.lock().await.bound().cloned()
    }

    /// The conversation, the newest messages first to stay when it is too long for one answer.
    pub(crate) async fn messages(&self) -> Vec<Value> {
        match self.adapter.get() {
            Some(adapter) => newest(adapter.messages().await, MAX_MESSAGES_BYTES),
            None => Vec::new(),
        }
    }

    pub(crate) fn fresh_id(&self) -> Uuid {
        fresh_uuid(&*self.entropy, self.clock.now())
    }
}

/// Takes the oldest messages away until the rest fits.
fn newest(mut messages: Vec<Value>, budget: usize) -> Vec<Value> {
    let mut room = budget;
    let fits = |message: &&Value| {
        let left = room.checked_sub(message.to_string().len() + 1);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let kept = messages.iter().rev().take_while(fits).count();
    messages.split_off(messages.len() - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_conversation_loses_its_beginning() {
        let messages: Vec<Value> = (0..10).map(|n| Value::from(format!("message {n}"))).collect();
        assert_eq!(newest(messages.clone(), 1000), messages);
        assert_eq!(newest(messages.clone(), 30), messages[8..]);
        assert!(newest(messages, 5).is_empty());
    }
}
