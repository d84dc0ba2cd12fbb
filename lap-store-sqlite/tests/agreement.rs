//! The memory store is the executable specification: under the same calls, SQLite answers the same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use lap_conformance::ManualClock;
use lap_core::agent::AgentSpec;
use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::event::NewEvent;
use lap_core::id::{AgentId, Entropy as _, HostId, RecordId, SandboxId, SeededEntropy, SessionId, TurnId, WorkerId};
use lap_core::memory::MemoryStore;
use lap_core::sandbox::Place;
use lap_core::seal::Sealed;
use lap_core::session::{EndedBy, Phase, SessionState};
use lap_core::store::*;
use lap_core::time::{Clock as _, Timestamp};
use lap_core::turn::{Outcome, TurnState, Usage};
use lap_store_sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;

/// Both stores, and everything that was made in them.
struct World {
    memory: MemoryStore,
    sqlite: SqliteStore,
    clock: ManualClock,
    entropy: SeededEntropy,
    agents: Vec<AgentId>,
    sandboxes: Vec<SandboxId>,
    sessions: Vec<SessionId>,
    turns: Vec<TurnId>,
    records: Vec<RecordId>,
    workers: [WorkerId; 2],
    places: [Place; 3],
    /// Held items, as memory and as SQLite gave them: fences may differ, their order may not.
    items: Vec<(WorkItem, WorkItem)>,
    step: usize,
}

/// Fences are drawn in another order when several items are taken at once.
fn comparable(answer: &impl Debug) -> String {
    let mut text = String::new();
    let whole = format!("{answer:?}");
    let mut parts = whole.split("fence: ");
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        text.push_str("fence");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    text
}

macro_rules! both {
    ($world:expr, $method:ident($first:expr $(, $more:expr)*)) => {{
        // Arguments are random, so they are made once.
        let first = $first;
        let (left, right) = both!(@more $world, $method, first; $($more),*);
        assert_eq!(
            left.as_ref().map(comparable).map_err(ToString::to_string),
            right.as_ref().map(comparable).map_err(ToString::to_string),
            "{} in step {}", stringify!($method), $world.step
        );
        (left, right)
    }};
    (@more $world:expr, $method:ident, $first:ident;) => {
        ($world.memory.$method($first.clone()).await, $world.sqlite.$method($first).await)
    };
    (@more $world:expr, $method:ident, $first:ident; $second:expr) => {{
        let second = $second;
        ($world.memory.$method($first, second).await, $world.sqlite.$method($first, second).await)
    }};
    (@more $world:expr, $method:ident, $first:ident; $second:expr, $third:expr) => {{
        let (second, third) = ($second, $third);
        ($world.memory.$method($first, second, third).await, $world.sqlite.$method($first, second, third).await)
    }};
}

/// The same, with arguments that depend on an item.
macro_rules! both_under {
    ($world:expr, $items:expr, $method:ident($make:expr)) => {{
        let (left, right): &(WorkItem, WorkItem) = &$items;
        let make = $make;
        let memory = $world.memory.$method(make(left)).await;
        let sqlite = $world.sqlite.$method(make(right)).await;
        assert_eq!(
            memory.as_ref().map(comparable).map_err(ToString::to_string),
            sqlite.as_ref().map(comparable).map_err(ToString::to_string),
            "{} in step {}", stringify!($method), $world.step
        );
        (memory.unwrap(), sqlite.unwrap())
    }};
}

impl World {
    async fn new(seed: u64, folder: &std::path::Path) -> Self {
        let clock = ManualClock::default();
        let entropy = SeededEntropy::new(seed);
        let now = clock.now();
        let options = SqliteOptions::new(folder.join("lap.db"), Arc::new(clock.clone()));
        Self {
            memory: MemoryStore::new(Arc::new(clock.clone())),
            sqlite: SqliteStore::open(options).await.unwrap(),
            agents: vec![AgentId::fresh(&entropy, now)],
            sandboxes: vec![SandboxId::fresh(&entropy, now)],
            sessions: vec![SessionId::fresh(&entropy, now)],
            turns: vec![TurnId::fresh(&entropy, now)],
            records: vec![RecordId::fresh(&entropy, now)],
            workers: [WorkerId::fresh(&entropy, now), WorkerId::fresh(&entropy, now)],
            places: [
                Place::Host(HostId::fresh(&entropy, now)),
                Place::Host(HostId::fresh(&entropy, now)),
                Place::Cluster,
            ],
            items: Vec::new(),
            step: 0,
            clock,
            entropy,
        }
    }

    fn below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % bound as u64).unwrap()
    }

    fn chance(&self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Mostly a recent one, so that steps meet.
    fn pick<T: Copy>(&self, of: &[T]) -> T {
        let recent = of.len().min(4);
        if self.chance(5) { of[self.below(of.len())] } else { of[of.len() - 1 - self.below(recent)] }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn request(&self, operation: &'static str, parent: impl ToString) -> Idempotency {
        Idempotency {
            principal: "ui".to_owned(),
            operation,
            parent: parent.to_string(),
            key: format!("key-{}", self.below(40)),
            body_hash: format!("body-{}", usize::from(self.chance(4))),
        }
    }

    fn spec(&self) -> AgentSpec {
        let names = ["Painter", "painter 2", "ÄRZTE", "a%b_c"];
        AgentSpec {
            name: (!self.chance(4)).then(|| names[self.below(names.len())].to_owned()),
            harness: ["opencode", "BuiltIn"][self.below(2)].to_owned(),
            model: format!("model-{}", self.below(9)),
            ..AgentSpec::default()
        }
    }

    fn new_turn(&mut self) -> NewTurn {
        if !self.chance(8) {
            self.turns.push(TurnId::fresh(&self.entropy, self.now()));
        }
        NewTurn {
            id: self.pick(&self.turns),
            parts: vec![json!({ "type": "text", "text": format!("do\n the  {} thing", self.step) })],
            model: self.chance(3).then(|| "other".to_owned()),
            created_by: "ui".to_owned(),
        }
    }

    fn keep(&mut self, memory: Option<WorkItem>, sqlite: Option<WorkItem>) {
        if let (Some(memory), Some(sqlite)) = (memory, sqlite) {
            self.items.push((memory, sqlite));
        }
    }

    /// A held item of the kind, or at times one that is held no longer.
    fn item(&self, kind: WorkKind) -> Option<(WorkItem, WorkItem)> {
        let of_kind: Vec<_> = self.items.iter().filter(|(item, _)| item.hold.kind == kind).collect();
        if of_kind.is_empty() {
            return None;
        }
        let recent = of_kind.len().min(6);
        Some(of_kind[of_kind.len() - 1 - self.below(recent)].clone())
    }
}

/// One random call each.
impl World {
    async fn agents(&mut self) {
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
                let orders =
                    [AgentOrder::CreatedAt, AgentOrder::Name, AgentOrder::Harness, AgentOrder::Sessions];
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

    async fn open(&mut self) {
        let agent = self.pick(&self.agents);
        if !self.chance(10) {
            self.sessions.push(SessionId::fresh(&self.entropy, self.now()));
        }
        self.sandboxes.push(SandboxId::fresh(&self.entropy, self.now()));
        let version = self.memory.agent(agent).await.unwrap().map_or(1, |agent| agent.version);
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
                NewTurn { id: self.turns[self.turns.len() - 1], ..self.new_turn() }
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
        let (memory, sqlite) = both!(self, open(open));
        let item = |opened| match opened {
            Ok(Opened::Warm(opened) | Opened::Cold(opened)) => opened.work,
            _ => None,
        };
        self.keep(item(memory), item(sqlite));
    }

    async fn advance(&mut self) {
        let Some(pair) = self.item(WorkKind::BringUp) else { return };
        let session = if self.chance(10) { self.pick(&self.sessions) } else { pair.0.key().parse().unwrap_or(self.sessions[0]) };
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
        let make = |item: &WorkItem| Advance { session, hold: item.hold.clone(), step: step.clone() };
        let (memory, sqlite) = both_under!(self, pair, advance(make));
        let item = |advanced| match advanced {
            Advanced::Done(_, Some((_, item))) => Some(item),
            _ => None,
        };
        self.keep(item(memory), item(sqlite));
    }

    async fn accept(&mut self) {
        let session = self.pick(&self.sessions);
        let accept = Accept {
            session,
            turn: self.new_turn(),
            queue_limit: self.below(4) as u32,
            worker: self.workers[self.below(2)],
            place: self.places[self.below(3)],
            idempotency: self.chance(3).then(|| self.request("accept", session)),
        };
        let (memory, sqlite) = both!(self, accept(accept));
        let item = |accepted| match accepted {
            Ok(Accepted::Started(_, item)) => item,
            _ => None,
        };
        self.keep(item(memory), item(sqlite));
    }

    async fn turns(&mut self) {
        let Some(pair) = self.item(WorkKind::Turn) else { return };
        let session: SessionId = pair.0.key().parse().unwrap_or(self.sessions[0]);
        match self.below(5) {
            0 => {
                let (memory, sqlite) = (
                    self.memory.begin(session, &pair.0.hold).await.unwrap(),
                    self.sqlite.begin(session, &pair.1.hold).await.unwrap(),
                );
                assert_eq!(memory, sqlite, "begin in step {}", self.step);
            }
            1 => {
                let only = self.chance(2).then(|| self.pick(&self.turns));
                let _ = both!(self, abort(session, only));
            }
            _ => {
                let query = TurnQuery { session, after: 0, limit: 1000 };
                let all = self.memory.list_turns(query).await.unwrap();
                let open = all.iter().find(|turn| turn.state.is_open()).map(|turn| turn.id);
                let turn = open.unwrap_or_else(|| self.pick(&self.turns));
                let outcome = Outcome {
                    state: TurnState::ALL[self.below(7)],
                    failure: self.chance(2).then(|| "why".to_owned()),
                    reply: self.chance(2).then(|| json!({ "info": { "b": 1, "a": "ü\u{0}" }, "parts": [] })),
                    usage: Usage { input_tokens: 3, output_tokens: 4, cost: 0.25 },
                };
                let make =
                    |item: &WorkItem| Finish { turn, hold: item.hold.clone(), outcome: outcome.clone() };
                let memory = self.memory.finish(make(&pair.0)).await.map_err(|error| error.to_string());
                let sqlite = self.sqlite.finish(make(&pair.1)).await.map_err(|error| error.to_string());
                assert_eq!(memory, sqlite, "finish in step {}", self.step);
            }
        }
    }

    async fn append(&mut self) {
        let session = self.pick(&self.sessions);
        let pair = self.item(WorkKind::Turn).filter(|_| self.chance(2));
        let source = self.sandboxes[0];
        let expected = self.memory.cursor(session, source).await.unwrap() + u64::from(self.chance(5));
        let ingest = self.chance(2).then(|| Ingest { source, expected, cursor: expected + 3 });
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
            let one = Append { session, hold, ingest, running, events: events.clone() };
            vec![one.clone(), Append { ingest: None, running: None, ..one }]
        };
        let (left, right) = pair.map(|(left, right)| (left.hold, right.hold)).unzip();
        let memory = self.memory.append(make(left)).await.unwrap();
        let sqlite = self.sqlite.append(make(right)).await.unwrap();
        assert_eq!(memory, sqlite, "append in step {}", self.step);
    }

    async fn ends(&mut self) {
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
                self.sqlite.touch(&sessions).await.unwrap();
            }
            _ => {
                let Some(pair) = self.item(WorkKind::BringUp) else { return };
                let session: SessionId = pair.0.key().parse().unwrap_or(self.sessions[0]);
                let current = self.memory.session(session).await.unwrap().and_then(|session| session.sandbox);
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

    async fn pool(&mut self) {
        if self.chance(2) {
            self.sandboxes.push(SandboxId::fresh(&self.entropy, self.now()));
            let new = NewSandbox {
                id: self.pick(&self.sandboxes),
                blueprint_hash: BlueprintHash::from_text(format!("blueprint-{}", self.below(2))),
                platform_hash: PlatformHash::from_text("platform"),
                place: self.places[self.below(3)],
            };
            let _ = both!(self, plan_sandbox(new));
        } else {
            let _ = both!(self, warm_sandbox(self.pick(&self.sandboxes), "127.0.0.1:2"));
        }
    }

    async fn work(&mut self) {
        match self.below(9) {
            0 | 1 => {
                let take = Take {
                    worker: self.workers[self.below(2)],
                    kinds: WorkKind::ALL[..1 + self.below(8)].to_vec(),
                    places: self.places[..self.below(4)].to_vec(),
                    limit: 1000,
                };
                let by_key = |items: Vec<WorkItem>| -> BTreeMap<_, _> {
                    items.into_iter().map(|item| ((item.hold.kind, item.key().to_owned()), item)).collect()
                };
                let memory = by_key(self.memory.take(take.clone()).await.unwrap());
                let sqlite = by_key(self.sqlite.take(take).await.unwrap());
                assert_eq!(comparable(&memory), comparable(&sqlite), "take in step {}", self.step);
                self.items.extend(memory.into_values().zip(sqlite.into_values()));
            }
            2 => {
                let new = NewWork {
                    kind: WorkKind::ALL[self.below(8)],
                    key: if self.chance(2) {
                        format!("key-{}", self.below(3))
                    } else {
                        self.pick(&self.sessions).to_string()
                    },
                    place: self.chance(2).then(|| self.places[self.below(3)]),
                    after: Duration::from_secs(self.below(20) as u64),
                };
                let _ = both!(self, enqueue(vec![new.clone(), new.clone()]));
            }
            3 => {
                let worker = Worker {
                    id: self.workers[self.below(2)],
                    place: self.places[0],
                    platform_hash: PlatformHash::from_text("platform"),
                };
                let memory = self.memory.beat(&worker).await.unwrap();
                assert_eq!(memory, self.sqlite.beat(&worker).await.unwrap(), "beat in step {}", self.step);
            }
            4 if self.chance(5) => {
                let _ = both!(self, retire(self.workers[self.below(2)]));
            }
            _ => {
                let kind = WorkKind::ALL[self.below(8)];
                let Some((left, right)) = self.item(kind) else { return };
                let after = Duration::from_secs(self.below(20) as u64);
                let (memory, sqlite) = match self.below(3) {
                    0 => (self.memory.done(&left).await, self.sqlite.done(&right).await),
                    1 => (self.memory.again(&left, after).await, self.sqlite.again(&right, after).await),
                    _ => (self.memory.fail(&left, after).await, self.sqlite.fail(&right, after).await),
                };
                assert_eq!(memory.unwrap(), sqlite.unwrap(), "settling in step {}", self.step);
            }
        }
    }

    async fn records(&mut self) {
        if self.chance(3) {
            self.records.push(RecordId::fresh(&self.entropy, self.now()));
        }
        let owner = ["", "agent"][self.below(2)].to_owned();
        let kind = ["skill", "memory"][self.below(2)].to_owned();
        let unique_key = self.chance(2).then(|| format!("unique-{}", self.below(3)));
        match self.below(5) {
            0 => {
                let _ = both!(self, record(self.pick(&self.records)));
            }
            1 => {
                let query = RecordQuery {
                    kind,
                    owner: self.chance(2).then_some(owner),
                    unique_key: unique_key.filter(|_| self.chance(2)),
                    before: self.chance(2).then(|| self.pick(&self.records)),
                    limit: self.below(5) as u32,
                };
                let _ = both!(self, list_records(query));
            }
            2 if self.chance(3) => {
                let _ = both!(self, delete_record(self.pick(&self.records)));
            }
            _ => {
                let new = NewRecord {
                    id: self.pick(&self.records),
                    kind,
                    owner,
                    unique_key,
                    body: json!({ "step": self.step }),
                    expected_version: self.below(3) as u64,
                };
                let _ = both!(self, put_record(new));
            }
        }
    }

    async fn time(&mut self) {
        let seconds = if self.chance(200) { 90_000 } else { self.below(4) as u64 };
        self.clock.advance(Duration::from_millis(seconds * 1000 + 1));
    }

    /// Everything that can be read about what was touched lately.
    async fn look(&mut self) {
        let session = self.pick(&self.sessions);
        let _ = both!(self, session(session));
        let _ = both!(self, bring_up(session));
        let _ = both!(self, events(session, (self.below(5) as u64), (self.below(50) as u32)));
        let _ = both!(self, cursor(session, self.sandboxes[0]));
        let _ = both!(self, sandbox(self.pick(&self.sandboxes)));
        let _ = both!(self, turn(self.pick(&self.turns)));
        let _ = both!(self, list_turns(TurnQuery { session, after: self.below(2) as u64, limit: 5 }));
        let query = SessionQuery {
            agent: self.chance(2).then(|| self.pick(&self.agents)),
            states: SessionState::ALL[..self.below(4)].to_vec(),
            before: self.chance(2).then(|| self.pick(&self.sessions)),
            limit: self.below(6) as u32,
        };
        let _ = both!(self, list_sessions(query));
        let _ = both!(self, sandboxes_at(self.places[self.below(3)]));
        let sorted = |mut counts: Vec<PoolCount>| {
            counts.sort_by(|a, b| (&a.blueprint_hash, a.state).cmp(&(&b.blueprint_hash, b.state)));
            counts
        };
        let memory = sorted(self.memory.count_sandboxes().await.unwrap());
        assert_eq!(memory, sorted(self.sqlite.count_sandboxes().await.unwrap()));
        let worker = self.workers[self.below(2)];
        let sorted = |mut items: Vec<WorkItem>| {
            items.sort_by(|a, b| (a.hold.kind, &a.hold.key).cmp(&(b.hold.kind, &b.hold.key)));
            comparable(&items)
        };
        let memory = sorted(self.memory.held(worker).await.unwrap());
        assert_eq!(memory, sorted(self.sqlite.held(worker).await.unwrap()), "held in step {}", self.step);
    }

    async fn walk(&mut self, steps: usize) {
        for step in 0..steps {
            self.step = step;
            match self.below(24) {
                0 | 1 => self.agents().await,
                2..=4 => self.open().await,
                5..=7 => self.advance().await,
                8..=10 => self.accept().await,
                11..=14 => self.turns().await,
                15 | 16 => self.append().await,
                17 => self.ends().await,
                18 => self.pool().await,
                19 | 20 => self.work().await,
                21 => self.records().await,
                22 => self.time().await,
                _ => self.look().await,
            }
        }
        self.look().await;
    }
}

async fn agree(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    World::new(seed, folder.path()).await.walk(1500).await;
}

#[tokio::test]
async fn sqlite_answers_as_memory_does() {
    for seed in 0..40 {
        agree(seed).await;
    }
}
