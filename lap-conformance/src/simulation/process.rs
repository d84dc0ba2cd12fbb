//! Processes that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lap_core::engine::Engine;
use lap_core::id::WorkerId;

use super::coverage::Coverage;
use super::dice::Dice;
use super::plan::Plan;
use crate::crash::latch::Latch;
use crate::crash::{Stage, Strike, Wire};

/// Closed when the schedule does no more harm: processes stay then.
pub(super) type Over = Arc<Latch>;

/// A place for a process.
#[derive(Debug, Default)]
pub(super) struct Slot {
    alive: Mutex<Option<Alive>>,
    doing: Arc<Doing>,
}

#[derive(Debug, Clone)]
pub(super) struct Alive {
    pub(super) engine: Engine,
    pub(super) wire: Arc<Wire>,
}

/// Which verbs of clients are under way in one process, and who it is.
#[derive(Debug, Default)]
struct Doing {
    verbs: Mutex<BTreeMap<&'static str, u32>>,
    worker: Mutex<Option<WorkerId>>,
}

/// A verb is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Underway {
    doing: Arc<Doing>,
    verb: &'static str,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut verbs = lock(&self.doing.verbs);
        if let Some(count) = verbs.get_mut(self.verb) {
            *count -= 1;
        }
    }
}

impl Doing {
    /// The verbs of clients, and the kinds of work that this process holds.
    fn now(&self, stage: &Stage) -> BTreeSet<&'static str> {
        let mut doing: BTreeSet<_> = lock(&self.verbs)
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(verb, _)| *verb)
            .collect();
        let worker = *lock(&self.worker);
        let held = stage
            .store
            .stored_work()
            .into_iter()
            .filter(|item| worker.is_some() && item.hold.as_ref().map(|hold| hold.worker) == worker);
        doing.extend(held.map(|item| item.kind.as_str()));
        doing
    }
}

impl Slot {
    pub(super) fn alive(&self) -> Option<Alive> {
        lock(&self.alive).clone()
    }

    pub(super) fn begin(&self, verb: &'static str) -> Underway {
        *lock(&self.doing.verbs).entry(verb).or_default() += 1;
        let doing = Arc::clone(&self.doing);
        Underway { doing, verb }
    }

    /// Processes live and die here until it is over; then the last one stays.
    pub(super) async fn run(
        self: Arc<Self>,
        stage: Arc<Stage>,
        plan: Plan,
        dice: Dice,
        coverage: Coverage,
        over: Over,
    ) {
        loop {
            let wire = self.wire(&stage, &plan, &dice, &coverage);
            if over.is_closed() {
                wire.repair();
            }
            let started = tokio::select! {
                biased;
                () = wire.crashed() => None,
                started = stage.engine(&wire) => started.ok(),
            };
            let Some(engine) = started else {
                // What may have begun to run does nothing any more.
                wire.crash();
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            *lock(&self.doing.worker) = Some(engine.worker());
            *lock(&self.alive) = Some(Alive {
                engine: engine.clone(),
                wire: Arc::clone(&wire),
            });
            let life = dice.up_to(plan.life) + Duration::from_millis(500);
            let ends = tokio::select! {
                biased;
                () = wire.crashed() => true,
                () = tokio::time::sleep(life) => true,
                () = over.closed() => false,
            };
            if !ends {
                wire.repair();
                wire.crashed().await;
            }
            *lock(&self.alive) = None;
            if !wire.has_crashed() && dice.chance(400) {
                tokio::select! {
                    biased;
                    () = wire.crashed() => {}
                    () = engine.drain(dice.up_to(Duration::from_secs(8))) => {}
                }
            }
            wire.crash();
            tokio::time::sleep(dice.up_to(Duration::from_secs(15))).await;
        }
    }

    fn wire(&self, stage: &Arc<Stage>, plan: &Plan, dice: &Dice, coverage: &Coverage) -> Arc<Wire> {
        let (stage, plan, dice) = (Arc::clone(stage), plan.clone(), dice.clone());
        let (coverage, doing) = (coverage.clone(), Arc::clone(&self.doing));
        *lock(&doing.worker) = None;
        let is_deaf = dice.chance(plan.deaf);
        let mut started = false;
        Wire::new(move |_, site| {
            // A process needs its first sign of life to start.
            let strike = match site.method {
                "beat" if is_deaf && std::mem::replace(&mut started, true) => Strike::FailBefore,
                _ => plan.strike(&dice, site),
            };
            coverage.note(site, strike, &doing.now(&stage));
            strike
        })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
