//! No statement of the hot paths reads a whole table or a whole pool, whatever the planner knew when it planned.

use std::collections::BTreeMap;
use std::time::Duration;

use lap_core::session::SessionState;
use lap_core::store::{
    Events as _, Installation as _, SessionQuery, Sessions as _, Take, TurnQuery, Turns as _, Work as _,
    WorkKind,
};
use lap_store_postgres::PostgresStore;
use sqlx::postgres::PgPoolOptions;

use crate::database::{Place, link, url};
use crate::scene::Scene;

/// Few rows, and read only at a start, by a person's search, or at a heartbeat.
const SMALL: [&str; 4] = ["agents", "instance", "migrations", "workers"];

/// Everything a session goes through, several times, so that plans are kept and used again.
async fn lives(scene: &Scene, count: usize) {
    for _ in 0..count {
        scene.beat().await;
        scene.warm().await;
        let open = scene.new_open();
        let session = open.session;
        let bring_up = scene.open(open).await;
        let (turn, item) = scene.ready(session, &bring_up).await;
        scene.append(session, &item, turn).await;
        scene.accept(session).await;
        scene.finish(turn, &item).await;
        let store = &scene.store;
        let (events, cursor) = (store.events(session, 0, 100).await, scene.agent.id);
        events.unwrap().unwrap();
        let query = SessionQuery {
            agent: Some(cursor),
            states: vec![SessionState::Ready],
            before: None,
            limit: 10,
        };
        store.list_sessions(query.clone()).await.unwrap();
        store
            .list_sessions(SessionQuery { agent: None, ..query })
            .await
            .unwrap();
        let turns = TurnQuery {
            session,
            after: 0,
            limit: 10,
        };
        store.list_turns(turns).await.unwrap();
        store.touch(&[session]).await.unwrap();
        let take = Take {
            worker: scene.worker,
            kinds: WorkKind::ALL.to_vec(),
            places: vec![scene.place],
            limit: 10,
        };
        for item in store.take(take).await.unwrap() {
            store.again(&item, Duration::from_secs(60)).await.unwrap();
        }
        store.held(scene.worker).await.unwrap();
        store.bring_up(session).await.unwrap();
        store.abort(session, None).await.unwrap();
        store.ping().await.unwrap();
    }
}

/// How often each table was read whole. What a connection did is counted when it ends.
async fn whole_reads(schema: &str) -> BTreeMap<String, i64> {
    let mut connection = link().await;
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE schemaname = $1")
            .bind(schema)
            .fetch_all(&mut connection)
            .await
            .unwrap();
    rows.into_iter()
        .filter(|(table, _)| !SMALL.contains(&table.as_str()))
        .collect()
}

/// Counted statistics arrive a little after the connection has ended.
async fn settled_uses(schema: &str, at_least: i64) {
    for _ in 0..300 {
        let mut connection = link().await;
        let uses: Option<i64> =
            sqlx::query_scalar("SELECT sum(idx_scan)::bigint FROM pg_stat_user_tables WHERE schemaname = $1")
                .bind(schema)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        if uses.is_some_and(|uses| uses >= at_least) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the statistics did not arrive");
}

#[tokio::test]
async fn no_hot_statement_reads_a_table_whole() {
    let place = Place::new().await;
    let scene = Scene::new(place.connect().await).await;
    // The tables are empty and known to be so: that is when plans go wrong.
    let schema = &place.schema;
    for table in [
        "sandboxes",
        "sessions",
        "turns",
        "heads",
        "events",
        "work",
        "idempotency",
    ] {
        place.run(&format!("VACUUM ANALYZE {schema}.{table}")).await;
    }
    let before = whole_reads(schema).await;
    lives(&scene, 12).await;
    scene.store.close().await;
    settled_uses(schema, 12 * 20).await;
    let after = whole_reads(schema).await;
    assert_eq!(after, before, "tables that were read whole");
}

/// A claim reads a few entries of the pool's index, however large the pool is, also on a host's own pool with the
/// server's own settings.
#[tokio::test]
async fn a_claim_does_not_read_the_pool() {
    let place = Place::new().await;
    let own = Scene::new(place.connect().await).await;
    fill_pool(&place, &own).await;
    claim_few(&place, own).await;
    let pool = PgPoolOptions::new()
        .max_connections(3)
        .connect(&url())
        .await
        .unwrap();
    let hosts = Scene::new(PostgresStore::on_pool(pool.clone(), &place.schema).await.unwrap()).await;
    claim_few(&place, hosts).await;
}

async fn fill_pool(place: &Place, scene: &Scene) {
    let schema = &place.schema;
    place
        .run(&format!(
            "INSERT INTO {schema}.sandboxes (id, blueprint_hash, platform_hash, state, state_since, place, created_at) \
             SELECT gen_random_uuid(), '{}', 'platform', 'warm', 1000000 + n, 'cluster', 1000000 \
             FROM generate_series(1, 20000) n",
            scene.agent.blueprint_hash.as_text(),
        ))
        .await;
    place.run(&format!("VACUUM ANALYZE {schema}.sandboxes")).await;
}

async fn claim_few(place: &Place, scene: Scene) {
    let reads = || async {
        let mut connection = link().await;
        let text = "SELECT sum(idx_tup_read)::bigint + (SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables \
                    WHERE schemaname = $1 AND relname = 'sandboxes') \
                    FROM pg_stat_user_indexes WHERE schemaname = $1 AND relname = 'sandboxes'";
        let read: i64 = sqlx::query_scalar(text)
            .bind(&place.schema)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        read
    };
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = reads().await;
    for _ in 0..10 {
        scene.open(scene.new_open()).await;
    }
    scene.store.close().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let read = reads().await - before;
    assert!(read < 1000, "ten claims read {read} entries");
}
