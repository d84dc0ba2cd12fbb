//! Admission of turns, and the one place that ends them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Result};
use lap_harness::journal::{TURN_FINISHED, TURN_STARTED};
use lap_harness::turn::{Outcome, TurnFailure, TurnFinished, TurnRequest, TurnState, TurnStatus};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::adapter::{Adapter, Assignment, Ending, TurnEnd, TurnJournal};
use crate::binding::{Binding, Conflict};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::locked;

/// How long a harness may take to stop before its turn is ended without it.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The longest deadline: a day. A larger number would overflow timers.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Why a turn was not started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    Conflict(Conflict),
    /// Its id was seen before.
    Known,
    /// Another one is running.
    Busy,
    /// The sandbox is stopping.
    Stopping,
    /// The disk is full or broken.
    Broken(std::io::Error),
}

/// Why a running turn is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Abort,
    Shutdown,
}

#[derive(Debug)]
struct Current {
    turn: Uuid,
    stop: CancellationToken,
    reason: Option<Reason>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    current: Option<Current>,
    stopping: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    journal: Arc<Journal>,
    running: TaskTracker,
}

impl Turns {
    /// Takes over a ledger. Turns that an earlier life left running end here as failed.
    pub(crate) fn new(mut ledger: Ledger, journal: Arc<Journal>) -> Result<Self> {
        for record in ledger.running() {
            let ended = journal
                .look_back(record.first_seq)
                .into_iter()
                .find(|event| event.kind == TURN_FINISHED && event.turn == Some(record.turn));
            let (seq, state) = match ended {
                Some(event) => (event.seq, state_of(&event.properties)),
                None => {
                    let message =
                        "interrupted: the sandbox was restarted in the middle of the turn".to_owned();
                    let finished = finished(
                        record.turn,
                        Outcome::Failed,
                        Some(TurnFailure {
                            message,
                            status: None,
                        }),
                    );
                    (
                        journal.append(Some(record.turn), TURN_FINISHED, finished),
                        TurnState::Failed,
                    )
                }
            };
            ledger
                .put(TurnStatus {
                    state,
                    last_seq: seq,
                    ..record
                })
                .map_err(|error| {
                    Error::new(
                        ErrorKind::Unavailable,
                        "start sandboxd",
                        "the turns cannot be written",
                    )
                    .with_source(error)
                })?;
        }
        let state = State {
            ledger,
            current: None,
            stopping: false,
        };
        Ok(Self {
            state: Mutex::new(state),
            journal,
            running: TaskTracker::new(),
        })
    }

    /// Starts a turn in a task of its own. Returns the sequence after which its events come.
    ///
    /// The order is what makes the promises hold under `kill -9`: the ledger knows the turn before the journal
    /// shows it and before the harness hears of it.
    pub(crate) fn start(
        self: &Arc<Self>,
        request: TurnRequest,
        binding: &mut Binding,
        adapter: Arc<dyn Adapter>,
    ) -> Result<u64, NotStarted> {
        let mut state = locked(&self.state);
        binding.check_turn(request.fence).map_err(NotStarted::Conflict)?;
        if state.ledger.get(request.turn).is_some() {
            return Err(NotStarted::Known);
        }
        if state.stopping {
            return Err(NotStarted::Stopping);
        }
        if state.current.is_some() {
            return Err(NotStarted::Busy);
        }
        let Some(bound) = binding.bound() else {
            return Err(NotStarted::Conflict(Conflict::Unbound));
        };
        let opening = bound.opening.clone();
        binding.raise(request.fence).map_err(NotStarted::Broken)?;
        let turn = request.turn;
        let before = self.journal.head();
        let record = TurnStatus {
            turn,
            state: TurnState::Running,
            first_seq: before + 1,
            last_seq: before + 1,
        };
        state.ledger.put(record).map_err(NotStarted::Broken)?;
        let stop = CancellationToken::new();
        state.current = Some(Current {
            turn,
            stop: stop.clone(),
            reason: None,
        });
        drop(state);
        self.journal
            .append(Some(turn), TURN_STARTED, json!({"turn": turn}));
        let model = request.model.unwrap_or_else(|| opening.model.clone());
        let assignment = Assignment {
            parts: request.parts,
            model,
            opening,
            stop,
        };
        let deadline = Duration::from_millis(request.deadline_ms).min(MAX_DEADLINE);
        let turns = Arc::clone(self);
        self.running
            .spawn(async move { turns.supervise(turn, assignment, adapter, deadline).await });
        Ok(before)
    }

    /// Where a turn is.
    pub(crate) fn status(&self, turn: Uuid) -> Option<TurnStatus> {
        let state = locked(&self.state);
        let mut status = state.ledger.get(turn)?;
        if status.state == TurnState::Running {
            status.last_seq = self.journal.head().max(status.first_seq);
        }
        Some(status)
    }

    /// The sequence of a turn's `turn.finished`, once it is there.
    pub(crate) fn ended_at(&self, turn: Uuid) -> Option<u64> {
        let status = locked(&self.state).ledger.get(turn)?;
        (status.state != TurnState::Running).then_some(status.last_seq)
    }

    /// The turn that is running.
    pub(crate) fn current(&self) -> Option<Uuid> {
        locked(&self.state).current.as_ref().map(|current| current.turn)
    }

    /// Asks a turn to stop. False when it was never seen.
    pub(crate) fn abort(&self, turn: Uuid) -> bool {
        let mut state = locked(&self.state);
        if let Some(current) = state.current.as_mut().filter(|current| current.turn == turn) {
            current.reason.get_or_insert(Reason::Abort);
            current.stop.cancel();
        }
        state.ledger.get(turn).is_some()
    }

    /// Takes no more turns, stops the running one and waits for its end.
    pub(crate) async fn shut_down(&self) {
        {
            let mut state = locked(&self.state);
            state.stopping = true;
            if let Some(current) = state.current.as_mut() {
                current.reason.get_or_insert(Reason::Shutdown);
                current.stop.cancel();
            }
        }
        self.running.close();
        self.running.wait().await;
    }

    async fn supervise(
        &self,
        turn: Uuid,
        assignment: Assignment,
        adapter: Arc<dyn Adapter>,
        deadline: Duration,
    ) {
        let stop = assignment.stop.clone();
        let journal = TurnJournal::new(Arc::clone(&self.journal), turn);
        // A task of its own, so that a panic in an adapter ends the turn and not sandboxd.
        let mut work = tokio::spawn(async move { adapter.turn(assignment, journal).await });
        let mut late = false;
        let end = tokio::select! {
            end = &mut work => Some(end),
            () = stop.cancelled() => None,
            () = tokio::time::sleep(deadline) => { late = true; stop.cancel(); None }
        };
        let end = match end {
            Some(end) => Ok(end),
            None => tokio::time::timeout(STOP_GRACE, &mut work).await,
        };
        let end = match end {
            Ok(Ok(end)) => end,
            Ok(Err(panic)) => failed(format!("the harness broke: {panic}")),
            Err(_) => {
                work.abort();
                TurnEnd {
                    ending: Ending::Stopped,
                    reply: None,
                    usage: None,
                }
            }
        };
        self.finish(turn, end, late.then_some(deadline));
    }

    fn finish(&self, turn: Uuid, end: TurnEnd, late: Option<Duration>) {
        let mut state = locked(&self.state);
        let reason = state.current.as_ref().and_then(|current| current.reason);
        let failure = |message: String| {
            (
                Outcome::Failed,
                Some(TurnFailure {
                    message,
                    status: None,
                }),
            )
        };
        let (outcome, error) = match (end.ending, late, reason) {
            (Ending::Completed, ..) => (Outcome::Completed, None),
            (Ending::Failed(failure), ..) => (Outcome::Failed, Some(failure)),
            (Ending::Stopped, Some(deadline), _) => failure(format!(
                "the turn passed its deadline of {} s",
                deadline.as_secs_f64()
            )),
            (Ending::Stopped, None, Some(Reason::Shutdown)) => {
                failure("interrupted: the sandbox was stopped in the middle of the turn".to_owned())
            }
            (Ending::Stopped, None, _) => (Outcome::Aborted, None),
        };
        let why = error.as_ref().map(|error| error.message.as_str());
        tracing::info!(%turn, ?outcome, why, "a turn has ended");
        let finished = TurnFinished {
            turn,
            outcome,
            error,
            reply: end.reply,
            usage: end.usage,
        };
        let properties = serde_json::to_value(&finished).unwrap_or_default();
        let seq = self.journal.append(Some(turn), TURN_FINISHED, properties);
        let first_seq = state.ledger.get(turn).map_or(seq, |record| record.first_seq);
        let record = TurnStatus {
            turn,
            state: outcome.into(),
            first_seq,
            last_seq: seq,
        };
        if let Err(error) = state.ledger.end(record) {
            // The journal has the outcome; the next start reads it from there.
            tracing::error!(%error, "the turns cannot be written");
        }
        state.current = None;
        drop(state);
        // Streams of this turn end when the ledger says so, which was after they saw the last event.
        self.journal.nudge();
    }
}

fn failed(message: String) -> TurnEnd {
    TurnEnd {
        ending: Ending::Failed(TurnFailure {
            message,
            status: None,
        }),
        reply: None,
        usage: None,
    }
}

fn finished(turn: Uuid, outcome: Outcome, error: Option<TurnFailure>) -> Value {
    let finished = TurnFinished {
        turn,
        outcome,
        error,
        reply: None,
        usage: None,
    };
    serde_json::to_value(&finished).unwrap_or_default()
}

fn state_of(finished: &Value) -> TurnState {
    serde_json::from_value::<Outcome>(finished["outcome"].clone()).map_or(TurnState::Failed, TurnState::from)
}
