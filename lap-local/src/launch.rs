//! The verb launch.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Result};
use lap_core::runtime::LaunchSpec;

use crate::failure::{off_thread, unavailable};
use crate::folder::{FolderLock, lay_out, put_in_place};
use crate::life::Life;
use crate::process::{Quarry, kill_all};
use crate::record::{Record, Root, merge_labels};
use crate::registry::Sight;
use crate::runtime::Shared;
use crate::spawn::{Handover, WALLS, document, hand_over, limit, spawn};

const OPERATION: &str = "launch sandbox";
/// How long a launch waits for another call that works on the same sandbox.
const TURN: Duration = Duration::from_secs(60);
/// How long a new process may take to show its environment.
const SETTLED: Duration = Duration::from_millis(500);
/// How often the folder may vanish between making and locking it.
const ATTEMPTS: usize = 5;

/// See [`SandboxRuntime::launch`](lap_core::runtime::SandboxRuntime::launch).
pub(crate) async fn launch(shared: Arc<Shared>, spec: LaunchSpec) -> Result<()> {
    if spec.instance != shared.config.instance {
        return Err(Error::invalid(
            OPERATION,
            "instance",
            "this runtime serves another installation",
        ));
    }
    let fail = |error| unavailable(OPERATION, format!("sandbox {}", spec.sandbox), error);
    let (lock, is_fresh) = own_folder(&shared, &spec).await.map_err(fail)?;
    match shared.registry.look(spec.sandbox).map_err(fail)? {
        Sight::Foreign => {
            let message = format!("sandbox {} belongs to another installation", spec.sandbox);
            Err(Error::new(ErrorKind::WrongState, OPERATION, message))
        }
        Sight::Absent => Err(fail(io::Error::other("its folder was taken away"))),
        Sight::Alive(life) => write_down(&shared, &spec, &life).map_err(fail),
        // It was launched. That it has ended since is for `endpoint` and `watch` to tell.
        Sight::Ended(_) => Ok(()),
        Sight::Planned => {
            if !is_fresh {
                clear_away(&shared, &spec).await?;
            }
            let started = start(&shared, &spec).await;
            if started.is_err() {
                withdraw(&shared, &spec, lock);
            }
            started
        }
    }
}

/// The locked folder of the sandbox, and whether this call made it. A folder appears with its record in it.
async fn own_folder(shared: &Shared, spec: &LaunchSpec) -> io::Result<(FolderLock, bool)> {
    let path = shared.registry.folder(spec.sandbox);
    for _ in 0..ATTEMPTS {
        if let Some(lock) = FolderLock::acquire(&path, TURN).await? {
            return Ok((lock, false));
        }
        if let Some(lock) = make_folder(shared, spec, &path)? {
            return Ok((lock, true));
        }
    }
    Err(io::Error::other("its folder vanishes again and again"))
}

/// The new folder, locked; nothing when another call was faster.
fn make_folder(shared: &Shared, spec: &LaunchSpec, path: &Path) -> io::Result<Option<FolderLock>> {
    let (draft, laid_out) = loop {
        let draft = shared.trash.draft(spec.sandbox);
        match lay_out(&draft) {
            // Another runtime of this process counts as well.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => break (draft, other?),
        }
    };
    let Some(lock) = laid_out else {
        return Ok(None);
    };
    let record = Record {
        instance: spec.instance,
        created_at: shared.config.clock.now().to_iso8601(),
        root: None,
    };
    record.write(&draft, spec.sandbox)?;
    merge_labels(&draft, &spec.labels)?;
    // The lock is the folder's and moves with it.
    if put_in_place(&draft, path)? {
        return Ok(Some(lock));
    }
    fs::remove_dir_all(&draft)?;
    Ok(None)
}

/// An earlier launch did not come to its end: what it may have started is ended, what it may have said is removed.
async fn clear_away(shared: &Shared, spec: &LaunchSpec) -> Result<()> {
    let folder = shared.registry.folder(spec.sandbox);
    let mut quarry = Quarry::new(spec.sandbox, folder.clone(), None);
    let cleared = off_thread(OPERATION, move || {
        let left = kill_all(&mut quarry)?;
        match fs::remove_file(folder.join("endpoint.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(left),
        }
    });
    match cleared.await? {
        Ok(0) => Ok(()),
        Ok(left) => {
            let message = format!("{left} processes of an earlier attempt cannot be ended");
            Err(Error::new(ErrorKind::Unavailable, OPERATION, message))
        }
        Err(error) => Err(unavailable(OPERATION, format!("sandbox {}", spec.sandbox), error)),
    }
}

async fn start(shared: &Arc<Shared>, spec: &LaunchSpec) -> Result<()> {
    let (sandbox, folder) = (spec.sandbox, shared.registry.folder(spec.sandbox));
    let fail = |error| unavailable(OPERATION, format!("sandbox {sandbox}"), error);
    let document = document(spec, &folder).map_err(fail)?;
    let starter = Arc::clone(shared);
    let started = off_thread(OPERATION, move || {
        starter
            .registry
            .start(sandbox, || spawn(&starter, sandbox, &folder))
    });
    let (life, stdin) = started.await?.map_err(|error| {
        unavailable(
            OPERATION,
            format!("{} cannot be started", shared.config.program.display()),
            error,
        )
    })?;
    limit(shared, sandbox, &life);
    if hand_over(stdin, &document, shared.config.limits.handover)
        .await
        .map_err(fail)?
        == Handover::TimedOut
    {
        life.kill("it did not read its launch document in time and was killed")
            .map_err(fail)?;
    }
    show_marker(shared, &life).await;
    tracing::info!(%sandbox, pid = life.identity().pid, "launched a sandbox");
    write_down(shared, spec, &life).map_err(fail)
}

/// Waits until the process's environment can be read and stays, because others recognise it by that. The system lets a
/// starter go on before the new program's environment is in place, and what makes walls becomes several programs in turn
/// before it becomes the sandbox's.
async fn show_marker(shared: &Shared, life: &Life) {
    let (means, patience) = match &shared.means {
        Some(means) => (Some(means), WALLS),
        None => (None, SETTLED),
    };
    let deadline = tokio::time::Instant::now() + patience;
    let is_there = || means.is_none_or(|means| !means.is_at_work(life.identity().pid)) && life.has_marker();
    while !is_there() && life.end().is_none() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes down which process the sandbox is, from which on the launch is complete.
fn write_down(shared: &Shared, spec: &LaunchSpec, life: &Life) -> io::Result<()> {
    let folder = shared.registry.folder(spec.sandbox);
    let created_at = match Record::read(&folder)? {
        Some(record) if record.root.is_some() => return Ok(()),
        Some(record) => record.created_at,
        None => shared.config.clock.now().to_iso8601(),
    };
    let root = Root {
        identity: life.identity(),
        boot_id: shared.registry.boot_id().to_owned(),
    };
    Record {
        instance: spec.instance,
        created_at,
        root: Some(root),
    }
    .write(&folder, spec.sandbox)
}

/// Nothing was started: the folder goes, as if the call had not been made.
fn withdraw(shared: &Shared, spec: &LaunchSpec, lock: FolderLock) {
    if shared.registry.remembered(spec.sandbox).is_some() {
        return;
    }
    let path = shared.registry.folder(spec.sandbox);
    let outcome = shared
        .trash
        .take(&path, spec.sandbox)
        .and_then(|()| shared.trash.empty_of(spec.sandbox));
    drop(lock);
    if let Err(error) = outcome {
        tracing::warn!(sandbox = %spec.sandbox, %error, "the folder of a failed launch is left to the next start");
    }
}
