//! Which processes belong to a sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lap_core::id::SandboxId;

use super::identity::{Identity, has_marker};
use super::table::{Row, rows};

/// What is known about a sandbox whose processes are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Quarry {
    pub(crate) sandbox: SandboxId,
    /// Without links, as the kernel tells paths.
    pub(crate) folder: PathBuf,
    /// The sandbox's first process, dead or alive.
    pub(crate) root: Option<Identity>,
    /// Those found by an earlier look. What only its parent gave away stays known after the parent's end.
    pub(crate) known: BTreeSet<Identity>,
}

impl Quarry {
    pub(crate) const fn new(sandbox: SandboxId, folder: PathBuf, root: Option<Identity>) -> Self {
        Self {
            sandbox,
            folder,
            root,
            known: BTreeSet::new(),
        }
    }

    /// Looks, and remembers what it finds.
    pub(crate) fn learn(&mut self) -> io::Result<()> {
        self.known.extend(self.members()?);
        Ok(())
    }

    /// Every living process of the sandbox: in the session or group of its first process, with the marker in its
    /// environment, with its working directory, program or root inside the folder, and all below those.
    ///
    /// Never this process nor one that it descends from, and none that is older than the sandbox.
    pub(crate) fn members(&self) -> io::Result<Vec<Identity>> {
        let rows = rows()?;
        let spared = ancestors(&rows, std::process::id());
        let eligible: Vec<&Row> = rows
            .iter()
            .filter(|row| !spared.contains(&row.identity.pid) && self.is_young_enough(row))
            .collect();
        let groups_count = self.groups_count(&rows);
        let mut members: BTreeSet<u32> = eligible
            .iter()
            .filter(|row| {
                !row.is_over && (groups_count && self.shares_group(row) || self.owns(row.identity.pid))
            })
            .map(|row| row.identity.pid)
            .collect();
        let named = |row: &&&Row| self.root == Some(row.identity) || self.known.contains(&row.identity);
        members.extend(eligible.iter().filter(named).map(|row| row.identity.pid));
        add_descendants(&eligible, &mut members);
        let living = eligible
            .iter()
            .filter(|row| !row.is_over && members.contains(&row.identity.pid));
        Ok(living.map(|row| row.identity).collect())
    }

    fn is_young_enough(&self, row: &Row) -> bool {
        self.root.is_none_or(|root| row.identity.started >= root.started)
    }

    /// A group keeps its leader's number after the leader's end, and the kernel gives that number to nobody while the
    /// group has members. When the number is somebody else's, the group of that number is somebody else's too.
    fn groups_count(&self, rows: &[Row]) -> bool {
        self.root.is_some_and(|root| {
            !rows
                .iter()
                .any(|row| row.identity.pid == root.pid && row.identity != root)
        })
    }

    fn shares_group(&self, row: &Row) -> bool {
        self.root
            .is_some_and(|root| row.group == root.pid || row.session == root.pid)
    }

    fn owns(&self, pid: u32) -> bool {
        has_marker(pid, self.sandbox)
            || ["cwd", "exe", "root"]
                .iter()
                .any(|link| is_below(pid, link, &self.folder))
    }
}

fn is_below(pid: u32, link: &str, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|target| target.starts_with(folder))
}

/// The process itself and everything it descends from.
fn ancestors(rows: &[Row], pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = Some(pid);
    while let Some(pid) = next {
        if !found.insert(pid) {
            break;
        }
        next = rows
            .iter()
            .find(|row| row.identity.pid == pid)
            .map(|row| row.parent);
    }
    found
}

fn add_descendants(rows: &[&Row], members: &mut BTreeSet<u32>) {
    loop {
        let before = members.len();
        members.extend(
            rows.iter()
                .filter(|row| members.contains(&row.parent))
                .map(|row| row.identity.pid)
                .collect::<Vec<_>>(),
        );
        if members.len() == before {
            return;
        }
    }
}
