//! The verbs that send a turn and wait for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::agents::key_reused;
use super::live::Live;
use super::{Engine, validate, work};
use crate::caller::Caller;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{SessionId, TurnId};
use crate::session::SessionState;
use crate::store::{Accept, Accepted, Idempotency, NewTurn, TurnQuery};
use crate::turn::Turn;

/// The command to send a turn.
#[derive(Debug, Clone)]
pub struct SendTurn {
    /// To this session.
    pub session: SessionId,
    /// Message parts.
    pub parts: Vec<Value>,
    /// Another model than the agent's, for this turn only.
    pub model: Option<String>,
    /// The client's key, so that a repetition sends nothing.
    pub idempotency_key: Option<String>,
}

const SEND: &str = "send turn";

impl Engine {
    /// The turn is accepted: it is stored and will reach exactly one outcome, whatever happens to the caller.
    ///
    /// # Cancel safety
    /// If dropped, the turn was accepted or not; repeat with the same idempotency key to learn which.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` with the field, `Gone` when the session has ended, `Busy` when too many turns wait,
    /// `KeyReused`, `Unavailable`.
    pub async fn send_turn(&self, caller: &Caller, send: SendTurn) -> Result<Turn> {
        validate::parts(SEND, &send.parts)?;
        validate::idempotency_key(SEND, send.idempotency_key.as_deref())?;
        let core = &self.core;
        let principal = caller.principal().to_owned();
        let body_hash = core.identity.body_hash(&json!([send.parts, send.model]));
        let accept = Accept {
            session: send.session,
            turn: NewTurn {
                id: TurnId::fresh(&*core.parts.entropy, core.parts.clock.now()),
                parts: send.parts,
                model: send.model,
                created_by: principal.clone(),
            },
            queue_limit: core.config.queue_limit,
            worker: core.worker.id,
            place: core.worker.place,
            idempotency: send.idempotency_key.map(|key| Idempotency {
                principal,
                operation: "turn",
                parent: send.session.to_string(),
                key,
                body_hash,
            }),
        };
        match self.commit_accept(accept).await? {
            Accepted::Started(turn, _) | Accepted::Queued(turn) | Accepted::Replayed(turn) => Ok(turn),
            refused => Err(refusal(send.session, &refused)),
        }
    }

    /// The commit and the start of the delivery belong together, so they do not end with a caller who leaves.
    async fn commit_accept(&self, accept: Accept) -> Result<Accepted> {
        let core = Arc::clone(&self.core);
        let committed = tokio::spawn(async move {
            let session = accept.session;
            let answer = core.parts.store.accept(accept).await?;
            match &answer {
                Accepted::Started(turn, Some(item)) => work::start(&core, item.clone(), Some(turn.clone())),
                Accepted::Started(_, None) => core.work_is_due(),
                Accepted::Queued(_) => {}
                _ => return Ok(answer),
            }
            core.changed(session);
            Ok(answer)
        });
        let broke =
            |panic| Error::new(ErrorKind::Internal, SEND, "the acceptance broke off").with_source(panic);
        committed.await.map_err(broke)?
    }

    /// The turn when it has its outcome, or as it is after `within`. Waiting changes nothing, and neither does
    /// ceasing to wait.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn wait_turn(&self, session: SessionId, turn: TurnId, within: Duration) -> Result<Turn> {
        let deadline = Instant::now() + within;
        let mut live = self.core.live.subscribe(session);
        loop {
            let found = self.turn(session, turn).await?;
            if found.state.is_terminal() {
                return Ok(found);
            }
            loop {
                let heard = tokio::select! {
                    biased;
                    () = self.core.draining.cancelled() => return Ok(found),
                    () = tokio::time::sleep_until(deadline) => return Ok(found),
                    heard = live.recv() => heard,
                };
                match heard {
                    // Only transitions matter here; what the harness says comes many times a second.
                    Ok(Live::Said { .. } | Live::Stored(_)) => {}
                    Ok(Live::Look) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => live = self.core.live.subscribe(session),
                }
            }
        }
    }

    /// The turn of this session.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn turn(&self, session: SessionId, id: TurnId) -> Result<Turn> {
        let found = self.core.parts.store.turn(id).await?;
        found
            .filter(|turn| turn.session == session)
            .ok_or_else(|| Error::not_found("read turn", "turn", id))
    }

    /// Turns of a session after this number, oldest first.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn list_turns(&self, session: SessionId, after: u64, limit: u32) -> Result<Vec<Turn>> {
        self.core.session(session).await?;
        self.core
            .parts
            .store
            .list_turns(TurnQuery {
                session,
                after,
                limit,
            })
            .await
    }
}

fn refusal(session: SessionId, refused: &Accepted) -> Error {
    match refused {
        Accepted::Full => {
            let message = "too many turns of this session wait already; wait for one to finish or abort some";
            Error::new(ErrorKind::Busy, SEND, message)
        }
        Accepted::Ended(SessionState::Failed) => Error::new(
            ErrorKind::Gone,
            SEND,
            "the session could not be brought up; open another one",
        ),
        Accepted::Ended(_) => Error::new(ErrorKind::Gone, SEND, "the session has ended; open another one"),
        Accepted::KeyReused => key_reused(SEND),
        _ => Error::not_found(SEND, "session", session),
    }
}
