//! The crash matrix: every scenario, struck in every way at every call it makes.

use std::sync::{Arc, Mutex};

use lap_conformance::crash::{Actor, Broken, Site, Stage, Strike, Wire};

use crate::paused::paused;
use crate::scenarios::{SCENARIOS, Scenario};

struct Run {
    /// The call that was struck; `None` when the scenario made fewer calls.
    struck: Option<Site>,
    result: Result<(), Broken>,
}

fn run(scenario: &Scenario, strike: Strike, at: usize) -> Run {
    let struck = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&struck);
    let result = paused(async {
        let wire = Wire::new(move |number, site| {
            if number == at {
                *noted.lock().unwrap() = Some(site);
                strike
            } else {
                Strike::Pass
            }
        });
        let mut stage = Stage::new(7);
        (scenario.configure)(&mut stage.config);
        let actor = Actor::new(stage, &wire);
        actor.play((scenario.play)(&actor)).await
    });
    let struck = *struck.lock().unwrap();
    Run { struck, result }
}

/// Strikes each call of the scenario until a run has no call left to strike.
fn strike_every_call(scenario: &Scenario) {
    let sound = run(scenario, Strike::Pass, usize::MAX);
    assert_eq!(sound.result, Ok(()), "{} without a strike", scenario.name);
    let (mut broken, mut runs) = (Vec::new(), 0);
    for strike in Strike::HARMFUL {
        for at in 0.. {
            let run = run(scenario, strike, at);
            let Some(site) = run.struck else { break };
            runs += 1;
            if let Err(what) = run.result {
                broken.push(format!("{strike:?} at call {at} ({site}): {what}"));
            }
        }
    }
    println!("{}: {runs} runs", scenario.name);
    assert!(
        broken.is_empty(),
        "{}: {} of {runs} runs broken\n{}",
        scenario.name,
        broken.len(),
        broken.join("\n")
    );
}

macro_rules! matrix {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == stringify!($name));
            strike_every_call(scenario.unwrap());
        })+

        #[test]
        fn every_scenario_is_struck() {
            let struck = [$(stringify!($name)),+];
            for scenario in SCENARIOS {
                assert!(struck.contains(&scenario.name), "{} is not in the matrix", scenario.name);
            }
        }
    };
}

matrix! {
    a_cold_session_gets_ready,
    a_warm_session_gets_ready,
    a_prompt_is_answered,
    a_turn_is_answered,
    turns_queue,
    a_running_turn_is_aborted,
    a_queued_turn_is_aborted,
    a_turn_fails,
    a_turn_is_too_slow,
    a_session_is_closed_while_creating,
    a_session_is_closed_while_a_turn_runs,
    an_agent_is_changed_and_deleted,
    an_idle_session_ends,
    a_sandbox_dies,
    a_broken_warm_sandbox_is_replaced,
    a_hopeless_sandbox_fails_its_session,
    a_slow_preparation_is_told,
    an_engine_is_drained,
    a_session_is_restarted,
}
