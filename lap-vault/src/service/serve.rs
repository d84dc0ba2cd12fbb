use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use lap_core::id::{Entropy as _, SystemEntropy};
use lap_core::seal::Sealer;
use lap_core::time::SystemClock;
use lap_core::{Error, ErrorKind, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::files::{ensure_folder, failed, lock, socket_path, write_atomically};
use super::life::end_of_use;
use super::{PROTOCOL, Parts, PidFile, ServeConfig, VaultService, started};

/// Runs the vault process: the relay and its control socket, until it is told to end, its folder is removed,
/// or nobody has needed it for a while.
///
/// It leaves the session of the process that started it, so that it outlives that process, and closes itself
/// to debuggers and core dumps. One vault per folder: a second one ends with an error.
///
/// # Errors
/// `WrongState` when another vault serves this folder; `Unavailable` when the folder or the ports are not
/// usable; `Invalid` for a sealing key that is none.
pub async fn serve(config: ServeConfig) -> Result<()> {
    harden();
    let folder = config.folder.as_path();
    ensure_folder(folder)?;
    // A predecessor that was told to end needs a moment.
    let _lock = lock(&folder.join("vault.lock"), Duration::from_secs(5)).await?;
    let sealer = match &config.sealing_key {
        Some(key) => Sealer::from_base64(key.expose())?,
        None => Sealer::plaintext(),
    };
    let service = VaultService::start(Parts {
        folder: Some(config.folder.clone()),
        sealer,
        limits: config.limits.clone(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
    })
    .await?;
    let (listener, _folder) = control_socket(folder)?;
    let file = pid_file(service.port())?;
    let control = Arc::new(Control {
        service: Arc::clone(&service),
        token: config.token.clone(),
        file: file.clone(),
        servers: Arc::new(AtomicUsize::new(0)),
        end: CancellationToken::new(),
    });
    let path = folder.join("vault.json");
    let bytes = serde_json::to_vec(&file).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "start vault",
            "the pid file has no JSON form",
        )
        .with_source(error)
    })?;
    write_atomically(&path, &bytes)?;
    tracing::info!(port = service.port(), pid = file.pid, "the vault serves");
    let why = run(&config, &control, listener).await?;
    tracing::info!(why, "the vault ends");
    service.stop();
    for left in [path, folder.join("control.sock")] {
        // The folder may be gone; then there is nothing to tidy.
        let _ = std::fs::remove_file(left);
    }
    Ok(())
}

async fn run(config: &ServeConfig, control: &Arc<Control>, listener: UnixListener) -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Error::new(ErrorKind::Internal, "start vault", "no signals").with_source(error))?;
    tokio::select! {
        () = Arc::clone(control).serve(listener) => Ok("the control socket closed"),
        () = control.end.cancelled() => {
            // The answer to the call is still to be written.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok("the server said so")
        }
        _ = terminate.recv() => Ok("it was terminated"),
        why = end_of_use(
            &config.folder, &control.service, &control.servers, config.idle_exit, config.orphan_exit,
        ) => Ok(why),
    }
}

/// Detaches from the server's session and closes this process to others.
fn harden() {
    // A session leader already has a session of its own.
    let _ = rustix::process::setsid();
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Every exchange takes two sockets, and the usual soft limit is far below what the relay may hold.
    let files = rustix::process::getrlimit(Resource::Nofile);
    let files = Rlimit {
        current: files.maximum.map_or(Some(65_536), |most| Some(most.min(65_536))),
        ..files
    };
    let steps = [
        ("few files", rustix::process::setrlimit(Resource::Nofile, files)),
        ("core dumps", rustix::process::setrlimit(Resource::Core, no_core)),
        (
            "debuggers",
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
    ];
    for (what, outcome) in steps {
        if let Err(error) = outcome {
            tracing::warn!(%error, "the vault could not guard itself against {what}");
        }
    }
}

fn control_socket(folder: &Path) -> Result<(UnixListener, Option<std::fs::File>)> {
    let (path, handle) = socket_path(folder)?;
    let bind = || -> std::io::Result<UnixListener> {
        // The lock says that no vault listens on what is left there.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    Ok((
        bind().map_err(|error| failed("open control socket", &path, error))?,
        handle,
    ))
}

fn pid_file(port: u16) -> Result<PidFile> {
    let pid = std::process::id();
    let started = started(pid).ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            "start vault",
            "/proc does not show this process",
        )
    })?;
    let mut boot = [0; 16];
    SystemEntropy::new().fill(&mut boot);
    let boot = uuid::Builder::from_random_bytes(boot).into_uuid().to_string();
    Ok(PidFile {
        pid,
        started,
        boot,
        port,
        protocol: PROTOCOL,
    })
}
