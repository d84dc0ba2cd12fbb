use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use super::agent::{Agent, Started};
use super::runtime::address;
use super::world::{MemorySandbox, MemoryWorld, Preparation};
use crate::blueprint::LateBindable;
use crate::error::{Error, ErrorKind, Result};
use crate::harness::{
    Contact, Delivery, Harness, HarnessEvents, OpenConversation, Probe, Readiness, Sent, Snapshot,
};
use crate::id::{SandboxId, TurnId};
use crate::session::Phase;
use crate::token::Scope;

/// Reaches the scripted agents in the sandboxes of a [`MemoryWorld`].
///
/// Like a real one it is refused where no sandbox lives, checks identity, and needs a token signed by the instance
/// that launched the sandbox. What an agent does with a turn depends on its text: `SLOW n` answers in n chunks
/// 250 ms apart, `FAIL message` fails, `HANG` waits for an abort, `ASK question` asks for permission, and anything
/// else is answered with `PONG` and the text.
#[derive(Debug, Clone)]
pub struct MemoryHarness {
    world: MemoryWorld,
}

impl MemoryHarness {
    pub(super) const fn new(world: MemoryWorld) -> Self {
        Self { world }
    }

    /// What `read` finds in the sandbox that lives at the contact's address.
    fn reach<T>(&self, at: &Contact, read: impl FnOnce(&MemorySandbox) -> T) -> Result<T> {
        let refused = || Error::new(ErrorKind::Unavailable, "reach sandbox", "connection refused");
        let id = at
            .address
            .strip_prefix("memory:")
            .and_then(|id| id.parse::<SandboxId>().ok());
        let id = id.ok_or_else(refused)?;
        let state = self.world.state();
        let found = state
            .sandboxes
            .get(&id)
            .filter(|found| found.gone.is_none())
            .ok_or_else(refused)?;
        if id != at.sandbox {
            return Err(Error::new(
                ErrorKind::Stale,
                "reach sandbox",
                "another sandbox answers at this address",
            ));
        }
        let verified =
            found
                .spec
                .public_key
                .verify(at.token.expose(), id, Scope::Control, self.world.clock().now());
        verified.map_err(|refusal| Error::new(ErrorKind::Forbidden, "reach sandbox", refusal.to_string()))?;
        Ok(read(found))
    }

    fn agent(&self, at: &Contact) -> Result<Agent> {
        self.reach(at, |found| found.agent.clone())
    }
}

fn probe_now(found: &MemorySandbox) -> Probe {
    let readiness = match &found.preparation {
        Preparation::Fails(reason) => Readiness::Failed(reason.clone()),
        _ if found.ready_at().is_some_and(|at| at <= Instant::now()) => Readiness::Ready,
        _ => Readiness::Preparing,
    };
    let phase = match readiness {
        Readiness::Ready => Phase::HarnessReady,
        _ => Phase::CloningRepo,
    };
    Probe {
        readiness,
        phase: Some(phase),
        detail: None,
        session: found.agent.session(),
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    fn late_bindable(&self, _harness: &str) -> Option<LateBindable> {
        Some(LateBindable::ALL)
    }

    async fn probe(&self, at: &Contact, wait: Duration) -> Result<Probe> {
        let (probe, ready_at) = self.reach(at, |found| (probe_now(found), found.ready_at()))?;
        if probe.readiness != Readiness::Preparing || wait.is_zero() {
            return Ok(probe);
        }
        let until = Instant::now() + wait;
        tokio::time::sleep_until(ready_at.map_or(until, |ready_at| ready_at.min(until))).await;
        self.reach(at, probe_now)
    }

    async fn open(&self, at: &Contact, open: &OpenConversation) -> Result<String> {
        self.agent(at)?.open(open)
    }

    async fn snapshot(&self, at: &Contact, limit_bytes: usize) -> Result<Snapshot> {
        self.agent(at)?.snapshot(limit_bytes)
    }

    async fn restore(&self, at: &Contact, fence: u64, snapshot: &Snapshot) -> Result<Vec<String>> {
        self.agent(at)?.restore(fence, snapshot).map(|()| Vec::new())
    }

    async fn send(&self, at: &Contact, delivery: &Delivery) -> Result<Sent> {
        Ok(match self.agent(at)?.start(delivery, self.world.clock())? {
            Started::Running(events) => {
                *self
                    .world
                    .state()
                    .deliveries
                    .entry((at.sandbox, delivery.turn))
                    .or_default() += 1;
                Sent::Started(events)
            }
            Started::Known => Sent::Known,
            Started::Stale => Sent::Stale,
            Started::Busy => Sent::Busy,
        })
    }

    async fn has_turn(&self, at: &Contact, turn: TurnId) -> Result<bool> {
        Ok(self.agent(at)?.has_turn(turn))
    }

    async fn attach(&self, at: &Contact, after: u64, turn: TurnId) -> Result<HarnessEvents> {
        let agent = self.agent(at)?;
        if !agent.has_turn(turn) {
            return Err(Error::not_found("attach to turn", "turn", turn));
        }
        Ok(agent.events(after, turn))
    }

    async fn abort(&self, at: &Contact, turn: TurnId) -> Result<()> {
        let known = self.agent(at)?.abort(turn);
        known
            .then_some(())
            .ok_or_else(|| Error::not_found("abort turn", "turn", turn))
    }

    async fn messages(&self, at: &Contact) -> Result<Vec<Value>> {
        Ok(self.agent(at)?.messages())
    }

    async fn answer(&self, at: &Contact, request: &str, reply: &Value) -> Result<()> {
        self.agent(at)?.answer(request, reply)
    }
}

impl MemoryWorld {
    /// The address at which a sandbox of this world answers while it exists.
    pub fn address(&self, sandbox: SandboxId) -> String {
        address(sandbox)
    }
}
