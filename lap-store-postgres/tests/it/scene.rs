//! A store, and short ways to the situations that tests need.

use std::sync::Arc;
use std::time::Duration;

use lap_core::agent::{Agent, AgentSpec};
use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::event::NewEvent;
use lap_core::id::{AgentId, HostId, SandboxId, SessionId, SystemEntropy, TurnId, WorkerId};
use lap_core::sandbox::Place;
use lap_core::seal::Sealed;
use lap_core::store::{
    Accept, Accepted, Advance, Advanced, Agents as _, Append, Appended, Created, Events as _, Finish,
    Finished, Idempotency, NewAgent, NewSandbox, NewTurn, Open, Opened, Sandboxes as _, Sessions as _, Step,
    Turns as _, Work as _, WorkItem, Worker,
};
use lap_core::time::{Clock as _, SystemClock, Timestamp};
use lap_core::turn::{Outcome, TurnState};
use lap_store_postgres::PostgresStore;
use serde_json::json;

pub(crate) struct Scene {
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) agent: Agent,
    pub(crate) worker: WorkerId,
    pub(crate) place: Place,
}

fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn sandbox_id() -> SandboxId {
    SandboxId::fresh(&SystemEntropy::new(), now())
}

pub(crate) fn new_agent() -> NewAgent {
    NewAgent {
        id: AgentId::fresh(&SystemEntropy::new(), now()),
        spec: AgentSpec {
            name: Some("painter".to_owned()),
            ..AgentSpec::default()
        },
        blueprint_hash: BlueprintHash::from_text("blueprint"),
        created_by: "ui".to_owned(),
        idempotency: None,
    }
}

impl Scene {
    pub(crate) async fn new(store: PostgresStore) -> Self {
        let store = Arc::new(store);
        let Created::New(agent) = store.create_agent(new_agent()).await.unwrap() else {
            panic!("not created")
        };
        let entropy = SystemEntropy::new();
        let (worker, host) = (WorkerId::fresh(&entropy, now()), HostId::fresh(&entropy, now()));
        Self {
            store,
            agent,
            worker,
            place: Place::Host(host),
        }
    }

    pub(crate) fn new_turn(&self) -> NewTurn {
        NewTurn {
            id: TurnId::fresh(&SystemEntropy::new(), now()),
            parts: vec![json!({ "type": "text", "text": "paint it" })],
            model: None,
            created_by: "ui".to_owned(),
        }
    }

    pub(crate) fn new_open(&self) -> Open {
        let session = SessionId::fresh(&SystemEntropy::new(), now());
        Open {
            session,
            agent: self.agent.id,
            agent_version: 1,
            platform_hash: PlatformHash::from_text("platform"),
            cold_sandbox: sandbox_id(),
            place: self.place,
            worker: self.worker,
            title: None,
            opening: Sealed::from_text("plain:"),
            first_turn: Some(self.new_turn()),
            idempotency: Idempotency {
                principal: "ui".to_owned(),
                operation: "open",
                parent: self.agent.id.to_string(),
                key: session.to_string(),
                body_hash: "hash".to_owned(),
            },
            created_by: "ui".to_owned(),
        }
    }

    /// Says that the worker of the scene lives; returns how many items that freed.
    pub(crate) async fn beat(&self) -> u64 {
        let platform_hash = PlatformHash::from_text("platform");
        let worker = Worker {
            id: self.worker,
            place: self.place,
            platform_hash,
        };
        self.store.beat(&worker).await.unwrap()
    }

    /// A sandbox of the pool.
    pub(crate) async fn warm(&self) -> SandboxId {
        let id = sandbox_id();
        let new = NewSandbox {
            id,
            blueprint_hash: self.agent.blueprint_hash.clone(),
            platform_hash: PlatformHash::from_text("platform"),
            place: self.place,
        };
        self.store.plan_sandbox(new).await.unwrap();
        assert!(self.store.warm_sandbox(id, "127.0.0.1:1").await.unwrap());
        id
    }

    /// Opens it, warm or cold.
    pub(crate) async fn open(&self, open: Open) -> WorkItem {
        match self.store.open(open).await.unwrap() {
            Opened::Warm(opened) | Opened::Cold(opened) => opened.work.unwrap(),
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Makes it ready; its first turn is sending under the returned item.
    pub(crate) async fn ready(&self, session: SessionId, bring_up: &WorkItem) -> (TurnId, WorkItem) {
        let step = Step::Ready {
            conversation: "conversation".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            reap_after: Duration::from_secs(60),
        };
        let advance = Advance {
            session,
            hold: bring_up.hold.clone(),
            step,
        };
        match self.store.advance(advance).await.unwrap() {
            Advanced::Done(_, Some((turn, item))) => (turn.id, item),
            other => panic!("not ready: {other:?}"),
        }
    }

    pub(crate) async fn append(&self, session: SessionId, item: &WorkItem, turn: TurnId) {
        let delta = json!({ "field": "text", "delta": "a stroke", "offset": 0 });
        let event = NewEvent {
            kind: "message.part.delta".to_owned(),
            turn: Some(turn),
            body: delta,
            origin: Some(1),
        };
        let append = Append {
            session,
            hold: Some(item.hold.clone()),
            ingest: None,
            running: Some(turn),
            events: vec![event],
        };
        let answers = self.store.append(vec![append]).await.unwrap();
        assert!(
            matches!(answers[..], [Appended::Done(_)]),
            "not appended: {answers:?}"
        );
    }

    pub(crate) async fn accept(&self, session: SessionId) -> Accepted {
        let accept = Accept {
            session,
            turn: self.new_turn(),
            queue_limit: 5,
            worker: self.worker,
            place: self.place,
            idempotency: None,
        };
        self.store.accept(accept).await.unwrap()
    }

    pub(crate) async fn finish(&self, turn: TurnId, item: &WorkItem) {
        let outcome = Outcome {
            state: TurnState::Completed,
            failure: None,
            ..Outcome::failed("")
        };
        let finish = Finish {
            turn,
            hold: item.hold.clone(),
            outcome,
        };
        let finished = self.store.finish(finish).await.unwrap();
        assert!(
            matches!(finished, Finished::Done(..)),
            "not finished: {finished:?}"
        );
    }
}
