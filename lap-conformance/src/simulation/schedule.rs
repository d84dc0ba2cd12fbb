use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use lap_core::caller::Caller;
use lap_core::sandbox::SandboxState;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Client, Ledger};
use super::coverage::Coverage;
use super::dice::Dice;
use super::nature;
use super::plan::Plan;
use super::process::{Over, Slot};
use crate::crash::{Broken, Invariants, PATIENCE, Snapshot, Stage};

/// What came of a schedule.
#[derive(Debug)]
pub struct Report {
    /// What was broken, if anything.
    pub broken: Option<Broken>,
    /// Which calls were struck during which verbs.
    pub coverage: Coverage,
    /// Sessions and turns there were.
    pub sessions: usize,
    /// Turns there were.
    pub turns: usize,
    /// A hash of everything that is stored at the end: the same seed gives the same.
    pub digest: u64,
}

/// The longest that clients may take.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// Plays the schedule of this plan on `stage`. Run it in a single-threaded runtime with paused time.
pub async fn simulate(mut stage: Stage, plan: Plan) -> Report {
    stage.config.idle_timeout = plan.idle;
    stage.loses_hints = plan.loses_hints;
    let coverage = Coverage::default();
    let stage = Arc::new(stage);
    let mut invariants = Invariants::default();
    let broken = play(&stage, &plan, &coverage, &mut invariants).await.err();
    let snapshot = Snapshot::of(&stage).await.unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    format!("{snapshot:?}").hash(&mut hasher);
    for session in snapshot.sessions.keys() {
        let page = lap_core::store::Events::events(&*stage.store, *session, 0, u32::MAX).await;
        format!("{page:?}").hash(&mut hasher);
    }
    Report {
        broken,
        coverage,
        sessions: snapshot.sessions.len(),
        turns: snapshot.turns.values().map(Vec::len).sum(),
        digest: hasher.finish(),
    }
}

async fn play(
    stage: &Arc<Stage>,
    plan: &Plan,
    coverage: &Coverage,
    invariants: &mut Invariants,
) -> Result<(), Broken> {
    let over = Over::default();
    let ledger = Arc::new(Ledger::default());
    // Dropping the set at the end of this function ends everything that still runs.
    let mut world = JoinSet::new();
    let slots: Vec<_> = (0..plan.engines).map(|_| Arc::new(Slot::default())).collect();
    for (index, slot) in slots.iter().enumerate() {
        let dice = Dice::new(plan.seed, 100 + index as u64);
        world.spawn(Arc::clone(slot).run(
            Arc::clone(stage),
            plan.clone(),
            dice,
            coverage.clone(),
            Arc::clone(&over),
        ));
    }
    let dice = Dice::new(plan.seed, 2);
    world.spawn(nature::run(
        Arc::clone(stage),
        Arc::clone(&ledger),
        dice,
        plan.nature,
        Arc::clone(&over),
    ));
    let mut clients = JoinSet::new();
    for name in 0..plan.clients {
        let client = Client {
            name,
            stage: Arc::clone(stage),
            slots: slots.clone(),
            ledger: Arc::clone(&ledger),
            dice: Dice::new(plan.seed, 1000 + name as u64),
        };
        clients.spawn(client.run(plan.steps));
    }
    let deadline = Instant::now() + LONGEST;
    while !clients.is_empty() {
        look(stage, invariants, &ledger).await?;
        if Instant::now() > deadline {
            return Err("clients do not come to an end".to_owned());
        }
        tokio::select! {
            biased;
            joined = clients.join_next() => {
                if let Some(Err(error)) = joined {
                    return Err(format!("a client broke off: {error}"));
                }
            }
            () = tokio::time::sleep(Duration::from_millis(1900)) => {}
        }
    }
    // From here on nothing fails any more.
    over.close();
    end_all(stage, &slots, invariants, &ledger).await?;
    for (session, turn) in ledger.turns() {
        if !matches!(stage.front.turn(turn).await, Ok(Some(found)) if found.session == session) {
            return Err(format!("the accepted {turn} of {session} is not stored"));
        }
    }
    invariants.check_end(stage).await
}

async fn look(stage: &Stage, invariants: &mut Invariants, ledger: &Ledger) -> Result<(), Broken> {
    invariants.check(stage).await?;
    ledger.broken().map_or(Ok(()), Err)
}

/// Closes every session and waits until nothing is left of any.
async fn end_all(
    stage: &Stage,
    slots: &[Arc<Slot>],
    invariants: &mut Invariants,
    ledger: &Ledger,
) -> Result<(), Broken> {
    let caller = Caller::new("the end");
    let deadline = Instant::now() + PATIENCE;
    loop {
        look(stage, invariants, ledger).await?;
        let snapshot = Snapshot::of(stage).await?;
        let warm = snapshot
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.state == SandboxState::Warm);
        for sandbox in warm {
            stage.world.kill(sandbox.id, "the pool is given up");
        }
        let mut is_over = snapshot.sandboxes.is_empty() && snapshot.work.is_empty();
        for session in snapshot
            .sessions
            .values()
            .filter(|session| session.state.is_active())
        {
            is_over = false;
            if let Some(alive) = slots.iter().find_map(|slot| slot.alive()) {
                let closed = alive.engine.close_session(&caller, session.id);
                let _ = tokio::time::timeout(Duration::from_secs(60), closed).await;
            }
        }
        let is_over = is_over && stage.remains().await.is_empty() && stage.vault.attached().is_empty();
        if is_over || Instant::now() > deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
