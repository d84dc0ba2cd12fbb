//! Random concurrent calls from three processes, with delays inside statements and connections that are killed; then
//! what is recorded and stored is held against the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lap_core::error::{ErrorKind, Result};
use lap_core::event::NewEvent;
use lap_core::id::{Entropy as _, SandboxId, SessionId, SystemEntropy, TurnId, WorkerId};
use lap_core::session::{EndedBy, SessionState};
use lap_core::store::*;
use lap_core::time::{Clock as _, SystemClock};
use lap_core::turn::{Outcome, TurnState};
use lap_store_postgres::PostgresStore;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::database::{Place, link};
use crate::scene::Scene;

/// What happened, as the callers saw it.
#[derive(Default)]
struct History {
    /// Sessions by the key of their request.
    opened: BTreeMap<String, BTreeSet<SessionId>>,
    /// Sessions by the warm sandbox they were given.
    claimed: BTreeMap<SandboxId, BTreeSet<SessionId>>,
    accepted: BTreeMap<TurnId, SessionId>,
    /// How often a turn was given its outcome.
    finished: BTreeMap<TurnId, usize>,
    fences: Vec<u64>,
    sessions: Vec<SessionId>,
}

struct World {
    scene: Scene,
    stores: Vec<Arc<PostgresStore>>,
    history: Mutex<History>,
    stop: AtomicBool,
}

fn below(bound: usize) -> usize {
    let mut bytes = [0; 8];
    SystemEntropy::new().fill(&mut bytes);
    usize::try_from(u64::from_le_bytes(bytes) % bound as u64).unwrap()
}

/// An answer, or nothing when the outcome is unknown. Every other error is a defect.
fn known<T>(answer: Result<T>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) if error.kind() == ErrorKind::Unavailable => None,
        Err(error) => panic!("{error:?}"),
    }
}

impl World {
    fn note<T>(&self, what: impl FnOnce(&mut History) -> T) -> T {
        what(&mut self.history.lock().unwrap())
    }

    fn any_session(&self) -> Option<SessionId> {
        self.note(|history| {
            let recent = history.sessions.len().min(6);
            (recent > 0).then(|| history.sessions[history.sessions.len() - 1 - below(recent)])
        })
    }

    async fn open(&self, store: &PostgresStore, worker: WorkerId) {
        let mut open = self.scene.new_open();
        open.worker = worker;
        if below(3) == 0 {
            open.first_turn = None;
        }
        if below(2) == 0 {
            open.idempotency.key = format!("key-{}", below(40));
        }
        let (key, turn) = (open.idempotency.key.clone(), open.first_turn.as_ref().map(|turn| turn.id));
        // A lost reply is repeated, as the engine does.
        let mut answer = None;
        for _ in 0..20 {
            answer = known(store.open(open.clone()).await);
            if answer.is_some() {
                break;
            }
        }
        let (opened, is_warm) = match answer {
            Some(Opened::Warm(opened)) => (opened, true),
            Some(Opened::Cold(opened)) => (opened, false),
            Some(Opened::Replayed(session)) => {
                self.note(|history| history.opened.entry(key).or_default().insert(session.id));
                return;
            }
            Some(other) => panic!("{other:?}"),
            None => return,
        };
        let id = opened.session.id;
        self.note(|history| {
            history.opened.entry(key).or_default().insert(id);
            history.sessions.push(id);
            if is_warm {
                history.claimed.entry(opened.sandbox.id).or_default().insert(id);
            }
            history.fences.extend(opened.work.iter().map(|item| item.hold.fence));
            history.accepted.extend(turn.map(|turn| (turn, id)));
        });
        if let Some(item) = opened.work {
            self.bring_up(store, item).await;
        }
    }

    async fn bring_up(&self, store: &PostgresStore, item: WorkItem) {
        let session: SessionId = item.key().parse().unwrap();
        let replace = below(5) == 0;
        if replace && let Some(Some(up)) = known(store.bring_up(session).await) {
            let replace = Replace {
                session,
                hold: item.hold.clone(),
                broken: up.sandbox.id,
                reason: "it is broken".to_owned(),
                cold_sandbox: crate::scene::sandbox_id(),
                place: self.scene.place,
                warm: true,
            };
            if let Some(Replaced::Warm(sandbox)) = known(store.replace_sandbox(replace).await) {
                self.note(|history| history.claimed.entry(sandbox.id).or_default().insert(session));
            }
        }
        let step = if below(12) == 0 {
            Step::Failed("it did not come up".to_owned())
        } else {
            Step::Ready {
                conversation: "c".to_owned(),
                address: "127.0.0.1:2".to_owned(),
                reap_after: Duration::from_secs(600),
            }
        };
        let advance = Advance {
            session,
            hold: item.hold.clone(),
            step,
        };
        match known(store.advance(advance).await) {
            Some(Advanced::Done(_, Some((turn, item)))) => {
                self.note(|history| history.fences.push(item.hold.fence));
                self.run(store, turn.id, item).await;
            }
            Some(Advanced::Done(..)) => {}
            Some(Advanced::Stale) | None => drop(known(store.fail(&item, Duration::ZERO).await)),
        }
    }

    /// Runs the turn and those behind it.
    async fn run(&self, store: &PostgresStore, turn: TurnId, item: WorkItem) {
        let session: SessionId = item.key().parse().unwrap();
        let mut turn = turn;
        loop {
            let last = self.append(store, session, turn, &item, true).await;
            let outcome = Outcome {
                state: [TurnState::Completed, TurnState::Failed][below(2)],
                ..Outcome::failed("so it ended")
            };
            let finish = Finish {
                turn,
                hold: item.hold.clone(),
                outcome,
            };
            let answer = match last {
                Some(last) if below(2) == 0 => store.conclude(last, finish).await,
                _ => store.finish(finish).await,
            };
            match known(answer) {
                Some(Finished::Done(_, next)) => {
                    self.note(|history| *history.finished.entry(turn).or_default() += 1);
                    match next {
                        Some(next) => turn = next.id,
                        None => return,
                    }
                }
                // Whoever takes the item begins anew.
                Some(Finished::Stale) | None => {
                    let _ = known(store.fail(&item, Duration::ZERO).await);
                    return;
                }
            }
        }
    }

    /// Appends one event from the sandbox's journal, exactly once whatever happens; gives the next one.
    async fn append(
        &self,
        store: &PostgresStore,
        session: SessionId,
        turn: TurnId,
        item: &WorkItem,
        more: bool,
    ) -> Option<Append> {
        let source = known(store.session(session).await)??.sandbox?;
        for _ in 0..=below(3) {
            let at = known(store.cursor(session, source).await)?;
            let append = Append {
                session,
                hold: Some(item.hold.clone()),
                ingest: Some(Ingest {
                    source,
                    expected: at,
                    cursor: at + 1,
                }),
                running: Some(turn),
                events: vec![NewEvent {
                    kind: "said".to_owned(),
                    turn: Some(turn),
                    body: json!({ "source": source.to_string() }),
                    origin: Some(at + 1),
                }],
            };
            if more && below(4) == 0 {
                return Some(append);
            }
            known(store.append(vec![append]).await)?;
        }
        None
    }

    async fn accept(&self, store: &PostgresStore, worker: WorkerId) {
        let Some(session) = self.any_session() else {
            return;
        };
        let turn = self.scene.new_turn();
        let key = (below(3) == 0).then(|| Idempotency {
            principal: "ui".to_owned(),
            operation: "accept",
            parent: session.to_string(),
            key: format!("key-{}", below(10)),
            body_hash: "body".to_owned(),
        });
        let accept = Accept {
            session,
            turn,
            queue_limit: 4,
            worker,
            place: self.scene.place,
            idempotency: key,
        };
        match known(store.accept(accept).await) {
            Some(Accepted::Started(turn, item)) => {
                self.note(|history| history.accepted.insert(turn.id, session));
                if let Some(item) = item {
                    self.note(|history| history.fences.push(item.hold.fence));
                    self.run(store, turn.id, item).await;
                }
            }
            Some(Accepted::Queued(turn) | Accepted::Replayed(turn)) => {
                self.note(|history| history.accepted.insert(turn.id, session));
            }
            _ => {}
        }
    }

    /// Takes due work and does it. Returns whether there was any.
    async fn work(&self, store: &PostgresStore, worker: WorkerId) -> bool {
        let take = Take {
            worker,
            kinds: WorkKind::ALL.to_vec(),
            places: vec![self.scene.place],
            limit: 3,
        };
        let mut items = known(store.take(take).await).unwrap_or_default();
        self.note(|history| history.fences.extend(items.iter().map(|item| item.hold.fence)));
        items.extend(known(store.held(worker).await).unwrap_or_default());
        let any = !items.is_empty();
        for item in items {
            match item.hold.kind {
                WorkKind::BringUp => self.bring_up(store, item).await,
                WorkKind::Turn => {
                    let session = item.key().parse().unwrap();
                    match known(store.begin(session, &item.hold).await) {
                        Some(Some(turn)) => self.run(store, turn.id, item).await,
                        Some(None) => drop(known(store.done(&item).await)),
                        None => drop(known(store.fail(&item, Duration::ZERO).await)),
                    }
                }
                WorkKind::Cleanup => {
                    let buried = known(store.bury_sandbox(item.key().parse().unwrap()).await);
                    assert_ne!(buried, Some(false), "a cleanup is about a sandbox that has ended");
                    let _ = known(store.done(&item).await);
                }
                _ => drop(known(store.again(&item, Duration::from_secs(600)).await)),
            }
        }
        any
    }

    async fn actor(&self, number: usize) {
        let store = &self.stores[number % self.stores.len()];
        let worker = WorkerId::fresh(&SystemEntropy::new(), SystemClock.now());
        let beat = Worker {
            id: worker,
            place: self.scene.place,
            platform_hash: lap_core::blueprint::PlatformHash::from_text("platform"),
        };
        while !self.stop.load(Ordering::Relaxed) {
            let _ = known(store.beat(&beat).await);
            match below(16) {
                0..=3 => self.open(store, worker).await,
                4..=8 => self.accept(store, worker).await,
                9 => {
                    let new = NewSandbox {
                        id: crate::scene::sandbox_id(),
                        blueprint_hash: self.scene.agent.blueprint_hash.clone(),
                        platform_hash: beat.platform_hash.clone(),
                        place: self.scene.place,
                    };
                    let id = new.id;
                    let _ = known(store.plan_sandbox(new).await);
                    let _ = known(store.warm_sandbox(id, "127.0.0.1:1").await);
                }
                10 => self.disturb(store).await,
                _ => drop(self.work(store, worker).await),
            }
        }
        let _ = known(store.retire(worker).await);
    }

    async fn disturb(&self, store: &PostgresStore) {
        let Some(session) = self.any_session() else {
            return;
        };
        match below(4) {
            0 => {
                let end = End {
                    session,
                    by: EndedBy::User,
                    reason: None,
                    only_if_idle_for: None,
                };
                let _ = known(store.end(end).await);
            }
            1 => {
                if let Some(Some(Some(sandbox))) =
                    known(store.session(session).await).map(|session| session.map(|session| session.sandbox))
                {
                    let _ = known(store.lose_sandbox(sandbox, "it was lost").await);
                }
            }
            2 => drop(known(store.touch(&[session]).await)),
            _ => drop(known(store.abort(session, None).await)),
        }
    }
}

/// A row takes up to 8 ms to write, now and then, so that statements of others come between.
async fn slow_down(place: &Place) {
    let schema = &place.schema;
    place
        .run(&format!(
            "CREATE FUNCTION {schema}.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF random() < 0.1 THEN PERFORM pg_sleep(random() * 0.008); END IF; \
             RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$"
        ))
        .await;
    for table in ["heads", "work", "turns", "sessions", "sandboxes", "idempotency", "cursors"] {
        place
            .run(&format!(
                "CREATE TRIGGER dawdle BEFORE INSERT OR UPDATE OR DELETE ON {schema}.{table} \
                 FOR EACH ROW EXECUTE FUNCTION {schema}.dawdle()"
            ))
            .await;
    }
}

async fn kill_connections(name: String) {
    let mut connection = link().await;
    let text = format!(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' \
         AND query NOT LIKE 'LISTEN%' ORDER BY random() LIMIT 2) AS victims"
    );
    loop {
        tokio::time::sleep(Duration::from_millis(60)).await;
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(text.clone())))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_concurrent_calls_keeps_the_contract() {
    let place = Place::new().await;
    let mut options = place.options();
    options.application_name.clone_from(&place.schema);
    options.connections = Some(6);
    let scene = Scene::new(PostgresStore::connect(options.clone()).await.unwrap()).await;
    slow_down(&place).await;
    let mut stores = vec![Arc::clone(&scene.store)];
    for _ in 0..2 {
        stores.push(Arc::new(PostgresStore::connect(options.clone()).await.unwrap()));
    }
    let world = Arc::new(World {
        scene,
        stores,
        history: Mutex::default(),
        stop: AtomicBool::new(false),
    });
    let actors: Vec<_> = (0..12)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.actor(number).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let killer = tokio::spawn(kill_connections(place.schema.clone()));
    tokio::time::sleep(Duration::from_secs(6)).await;
    killer.abort();
    let _ = killer.await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.stop.store(true, Ordering::Relaxed);
    for actor in actors {
        actor.await.unwrap();
    }
    drain(&world).await;
    check(&world, &place).await;
}

/// Everything that is due is done by one more worker.
async fn drain(world: &World) {
    let worker = Worker {
        id: WorkerId::fresh(&SystemEntropy::new(), SystemClock.now()),
        place: world.scene.place,
        platform_hash: lap_core::blueprint::PlatformHash::from_text("platform"),
    };
    let store = &world.stores[0];
    let drained = async {
        let mut quiet = 0;
        // An item that came back is due at once, so three looks without work mean that there is none.
        while quiet < 3 {
            store.beat(&worker).await.unwrap();
            quiet = if world.work(store, worker.id).await { 0 } else { quiet + 1 };
        }
    };
    tokio::time::timeout(Duration::from_secs(120), drained).await.unwrap();
}

async fn check(world: &World, place: &Place) {
    world.note(|history| {
        assert!(history.sessions.len() > 50, "only {} sessions", history.sessions.len());
        for (key, sessions) in &history.opened {
            assert_eq!(sessions.len(), 1, "{key} opened {sessions:?}");
        }
        for (sandbox, sessions) in &history.claimed {
            assert_eq!(sessions.len(), 1, "{sandbox} was given to {sessions:?}");
        }
        for (turn, times) in &history.finished {
            assert_eq!(*times, 1, "{turn} has several outcomes");
        }
        let unique: BTreeSet<_> = history.fences.iter().collect();
        assert_eq!(unique.len(), history.fences.len(), "a fence was drawn twice");
    });
    let store = &world.stores[0];
    let accepted = world.note(|history| history.accepted.clone());
    for (id, session) in accepted {
        let turn = store.turn(id).await.unwrap().expect("an accepted turn is stored");
        assert_eq!(turn.session, session);
        assert!(turn.state.is_terminal(), "{turn:?} has no outcome");
    }
    let query = SessionQuery {
        limit: 100_000,
        ..SessionQuery::default()
    };
    let sessions = store.list_sessions(query).await.unwrap();
    for session in &sessions {
        assert_ne!(session.state, SessionState::Creating, "{session:?} was never brought up");
        check_log(store, session.id).await;
    }
    check_rows(place).await;
    let counts: Vec<_> = world.stores.iter().map(|store| store.counts()).collect();
    println!("{} sessions; {counts:?}", sessions.len());
}

/// Ids without gaps; every turn with its events once, in order; every event of a journal once.
async fn check_log(store: &PostgresStore, session: SessionId) {
    let page = store.events(session, 0, 100_000).await.unwrap().unwrap();
    let ids: Vec<_> = page.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=page.head).collect::<Vec<_>>());
    let turns = store
        .list_turns(TurnQuery {
            session,
            after: 0,
            limit: 100_000,
        })
        .await
        .unwrap();
    let numbers: Vec<_> = turns.iter().map(|turn| turn.number).collect();
    assert_eq!(numbers, (1..=turns.len() as u64).collect::<Vec<_>>());
    for turn in turns {
        let of_turn = |kind: &str| {
            let of = |event: &&lap_core::event::Event| event.turn == Some(turn.id) && event.kind == kind;
            page.events.iter().filter(of).map(|event| event.id).collect::<Vec<_>>()
        };
        let (accepted, finished) = (of_turn("turn.accepted"), of_turn("turn.finished"));
        assert_eq!((accepted.len(), finished.len()), (1, 1), "{turn:?}");
        assert!(of_turn("turn.running").len() <= 1 && of_turn("turn.abort_requested").len() <= 1);
        assert!(of_turn("said").iter().all(|id| accepted[0] < *id && *id < finished[0]), "{turn:?}");
    }
    let mut journals: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in page.events.iter().filter(|event| event.kind == "said") {
        let source = event.body["source"].as_str().unwrap().to_owned();
        journals.entry(source).or_default().extend(event.origin);
    }
    for (source, origins) in journals {
        assert_eq!(origins, (1..=origins.len() as u64).collect::<Vec<_>>(), "journal of {source}");
    }
}

/// What must not be found in the tables.
async fn check_rows(place: &Place) {
    let never = [
        "SELECT count(*) FROM @work WHERE owner IS NOT NULL",
        "SELECT count(*) FROM @sessions x JOIN @sandboxes b ON b.id = x.sandbox WHERE b.session <> x.id",
        "SELECT count(*) FROM @sessions x JOIN @sandboxes b ON b.id = x.sandbox \
         WHERE (x.state = 'ready') <> (b.state = 'claimed')",
        "SELECT count(*) FROM @sandboxes WHERE state IN ('stopping', 'dead')",
        "SELECT count(*) FROM (SELECT session FROM @sandboxes WHERE state = 'claimed' GROUP BY 1 \
         HAVING count(*) > 1) AS twice",
        "SELECT count(*) FROM @sandboxes WHERE state = 'claimed' AND session NOT IN (SELECT id FROM @sessions)",
        "SELECT count(*) FROM @heads h WHERE last <> (SELECT count(*) FROM @events e WHERE e.session = h.session)",
        "SELECT count(*) FROM @sessions x WHERE state = 'ready' AND NOT EXISTS \
         (SELECT FROM @work w WHERE w.kind = 'reap' AND w.key = x.id::text)",
    ];
    let mut connection = link().await;
    for text in never {
        let text = text.replace('@', &format!("{}.", place.schema));
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(text.clone()))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(found, 0, "{text}");
    }
    connection.close().await.unwrap();
}
