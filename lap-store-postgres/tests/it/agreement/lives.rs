//! Random calls about agents, sessions and turns.

use std::time::Duration;

use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::event::NewEvent;
use lap_core::id::{AgentId, SandboxId, SessionId, TurnId};
use lap_core::seal::Sealed;
use lap_core::session::{EndedBy, Phase};
use lap_core::store::*;
use lap_core::turn::{Outcome, TurnState, Usage};
use serde_json::json;

use super::compare::{both, both_under, comparable};
use super::world::World;

/// One random call each.
impl World {
    pub(crate) async fn agents(&mut self) {
        match self.below(7) {
            0 | 1 => {
                if !self.chance(5) {
                    self.agents.push(AgentId::fresh(&self.entropy, self.now()));
                }
                let new = NewAgent {
                    id: self.pick(&self.agents),
                    spec: self.spec(),
                    blueprint_hash: BlueprintHash::from_text(format!("blueprint-{}", self.below(2))),
                    created_by: "ui".to_owned(),
                    idempotency: self.chance(3).then(|| self.request("create_agent", "")),
                };
                let _ = both!(self, create_agent(new));
            }
            2 => {
                let update = AgentUpdate {
                    id: self.pick(&self.agents),
                    expected_version: 1 + self.below(3) as u64,
                    spec: self.spec(),
                    blueprint_hash: BlueprintHash::from_text("blueprint-0"),
                };
                let _ = both!(self, update_agent(update));
            }
            3 if self.chance(6) => {
                let _ = both!(self, delete_agent(self.pick(&self.agents)));
            }
            4 => {
                let _ = both!(self, agent(self.pick(&self.agents)));
            }
            _ => {
                let orders = [
                    AgentOrder::CreatedAt,
                    AgentOrder::Name,
                    AgentOrder::Harness,
                    AgentOrder::Sessions,
                ];
                let search = ["", "paint", "PAINT", "built", "%", "_", "ä", "Ä"][self.below(8)];
                let query = AgentQuery {
                    search: self.chance(2).then(|| search.to_owned()),
                    order: orders[self.below(4)],
                    descending: self.chance(2),
                    limit: self.below(6) as u32,
                    offset: self.below(3) as u32,
                };
                let _ = both!(self, list_agents(query));
            }
        }
    }

    pub(crate) async fn open(&mut self) {
        let agent = self.pick(&self.agents);
        if !self.chance(10) {
            self.sessions.push(SessionId::fresh(&self.entropy, self.now()));
        }
        self.sandboxes.push(SandboxId::fresh(&self.entropy, self.now()));
        let version = self
            .memory
            .agent(agent)
            .await
            .unwrap()
            .map_or(1, |agent| agent.version);
        let session = self.pick(&self.sessions);
        let mut request = self.request("open", agent);
        if !self.chance(4) {
            request.key = session.to_string();
        }
        let open = Open {
            session,
            agent,
            agent_version: if self.chance(8) { version + 1 } else { version },
            platform_hash: PlatformHash::from_text("platform"),
            cold_sandbox: self.sandboxes[self.sandboxes.len() - 1],
            place: self.places[self.below(3)],
            worker: self.workers[self.below(2)],
            title: self.chance(2).then(|| "a title".to_owned()),
            opening: Sealed::from_text(format!("plain:{}", self.step)),
            first_turn: self.chance(2).then(|| {
                self.turns.push(TurnId::fresh(&self.entropy, self.now()));
                NewTurn {
                    id: self.turns[self.turns.len() - 1],
                    ..self.new_turn()
                }
            }),
            idempotency: request,
            created_by: "ui".to_owned(),
        };
        let taken = match &open.first_turn {
            Some(turn) => self.memory.turn(turn.id).await.unwrap().is_some(),
            None => false,
        };
        if taken {
            return;
        }
        let (memory, postgres) = both!(self, open(open));
        let item = |opened| match opened {
            Ok(Opened::Warm(opened) | Opened::Cold(opened)) => opened.work,
            _ => None,
        };
        self.keep(item(memory), item(postgres));
    }

    pub(crate) async fn advance(&mut self) {
        let Some(pair) = self.item(WorkKind::BringUp) else {
            return;
        };
        let session = if self.chance(10) {
            self.pick(&self.sessions)
        } else {
            pair.0.key().parse().unwrap_or(self.sessions[0])
        };
        let step = match self.below(6) {
            0 | 1 => Step::Phase(
                Phase::ALL[self.below(9)],
                self.chance(2).then(|| format!("detail {}", self.below(2))),
            ),
            2 => Step::Failed("it broke".to_owned()),
            _ => Step::Ready {
                conversation: format!("conversation-{}", self.step),
                address: "127.0.0.1:1".to_owned(),
                reap_after: Duration::from_secs(self.below(60) as u64),
            },
        };
        let make = |item: &WorkItem| Advance {
            session,
            hold: item.hold.clone(),
            step: step.clone(),
        };
        let (memory, postgres) = both_under!(self, pair, advance(make));
        let item = |advanced| match advanced {
            Advanced::Done(_, Some((_, item))) => Some(item),
            _ => None,
        };
        self.keep(item(memory), item(postgres));
    }

    pub(crate) async fn accept(&mut self) {
        let session = self.pick(&self.sessions);
        let accept = Accept {
            session,
            turn: self.new_turn(),
            queue_limit: self.below(4) as u32,
            worker: self.workers[self.below(2)],
            place: self.places[self.below(3)],
            idempotency: self.chance(3).then(|| self.request("accept", session)),
        };
        let (memory, postgres) = both!(self, accept(accept));
        let item = |accepted| match accepted {
            Ok(Accepted::Started(_, item)) => item,
            _ => None,
        };
        self.keep(item(memory), item(postgres));
    }

    pub(crate) async fn turns(&mut self) {
        let Some(pair) = self.item(WorkKind::Turn) else {
            return;
        };
        let session: SessionId = pair.0.key().parse().unwrap_or(self.sessions[0]);
        match self.below(5) {
            0 => {
                let (memory, postgres) = (
                    self.memory.begin(session, &pair.0.hold).await.unwrap(),
                    self.postgres.begin(session, &pair.1.hold).await.unwrap(),
                );
                assert_eq!(memory, postgres, "begin in step {}", self.step);
            }
            1 => {
                let only = self.chance(2).then(|| self.pick(&self.turns));
                let _ = both!(self, abort(session, only));
            }
            _ => {
                let query = TurnQuery {
                    session,
                    after: 0,
                    limit: 1000,
                };
                let all = self.memory.list_turns(query).await.unwrap();
                let open = all.iter().find(|turn| turn.state.is_open()).map(|turn| turn.id);
                let turn = open.unwrap_or_else(|| self.pick(&self.turns));
                let outcome = Outcome {
                    state: TurnState::ALL[self.below(7)],
                    failure: self.chance(2).then(|| "why".to_owned()),
                    reply: self
                        .chance(2)
                        .then(|| json!({ "info": { "b": 1, "a": "ü\u{0}" }, "parts": [] })),
                    usage: Usage {
                        input_tokens: 3,
                        output_tokens: 4,
                        cost: 0.25,
                    },
                };
                let make = |item: &WorkItem| Finish {
                    turn,
                    hold: item.hold.clone(),
                    outcome: outcome.clone(),
                };
                let memory = self
                    .memory
                    .finish(make(&pair.0))
                    .await
                    .map_err(|error| error.to_string());
                let postgres = self
                    .postgres
                    .finish(make(&pair.1))
                    .await
                    .map_err(|error| error.to_string());
                assert_eq!(memory, postgres, "finish in step {}", self.step);
            }
        }
    }

    pub(crate) async fn append(&mut self) {
        let session = self.pick(&self.sessions);
        let pair = self.item(WorkKind::Turn).filter(|_| self.chance(2));
        let source = self.sandboxes[0];
        let expected = self.memory.cursor(session, source).await.unwrap() + u64::from(self.chance(5));
        let ingest = self.chance(2).then(|| Ingest {
            source,
            expected,
            cursor: expected + 3,
        });
        let running = self.chance(2).then(|| self.pick(&self.turns));
        let events: Vec<_> = (0..self.below(4))
            .map(|number| NewEvent {
                kind: "message.part.delta".to_owned(),
                turn: running,
                body: json!({ "delta": format!("\"{number}\" ü \u{0}"), "z": 1.5, "a": [null, true] }),
                origin: self.chance(2).then_some(number as u64),
            })
            .collect();
        let make = |hold: Option<Hold>| {
            let one = Append {
                session,
                hold,
                ingest,
                running,
                events: events.clone(),
            };
            vec![
                one.clone(),
                Append {
                    ingest: None,
                    running: None,
                    ..one
                },
            ]
        };
        let (left, right) = pair.map(|(left, right)| (left.hold, right.hold)).unzip();
        let memory = self.memory.append(make(left)).await.unwrap();
        let postgres = self.postgres.append(make(right)).await.unwrap();
        assert_eq!(memory, postgres, "append in step {}", self.step);
    }

    pub(crate) async fn ends(&mut self) {
        match self.below(6) {
            0 | 1 => {
                let end = End {
                    session: self.pick(&self.sessions),
                    by: EndedBy::ALL[self.below(4)],
                    reason: self.chance(2).then(|| "enough".to_owned()),
                    only_if_idle_for: (!self.chance(3)).then(|| Duration::from_secs(self.below(20) as u64)),
                };
                let _ = both!(self, end(end));
            }
            2 => {
                let _ = both!(self, lose_sandbox(self.pick(&self.sandboxes), "it vanished"));
            }
            3 => {
                let _ = both!(self, bury_sandbox(self.pick(&self.sandboxes)));
            }
            4 => {
                let sessions = vec![self.pick(&self.sessions), self.pick(&self.sessions)];
                self.memory.touch(&sessions).await.unwrap();
                self.postgres.touch(&sessions).await.unwrap();
            }
            _ => {
                let Some(pair) = self.item(WorkKind::BringUp) else {
                    return;
                };
                let session: SessionId = pair.0.key().parse().unwrap_or(self.sessions[0]);
                let current = self
                    .memory
                    .session(session)
                    .await
                    .unwrap()
                    .and_then(|session| session.sandbox);
                self.sandboxes.push(SandboxId::fresh(&self.entropy, self.now()));
                let (warm, cold) = (self.chance(2), self.sandboxes[self.sandboxes.len() - 1]);
                let (broken, place) = (current.unwrap_or(cold), self.places[self.below(3)]);
                let make = |item: &WorkItem| Replace {
                    session,
                    hold: item.hold.clone(),
                    broken,
                    reason: "mute".to_owned(),
                    cold_sandbox: cold,
                    place,
                    warm,
                };
                both_under!(self, pair, replace_sandbox(make));
            }
        }
    }
}
