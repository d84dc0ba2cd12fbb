use std::collections::BTreeMap;

use lap_core::event::Event;
use lap_core::id::{SandboxId, SessionId, TurnId};
use lap_core::memory::StoredWork;
use lap_core::sandbox::{Place, Sandbox};
use lap_core::session::{Session, SessionState};
use lap_core::store::{SessionQuery, TurnQuery};
use lap_core::turn::Turn;

use super::log::Log;
use super::rows;
use super::stage::Stage;

/// What was found broken, in words.
pub type Broken = String;

/// Everything stored at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every session.
    pub sessions: BTreeMap<SessionId, Session>,
    /// Every sandbox that is not gone.
    pub sandboxes: BTreeMap<SandboxId, Sandbox>,
    /// The turns of every session, oldest first.
    pub turns: BTreeMap<SessionId, Vec<Turn>>,
    /// Every work item.
    pub work: Vec<StoredWork>,
}

/// What must hold at every moment, and when everything is over. It remembers what it has seen, so that what must not
/// change cannot change unnoticed.
#[derive(Debug, Default)]
pub struct Invariants {
    logs: BTreeMap<SessionId, Log>,
    ended: BTreeMap<TurnId, Turn>,
}

impl Snapshot {
    /// Reads it all. Nothing else runs meanwhile in a single-threaded runtime, because a memory store never waits.
    ///
    /// # Errors
    /// What the store says.
    pub async fn of(stage: &Stage) -> Result<Self, Broken> {
        let said = |error: lap_core::Error| format!("the store cannot be read: {error}");
        let query = SessionQuery {
            limit: u32::MAX,
            ..SessionQuery::default()
        };
        let sessions = stage.front.list_sessions(query).await.map_err(said)?;
        let mut turns = BTreeMap::new();
        for session in &sessions {
            let query = TurnQuery {
                session: session.id,
                after: 0,
                limit: u32::MAX,
            };
            turns.insert(session.id, stage.front.list_turns(query).await.map_err(said)?);
        }
        let sandboxes = stage.front.sandboxes_at(Place::Cluster).await.map_err(said)?;
        Ok(Self {
            sessions: sessions
                .into_iter()
                .map(|session| (session.id, session))
                .collect(),
            sandboxes: sandboxes
                .into_iter()
                .map(|sandbox| (sandbox.id, sandbox))
                .collect(),
            turns,
            work: stage.store.stored_work(),
        })
    }
}

impl Invariants {
    /// Everything that holds at every moment.
    ///
    /// # Errors
    /// What is broken.
    pub async fn check(&mut self, stage: &Stage) -> Result<Snapshot, Broken> {
        let snapshot = Snapshot::of(stage).await?;
        rows::check(&snapshot)?;
        for session in snapshot.sessions.keys() {
            let log = self.logs.entry(*session).or_default();
            let page = stage.front.events(*session, log.head(), u32::MAX).await;
            let page = page.ok().flatten();
            let page = page.ok_or_else(|| format!("the log of {session} cannot be read"))?;
            page.events.iter().try_for_each(|event: &Event| log.take(event))?;
            if log.head() != page.head {
                return Err(format!(
                    "{session} has {} events, and {} are read",
                    page.head,
                    log.head()
                ));
            }
        }
        for turn in snapshot.turns.values().flatten() {
            self.check_turn(stage, turn)?;
        }
        for session in snapshot
            .sessions
            .values()
            .filter(|session| session.state == SessionState::Ready)
        {
            let address = session.sandbox.map(|sandbox| stage.world.address(sandbox));
            if session.address != address {
                return Err(format!(
                    "a session has the address of another sandbox: {session:?}"
                ));
            }
        }
        for sandbox in stage.world.launched() {
            if !matches!(stage.front.sandbox(sandbox).await, Ok(Some(_))) {
                return Err(format!("{sandbox} exists and has no row"));
            }
        }
        Ok(snapshot)
    }

    fn check_turn(&mut self, stage: &Stage, turn: &Turn) -> Result<(), Broken> {
        let delivered = stage.world.deliveries(turn.id);
        if let Some((sandbox, count)) = delivered.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{} was delivered {count} times to {sandbox}", turn.id));
        }
        let log = self.logs.get(&turn.session);
        log.ok_or_else(|| format!("{} has no log", turn.session))?
            .check_turn(turn)?;
        if turn.state.is_terminal() {
            let first = self.ended.entry(turn.id).or_insert_with(|| turn.clone());
            if first != turn {
                return Err(format!("an outcome changed: from {first:?} to {turn:?}"));
            }
        } else if let Some(ended) = self.ended.get(&turn.id) {
            return Err(format!(
                "{} had the outcome {:?} and is open again",
                turn.id, ended.state
            ));
        }
        Ok(())
    }

    /// Everything that holds when every session has ended, every engine works and time enough has passed.
    ///
    /// # Errors
    /// What is broken.
    pub async fn check_end(&mut self, stage: &Stage) -> Result<(), Broken> {
        let snapshot = self.check(stage).await?;
        if let Some(session) = snapshot
            .sessions
            .values()
            .find(|session| session.state.is_active())
        {
            return Err(format!("a session is left: {session:?}"));
        }
        let open = snapshot.turns.values().flatten();
        if let Some(turn) = open.into_iter().find(|turn| !turn.state.is_terminal()) {
            return Err(format!("a turn has no outcome: {turn:?}"));
        }
        if let Some(sandbox) = snapshot.sandboxes.values().next() {
            return Err(format!("a sandbox is not gone: {sandbox:?}"));
        }
        if let Some(item) = snapshot.work.first() {
            return Err(format!("a work item is left: {item:?}"));
        }
        if let Some(sandbox) = stage.remains().await.first() {
            return Err(format!("something of {sandbox} is left in the runtime"));
        }
        if let Some(sandbox) = stage.vault.attached().first() {
            return Err(format!("{sandbox} is still attached to the vault"));
        }
        Ok(())
    }
}
