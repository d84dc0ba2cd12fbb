//! Random concurrent calls from three processes, with delays inside statements and connections that are killed; then
//! what is recorded and stored is held against the contract.

mod calls;
mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lap_core::error::{ErrorKind, Result};
use lap_core::id::{Entropy as _, SandboxId, SessionId, SystemEntropy, TurnId, WorkerId};
use lap_core::session::EndedBy;
use lap_core::store::*;
use lap_core::time::{Clock as _, SystemClock};
use lap_store_postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Executor as _};

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
    for table in [
        "heads",
        "work",
        "turns",
        "sessions",
        "sandboxes",
        "idempotency",
        "cursors",
    ] {
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
    check::check(&world, &place).await;
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
            quiet = if world.work(store, worker.id).await {
                0
            } else {
                quiet + 1
            };
        }
    };
    tokio::time::timeout(Duration::from_secs(120), drained)
        .await
        .unwrap();
}
