//! Every method of every role, one line each. The lint proves that none is missing.

use std::time::Duration;

use async_trait::async_trait;
use lap_core::agent::Agent;
use lap_core::error::Result;
use lap_core::id::{AgentId, RecordId, SandboxId, SessionId, TurnId, WorkerId};
use lap_core::sandbox::{Place, Sandbox};
use lap_core::session::Session;
use lap_core::store::*;
use lap_core::turn::Turn;

use super::Faulty;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Agents for Faulty<S> {
    async fn create_agent(&self, new: NewAgent) -> Result<Created> {
        self.call("create_agent", self.inner.create_agent(new)).await
    }

    async fn agent(&self, id: AgentId) -> Result<Option<Agent>> {
        self.call("agent", self.inner.agent(id)).await
    }

    async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage> {
        self.call("list_agents", self.inner.list_agents(query)).await
    }

    async fn update_agent(&self, update: AgentUpdate) -> Result<Updated> {
        self.call("update_agent", self.inner.update_agent(update)).await
    }

    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>> {
        self.call("delete_agent", self.inner.delete_agent(id)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Sessions for Faulty<S> {
    async fn open(&self, open: Open) -> Result<Opened> {
        self.call("open", self.inner.open(open)).await
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        self.call("session", self.inner.session(id)).await
    }

    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>> {
        self.call("bring_up", self.inner.bring_up(id)).await
    }

    async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>> {
        self.call("list_sessions", self.inner.list_sessions(query)).await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced> {
        self.call("advance", self.inner.advance(advance)).await
    }

    async fn end(&self, end: End) -> Result<Ended> {
        self.call("end", self.inner.end(end)).await
    }

    async fn revive(&self, revive: Revive) -> Result<Revived> {
        self.call("revive", self.inner.revive(revive)).await
    }

    async fn touch(&self, sessions: &[SessionId]) -> Result<()> {
        self.call("touch", self.inner.touch(sessions)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Sandboxes for Faulty<S> {
    async fn plan_sandbox(&self, new: NewSandbox) -> Result<()> {
        self.call("plan_sandbox", self.inner.plan_sandbox(new)).await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>> {
        self.call("sandbox", self.inner.sandbox(id)).await
    }

    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool> {
        self.call("warm_sandbox", self.inner.warm_sandbox(id, address))
            .await
    }

    async fn replace_sandbox(&self, replace: Replace) -> Result<Replaced> {
        self.call("replace_sandbox", self.inner.replace_sandbox(replace))
            .await
    }

    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool> {
        self.call("lose_sandbox", self.inner.lose_sandbox(id, reason))
            .await
    }

    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool> {
        self.call("bury_sandbox", self.inner.bury_sandbox(id)).await
    }

    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>> {
        self.call("sandboxes_at", self.inner.sandboxes_at(place)).await
    }

    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>> {
        self.call("count_sandboxes", self.inner.count_sandboxes()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Turns for Faulty<S> {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        self.call("accept", self.inner.accept(accept)).await
    }

    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        self.call("begin", self.inner.begin(session, hold)).await
    }

    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        self.call("conclude", self.inner.conclude(last, finish)).await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished> {
        self.call("finish", self.inner.finish(finish)).await
    }

    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        self.call("abort", self.inner.abort(session, turn)).await
    }

    async fn turn(&self, id: TurnId) -> Result<Option<Turn>> {
        self.call("turn", self.inner.turn(id)).await
    }

    async fn list_turns(&self, query: TurnQuery) -> Result<Vec<Turn>> {
        self.call("list_turns", self.inner.list_turns(query)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Events for Faulty<S> {
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.call("append", self.inner.append(appends)).await
    }

    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>> {
        self.call("events", self.inner.events(session, after, limit))
            .await
    }

    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64> {
        self.call("cursor", self.inner.cursor(session, source)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Work for Faulty<S> {
    async fn enqueue(&self, items: Vec<NewWork>) -> Result<()> {
        self.call("enqueue", self.inner.enqueue(items)).await
    }

    async fn take(&self, take: Take) -> Result<Vec<WorkItem>> {
        self.call("take", self.inner.take(take)).await
    }

    async fn done(&self, item: &WorkItem) -> Result<bool> {
        self.call("done", self.inner.done(item)).await
    }

    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        self.call("again", self.inner.again(item, after)).await
    }

    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        self.call("fail", self.inner.fail(item, after)).await
    }

    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>> {
        self.call("held", self.inner.held(worker)).await
    }

    async fn beat(&self, worker: &Worker) -> Result<u64> {
        self.call("beat", self.inner.beat(worker)).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<()> {
        self.call("retire", self.inner.retire(worker)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Records for Faulty<S> {
    async fn put_record(&self, record: NewRecord) -> Result<Put> {
        self.call("put_record", self.inner.put_record(record)).await
    }

    async fn record(&self, id: RecordId) -> Result<Option<Record>> {
        self.call("record", self.inner.record(id)).await
    }

    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>> {
        self.call("list_records", self.inner.list_records(query)).await
    }

    async fn delete_record(&self, id: RecordId) -> Result<bool> {
        self.call("delete_record", self.inner.delete_record(id)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Installation for Faulty<S> {
    async fn instance(&self, candidate: Instance) -> Result<Instance> {
        self.call("instance", self.inner.instance(candidate)).await
    }

    async fn ping(&self) -> Result<()> {
        self.call("ping", self.inner.ping()).await
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Hints for Faulty<S> {
    fn hint(&self, hint: Hint) {
        if !self.loses_hints {
            self.inner.hint(hint);
        }
    }

    fn hints(&self) -> HintStream {
        self.inner.hints()
    }
}
