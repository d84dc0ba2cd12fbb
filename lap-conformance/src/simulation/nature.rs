//! What happens to sandboxes whatever the platform does.

use std::sync::Arc;
use std::time::Duration;

use lap_core::memory::Preparation;

use super::client::Ledger;
use super::dice::Dice;
use super::process::Over;
use crate::crash::Stage;

/// Sandboxes die, launches are refused, preparations take their time, and the pool gets a warm one now and then.
pub(super) async fn run(stage: Arc<Stage>, ledger: Arc<Ledger>, dice: Dice, harsh: bool, over: Over) {
    loop {
        tokio::select! {
            biased;
            () = over.closed() => break,
            () = tokio::time::sleep(dice.up_to(Duration::from_secs(12))) => {}
        }
        match dice.below(if harsh { 8 } else { 2 }) {
            0 | 1 => plant(&stage, &ledger, &dice).await,
            2 | 3 => {
                let launched = stage.world.launched();
                if let Some(sandbox) = dice.pick(&launched) {
                    stage.world.kill(*sandbox, "killed by the simulation");
                }
            }
            4 | 5 => stage
                .world
                .prepare(Preparation::Takes(dice.up_to(Duration::from_secs(8)))),
            6 => stage
                .world
                .prepare(Preparation::Fails("the simulation wants it so".to_owned())),
            _ => {
                stage.world.prepare(Preparation::Instant);
                let refused = dice.chance(300);
                stage.world.refuse_launches(refused.then_some("there is no room"));
            }
        }
    }
    stage.world.prepare(Preparation::Instant);
    stage.world.refuse_launches(None);
}

async fn plant(stage: &Stage, ledger: &Ledger, dice: &Dice) {
    let agents = ledger.agents();
    if let Some(agent) = dice.pick(&agents) {
        // An agent that was deleted meanwhile gets none.
        let _ = stage.warm(*agent).await;
    }
}
