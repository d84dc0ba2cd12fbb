//! How much of the machine a tree of processes takes.

use std::collections::HashMap;
use std::fs;
use std::io;

use super::identity::Identity;
use super::table::{Row, rows};

/// Of a process and everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pids: Vec<u32>,
    resident_bytes: u64,
}

impl Usage {
    /// How many processes there are.
    pub(crate) fn processes(&self) -> usize {
        self.pids.len()
    }

    /// The memory of all of them when it is more than `limit`. What several share counts once; finding that out is slow
    /// and is done only when the quick sum, which counts it for each, is above the limit.
    pub(crate) fn bytes_above(&self, limit: u64) -> Option<u64> {
        if self.resident_bytes <= limit {
            return None;
        }
        let exact: Option<u64> = self.pids.iter().map(|pid| proportional_bytes(*pid)).sum();
        Some(exact.unwrap_or(self.resident_bytes)).filter(|bytes| *bytes > limit)
    }
}

/// What the trees below these processes take, from one look at the table.
pub(crate) fn usage_of(roots: &[Identity]) -> io::Result<Vec<Usage>> {
    let rows = rows()?;
    let page_bytes = rustix::param::page_size() as u64;
    let mut below: HashMap<u32, Vec<&Row>> = HashMap::new();
    for row in &rows {
        below.entry(row.parent).or_default().push(row);
    }
    let usages = roots.iter().map(|root| {
        let mut usage = Usage::default();
        let mut open: Vec<&Row> = rows.iter().filter(|row| row.identity == *root).collect();
        while let Some(row) = open.pop() {
            if !row.is_over {
                usage.pids.push(row.identity.pid);
                usage.resident_bytes += row.resident_pages * page_bytes;
            }
            open.extend(below.remove(&row.identity.pid).unwrap_or_default());
        }
        usage
    });
    Ok(usages.collect())
}

/// Memory of the process with its part of what it shares; zero for one that has ended, nothing where the kernel does
/// not tell.
fn proportional_bytes(pid: u32) -> Option<u64> {
    let text = match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => text,
        Err(_) if fs::metadata(format!("/proc/{pid}")).is_err() => return Some(0),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Some(0),
        Err(_) => return None,
    };
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}
