//! Seeded schedules. `LAP_SEED=n` plays one of them, `LAP_SCHEDULES=n` that many.

use std::time::{Duration, Instant};

use lap_conformance::crash::Stage;
use lap_conformance::simulation::{Coverage, Plan, Report, simulate};

use crate::paused::paused;

/// What CI plays unless the time is over before.
const SCHEDULES: u64 = 200;
const LONGEST: Duration = Duration::from_secs(30);

pub(crate) fn play(seed: u64) -> Report {
    paused(async { simulate(Stage::new(seed), Plan::of(seed)).await })
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn schedules_keep_every_promise() {
    let began = Instant::now();
    let (first, count) = match (variable("LAP_SEED"), variable("LAP_SCHEDULES")) {
        (Some(seed), count) => (seed, count.unwrap_or(1)),
        (None, count) => (1, count.unwrap_or(SCHEDULES)),
    };
    let is_bounded = variable("LAP_SCHEDULES").is_none();
    let coverage = Coverage::default();
    let (mut played, mut sessions, mut turns, mut broken) = (0_u64, 0, 0, Vec::new());
    for seed in first..first + count {
        if is_bounded && began.elapsed() > LONGEST {
            break;
        }
        let report = play(seed);
        coverage.add(&report.coverage);
        played += 1;
        sessions += report.sessions;
        turns += report.turns;
        if let Some(what) = report.broken {
            broken.push(format!("LAP_SEED={seed}: {what}\n{:?}", Plan::of(seed)));
        }
    }
    println!("{coverage}");
    println!(
        "{played} schedules, {sessions} sessions, {turns} turns in {:.1?}: {:.1} schedules per second",
        began.elapsed(),
        played as f64 / began.elapsed().as_secs_f64()
    );
    assert!(
        broken.is_empty(),
        "{} of {played} broken:\n{}",
        broken.len(),
        broken.join("\n\n")
    );
}

#[test]
fn a_seed_reproduces_its_schedule() {
    for seed in [3, 17, 40, 71, 98, 182, 406] {
        assert_eq!(play(seed).digest, play(seed).digest, "seed {seed}");
    }
}
