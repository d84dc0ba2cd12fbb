//! What this server knows about the sandboxes of its data folder.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lap_core::id::{InstanceId, SandboxId};
use lap_core::runtime::RuntimeEvent;
use tokio::runtime::Handle;

use crate::life::{Life, Origin, with_last_lines};
use crate::process::{Identity, Process};
use crate::record::{EndpointFile, Record};
use crate::watch::Watchers;

/// What one look at a sandbox shows.
#[derive(Debug)]
pub(crate) enum Sight {
    /// Nothing.
    Absent,
    /// It belongs to another installation.
    Foreign,
    /// Its folder is there, but it was not started yet.
    Planned,
    /// It runs.
    Alive(Arc<Life>),
    /// It has ended, for this reason; its folder is still there.
    Ended(String),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Registry {
    sandboxes: PathBuf,
    instance: InstanceId,
    boot_id: String,
    patience: Duration,
    /// Sandboxes that are not kept apart are ended, wherever they come from.
    insists_on_walls: bool,
    tasks: Handle,
    watchers: Arc<Watchers>,
    lives: Mutex<HashMap<SandboxId, Arc<Life>>>,
}

impl Registry {
    pub(crate) fn new(
        sandboxes: PathBuf,
        instance: InstanceId,
        boot_id: String,
        patience: Duration,
        insists_on_walls: bool,
        tasks: Handle,
    ) -> Self {
        let watchers = Arc::default();
        Self {
            sandboxes,
            instance,
            boot_id,
            patience,
            insists_on_walls,
            tasks,
            watchers,
            lives: Mutex::default(),
        }
    }

    pub(crate) fn folder(&self, sandbox: SandboxId) -> PathBuf {
        self.sandboxes.join(sandbox.to_string())
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub(crate) fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    pub(crate) fn tasks(&self) -> &Handle {
        &self.tasks
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Life>>> {
        // Nothing that runs under the lock leaves the map half changed.
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox as this server remembers it, else as its folder and the table of processes show it. One that runs
    /// is adopted: from now on its end is noticed.
    pub(crate) fn look(&self, sandbox: SandboxId) -> io::Result<Sight> {
        // The lock is held throughout, so that two callers do not adopt the same sandbox twice.
        let mut lives = self.lives();
        if let Some(life) = lives.get(&sandbox) {
            return Ok(life
                .end()
                .map_or_else(|| Sight::Alive(Arc::clone(life)), Sight::Ended));
        }
        let folder = self.folder(sandbox);
        if !folder.is_dir() {
            return Ok(Sight::Absent);
        }
        // A record that a power failure tore names nobody. Its processes are gone with the power; whoever asks for the
        // sandbox by its id knows it, and so it is treated as ours and not started.
        let record = Record::read(&folder)?;
        if record
            .as_ref()
            .is_some_and(|record| record.instance != self.instance)
        {
            return Ok(Sight::Foreign);
        }
        let root = record.and_then(|record| record.root);
        let was_started = root.is_some();
        let candidate = match root {
            Some(root) if root.boot_id == self.boot_id => open_marked(root.identity, sandbox)?,
            Some(_) => None,
            // A server that was killed between starting a sandbox and writing that down.
            None => match EndpointFile::read(&folder, sandbox)? {
                Some(file) => Process::self_named(file.identity, sandbox)?,
                None => None,
            },
        };
        if let Some(process) = candidate {
            return Ok(Sight::Alive(self.adopt(&mut lives, sandbox, process)?));
        }
        if was_started {
            return Ok(Sight::Ended(with_last_lines(
                "sandboxd ended while no server watched it".to_owned(),
                &folder,
            )));
        }
        Ok(Sight::Planned)
    }

    fn adopt(
        &self,
        lives: &mut HashMap<SandboxId, Arc<Life>>,
        sandbox: SandboxId,
        process: Process,
    ) -> io::Result<Arc<Life>> {
        tracing::info!(%sandbox, pid = process.identity().pid, "adopted a running sandbox");
        let life = self.begin(sandbox, process, Origin::Adopted);
        lives.insert(sandbox, Arc::clone(&life));
        if self.insists_on_walls && !life.is_enclosed() {
            life.kill("it was started without isolation, on which this server insists")?;
        }
        Ok(life)
    }

    /// Every sandbox that runs, as far as this server knows.
    pub(crate) fn running(&self) -> Vec<(SandboxId, Arc<Life>)> {
        let lives = self.lives();
        let alive = lives.iter().filter(|(_, life)| life.end().is_none());
        alive
            .map(|(sandbox, life)| (*sandbox, Arc::clone(life)))
            .collect()
    }

    /// Remembers the process that `start` makes as the sandbox's first. Nobody can look in between.
    pub(crate) fn start<T>(
        &self,
        sandbox: SandboxId,
        start: impl FnOnce() -> io::Result<(Process, Origin, T)>,
    ) -> io::Result<(Arc<Life>, T)> {
        let mut lives = self.lives();
        let (process, origin, other) = start()?;
        let life = self.begin(sandbox, process, origin);
        lives.insert(sandbox, Arc::clone(&life));
        Ok((life, other))
    }

    fn begin(&self, sandbox: SandboxId, process: Process, origin: Origin) -> Arc<Life> {
        let life = Arc::new(Life::new(sandbox, self.folder(sandbox), process, origin));
        let (watchers, supervised, patience) = (Arc::clone(&self.watchers), Arc::clone(&life), self.patience);
        self.tasks.spawn(async move {
            let reason = supervised.supervise(patience).await;
            tracing::info!(%sandbox, reason, "a sandbox has ended");
            watchers.tell(&RuntimeEvent::Gone { sandbox, reason });
        });
        life
    }

    /// What this server remembers, without looking at the folder.
    pub(crate) fn remembered(&self, sandbox: SandboxId) -> Option<Arc<Life>> {
        self.lives().get(&sandbox).map(Arc::clone)
    }

    /// Nothing of the sandbox is left.
    pub(crate) fn forget(&self, sandbox: SandboxId) {
        self.lives().remove(&sandbox);
    }

    /// Every sandbox of this instance that has a folder. Blocking.
    pub(crate) fn on_disk(&self) -> io::Result<BTreeSet<SandboxId>> {
        // Those that this server knows are ours whatever became of their records.
        let known: Vec<SandboxId> = self.lives().keys().copied().collect();
        let mut found: BTreeSet<_> = known.into_iter().filter(|id| self.folder(*id).is_dir()).collect();
        for entry in fs::read_dir(&self.sandboxes)? {
            let name = entry?.file_name();
            let Some(sandbox) = name.to_str().and_then(|name| name.parse::<SandboxId>().ok()) else {
                continue;
            };
            match Record::read(&self.folder(sandbox)) {
                Ok(Some(record)) if record.instance == self.instance => {
                    found.insert(sandbox);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    tracing::warn!(%sandbox, "a sandbox folder has no readable record and is left alone")
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// The process if it still is the one that is meant and says itself that it belongs to the sandbox. The record and the
/// endpoint file can be forged from inside; the environment of a foreign process cannot.
fn open_marked(identity: Identity, sandbox: SandboxId) -> io::Result<Option<Process>> {
    Ok(Process::open(identity)?.filter(|process| process.has_marker(sandbox)))
}
