//! The one contract between sandboxd and a harness. An adapter is one file (or folder) that implements
//! [`Adapter`] and one arm of [`start`].

mod opencode;

use std::sync::Arc;

use async_trait::async_trait;
use lap_core::id::Entropy;
use lap_core::time::Clock;
use lap_harness::journal::PartDelta;
use lap_harness::{OpenRequest, TurnFailure, Usage};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::builtin::Builtin;
use crate::environment::Environment;
use crate::journal::Journal;
use crate::launch::GatewayAddress;
use crate::layout::Layout;
use crate::processes::Processes;
use opencode::OpenCode;

/// What an adapter may use.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) layout: Layout,
    pub(crate) environment: Arc<Environment>,
    pub(crate) processes: Arc<Processes>,
    pub(crate) gateway: GatewayAddress,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// Why an adapter refuses a call.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The harness cannot do this.
    Unsupported(String),
    /// There is no such thing.
    NotFound(String),
}

/// One turn as given to an adapter.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) parts: Vec<Value>,
    pub(crate) model: String,
    pub(crate) opening: OpenRequest,
    /// Cancelled when the turn must stop: on request, at its deadline, or because the sandbox stops.
    pub(crate) stop: CancellationToken,
}

/// How a turn ended, in the adapter's eyes.
#[derive(Debug)]
pub(crate) struct TurnEnd {
    pub(crate) ending: Ending,
    pub(crate) reply: Option<Value>,
    pub(crate) usage: Option<Usage>,
}

/// See [`TurnEnd`].
#[derive(Debug)]
pub(crate) enum Ending {
    Completed,
    Failed(TurnFailure),
    /// It stopped because [`Assignment::stop`] was cancelled.
    Stopped,
}

/// Where the events of one turn go.
#[derive(Debug, Clone)]
pub(crate) struct TurnJournal {
    journal: Arc<Journal>,
    turn: Uuid,
}

impl TurnJournal {
    pub(crate) const fn new(journal: Arc<Journal>, turn: Uuid) -> Self {
        Self { journal, turn }
    }

    /// The turn.
    pub(crate) const fn turn(&self) -> Uuid {
        self.turn
    }

    /// Appends an event with an opencode type and properties.
    pub(crate) fn emit(&self, kind: &str, properties: Value) {
        self.journal.append(Some(self.turn), kind, properties);
    }

    /// Appends a piece of streamed text.
    pub(crate) fn delta(&self, delta: &PartDelta) {
        self.journal.append_delta(self.turn, delta);
    }
}

/// A harness. One turn runs at a time; everything else may be called at any time.
#[async_trait]
pub(crate) trait Adapter: Send + Sync {
    /// Binds a session; returns the id of its conversation. The same session may open again.
    async fn open(&self, opening: &OpenRequest) -> Result<String, Refused>;

    /// Runs one turn to its end. Must return soon after `assignment.stop` is cancelled; if it does not, the future
    /// is dropped. Nothing of the turn may run on afterwards.
    async fn turn(&self, assignment: Assignment, journal: TurnJournal) -> TurnEnd;

    /// All messages so far, `{info, parts}` each.
    async fn messages(&self) -> Vec<Value>;

    /// Answers a permission request or a question.
    async fn answer(&self, request: &str, reply: &Value) -> Result<(), Refused>;

    /// What people should know although the harness works.
    fn warning(&self) -> Option<String> {
        None
    }

    /// Resolves with the reason when the harness has ended and will not come back.
    async fn ended(&self) -> String {
        std::future::pending().await
    }
}

/// Starts the named harness, or says why it cannot run here and what to do about it.
pub(crate) async fn start(harness: &str, tools: Tools) -> Result<Arc<dyn Adapter>, String> {
    let install = match harness {
        "builtin" => {
            return Ok(Arc::new(
                Builtin::start(tools).map_err(|error| error.to_string())?,
            ));
        }
        "opencode" => return Ok(Arc::new(OpenCode::start(tools).await?)),
        "claude-code" => "npm install -g @anthropic-ai/claude-code",
        "codex" => "npm install -g @openai/codex",
        "gemini" => "npm install -g @google/gemini-cli",
        other => {
            return Err(format!(
                "there is no harness named {other:?}; \"builtin\" needs nothing installed"
            ));
        }
    };
    Err(format!(
        "the harness {harness:?} cannot run in this sandbox yet: its adapter is not part of this build. Use \"builtin\", \
         which needs nothing installed. ({harness} itself is installed with `{install}`)"
    ))
}
