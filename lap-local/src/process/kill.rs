//! Ending everything that belongs to a sandbox.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::identity::{Identity, Process};
use super::members::Quarry;

/// After this long, what still lives cannot be killed (it hangs in the kernel, or is not this user's).
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one round waits for what it has killed.
const ROUND_MS: u32 = 500;

/// Asks every member to end. Blocking.
pub(crate) fn terminate(quarry: &Quarry) -> io::Result<Vec<Process>> {
    let mut asked = Vec::new();
    for identity in quarry.members()? {
        if let Some(process) = Process::open(identity)? {
            // One that may not be signalled is found again, and told, when the killing starts.
            let _ = process.signal(Signal::TERM);
            asked.push(process);
        }
    }
    Ok(asked)
}

/// Kills every member, and those that appear meanwhile, until none is left; tells how many could not be killed. Blocking.
pub(crate) fn kill_all(quarry: &mut Quarry) -> io::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frozen = freeze(quarry, deadline)?;
        if frozen.is_empty() || Instant::now() >= deadline {
            return Ok(frozen.len());
        }
        for process in &frozen {
            // One that may not be signalled is still there in the next round, and counted in the last.
            let _ = process.signal(Signal::KILL);
        }
        wait_for(quarry, &frozen);
    }
}

/// Suspends every member, so that none makes another one unseen: a child whose parent dies first can be impossible to
/// tell from a stranger.
fn freeze(quarry: &mut Quarry, deadline: Instant) -> io::Result<Vec<Process>> {
    let mut frozen: BTreeMap<Identity, Process> = BTreeMap::new();
    loop {
        let mut is_complete = true;
        for identity in quarry.members()? {
            if frozen.contains_key(&identity) {
                continue;
            }
            if let Some(process) = Process::open(identity)? {
                let _ = process.signal(Signal::STOP);
                frozen.insert(identity, process);
                is_complete = false;
            }
        }
        quarry.known.extend(frozen.keys());
        if is_complete || Instant::now() >= deadline {
            return Ok(frozen.into_values().collect());
        }
    }
}

fn wait_for(quarry: &Quarry, killed: &[Process]) {
    let until = Instant::now() + Duration::from_millis(u64::from(ROUND_MS));
    for process in killed {
        let left =
            u32::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(ROUND_MS);
        process.has_ended(left);
        // Where this process is the machine's first one, orphans are its children. The sandbox's own first process is
        // left to its supervisor, which wants to know how it ended.
        if quarry.root != Some(process.identity()) {
            process.reap();
        }
    }
}
