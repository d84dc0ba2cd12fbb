//! Looking at `/proc`. Processes come and go while it is read, so everything unreadable is simply not there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

/// When a process started: field 22 of its `stat`.
pub(crate) fn started(pid: u32) -> io::Result<String> {
    if cfg!(not(target_os = "linux")) {
        return Ok(String::new());
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let started = after_name(&stat).nth(19);
    started
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("the process's stat is too short"))
}

/// Processes whose environment holds exactly this `NAME=value`.
pub(super) fn carriers(assignment: &str) -> Vec<u32> {
    let carries = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|entry| entry == assignment.as_bytes())
        })
    };
    let own = std::process::id();
    all().filter(|pid| *pid != own).filter(carries).collect()
}

/// This process and everything above it.
pub(super) fn ancestors() -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut pid = std::process::id();
    while pid > 0 && found.insert(pid) {
        pid = parent(pid).unwrap_or(0);
    }
    found
}

/// Everything below this process.
pub(super) fn descendants() -> Vec<u32> {
    let mut below: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            below.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![std::process::id()];
    while let Some(pid) = open.pop() {
        let children = below.remove(&pid).unwrap_or_default();
        open.extend(&children);
        found.extend(children);
    }
    found
}

/// The children of this process.
pub(super) fn children() -> Vec<u32> {
    let own = std::process::id();
    all().filter(|pid| parent(*pid) == Some(own)).collect()
}

/// Whether a process has ended and only waits for its parent to notice.
pub(super) fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    after_name(&stat)
        .next()
        .is_none_or(|state| matches!(state, "Z" | "X"))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    after_name(&stat).nth(1)?.parse().ok()
}

/// The fields of `stat` from the third on. The second, the name, may itself hold spaces and brackets.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_ascii_whitespace()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}
