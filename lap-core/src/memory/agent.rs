//! What runs inside a memory sandbox: a conversation, a journal, and at most one turn at a time.

mod script;
mod snapshot;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::harness::{Delivery, HarnessEvent, HarnessEvents, OpenConversation};
use crate::id::{SessionId, TurnId};
use crate::time::Clock;
use crate::turn::Outcome;

/// A handle to what runs inside one sandbox. Clones are the same agent.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    inside: Arc<Mutex<Inside>>,
    /// Wakes readers of the journal, in the order in which they came, so that a seed reproduces a simulation.
    news: Arc<Notify>,
    /// Cancelled when the sandbox ends or the agent is replaced.
    stopped: CancellationToken,
}

#[derive(Debug, Default)]
struct Inside {
    bound: Option<Bound>,
    /// The newest fence seen. Older ones are refused.
    fence: u64,
    /// The entry with number n is the n-th.
    journal: Vec<HarnessEvent>,
    /// Every turn that was ever started, and the way to stop it.
    turns: BTreeMap<TurnId, CancellationToken>,
    running: Option<TurnId>,
    messages: Vec<Value>,
    /// The snapshot it was given.
    restored: Option<Vec<u8>>,
    /// Who waits for an answer, by request.
    questions: BTreeMap<String, oneshot::Sender<Value>>,
    log: Vec<String>,
}

#[derive(Debug, Clone)]
struct Bound {
    session: SessionId,
    conversation: String,
    model: String,
}

/// The answer to a delivery.
pub(super) enum Started {
    Running(HarnessEvents),
    Known,
    Stale,
    Busy,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            inside: Arc::default(),
            news: Arc::default(),
            stopped: CancellationToken::new(),
        }
    }
}

impl Agent {
    /// Everything it does ends; its streams break.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.inside().bound.as_ref().map(|bound| bound.session)
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.inside().log.clone()
    }

    pub(super) fn messages(&self) -> Vec<Value> {
        self.inside().messages.clone()
    }

    pub(super) fn has_turn(&self, turn: TurnId) -> bool {
        self.inside().turns.contains_key(&turn)
    }

    /// Binds the conversation; the same session again is fine.
    pub(super) fn open(&self, open: &OpenConversation) -> Result<String> {
        let mut inside = self.inside();
        if open.fence < inside.fence {
            return Err(Error::new(
                ErrorKind::Stale,
                "open conversation",
                "a newer fence was seen",
            ));
        }
        if inside
            .bound
            .as_ref()
            .is_some_and(|bound| bound.session != open.session)
        {
            return Err(Error::new(
                ErrorKind::WrongState,
                "open conversation",
                "it belongs to another session",
            ));
        }
        inside.fence = open.fence;
        if inside.bound.is_none() && !open.history.is_empty() {
            inside.messages.clone_from(&open.history);
        }
        let bound = inside.bound.get_or_insert_with(|| Bound {
            session: open.session,
            conversation: format!("ses_{}", open.session.as_uuid().simple()),
            model: open.model.clone(),
        });
        let conversation = bound.conversation.clone();
        inside.log.push(format!("session {} is open", open.session));
        Ok(conversation)
    }

    /// Starts a turn, at most once per id. The turn goes on whatever becomes of the stream.
    pub(super) fn start(&self, delivery: &Delivery, clock: &Arc<dyn Clock>) -> Result<Started> {
        let abort = CancellationToken::new();
        let (bound, after) = {
            let mut inside = self.inside();
            if delivery.fence < inside.fence {
                return Ok(Started::Stale);
            }
            if inside.turns.contains_key(&delivery.turn) {
                return Ok(Started::Known);
            }
            if inside.running.is_some() {
                return Ok(Started::Busy);
            }
            let unbound = || Error::new(ErrorKind::WrongState, "send turn", "there is no conversation yet");
            let bound = inside.bound.clone().ok_or_else(unbound)?;
            inside.fence = delivery.fence;
            inside.running = Some(delivery.turn);
            inside.turns.insert(delivery.turn, abort.clone());
            inside.log.push(format!("turn {} begins", delivery.turn));
            (bound, inside.journal.len() as u64)
        };
        let play = script::Play::new(self.clone(), bound, delivery.clone(), Arc::clone(clock));
        tokio::spawn(play.run(abort));
        Ok(Started::Running(self.events(after, delivery.turn)))
    }

    /// `false` when it never had the turn.
    pub(super) fn abort(&self, turn: TurnId) -> bool {
        match self.inside().turns.get(&turn) {
            Some(abort) => {
                abort.cancel();
                true
            }
            None => false,
        }
    }

    /// It does not know any more that it had this turn, and takes it again.
    pub(super) fn forget_turn(&self, turn: TurnId) {
        let mut inside = self.inside();
        inside.turns.remove(&turn);
        inside.running.take_if(|running| *running == turn);
    }

    pub(super) fn answer(&self, request: &str, reply: &Value) -> Result<()> {
        let waiting = self.inside().questions.remove(request);
        let waiting = waiting.ok_or_else(|| Error::not_found("answer request", "request", request))?;
        // A turn that was stopped meanwhile does not listen any more, which is fine.
        let _ = waiting.send(reply.clone());
        Ok(())
    }

    /// The journal after `after`, up to the outcome of `turn`. It breaks when the sandbox ends.
    pub(super) fn events(&self, after: u64, turn: TurnId) -> HarnessEvents {
        let is_outcome = |event: &HarnessEvent| event.outcome.is_some() && event.turn == Some(turn);
        let has_ended = self
            .inside()
            .journal
            .iter()
            .any(|event| event.seq <= after && is_outcome(event));
        let reader = Reader {
            agent: self.clone(),
            after,
            turn,
            has_ended,
        };
        Box::pin(stream::unfold(reader, |mut reader| async move {
            reader.next().await.map(|event| (event, reader))
        }))
    }

    fn emit(&self, turn: TurnId, kind: &str, properties: Value, outcome: Option<Outcome>) {
        let mut inside = self.inside();
        let seq = inside.journal.len() as u64 + 1;
        if outcome.is_some() {
            inside.running = None;
            inside.log.push(format!("turn {turn} ends"));
        }
        inside.journal.push(HarnessEvent {
            seq,
            turn: Some(turn),
            kind: kind.to_owned(),
            properties,
            outcome,
        });
        drop(inside);
        self.news.notify_waiters();
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream of the journal.
struct Reader {
    agent: Agent,
    after: u64,
    turn: TurnId,
    has_ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<HarnessEvent>> {
        while !self.has_ended {
            if self.agent.stopped.is_cancelled() {
                self.has_ended = true;
                return Some(Err(Error::new(
                    ErrorKind::Unavailable,
                    "read journal",
                    "the connection broke",
                )));
            }
            let news = Arc::clone(&self.agent.news);
            let mut news = pin!(news.notified());
            news.as_mut().enable();
            if let Some(event) = self.following() {
                self.after = event.seq;
                self.has_ended = event.outcome.is_some() && event.turn == Some(self.turn);
                return Some(Ok(event));
            }
            tokio::select! {
                biased;
                () = news => {}
                () = self.agent.stopped.cancelled() => {}
            }
        }
        None
    }

    fn following(&self) -> Option<HarnessEvent> {
        let index = usize::try_from(self.after).ok()?;
        self.agent.inside().journal.get(index).cloned()
    }
}
