use std::time::Duration;

use super::dice::Dice;
use crate::crash::{Site, Strike};

/// What one schedule is like. Some faults are off in some schedules, so that one does not hide another.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Reproduces everything.
    pub seed: u64,
    /// Processes on the store.
    pub engines: usize,
    /// Clients.
    pub clients: usize,
    /// What each client does before it stops.
    pub steps: u32,
    /// Calls of a thousand that fail before their effect.
    pub fail_before: u64,
    /// Calls of a thousand that fail after their effect.
    pub fail_after: u64,
    /// Calls of ten thousand at which the process crashes.
    pub crash: u64,
    /// Calls of a thousand that are slow.
    pub slow: u64,
    /// How long a slow call takes at most.
    pub slowness: Duration,
    /// Processes of a thousand whose signs of life do not arrive: others take their work while they go on with it.
    pub deaf: u64,
    /// How long a process lives at most.
    pub life: Duration,
    /// Sessions that nobody uses for this long end.
    pub idle: Duration,
    /// Sandboxes die, are refused, are slow or hopeless.
    pub nature: bool,
    /// No hint reaches anybody.
    pub loses_hints: bool,
}

impl Plan {
    /// The plan of this seed.
    pub fn of(seed: u64) -> Self {
        let dice = Dice::new(seed, 1);
        let maybe = |most: u64| if dice.chance(400) { 0 } else { dice.below(most) };
        Self {
            seed,
            engines: 1 + usize::try_from(dice.below(3)).unwrap_or(0),
            clients: 2 + usize::try_from(dice.below(3)).unwrap_or(0),
            steps: 12,
            fail_before: maybe(60),
            fail_after: maybe(60),
            crash: maybe(60),
            slow: maybe(80),
            slowness: [
                Duration::from_millis(300),
                Duration::from_secs(4),
                Duration::from_secs(15),
            ][usize::try_from(dice.below(3)).unwrap_or(0)],
            deaf: maybe(500),
            life: Duration::from_secs(20 + dice.below(200)),
            idle: Duration::from_secs(20 + dice.below(100)),
            nature: dice.chance(650),
            loses_hints: dice.chance(250),
        }
    }

    /// What happens to one call. A turn has thousands of events, so that each is struck less often.
    pub(super) fn strike(&self, dice: &Dice, site: Site) -> Strike {
        if site.method == "event" && !dice.chance(20) {
            return Strike::Pass;
        }
        if dice.below(10_000) < self.crash {
            return if dice.chance(500) {
                Strike::CrashBefore
            } else {
                Strike::CrashAfter
            };
        }
        let roll = dice.below(1000);
        if roll < self.fail_before {
            Strike::FailBefore
        } else if roll < self.fail_before + self.fail_after {
            Strike::FailAfter
        } else if roll < self.fail_before + self.fail_after + self.slow {
            Strike::Slow(dice.up_to(self.slowness))
        } else {
            Strike::Pass
        }
    }
}
