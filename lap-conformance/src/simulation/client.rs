//! Clients: they do what they like, repeat what was not answered when they like, and check what they are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use lap_core::caller::Caller;
use lap_core::engine::{AgentDefinition, CreateAgent, Engine, OpenSession, SendTurn, StreamItem};
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{AgentId, SessionId, TurnId};
use lap_core::turn::TurnState;

use super::dice::Dice;
use super::process::{Slot, lock};
use super::reader::Reader;
use crate::crash::{Broken, Stage, text};

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    agents: Vec<AgentId>,
    sessions: Vec<SessionId>,
    turns: Vec<(SessionId, TurnId)>,
    /// The one answer of each key.
    answers: BTreeMap<String, String>,
    broken: Option<Broken>,
}

impl Ledger {
    pub(super) fn agents(&self) -> Vec<AgentId> {
        lock(&self.told).agents.clone()
    }

    pub(super) fn turns(&self) -> Vec<(SessionId, TurnId)> {
        lock(&self.told).turns.clone()
    }

    pub(super) fn broken(&self) -> Option<Broken> {
        lock(&self.told).broken.clone()
    }

    fn fail(&self, broken: Broken) {
        lock(&self.told).broken.get_or_insert(broken);
    }

    /// A key has one answer.
    fn answered(&self, key: &str, answer: &str) {
        let known = lock(&self.told)
            .answers
            .entry(key.to_owned())
            .or_insert_with(|| answer.to_owned())
            .clone();
        if known != answer {
            self.fail(format!(
                "the key {key} was answered with {known} and then with {answer}"
            ));
        }
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: usize,
    pub(super) stage: Arc<Stage>,
    pub(super) slots: Vec<Arc<Slot>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) dice: Dice,
}

impl Client {
    pub(super) async fn run(self, steps: u32) {
        let caller = Caller::new(format!("client {}", self.name));
        self.create(&caller, "first").await;
        for step in 0..steps {
            tokio::time::sleep(self.dice.up_to(Duration::from_secs(6))).await;
            let key = format!("{}-{step}", self.name);
            match self.dice.below(20) {
                0 => self.create(&caller, &key).await,
                1..=5 => self.open(&caller, &key).await,
                6..=11 => self.send(&caller, &key).await,
                12..=13 => self.abort(&caller).await,
                14 => self.close(&caller).await,
                15..=17 => self.read().await,
                18 => self.messages().await,
                _ if self.dice.chance(300) => self.delete(&caller).await,
                _ => tokio::time::sleep(Duration::from_secs(30)).await,
            }
        }
    }

    /// Asks some engine. `None`: there was no answer, and the client gave up.
    async fn ask<T, F>(&self, verb: &'static str, call: impl Fn(Engine) -> F) -> Option<Result<T>>
    where
        F: Future<Output = Result<T>>,
    {
        for _ in 0..6 {
            let slot = self.dice.pick(&self.slots)?;
            if let Some(alive) = slot.alive() {
                let _underway = slot.begin(verb);
                let answer = tokio::select! {
                    biased;
                    () = alive.wire.crashed() => None,
                    answer = call(alive.engine.clone()) => Some(answer),
                    () = tokio::time::sleep(Duration::from_secs(40)) => None,
                };
                match answer {
                    Some(Err(error)) if error.kind() == ErrorKind::Unavailable => {}
                    Some(answer) => return Some(answer),
                    None => {}
                }
            }
            if self.dice.chance(250) {
                return None;
            }
            tokio::time::sleep(self.dice.up_to(Duration::from_secs(3))).await;
        }
        None
    }

    fn unexpected(&self, verb: &str, error: &Error) {
        self.ledger.fail(format!("{verb} answers {error:?}"));
    }

    async fn create(&self, caller: &Caller, key: &str) {
        let new = CreateAgent {
            definition: AgentDefinition {
                model: "m".to_owned(),
                ..AgentDefinition::default()
            },
            idempotency_key: Some(key.to_owned()),
        };
        let created = self.ask("create", |engine| {
            let new = new.clone();
            async move { engine.create_agent(caller, new).await }
        });
        match created.await {
            Some(Ok(agent)) => {
                self.ledger
                    .answered(&format!("create {} {key}", self.name), &agent.id.to_string());
                lock(&self.ledger.told).agents.push(agent.id);
            }
            Some(Err(error)) => self.unexpected("create", &error),
            None => {}
        }
    }

    async fn open(&self, caller: &Caller, key: &str) {
        let agents = self.ledger.agents();
        let Some(agent) = self.dice.pick(&agents) else {
            return;
        };
        let open = OpenSession {
            prompt: self.dice.chance(500).then(|| text(&self.words())),
            idempotency_key: Some(key.to_owned()),
            ..OpenSession::with(*agent)
        };
        let repetitions = 1 + self.dice.below(2);
        for _ in 0..repetitions {
            let opened = self.ask("open", |engine| {
                let open = open.clone();
                async move { engine.open_session(caller, open).await }
            });
            match opened.await {
                Some(Ok(session)) => {
                    self.ledger
                        .answered(&format!("open {} {key}", self.name), &session.id.to_string());
                    lock(&self.ledger.told).sessions.push(session.id);
                }
                Some(Err(error)) if error.kind() == ErrorKind::NotFound => {}
                Some(Err(error)) => self.unexpected("open", &error),
                None => {}
            }
        }
    }

    fn words(&self) -> String {
        match self.dice.below(12) {
            0..=4 => format!("say {}", self.dice.below(1000)),
            5..=8 => format!("SLOW {}", 1 + self.dice.below(30)),
            9 => "FAIL on purpose".to_owned(),
            10 => "HANG".to_owned(),
            _ => "w ".repeat(1500),
        }
    }

    fn session(&self) -> Option<SessionId> {
        let sessions = lock(&self.ledger.told).sessions.clone();
        // The newest are the most interesting.
        let recent = &sessions[sessions.len().saturating_sub(5)..];
        self.dice.pick(recent).copied()
    }

    async fn send(&self, caller: &Caller, key: &str) {
        let Some(session) = self.session() else { return };
        for burst in 0..1 + self.dice.below(4) {
            let key = format!("{key}.{burst}");
            let send = SendTurn {
                session,
                parts: text(&self.words()),
                model: None,
                idempotency_key: Some(key.clone()),
            };
            let sent = self.ask("send", |engine| {
                let send = send.clone();
                async move { engine.send_turn(caller, send).await }
            });
            match sent.await {
                Some(Ok(turn)) => {
                    let key = format!("send {} {key}", self.name);
                    self.ledger.answered(&key, &turn.id.to_string());
                    lock(&self.ledger.told).turns.push((session, turn.id));
                }
                Some(Err(error)) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::Busy) => {}
                Some(Err(error)) => self.unexpected("send", &error),
                None => {}
            }
        }
    }

    async fn abort(&self, caller: &Caller) {
        let Some(session) = self.session() else { return };
        let turns: Vec<_> = self
            .ledger
            .turns()
            .into_iter()
            .filter(|(of, _)| *of == session)
            .collect();
        let one = self
            .dice
            .pick(&turns)
            .filter(|_| self.dice.chance(500))
            .map(|(_, turn)| *turn);
        let asked = self.ask("abort", |engine| async move {
            engine
                .abort(caller, session, one)
                .await
                .map(|aborting| aborting.open)
        });
        match asked.await {
            Some(Ok(Some(open))) => self.is_stopped(session, open.id).await,
            Some(Ok(None)) | None => {}
            Some(Err(error)) => self.unexpected("abort", &error),
        }
    }

    /// A turn that was asked to stop stops, as long as some process works.
    async fn is_stopped(&self, session: SessionId, turn: TurnId) {
        let stopped = self.stage.wait_until(Duration::from_secs(900), || async {
            let found = self.stage.front.turn(turn).await;
            found.is_ok_and(|found| found.is_some_and(|found| found.state.is_terminal()))
        });
        if !stopped.await {
            let found = self.stage.front.turn(turn).await;
            let work = self.stage.store.stored_work();
            let work: Vec<_> = work
                .iter()
                .filter(|item| item.key == session.to_string())
                .collect();
            self.ledger.fail(format!(
                "a turn does not stop though somebody asked for it: {found:?}, with the work {work:?}"
            ));
        }
    }

    async fn close(&self, caller: &Caller) {
        let Some(session) = self.session() else { return };
        let closed = self.ask("close", |engine| async move {
            engine.close_session(caller, session).await
        });
        match closed.await {
            Some(Ok(_)) => {
                let found = self.stage.front.session(session).await;
                if found.is_ok_and(|found| found.is_some_and(|found| found.state.is_active())) {
                    self.ledger.fail(format!("{session} was closed and is active"));
                }
            }
            Some(Err(error)) => self.unexpected("close", &error),
            None => {}
        }
    }

    async fn delete(&self, caller: &Caller) {
        let agents = self.ledger.agents();
        let Some(agent) = self.dice.pick(&agents) else {
            return;
        };
        let deleted = self.ask("delete", |engine| async move {
            engine.delete_agent(caller, *agent).await
        });
        match deleted.await {
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => self.unexpected("delete", &error),
            _ => {}
        }
    }

    async fn messages(&self) {
        let Some(session) = self.session() else { return };
        let read = self.ask("messages", |engine| async move { engine.messages(session).await });
        if let Some(Err(error)) = read.await {
            self.unexpected("messages", &error);
        }
    }

    /// Reads a stream for a while, over the ends of processes.
    async fn read(&self) {
        let Some(session) = self.session() else { return };
        let mut reader = Reader::from(self.dice.chance(700).then_some(0));
        let until = tokio::time::Instant::now() + self.dice.up_to(Duration::from_secs(90));
        while tokio::time::Instant::now() < until {
            let Some(alive) = self.dice.pick(&self.slots).and_then(|slot| slot.alive()) else {
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            };
            let reading = self.follow(&alive.engine, session, &mut reader);
            let ended = tokio::select! {
                biased;
                () = alive.wire.crashed() => None,
                () = tokio::time::sleep_until(until) => return,
                ended = reading => Some(ended),
            };
            match ended {
                Some(Err(broken)) => return self.ledger.fail(broken),
                Some(Ok(true)) => return,
                Some(Ok(false)) | None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Reads one connection to its end; `true` when the session has ended.
    async fn follow(&self, engine: &Engine, session: SessionId, reader: &mut Reader) -> Result<bool, Broken> {
        let Ok(mut stream) = engine.stream(session, reader.last).await else {
            return Ok(false);
        };
        let from_start = reader.last == Some(0);
        let mut drains = false;
        while let Some(item) = stream.next().await {
            let Ok(item) = item else { return Ok(false) };
            drains |= matches!(item, StreamItem::Draining { .. });
            let described = || format!("a reader of {session}, from the start: {from_start}");
            reader
                .take(&item)
                .map_err(|broken| format!("{}: {broken}", described()))?;
            if let StreamItem::Event(event) = &item
                && event.kind == "turn.finished"
                && let Some(turn) = event.turn
            {
                self.knows_reply(reader, turn).await?;
            }
            if self.dice.chance(20) {
                // A slow reader.
                tokio::time::sleep(self.dice.up_to(Duration::from_secs(10))).await;
            }
        }
        if drains {
            return Ok(false);
        }
        let found = self.stage.front.session(session).await;
        match found {
            Ok(Some(found)) if found.state.is_active() => {
                Err(format!("a stream of the active {session} ended"))
            }
            _ => Ok(true),
        }
    }

    /// Who has read a turn to its end knows its whole text.
    async fn knows_reply(&self, reader: &Reader, turn: TurnId) -> Result<(), Broken> {
        let Ok(Some(found)) = self.stage.front.turn(turn).await else {
            return Ok(());
        };
        let Some(part) = found.reply.as_ref().map(|reply| &reply["parts"][0]) else {
            return Ok(());
        };
        let id = part["id"].as_str().unwrap_or_default();
        let length = part["text"].as_str().unwrap_or_default().len() as u64;
        match reader.known(id) {
            Some(known) if known != length && found.state == TurnState::Completed => Err(format!(
                "a reader knows {known} of {length} bytes at the end of {turn}"
            )),
            _ => Ok(()),
        }
    }
}
