//! What every law starts with: a store, a worker at a place, and short ways to the situation of interest.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lap_core::agent::{Agent, AgentSpec};
use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::event::Event;
use lap_core::id::{AgentId, HostId, RecordId, SandboxId, SeededEntropy, SessionId, TurnId, WorkerId};
use lap_core::sandbox::{Place, Sandbox, SandboxState};
use lap_core::seal::Sealed;
use lap_core::session::Session;
use lap_core::store::{
    Accept, Accepted, Advance, Advanced, Created, Hold, Idempotency, NewAgent, NewSandbox, NewTurn, Open,
    Opened, OpenedSession, Step, Store, Take, TurnQuery, WorkItem, WorkKind, Worker,
};
use lap_core::time::Timestamp;
use lap_core::turn::Turn;
use serde_json::json;

use crate::StoreUnderTest;

/// After this long a session of a scene may be looked at by the reaper.
pub(crate) const REAP_AFTER: Duration = Duration::from_secs(900);

/// A law's surroundings. Ids grow with each one made, and are the same in every run.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    subject: &'a StoreUnderTest,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) worker: WorkerId,
    pub(crate) place: Place,
    pub(crate) platform: PlatformHash,
    entropy: SeededEntropy,
    tick: AtomicI64,
}

macro_rules! fresh_ids {
    ($($name:ident -> $kind:ident;)*) => {
        impl Scene<'_> {$(
            pub(crate) fn $name(&self) -> $kind {
                $kind::fresh(&self.entropy, self.tick())
            }
        )*}
    };
}

fresh_ids! {
    agent_id -> AgentId;
    sandbox_id -> SandboxId;
    session_id -> SessionId;
    turn_id -> TurnId;
    worker_id -> WorkerId;
    record_id -> RecordId;
    host_id -> HostId;
}

impl<'a> Scene<'a> {
    pub(crate) fn new(subject: &'a StoreUnderTest) -> Self {
        let entropy = SeededEntropy::new(7);
        let start = Timestamp::from_unix_millis(1_767_225_600_000);
        Self {
            subject,
            store: subject.store(),
            worker: WorkerId::fresh(&entropy, start),
            place: Place::Host(HostId::fresh(&entropy, start)),
            platform: PlatformHash::from_text("platform-1"),
            tick: AtomicI64::new(start.unix_millis()),
            entropy,
        }
    }

    fn tick(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.tick.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn pass(&self, by: Duration) {
        self.subject.advance(by).await;
    }

    /// The worker of the scene says that it is alive. Returns what it freed.
    pub(crate) async fn beat(&self, worker: WorkerId) -> u64 {
        let worker = Worker {
            id: worker,
            place: self.place,
            platform_hash: self.platform.clone(),
        };
        self.store.beat(&worker).await.unwrap()
    }
}

/// Agents and sandboxes.
impl Scene<'_> {
    pub(crate) fn new_agent(&self) -> NewAgent {
        let spec = AgentSpec {
            name: Some("painter".to_owned()),
            model: "m".to_owned(),
            ..AgentSpec::default()
        };
        NewAgent {
            id: self.agent_id(),
            spec,
            blueprint_hash: BlueprintHash::from_text("blueprint-1"),
            created_by: "ui".to_owned(),
            idempotency: None,
        }
    }

    pub(crate) async fn create(&self, new: NewAgent) -> Agent {
        match self.store.create_agent(new).await.unwrap() {
            Created::New(agent) => agent,
            other => panic!("a new agent is created, not {other:?}"),
        }
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.create(self.new_agent()).await
    }

    pub(crate) fn new_sandbox(&self, agent: &Agent) -> NewSandbox {
        NewSandbox {
            id: self.sandbox_id(),
            blueprint_hash: agent.blueprint_hash.clone(),
            platform_hash: self.platform.clone(),
            place: self.place,
        }
    }

    /// A warm sandbox for the agent, a second younger than the one before.
    pub(crate) async fn warm(&self, agent: &Agent) -> SandboxId {
        self.warm_as(self.new_sandbox(agent)).await
    }

    pub(crate) async fn warm_as(&self, new: NewSandbox) -> SandboxId {
        let id = new.id;
        self.store.plan_sandbox(new).await.unwrap();
        assert!(
            self.store.warm_sandbox(id, "127.0.0.1:4096").await.unwrap(),
            "a planned sandbox becomes warm"
        );
        self.pass(Duration::from_secs(1)).await;
        id
    }

    pub(crate) async fn sandbox(&self, id: SandboxId) -> Sandbox {
        self.store
            .sandbox(id)
            .await
            .unwrap()
            .expect("the sandbox is stored")
    }

    /// How many sandboxes of any key are in this state.
    pub(crate) async fn count(&self, state: SandboxState) -> u64 {
        let counts = self.store.count_sandboxes().await.unwrap();
        counts
            .iter()
            .filter(|row| row.state == state)
            .map(|row| row.count)
            .sum()
    }
}

/// Sessions.
impl Scene<'_> {
    pub(crate) fn request(&self, operation: &'static str, parent: impl ToString, key: &str) -> Idempotency {
        Idempotency {
            principal: "ui".to_owned(),
            operation,
            parent: parent.to_string(),
            key: key.to_owned(),
            body_hash: "body-1".to_owned(),
        }
    }

    /// An open of the agent by the scene's worker, keyed by its own id, without a prompt.
    pub(crate) fn new_open(&self, agent: &Agent) -> Open {
        let session = self.session_id();
        Open {
            session,
            agent: agent.id,
            agent_version: agent.version,
            platform_hash: self.platform.clone(),
            cold_sandbox: self.sandbox_id(),
            place: self.place,
            worker: self.worker,
            title: Some("a title".to_owned()),
            opening: Sealed::from_text("sealed opening"),
            first_turn: None,
            idempotency: self.request("open", agent.id, &session.to_string()),
            created_by: "ui".to_owned(),
        }
    }

    pub(crate) async fn open(&self, open: Open) -> OpenedSession {
        match self.store.open(open).await.unwrap() {
            Opened::Warm(opened) | Opened::Cold(opened) => opened,
            other => panic!("a session is opened, not {other:?}"),
        }
    }

    /// A session that is creating, with its bring-up held by the scene's worker.
    pub(crate) async fn creating(&self) -> (Session, Hold) {
        let agent = self.agent().await;
        let opened = self.open(self.new_open(&agent)).await;
        (
            opened.session,
            opened.work.expect("the opener holds the bring-up").hold,
        )
    }

    pub(crate) fn ready_step(&self) -> Step {
        Step::Ready {
            conversation: "ses_1".to_owned(),
            address: "127.0.0.1:4097".to_owned(),
            reap_after: REAP_AFTER,
        }
    }

    pub(crate) async fn advance(&self, session: SessionId, hold: &Hold, step: Step) -> Advanced {
        self.store
            .advance(Advance {
                session,
                hold: hold.clone(),
                step,
            })
            .await
            .unwrap()
    }

    /// The session after the step, and the turn that the step started.
    pub(crate) async fn stepped(
        &self,
        session: SessionId,
        hold: &Hold,
        step: Step,
    ) -> (Session, Option<(Turn, WorkItem)>) {
        match self.advance(session, hold, step).await {
            Advanced::Done(session, started) => (session, started),
            Advanced::Stale => panic!("the step is taken"),
        }
    }

    /// A session that takes turns.
    pub(crate) async fn ready(&self) -> Session {
        let (session, hold) = self.creating().await;
        self.stepped(session.id, &hold, self.ready_step()).await.0
    }

    pub(crate) async fn session(&self, id: SessionId) -> Session {
        self.store
            .session(id)
            .await
            .unwrap()
            .expect("the session is stored")
    }

    pub(crate) async fn events(&self, session: SessionId) -> Vec<Event> {
        self.store
            .events(session, 0, 10_000)
            .await
            .unwrap()
            .expect("the session has a log")
            .events
    }

    /// The kinds of the session's events, in order.
    pub(crate) async fn story(&self, session: SessionId) -> Vec<String> {
        self.events(session)
            .await
            .into_iter()
            .map(|event| event.kind)
            .collect()
    }
}

/// Turns and work.
impl Scene<'_> {
    pub(crate) fn new_turn(&self, text: &str) -> NewTurn {
        NewTurn {
            id: self.turn_id(),
            parts: vec![json!({ "type": "text", "text": text })],
            model: None,
            created_by: "ui".to_owned(),
        }
    }

    pub(crate) fn new_accept(&self, session: SessionId) -> Accept {
        Accept {
            session,
            turn: self.new_turn("hello"),
            queue_limit: 16,
            worker: self.worker,
            place: self.place,
            idempotency: None,
        }
    }

    /// A turn that is sending, and its item held by the scene's worker.
    pub(crate) async fn started(&self, session: SessionId) -> (Turn, WorkItem) {
        match self.store.accept(self.new_accept(session)).await.unwrap() {
            Accepted::Started(turn, Some(item)) => (turn, item),
            other => panic!("the turn starts at once, held by its acceptor, not {other:?}"),
        }
    }

    pub(crate) async fn queued(&self, session: SessionId) -> Turn {
        match self.store.accept(self.new_accept(session)).await.unwrap() {
            Accepted::Queued(turn) => turn,
            other => panic!("the turn waits, not {other:?}"),
        }
    }

    pub(crate) async fn turn(&self, id: TurnId) -> Turn {
        self.store.turn(id).await.unwrap().expect("the turn is stored")
    }

    pub(crate) async fn turns(&self, session: SessionId) -> Vec<Turn> {
        self.store
            .list_turns(TurnQuery {
                session,
                after: 0,
                limit: 10_000,
            })
            .await
            .unwrap()
    }

    /// Takes all due items of these kinds that are within the scene's reach.
    pub(crate) async fn take(&self, kinds: &[WorkKind]) -> Vec<WorkItem> {
        self.take_as(self.worker, kinds).await
    }

    pub(crate) async fn take_as(&self, worker: WorkerId, kinds: &[WorkKind]) -> Vec<WorkItem> {
        self.take_at(worker, kinds, vec![Place::Cluster, self.place])
            .await
    }

    pub(crate) async fn take_at(
        &self,
        worker: WorkerId,
        kinds: &[WorkKind],
        places: Vec<Place>,
    ) -> Vec<WorkItem> {
        let take = Take {
            worker,
            kinds: kinds.to_vec(),
            places,
            limit: 10_000,
        };
        self.store.take(take).await.unwrap()
    }

    /// Another worker takes the item over, as after a crash of the scene's worker.
    pub(crate) async fn taken_over(&self, kind: WorkKind) -> WorkItem {
        self.store.retire(self.worker).await.unwrap();
        let mut taken = self.take_as(self.worker_id(), &[kind]).await;
        assert_eq!(taken.len(), 1, "a retired worker's item can be taken");
        taken.remove(0)
    }
}

/// Runs `count` calls at the same time and gives their answers in order.
pub(crate) async fn together<T, F>(count: usize, call: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(tokio::sync::Barrier::new(count));
    let calls: Vec<_> = (0..count)
        .map(|index| {
            let (start, call) = (Arc::clone(&start), call(index));
            tokio::spawn(async move {
                start.wait().await;
                call.await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(count);
    for call in calls {
        answers.push(call.await.expect("a concurrent call does not panic"));
    }
    answers
}
