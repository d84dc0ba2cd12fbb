//! Deliberate bugs, and how many schedules it takes until the simulation notices each.
//!
//! A store that ignores generations is not among them: no verb of the engine depends on the comparison today, and the
//! laws of stores notice it.

use std::sync::Arc;

use lap_conformance::crash::Stage;
use lap_conformance::simulation::{Plan, simulate};

use crate::distorted::{Distorted, Forgetful};
use crate::paused::paused;

macro_rules! defects {
    ($($(#[$doc:meta])+ $defect:ident($test:ident, $bound:literal);)+) => {
        /// What is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Defect {
            $($(#[$doc])+ $defect,)+
        }

        $(#[test]
        fn $test() {
            is_noticed(Defect::$defect, $bound);
        })+
    };
}

defects! {
    /// Whoever comes is taken for the holder of an item.
    IgnoresFences(ignored_fences_are_noticed, 200);
    /// The idle end does not look again whether the session is in use.
    SkipsTheRecheck(a_skipped_recheck_is_noticed, 60);
    /// A warm sandbox is given away twice.
    ClaimsTwice(double_claims_are_noticed, 60);
    /// Event ids leave one out.
    SkipsAnId(a_gap_in_event_ids_is_noticed, 60);
    /// Events are taken wherever the cursor is.
    IgnoresCursors(ignored_cursors_are_noticed, 60);
    /// A turn that starts has no work item.
    LosesEnqueues(lost_enqueues_are_noticed, 60);
    /// The end of a turn is told twice.
    FinishesTwice(double_ends_are_noticed, 60);
    /// The harness takes a turn that it has had.
    DeliversAgain(double_deliveries_are_noticed, 60);
    /// What is to be cleaned up is forgotten.
    LosesCleanups(lost_cleanups_are_noticed, 60);
    /// Work of a dead process stays with it.
    NeverFrees(work_of_the_dead_is_noticed, 60);
    /// A repeated request is a new one.
    ForgetsKeys(forgotten_keys_are_noticed, 60);
    /// An ended session takes turns.
    AcceptsAfterTheEnd(late_acceptances_are_noticed, 60);
    /// The last event of each batch is not stored.
    LosesEvents(lost_events_are_noticed, 60);
}

fn is_noticed(defect: Defect, bound: u64) {
    for seed in 1..=bound {
        let report = paused(async {
            let mut stage = Stage::new(seed);
            if defect == Defect::DeliversAgain {
                stage.harness = Arc::new(Forgetful::new(&stage.world));
            } else {
                stage.front = Arc::new(Distorted::new(defect, &stage));
            }
            simulate(stage, Plan::of(seed)).await
        });
        if let Some(what) = report.broken {
            println!("{defect:?} is noticed by seed {seed}: {what:.200}");
            return;
        }
    }
    panic!("{defect:?} is not noticed by {bound} schedules");
}
