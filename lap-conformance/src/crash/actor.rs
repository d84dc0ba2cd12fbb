use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lap_core::caller::Caller;
use lap_core::engine::{AgentDefinition, CreateAgent, Engine, OpenSession, SendTurn};
use lap_core::error::{ErrorKind, Result};
use lap_core::id::{AgentId, SessionId, TurnId};
use lap_core::session::Session;
use lap_core::store::{SessionQuery, Sessions as _};
use lap_core::turn::Turn;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::invariants::{Broken, Invariants};
use super::stage::Stage;
use super::wire::Wire;

/// How long an actor tries before it gives up: long enough for every lapse, backoff and deadline on the way.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long a process needs to come back.
const RESTART: Duration = Duration::from_millis(500);

/// Somebody who uses an engine that may crash: what was not answered is repeated, on whichever engine lives then.
#[derive(Debug)]
pub struct Actor {
    /// Where it acts.
    pub stage: Stage,
    caller: Caller,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    wire: Arc<Wire>,
    engine: Option<Engine>,
    crashes: u32,
}

/// The parts of a message with this text.
pub fn text(text: &str) -> Vec<Value> {
    vec![json!({ "type": "text", "text": text })]
}

impl Actor {
    /// The first engine will go through this wire; later ones are sound.
    pub fn new(stage: Stage, wire: &Arc<Wire>) -> Self {
        Self {
            stage,
            caller: Caller::new("actor"),
            running: Mutex::new(Running {
                wire: Arc::clone(wire),
                engine: None,
                crashes: 0,
            }),
        }
    }

    /// How often the engine was started anew after a crash.
    pub fn crashes(&self) -> u32 {
        self.running().crashes
    }

    /// The engine that lives, started now if there is none.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn engine(&self) -> Result<(Engine, Arc<Wire>)> {
        let crashed = self.running().wire.has_crashed();
        if crashed {
            tokio::time::sleep(RESTART).await;
            let mut running = self.running();
            running.wire = Wire::sound();
            running.engine = None;
            running.crashes += 1;
        }
        let (wire, engine) = {
            let running = self.running();
            (Arc::clone(&running.wire), running.engine.clone())
        };
        if let Some(engine) = engine {
            return Ok((engine, wire));
        }
        let started = self.stage.engine(&wire);
        let engine = tokio::select! {
            biased;
            () = wire.crashed() => return Box::pin(self.engine()).await,
            started = started => started?,
        };
        self.running().engine = Some(engine.clone());
        Ok((engine, wire))
    }

    /// Another engine takes over after the present one has ended in order.
    pub fn replace(&self) {
        let mut running = self.running();
        running.engine = None;
        if !running.wire.has_crashed() {
            running.wire = Wire::sound();
        }
    }

    /// Asks until there is an answer that is not the test's own failure.
    ///
    /// # Errors
    /// What the engine says, when repeating does not help, or when patience is over.
    pub async fn ask<T, F>(&self, verb: impl Fn(Engine) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = match self.engine().await {
                Ok((engine, wire)) => tokio::select! {
                    biased;
                    () = wire.crashed() => continue,
                    answer = verb(engine) => answer,
                },
                Err(error) => Err(error),
            };
            match answer {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                answer => return answer,
            }
        }
    }

    /// An agent exists.
    ///
    /// # Errors
    /// As [`Actor::ask`].
    pub async fn agent(&self) -> Result<AgentId> {
        let new = CreateAgent {
            definition: AgentDefinition {
                name: Some("tester".to_owned()),
                model: "m".to_owned(),
                ..AgentDefinition::default()
            },
            idempotency_key: Some("agent".to_owned()),
        };
        let created = self.ask(|engine| {
            let new = new.clone();
            async move { engine.create_agent(&self.caller, new).await }
        });
        Ok(created.await?.id)
    }

    /// A session is open; the same key opens it once.
    ///
    /// # Errors
    /// As [`Actor::ask`].
    pub async fn open(&self, agent: AgentId, key: &str, prompt: Option<&str>) -> Result<SessionId> {
        let open = OpenSession {
            prompt: prompt.map(text),
            idempotency_key: Some(key.to_owned()),
            ..OpenSession::with(agent)
        };
        let opened = self.ask(|engine| {
            let open = open.clone();
            async move { engine.open_session(&self.caller, open).await }
        });
        Ok(opened.await?.id)
    }

    /// A turn is accepted; the same key sends it once.
    ///
    /// # Errors
    /// As [`Actor::ask`].
    pub async fn send(&self, session: SessionId, key: &str, words: &str) -> Result<Turn> {
        let send = SendTurn {
            session,
            parts: text(words),
            model: None,
            idempotency_key: Some(key.to_owned()),
        };
        self.ask(|engine| {
            let send = send.clone();
            async move { engine.send_turn(&self.caller, send).await }
        })
        .await
    }

    /// The turn has its outcome.
    ///
    /// # Errors
    /// As [`Actor::ask`], and when patience is over.
    pub async fn outcome(&self, session: SessionId, turn: TurnId) -> Result<Turn, Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.ask(|engine| async move {
                engine.wait_turn(session, turn, Duration::from_millis(500)).await
            });
            let found = found
                .await
                .map_err(|error| format!("a turn cannot be read: {error}"))?;
            if found.state.is_terminal() {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(format!("a turn gets no outcome: {found:?}"));
            }
        }
    }

    /// The session as it is when `is_so`.
    ///
    /// # Errors
    /// When patience is over.
    pub async fn session_when(
        &self,
        id: SessionId,
        is_so: impl Fn(&Session) -> bool,
    ) -> Result<Session, Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The actor's engine may have crashed; somebody has to go on.
            let _ = self.ask(|engine| async move { engine.ready().await }).await;
            let found = self.stage.store.session(id).await;
            let found = found.ok().flatten().ok_or("there is no session")?;
            if is_so(&found) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(format!("a session does not come so far: {found:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The session is not being brought up any more.
    ///
    /// # Errors
    /// When patience is over.
    pub async fn brought_up(&self, id: SessionId) -> Result<Session, Broken> {
        self.session_when(id, |session| {
            session.state != lap_core::session::SessionState::Creating
        })
        .await
    }

    /// Stops one turn or all of the session.
    ///
    /// # Errors
    /// As [`Actor::ask`].
    pub async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<()> {
        self.ask(|engine| async move { engine.abort(&self.caller, session, turn).await.map(drop) })
            .await
    }

    /// Ends the session.
    ///
    /// # Errors
    /// As [`Actor::ask`].
    pub async fn close(&self, session: SessionId) -> Result<()> {
        self.ask(|engine| async move { engine.close_session(&self.caller, session).await.map(drop) })
            .await
    }

    /// Deletes the agent. A repetition after a lost answer finds it gone, which is what was wanted.
    ///
    /// # Errors
    /// As [`Actor::ask`].
    pub async fn delete(&self, agent: AgentId) -> Result<()> {
        self.ask(|engine| async move {
            match engine.delete_agent(&self.caller, agent).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                answer => answer,
            }
        })
        .await
    }

    /// Does `script` while the invariants are watched, then ends everything and looks at what is left.
    ///
    /// # Errors
    /// What is broken.
    pub async fn play<F>(&self, script: F) -> Result<(), Broken>
    where
        F: Future<Output = Result<(), Broken>>,
    {
        let mut invariants = Invariants::default();
        let played = async {
            script.await?;
            self.end_all().await
        };
        tokio::select! {
            biased;
            played = played => played?,
            broken = watch(&mut invariants, &self.stage) => return Err(broken),
        }
        invariants.check_end(&self.stage).await
    }

    async fn end_all(&self) -> Result<(), Broken> {
        self.running().wire.repair();
        let all = SessionQuery {
            limit: u32::MAX,
            ..SessionQuery::default()
        };
        let sessions = self.stage.store.list_sessions(all).await;
        for session in sessions.map_err(|error| error.to_string())? {
            self.close(session.id).await.map_err(|error| error.to_string())?;
        }
        let is_over = || async {
            let _ = self.ask(|engine| async move { engine.ready().await }).await;
            let work = self.stage.store.stored_work();
            work.is_empty() && self.stage.remains().await.is_empty() && self.stage.vault.attached().is_empty()
        };
        self.stage.wait_until(PATIENCE, is_over).await;
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when something is broken.
pub(super) async fn watch(invariants: &mut Invariants, stage: &Stage) -> Broken {
    loop {
        if let Err(broken) = invariants.check(stage).await {
            return broken;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
