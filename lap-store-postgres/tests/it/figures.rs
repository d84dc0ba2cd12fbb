//! Figures for people. Run with `cargo test --release -p lap-store-postgres figures -- --ignored --nocapture` on a
//! quiet machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::database::Place;
use crate::scene::Scene;

async fn fill_pool(place: &Place, scene: &Scene, count: usize) {
    let schema = &place.schema;
    place
        .run(&format!(
            "INSERT INTO {schema}.sandboxes (id, blueprint_hash, platform_hash, state, state_since, place, created_at) \
             SELECT gen_random_uuid(), '{}', 'platform', 'warm', 1000000 + n, 'cluster', 1000000 \
             FROM generate_series(1, {count}) n",
            scene.agent.blueprint_hash.as_text(),
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a while and wants a quiet machine"]
async fn figures_of_warm_opens() {
    let place = Place::new().await;
    let mut options = place.options();
    options.connections = Some(16);
    let scene =
        Arc::new(Scene::new(lap_store_postgres::PostgresStore::connect(options).await.unwrap()).await);
    fill_pool(&place, &scene, 100_000).await;
    for _ in 0..200 {
        scene.open(scene.new_open()).await;
    }
    let mut times = Vec::new();
    for _ in 0..1000 {
        let open = scene.new_open();
        let begun = Instant::now();
        scene.open(open).await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "one client: median {:?}, 99th of 100 {:?}",
        times[500], times[990]
    );
    let (clients, span) = (16, Duration::from_secs(10));
    let callers: Vec<_> = (0..clients)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move {
                let (begun, mut count) = (Instant::now(), 0_u32);
                while begun.elapsed() < span {
                    scene.open(scene.new_open()).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut opens = 0;
    for caller in callers {
        opens += caller.await.unwrap();
    }
    println!("{clients} clients: {} opens/s", u64::from(opens) / span.as_secs());
}
