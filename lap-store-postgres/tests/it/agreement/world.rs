//! What the random calls are about.

use std::sync::Arc;
use std::time::Duration;

use lap_conformance::ManualClock;
use lap_core::agent::AgentSpec;
use lap_core::id::{
    AgentId, Entropy as _, HostId, RecordId, SandboxId, SeededEntropy, SessionId, TurnId, WorkerId,
};
use lap_core::memory::MemoryStore;
use lap_core::sandbox::Place as At;
use lap_core::store::{Idempotency, NewTurn, WorkItem, WorkKind};
use lap_core::time::{Clock as _, Timestamp};
use lap_store_postgres::PostgresStore;
use serde_json::json;

use crate::database::{Place, pass};

/// Both stores, and everything that was made in them.
pub(crate) struct World {
    pub(crate) memory: MemoryStore,
    pub(crate) postgres: PostgresStore,
    pub(crate) clock: ManualClock,
    pub(crate) schema: String,
    pub(crate) entropy: SeededEntropy,
    pub(crate) agents: Vec<AgentId>,
    pub(crate) sandboxes: Vec<SandboxId>,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) turns: Vec<TurnId>,
    pub(crate) records: Vec<RecordId>,
    pub(crate) workers: [WorkerId; 2],
    pub(crate) places: [At; 3],
    /// Held items, as memory and as PostgreSQL gave them: fences may differ, their order may not.
    pub(crate) items: Vec<(WorkItem, WorkItem)>,
    pub(crate) step: usize,
}

impl World {
    pub(crate) async fn new(seed: u64, place: &Place) -> Self {
        let clock = ManualClock::default();
        let entropy = SeededEntropy::new(seed);
        let now = clock.now();
        let postgres = place.connect().await;
        place.stop_clock().await;
        Self {
            memory: MemoryStore::new(Arc::new(clock.clone())),
            postgres,
            schema: place.schema.clone(),
            agents: vec![AgentId::fresh(&entropy, now)],
            sandboxes: vec![SandboxId::fresh(&entropy, now)],
            sessions: vec![SessionId::fresh(&entropy, now)],
            turns: vec![TurnId::fresh(&entropy, now)],
            records: vec![RecordId::fresh(&entropy, now)],
            workers: [WorkerId::fresh(&entropy, now), WorkerId::fresh(&entropy, now)],
            places: [
                At::Host(HostId::fresh(&entropy, now)),
                At::Host(HostId::fresh(&entropy, now)),
                At::Cluster,
            ],
            items: Vec::new(),
            step: 0,
            clock,
            entropy,
        }
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % bound as u64).unwrap()
    }

    pub(crate) fn chance(&self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Mostly a recent one, so that steps meet.
    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        let recent = of.len().min(4);
        if self.chance(5) {
            of[self.below(of.len())]
        } else {
            of[of.len() - 1 - self.below(recent)]
        }
    }

    /// Time passes for both.
    pub(crate) async fn pass(&self, by: Duration) {
        self.clock.advance(by);
        pass(&self.schema, by).await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn request(&self, operation: &'static str, parent: impl ToString) -> Idempotency {
        Idempotency {
            principal: "ui".to_owned(),
            operation,
            parent: parent.to_string(),
            key: format!("key-{}", self.below(40)),
            body_hash: format!("body-{}", usize::from(self.chance(4))),
        }
    }

    pub(crate) fn spec(&self) -> AgentSpec {
        let names = ["Painter", "painter 2", "ÄRZTE", "a%b_c"];
        AgentSpec {
            name: (!self.chance(4)).then(|| names[self.below(names.len())].to_owned()),
            harness: ["opencode", "BuiltIn"][self.below(2)].to_owned(),
            model: format!("model-{}", self.below(9)),
            ..AgentSpec::default()
        }
    }

    pub(crate) fn new_turn(&mut self) -> NewTurn {
        if !self.chance(8) {
            self.turns.push(TurnId::fresh(&self.entropy, self.now()));
        }
        NewTurn {
            id: self.pick(&self.turns),
            parts: vec![json!({ "type": "text", "text": format!("do\n the  {} thing", self.step) })],
            model: self.chance(3).then(|| "other".to_owned()),
            created_by: "ui".to_owned(),
        }
    }

    pub(crate) fn keep(&mut self, memory: Option<WorkItem>, postgres: Option<WorkItem>) {
        if let (Some(memory), Some(postgres)) = (memory, postgres) {
            self.items.push((memory, postgres));
        }
    }

    /// A held item of the kind, or at times one that is held no longer.
    pub(crate) fn item(&self, kind: WorkKind) -> Option<(WorkItem, WorkItem)> {
        let of_kind: Vec<_> = self
            .items
            .iter()
            .filter(|(item, _)| item.hold.kind == kind)
            .collect();
        if of_kind.is_empty() {
            return None;
        }
        let recent = of_kind.len().min(6);
        Some(of_kind[of_kind.len() - 1 - self.below(recent)].clone())
    }
}
