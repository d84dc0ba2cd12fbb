use std::time::Duration;

use async_trait::async_trait;
use lap_core::blueprint::LateBindable;
use lap_core::error::Result;
use lap_core::harness::{Contact, Delivery, Harness, HarnessEvents, OpenConversation, Probe, Sent};
use lap_core::id::TurnId;
use lap_core::memory::{MemoryHarness, MemoryWorld};
use serde_json::Value;

/// A harness that knows no turn it has had, and takes it again.
#[derive(Debug)]
pub(crate) struct Forgetful {
    world: MemoryWorld,
    harness: MemoryHarness,
}

impl Forgetful {
    pub(crate) fn new(world: &MemoryWorld) -> Self {
        Self {
            world: world.clone(),
            harness: world.harness(),
        }
    }
}

#[async_trait]
impl Harness for Forgetful {
    fn late_bindable(&self, harness: &str) -> Option<LateBindable> {
        self.harness.late_bindable(harness)
    }

    async fn probe(&self, at: &Contact, wait: Duration) -> Result<Probe> {
        self.harness.probe(at, wait).await
    }

    async fn open(&self, at: &Contact, open: &OpenConversation) -> Result<String> {
        self.harness.open(at, open).await
    }

    async fn send(&self, at: &Contact, delivery: &Delivery) -> Result<Sent> {
        self.world.forget_turn(at.sandbox, delivery.turn);
        self.harness.send(at, delivery).await
    }

    async fn has_turn(&self, at: &Contact, turn: TurnId) -> Result<bool> {
        self.world.forget_turn(at.sandbox, turn);
        self.harness.has_turn(at, turn).await
    }

    async fn attach(&self, at: &Contact, after: u64, turn: TurnId) -> Result<HarnessEvents> {
        self.harness.attach(at, after, turn).await
    }

    async fn abort(&self, at: &Contact, turn: TurnId) -> Result<()> {
        self.harness.abort(at, turn).await
    }

    async fn messages(&self, at: &Contact) -> Result<Vec<Value>> {
        self.harness.messages(at).await
    }

    async fn answer(&self, at: &Contact, request: &str, reply: &Value) -> Result<()> {
        self.harness.answer(at, request, reply).await
    }
}
