use std::time::Duration;

use async_trait::async_trait;
use lap_core::agent::Agent;
use lap_core::error::Result;
use lap_core::event::{Event, NewEvent};
use lap_core::id::{AgentId, RecordId, SandboxId, SessionId, TurnId, WorkerId};
use lap_core::sandbox::{Place, Sandbox};
use lap_core::session::Session;
use lap_core::store::*;
use lap_core::turn::Turn;

use super::Distorted;
use crate::defects::Defect;

/// From this id on, ids of events are one too high.
const GAP: u64 = 12;

#[async_trait]
impl Agents for Distorted {
    async fn create_agent(&self, new: NewAgent) -> Result<Created> {
        self.store.create_agent(new).await
    }
    async fn agent(&self, id: AgentId) -> Result<Option<Agent>> {
        self.store.agent(id).await
    }
    async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage> {
        self.store.list_agents(query).await
    }
    async fn update_agent(&self, update: AgentUpdate) -> Result<Updated> {
        self.store.update_agent(update).await
    }
    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>> {
        let deleted = self.store.delete_agent(id).await;
        self.lose_cleanups().await;
        deleted
    }
}

#[async_trait]
impl Sessions for Distorted {
    async fn open(&self, mut open: Open) -> Result<Opened> {
        if self.is(Defect::ForgetsKeys) {
            open.idempotency.key = open.session.to_string();
        }
        let opened = self.store.open(open).await?;
        Ok(match opened {
            Opened::Warm(mut opened) if self.is(Defect::ClaimsTwice) => {
                let shared = self
                    .shared
                    .lock()
                    .unwrap()
                    .get_or_insert(opened.sandbox.clone())
                    .clone();
                if shared.id != opened.sandbox.id {
                    self.aliases.lock().unwrap().insert(opened.session.id, shared.id);
                }
                opened.session = self.session(opened.session);
                Opened::Warm(opened)
            }
            other => other,
        })
    }
    async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        Ok(self.store.session(id).await?.map(|session| self.session(session)))
    }
    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>> {
        self.store.bring_up(id).await
    }
    async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>> {
        let sessions = self.store.list_sessions(query).await?;
        Ok(sessions
            .into_iter()
            .map(|session| self.session(session))
            .collect())
    }
    async fn advance(&self, mut advance: Advance) -> Result<Advanced> {
        advance.hold = self.hold(&advance.hold);
        let advanced = self.store.advance(advance).await;
        self.lose_cleanups().await;
        advanced
    }
    async fn end(&self, mut end: End) -> Result<Ended> {
        if self.is(Defect::SkipsTheRecheck) {
            end.only_if_idle_for = None;
        }
        let ended = self.store.end(end).await;
        self.lose_cleanups().await;
        ended
    }
    async fn revive(&self, revive: Revive) -> Result<Revived> {
        self.store.revive(revive).await
    }
    async fn touch(&self, sessions: &[SessionId]) -> Result<()> {
        self.store.touch(sessions).await
    }
}

#[async_trait]
impl Sandboxes for Distorted {
    async fn plan_sandbox(&self, new: NewSandbox) -> Result<()> {
        self.store.plan_sandbox(new).await
    }
    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>> {
        self.store.sandbox(id).await
    }
    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool> {
        self.store.warm_sandbox(id, address).await
    }
    async fn replace_sandbox(&self, mut replace: Replace) -> Result<Replaced> {
        replace.hold = self.hold(&replace.hold);
        let replaced = self.store.replace_sandbox(replace).await;
        self.lose_cleanups().await;
        replaced
    }
    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool> {
        let lost = self.store.lose_sandbox(id, reason).await;
        self.lose_cleanups().await;
        lost
    }
    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool> {
        self.store.bury_sandbox(id).await
    }
    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>> {
        self.store.sandboxes_at(place).await
    }
    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>> {
        self.store.count_sandboxes().await
    }
}

#[async_trait]
impl Turns for Distorted {
    async fn accept(&self, mut accept: Accept) -> Result<Accepted> {
        if self.is(Defect::ForgetsKeys) {
            accept.idempotency = None;
        }
        let (session, new) = (accept.session, accept.turn.clone());
        Ok(match (self.store.accept(accept).await?, self.defect) {
            (Accepted::Started(turn, Some(item)), Defect::LosesEnqueues) => {
                self.store.done(&item).await?;
                Accepted::Started(turn, None)
            }
            (Accepted::Ended(_), Defect::AcceptsAfterTheEnd) => Accepted::Queued(Turn {
                id: new.id,
                session,
                number: 1,
                state: lap_core::turn::TurnState::Queued,
                parts: new.parts,
                model: new.model,
                abort_requested: false,
                failure: None,
                reply: None,
                usage: lap_core::turn::Usage::default(),
                created_by: new.created_by,
                created_at: self.clock.now(),
                started_at: None,
                finished_at: None,
            }),
            (answer, _) => answer,
        })
    }
    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        self.store.begin(session, &self.hold(hold)).await
    }
    async fn finish(&self, mut finish: Finish) -> Result<Finished> {
        finish.hold = self.hold(&finish.hold);
        let finished = self.store.finish(finish).await?;
        if let Finished::Done(turn, _) = &finished
            && self.is(Defect::FinishesTwice)
        {
            let again = Append {
                session: turn.session,
                hold: None,
                ingest: None,
                running: None,
                events: vec![NewEvent::turn_finished(turn)],
            };
            self.store.append(vec![again]).await?;
        }
        Ok(finished)
    }
    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        match self.append(vec![last]).await?.first() {
            Some(Appended::Done(_)) => self.finish(finish).await,
            _ => Ok(Finished::Stale),
        }
    }
    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        self.store.abort(session, turn).await
    }
    async fn turn(&self, id: TurnId) -> Result<Option<Turn>> {
        self.store.turn(id).await
    }
    async fn list_turns(&self, query: TurnQuery) -> Result<Vec<Turn>> {
        self.store.list_turns(query).await
    }
}

impl Distorted {
    fn id(&self, mut event: Event) -> Event {
        if self.is(Defect::SkipsAnId) && event.id >= GAP {
            event.id += 1;
        }
        event
    }
}

#[async_trait]
impl Events for Distorted {
    async fn append(&self, mut appends: Vec<Append>) -> Result<Vec<Appended>> {
        for append in &mut appends {
            append.hold = append.hold.as_ref().map(|hold| self.hold(hold));
            if let Some(ingest) = append.ingest.as_mut().filter(|_| self.is(Defect::IgnoresCursors)) {
                ingest.expected = self.store.cursor(append.session, ingest.source).await?;
            }
            if self.is(Defect::LosesEvents) {
                append.events.pop();
            }
        }
        let appended = self.store.append(appends).await?.into_iter();
        let answers = appended.map(|appended| match appended {
            Appended::Done(events) => {
                Appended::Done(events.into_iter().map(|event| self.id(event)).collect())
            }
            other => other,
        });
        Ok(answers.collect())
    }
    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>> {
        let skips = self.is(Defect::SkipsAnId);
        let after = if skips && after >= GAP && after != u64::MAX {
            after - 1
        } else {
            after
        };
        let page = self.store.events(session, after, limit).await?;
        Ok(page.map(|page| EventPage {
            events: page.events.into_iter().map(|event| self.id(event)).collect(),
            head: page.head + u64::from(skips && page.head >= GAP),
            ..page
        }))
    }
    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64> {
        self.store.cursor(session, source).await
    }
}

#[async_trait]
impl Work for Distorted {
    async fn enqueue(&self, items: Vec<NewWork>) -> Result<()> {
        self.store.enqueue(items).await
    }
    async fn take(&self, take: Take) -> Result<Vec<WorkItem>> {
        self.store.take(take).await
    }
    async fn done(&self, item: &WorkItem) -> Result<bool> {
        let item = self.item(item);
        self.store.done(&item).await
    }
    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        self.store.again(&self.item(item), after).await
    }
    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        self.store.fail(&self.item(item), after).await
    }
    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>> {
        self.store.held(worker).await
    }
    async fn beat(&self, worker: &Worker) -> Result<u64> {
        match self.defect {
            Defect::NeverFrees => Ok(0),
            _ => self.store.beat(worker).await,
        }
    }
    async fn retire(&self, worker: WorkerId) -> Result<()> {
        self.store.retire(worker).await
    }
}

impl Distorted {
    fn item(&self, item: &WorkItem) -> WorkItem {
        WorkItem {
            hold: self.hold(&item.hold),
            ..item.clone()
        }
    }
}

#[async_trait]
impl Records for Distorted {
    async fn put_record(&self, record: NewRecord) -> Result<Put> {
        self.store.put_record(record).await
    }
    async fn record(&self, id: RecordId) -> Result<Option<Record>> {
        self.store.record(id).await
    }
    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>> {
        self.store.list_records(query).await
    }
    async fn delete_record(&self, id: RecordId) -> Result<bool> {
        self.store.delete_record(id).await
    }
}

#[async_trait]
impl Installation for Distorted {
    async fn instance(&self, candidate: Instance) -> Result<Instance> {
        self.store.instance(candidate).await
    }
    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }
}

impl Hints for Distorted {
    fn hint(&self, hint: Hint) {
        self.store.hint(hint);
    }
    fn hints(&self) -> HintStream {
        self.store.hints()
    }
}
