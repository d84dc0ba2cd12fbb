use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::agent::Agent;
use super::harness::MemoryHarness;
use super::runtime::MemoryRuntime;
use crate::id::{SandboxId, TurnId};
use crate::runtime::{LaunchSpec, RuntimeEvent};
use crate::sandbox::Place;
use crate::time::Clock;

/// How sandboxes that are launched from now on get ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Preparation {
    /// At once.
    #[default]
    Instant,
    /// After this long, by tokio's clock.
    Takes(Duration),
    /// Never; the reason is what the harness says.
    Fails(String),
    /// They never get an address.
    NoAddress,
}

/// Where sandboxes of memory backends exist. Clones are the same world.
#[derive(Debug, Clone)]
pub struct MemoryWorld {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sandboxes: BTreeMap<SandboxId, MemorySandbox>,
    /// Every stream of a watch; the closed ones are dropped with the next event.
    pub(super) watchers: Vec<UnboundedSender<RuntimeEvent>>,
    /// How often a turn was started, by sandbox. This outlives sandboxes, so that a test can count.
    pub(super) deliveries: BTreeMap<(SandboxId, TurnId), u32>,
    preparation: Preparation,
    refusal: Option<String>,
}

/// One launched sandbox.
#[derive(Debug)]
pub(super) struct MemorySandbox {
    pub(super) spec: LaunchSpec,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) preparation: Preparation,
    pub(super) launched_at: Instant,
    /// Why it ended by itself; what is left of it waits for a stop.
    pub(super) gone: Option<String>,
    pub(super) agent: Agent,
}

impl MemoryWorld {
    /// An empty world whose sandboxes are reached from everywhere.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::at(Place::Cluster, clock)
    }

    /// An empty world whose sandboxes live at `place`.
    pub fn at(place: Place, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::default();
        Self {
            shared: Arc::new(Shared { clock, place, state }),
        }
    }

    /// The runtime of this world.
    pub fn runtime(&self) -> MemoryRuntime {
        MemoryRuntime::new(self.clone())
    }

    /// The way to talk to what runs in this world's sandboxes.
    pub fn harness(&self) -> MemoryHarness {
        MemoryHarness::new(self.clone())
    }

    /// Sandboxes that exist, in order of their ids.
    pub fn launched(&self) -> Vec<SandboxId> {
        let state = self.state();
        state
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| sandbox.gone.is_none())
            .map(|(id, _)| *id)
            .collect()
    }

    /// With what the sandbox was launched.
    pub fn spec(&self, sandbox: SandboxId) -> Option<LaunchSpec> {
        self.state()
            .sandboxes
            .get(&sandbox)
            .map(|sandbox| sandbox.spec.clone())
    }

    /// The labels the sandbox carries.
    pub fn labels(&self, sandbox: SandboxId) -> Option<BTreeMap<String, String>> {
        self.state()
            .sandboxes
            .get(&sandbox)
            .map(|sandbox| sandbox.labels.clone())
    }

    /// The sandbox dies: nothing answers any more, streams break, watchers are told. `false` when it did not exist.
    pub fn kill(&self, sandbox: SandboxId, reason: &str) -> bool {
        self.state().end(sandbox, reason)
    }

    /// What runs in the sandbox loses its memory, as if it had been restarted without its disk: no conversation, no
    /// journal, no known turns. `false` when the sandbox does not exist.
    pub fn forget(&self, sandbox: SandboxId) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state
            .sandboxes
            .get_mut(&sandbox)
            .filter(|sandbox| sandbox.gone.is_none())
        else {
            return false;
        };
        sandbox.agent.stop();
        sandbox.agent = Agent::default();
        true
    }

    /// What runs in the sandbox does not know any more that it had this turn and would take it again: a harness that
    /// breaks the promise of delivery, for tests that must notice.
    pub fn forget_turn(&self, sandbox: SandboxId, turn: TurnId) {
        if let Some(found) = self.state().sandboxes.get(&sandbox) {
            found.agent.forget_turn(turn);
        }
    }

    /// How often the turn was started in each sandbox. More than once in one sandbox breaks the promise of delivery.
    pub fn deliveries(&self, turn: TurnId) -> BTreeMap<SandboxId, u32> {
        let state = self.state();
        let of_turn = state
            .deliveries
            .iter()
            .filter(|((_, delivered), _)| *delivered == turn);
        of_turn.map(|((sandbox, _), count)| (*sandbox, *count)).collect()
    }

    /// Says how sandboxes launched from now on get ready.
    pub fn prepare(&self, preparation: Preparation) {
        self.state().preparation = preparation;
    }

    /// From now on launches are refused as `Unavailable` for this reason; `None`: they work.
    pub fn refuse_launches(&self, reason: Option<&str>) {
        self.state().refusal = reason.map(str::to_owned);
    }

    pub(super) fn place(&self) -> Place {
        self.shared.place
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `Err` with the reason when launches are refused.
    pub(super) fn launch(&mut self, spec: &LaunchSpec) -> Result<(), String> {
        if let Some(reason) = &self.refusal {
            return Err(reason.clone());
        }
        let preparation = &self.preparation;
        self.sandboxes
            .entry(spec.sandbox)
            .or_insert_with(|| MemorySandbox {
                spec: spec.clone(),
                labels: spec.labels.clone(),
                preparation: preparation.clone(),
                launched_at: Instant::now(),
                gone: None,
                agent: Agent::default(),
            });
        Ok(())
    }

    /// A sandbox that exists ends.
    pub(super) fn end(&mut self, id: SandboxId, reason: &str) -> bool {
        let Some(sandbox) = self
            .sandboxes
            .get_mut(&id)
            .filter(|sandbox| sandbox.gone.is_none())
        else {
            return false;
        };
        sandbox.gone = Some(reason.to_owned());
        sandbox.agent.stop();
        let event = RuntimeEvent::Gone {
            sandbox: id,
            reason: reason.to_owned(),
        };
        self.watchers
            .retain(|watcher| watcher.send(event.clone()).is_ok());
        true
    }
}

impl MemorySandbox {
    /// When the preparation is over; `None` when that is never.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        match &self.preparation {
            Preparation::Instant => Some(self.launched_at),
            Preparation::Takes(time) => Some(self.launched_at + *time),
            Preparation::Fails(_) | Preparation::NoAddress => None,
        }
    }
}
