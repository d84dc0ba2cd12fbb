//! The verb stop.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::SandboxId;
use lap_core::runtime::RuntimeEvent;

use crate::cgroup::Group;
use crate::failure::{off_thread, unavailable};
use crate::folder::FolderLock;
use crate::life::Life;
use crate::process::{Quarry, kill_all, terminate};
use crate::registry::Sight;
use crate::runtime::Shared;

const OPERATION: &str = "stop sandbox";
const REASON: &str = "it was stopped";
/// How long a stop waits for another call that works on the same sandbox, on top of its own grace.
const TURN: Duration = Duration::from_secs(60);
/// How long the news of a killed process's end may take.
const NEWS: Duration = Duration::from_secs(5);

/// See [`SandboxRuntime::stop`](lap_core::runtime::SandboxRuntime::stop).
pub(crate) async fn stop(shared: Arc<Shared>, sandbox: SandboxId, grace: Duration) -> Result<()> {
    let fail = |error| unavailable(OPERATION, format!("sandbox {sandbox}"), error);
    let path = shared.registry.folder(sandbox);
    let lock = FolderLock::acquire(&path, TURN + grace).await.map_err(fail)?;
    let sight = shared.registry.look(sandbox).map_err(fail)?;
    if matches!(sight, Sight::Foreign) {
        return Ok(());
    }
    let is_known = lock.is_some() || shared.registry.remembered(sandbox).is_some();
    if is_known {
        let life = shared.registry.remembered(sandbox);
        // What the record alone says is not enough to signal anybody: it may have been forged from inside. A first
        // process that can be verified was adopted by the look above.
        let quarry = Quarry::new(sandbox, path.clone(), life.as_ref().map(|life| life.identity()));
        let group = shared.groups.as_ref().and_then(|groups| groups.of(sandbox));
        end_processes(quarry, life, group.clone(), grace).await?;
        if let Some(group) = group {
            group.remove();
        }
    }
    remove(&shared, sandbox, lock).await?;
    if is_known {
        let was_watched = shared.registry.remembered(sandbox).is_some();
        shared.registry.forget(sandbox);
        if !was_watched {
            shared.registry.watchers().tell(&RuntimeEvent::Gone {
                sandbox,
                reason: REASON.to_owned(),
            });
        }
        tracing::info!(%sandbox, "stopped a sandbox");
    }
    Ok(())
}

async fn end_processes(
    mut quarry: Quarry,
    life: Option<Arc<Life>>,
    group: Option<Group>,
    grace: Duration,
) -> Result<()> {
    let sandbox = quarry.sandbox;
    let fail = |error| unavailable(OPERATION, format!("processes of sandbox {sandbox}"), error);
    let life = life.filter(|life| life.end().is_none());
    if let Some(life) = &life {
        // What has neither marker nor folder is found only as long as its parents live.
        quarry = off_thread(OPERATION, move || quarry.learn().map(|()| quarry))
            .await?
            .map_err(fail)?;
        // sandboxd ends what runs below it before it ends itself.
        life.ask_to_end(REASON).map_err(fail)?;
        if !life.has_ended(grace).await && life.ends_as_one() {
            life.kill(REASON).map_err(fail)?;
            life.has_ended(NEWS).await;
        }
    }
    let is_alone = life.is_none();
    let killed = off_thread(OPERATION, move || {
        if is_alone {
            ask_strays(&quarry, grace)?;
        }
        if let Some(group) = &group {
            group.kill();
        }
        kill_all(&mut quarry)
    });
    let left = killed.await?.map_err(fail)?;
    if left > 0 {
        let message = format!("{left} processes of sandbox {sandbox} cannot be killed");
        return Err(Error::new(ErrorKind::Unavailable, OPERATION, message));
    }
    if let Some(life) = life {
        life.has_ended(NEWS).await;
    }
    Ok(())
}

/// Processes that outlived their sandboxd are asked one by one. Blocking.
fn ask_strays(quarry: &Quarry, grace: Duration) -> io::Result<()> {
    let until = Instant::now() + grace;
    for stray in terminate(quarry)? {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        stray.has_ended(u32::try_from(left).unwrap_or(u32::MAX));
        stray.reap();
    }
    Ok(())
}

async fn remove(shared: &Arc<Shared>, sandbox: SandboxId, lock: Option<FolderLock>) -> Result<()> {
    let remover = Arc::clone(shared);
    let removed = off_thread(OPERATION, move || -> io::Result<()> {
        if lock.is_some() {
            remover.trash.take(&remover.registry.folder(sandbox), sandbox)?;
        }
        drop(lock);
        // What an earlier stop could not remove is tried again.
        remover.trash.empty_of(sandbox)
    });
    removed
        .await?
        .map_err(|error| unavailable(OPERATION, format!("files of sandbox {sandbox}"), error))
}
