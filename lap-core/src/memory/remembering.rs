//! What a session remembers when its sandbox is replaced, on an engine over memory backends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::{MemoryStore, MemoryVault, MemoryWorld};
use crate::backends::Backends;
use crate::caller::Caller;
use crate::engine::{AgentDefinition, CreateAgent, Engine, EngineConfig, OpenSession, SendTurn, StreamItem};
use crate::id::{SeededEntropy, SessionId};
use crate::seal::Sealer;
use crate::session::{EndedBy, Session, SessionState};
use crate::time::{Clock, Timestamp, TokioClock};
use crate::turn::TurnState;

const PATIENCE: Duration = Duration::from_secs(3600);
const IDLE: Duration = Duration::from_secs(15 * 60);

struct Installation {
    engine: Engine,
    world: MemoryWorld,
    caller: Caller,
    session: SessionId,
}

impl Installation {
    /// An engine with one ready session that was told a codeword.
    async fn new(configure: impl FnOnce(&mut EngineConfig)) -> Self {
        let epoch = Timestamp::from_unix_millis(1_767_225_600_000);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(epoch));
        let world = MemoryWorld::new(Arc::clone(&clock));
        let parts = Backends {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
            runtime: Arc::new(world.runtime()),
            vault: Arc::new(MemoryVault::new()),
            harness: Arc::new(world.harness()),
            clock,
            entropy: Arc::new(SeededEntropy::new(5)),
            sealer: Arc::new(Sealer::plaintext()),
        };
        let mut config = EngineConfig {
            idle_timeout: IDLE,
            ..EngineConfig::default()
        };
        configure(&mut config);
        let engine = Engine::start(parts, config).await.unwrap();
        let caller = Caller::new("tester");
        let definition = AgentDefinition {
            model: "test/model".to_owned(),
            ..AgentDefinition::default()
        };
        let new = CreateAgent {
            definition,
            ..CreateAgent::default()
        };
        let agent = engine.create_agent(&caller, new).await.unwrap().id;
        let open = OpenSession::with(agent);
        let session = engine.open_session(&caller, open).await.unwrap().id;
        let this = Self {
            engine,
            world,
            caller,
            session,
        };
        this.ready().await;
        this.say("the codeword is plover").await;
        this
    }

    async fn ready(&self) -> Session {
        let session = self.engine.wait_session(self.session, PATIENCE).await.unwrap();
        assert_eq!(session.state, SessionState::Ready, "{session:?}");
        session
    }

    async fn say(&self, text: &str) {
        let send = SendTurn {
            session: self.session,
            parts: vec![json!({"type": "text", "text": text})],
            model: None,
            idempotency_key: None,
        };
        let turn = self.engine.send_turn(&self.caller, send).await.unwrap();
        let turn = self
            .engine
            .wait_turn(self.session, turn.id, PATIENCE)
            .await
            .unwrap();
        assert_eq!(turn.state, TurnState::Completed, "{turn:?}");
    }

    async fn restart(&self) -> Session {
        self.engine.restart(&self.caller, self.session).await.unwrap();
        self.ready().await
    }

    /// What the sandbox's own agent knows.
    async fn remembered(&self) -> String {
        let messages = self.engine.messages(self.session).await.unwrap();
        Value::from(messages).to_string()
    }

    /// Every `memory.degraded` of the session.
    async fn degraded(&self) -> Vec<Value> {
        let mut stream = self.engine.stream(self.session, Some(0)).await.unwrap();
        let mut found = Vec::new();
        // The log ends where nothing comes for a while; time is paused, so this takes none.
        while let Ok(Some(Ok(item))) = tokio::time::timeout(Duration::from_millis(50), stream.next()).await {
            if let StreamItem::Event(event) = item
                && event.kind == "memory.degraded"
            {
                found.push(event.body.clone());
            }
        }
        found
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_gives_the_next_sandbox_the_whole_conversation() {
    let installation = Installation::new(|_| {}).await;
    let before = installation.ready().await.sandbox;
    let after = installation.restart().await.sandbox;
    assert_ne!(before, after);
    assert!(installation.remembered().await.contains("the codeword is plover"));
    assert_eq!(installation.degraded().await, Vec::<Value>::new());
    installation.say("and again").await;
    installation.restart().await;
    let remembered = installation.remembered().await;
    assert!(remembered.contains("plover") && remembered.contains("and again"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_and_comes_back_with_its_work() {
    let installation = Installation::new(|_| {}).await;
    let mut idle = installation.engine.session(installation.session).await.unwrap();
    let deadline = tokio::time::Instant::now() + 3 * IDLE;
    while idle.state.is_active() {
        assert!(tokio::time::Instant::now() < deadline, "{idle:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        idle = installation.engine.session(installation.session).await.unwrap();
    }
    assert_eq!(idle.ended_by, Some(EndedBy::Idle));
    let gone = async || {
        while !installation.world.launched().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone()).await.unwrap();
    installation.restart().await;
    assert!(installation.remembered().await.contains("the codeword is plover"));
    assert_eq!(installation.degraded().await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_died_leaves_the_log_and_a_word_about_the_loss() {
    let installation = Installation::new(|_| {}).await;
    let sandbox = installation.ready().await.sandbox.unwrap();
    installation.world.kill(sandbox, "killed by the test");
    let session = installation.restart().await;
    assert_ne!(session.sandbox, Some(sandbox));
    let harness_knows = installation.remembered().await;
    assert!(
        harness_knows.contains("the codeword is plover"),
        "{harness_knows}"
    );
    let degraded = installation.degraded().await;
    assert_eq!(degraded.len(), 1);
    assert!(
        degraded[0].to_string().contains("uncommitted files"),
        "{degraded:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_turn_takes_a_snapshot_all_the_same() {
    let installation = Installation::new(|_| {}).await;
    let hanging = SendTurn {
        session: installation.session,
        parts: vec![json!({"type": "text", "text": "HANG"})],
        model: None,
        idempotency_key: None,
    };
    installation
        .engine
        .send_turn(&installation.caller, hanging)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    installation.restart().await;
    let remembered = installation.remembered().await;
    assert!(
        remembered.contains("plover") && remembered.contains("HANG"),
        "{remembered}"
    );
    assert_eq!(installation.degraded().await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn an_old_snapshot_does_not_hide_what_was_said_later() {
    let installation = Installation::new(|_| {}).await;
    installation.restart().await;
    installation.say("said later").await;
    let sandbox = installation.ready().await.sandbox.unwrap();
    installation.world.kill(sandbox, "killed by the test");
    installation.restart().await;
    let remembered = installation.remembered().await;
    assert!(
        remembered.contains("plover") && remembered.contains("said later"),
        "{remembered}"
    );
    let degraded = installation.degraded().await;
    assert!(
        degraded[0].to_string().contains("since the last snapshot"),
        "{degraded:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_named() {
    let installation = Installation::new(|config| config.snapshot_limit_bytes = 1500).await;
    for text in ["two", "three", "four", "five"] {
        installation.say(text).await;
    }
    installation.restart().await;
    let remembered = installation.remembered().await;
    assert!(
        remembered.contains("five") && !remembered.contains("plover"),
        "{remembered}"
    );
    let degraded = installation.degraded().await;
    assert!(
        degraded[0].to_string().contains("oldest messages"),
        "{degraded:?}"
    );
}
