//! Starting and stopping.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{Entropy, fresh_uuid};
use lap_core::time::Clock;
use rustix::fs::FlockOperation;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::adapter::{self, Tools};
use crate::binding::Binding;
use crate::endpoint::Endpoint;
use crate::environment::Environment;
use crate::journal::{Journal, Retention};
use crate::launch::LaunchDocument;
use crate::layout::{Layout, replace_file};
use crate::ledger::Ledger;
use crate::processes::{Processes, Reach, become_subreaper};
use crate::sandbox::Sandbox;
use crate::status::Status;
use crate::turns::Turns;
use crate::workspace::{self, Remote, Source};

const OPERATION: &str = "start sandboxd";
/// What the runtime keeps in the sandbox's folder. Its owner is the user as whom the platform runs.
const RECORD: &str = "sandbox.json";
/// How long the sandboxd of an earlier life may take to let go of the folder after it was killed.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// What sandboxd takes from the process around it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The process's environment. Only an allow-list of it (PATH, LANG, LC_ALL, TERM, TZ) reaches the agent.
    pub environment: Vec<(String, String)>,
}

/// A running sandboxd.
#[derive(Debug)]
pub struct Sandboxd {
    sandbox: Arc<Sandbox>,
    endpoint: Endpoint,
    server: JoinHandle<()>,
    preparing: JoinHandle<()>,
    _lock: std::fs::File,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("sandbox", &self.launch.sandbox)
            .finish_non_exhaustive()
    }
}

/// Runs sandboxd until it is told to stop by SIGTERM, SIGINT or `POST /lap/stop`, then ends everything below it.
/// The address goes to `output` as one line of JSON.
///
/// # Errors
/// As [`Sandboxd::start`].
pub async fn run(document: &str, surroundings: Surroundings, mut output: impl Write) -> Result<()> {
    let refused = |error: io::Error| {
        Error::new(ErrorKind::Internal, OPERATION, "signals cannot be received").with_source(error)
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut child = signal(SignalKind::child()).map_err(refused)?;
    become_subreaper();
    let sandboxd = Sandboxd::start_reaching(document, surroundings, Reach::Descendants).await?;
    if let Ok(line) = sandboxd.endpoint.to_line() {
        // A runtime that died in the meantime reads the file instead.
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = sandboxd.sandbox.stop.cancelled() => break,
            _ = child.recv() => sandboxd.sandbox.processes.reap_orphans(),
        }
    }
    sandboxd.stop().await;
    Ok(())
}

impl Sandboxd {
    /// Starts serving; the workspace and the harness are prepared in the background and `/lap/health` tells how
    /// far they are. Works again on the folder of an earlier life, whose survivors are killed first and whose
    /// unfinished turn ends as failed. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when the document is wrong, `Busy` when another sandboxd holds the folder, `Unavailable` when the
    /// folder or the address cannot be used.
    pub async fn start(document: &str, surroundings: Surroundings) -> Result<Self> {
        Self::start_reaching(document, surroundings, Reach::Marked).await
    }

    async fn start_reaching(document: &str, surroundings: Surroundings, reach: Reach) -> Result<Self> {
        let launch = LaunchDocument::parse(document)?;
        if reach == Reach::Descendants {
            close_memory(&launch.folder);
        }
        let lived_before = launch.folder.join("state").exists();
        let layout = Layout::create(&launch.folder).map_err(|error| unusable(&launch, error))?;
        let processes = Arc::new(Processes::new(launch.sandbox, reach));
        if lived_before && !processes.kill_earlier_life().await {
            tracing::warn!("processes of an earlier life of this sandbox cannot be ended");
        }
        let lock = take_folder(&layout).await?;
        let source = source(&launch);
        let listen = launch.listen;
        let sandbox = Arc::new(assemble(launch, surroundings, layout, processes, &source)?);
        let bound = TcpListener::bind(listen)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|error| {
            let message = format!("the address {listen} cannot be used: {error}");
            Error::new(ErrorKind::Unavailable, OPERATION, message)
        })?;
        let endpoint = announce(&sandbox, address)?;
        tracing::info!(sandbox = %sandbox.launch.sandbox, %address, harness = sandbox.launch.harness, "sandboxd serves");
        let server = tokio::spawn(crate::http::serve(listener, Arc::clone(&sandbox)));
        let preparing = tokio::spawn(prepare(Arc::clone(&sandbox), source));
        Ok(Self {
            sandbox,
            endpoint,
            server,
            preparing,
            _lock: lock,
        })
    }

    /// Where it answers.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Resolves when somebody asked it to stop through its own interface.
    pub async fn stop_requested(&self) {
        self.sandbox.stop.cancelled().await;
    }

    /// Ends the running turn as failed, stops serving, and ends every process of the sandbox.
    pub async fn stop(self) {
        self.preparing.abort();
        self.sandbox.turns.shut_down().await;
        self.sandbox.close.cancel();
        if !self.sandbox.processes.end_all().await {
            tracing::warn!("processes of this sandbox cannot be ended");
        }
        let _ = self.server.await;
    }
}

/// Keeps the agent's tools from reading this process's memory, where copies of the token of the clone stay.
///
/// The platform has to go on looking at this process. It can when it is another user, because it could not have made
/// this process that user's otherwise; as the same user it would shut itself out.
fn close_memory(folder: &Path) {
    let own = rustix::process::geteuid().as_raw();
    let is_others = std::fs::symlink_metadata(folder.join(RECORD)).is_ok_and(|record| record.uid() != own);
    if is_others && let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the memory of sandboxd stays open to its tools");
    }
}

fn unusable(launch: &LaunchDocument, error: io::Error) -> Error {
    let message = format!("the folder {} cannot be used: {error}", launch.folder.display());
    Error::new(ErrorKind::Unavailable, OPERATION, message)
}

/// Reads what an earlier life left and puts the parts together.
fn assemble(
    launch: LaunchDocument,
    surroundings: Surroundings,
    layout: Layout,
    processes: Arc<Processes>,
    source: &Result<Option<Source>, String>,
) -> Result<Sandbox> {
    let state = layout.state();
    let unusable = |error| unusable(&launch, error);
    let journal = Arc::new(Journal::open(&state.join("journal"), Retention::default()).map_err(unusable)?);
    let ledger = Ledger::open(&state.join("turns.jsonl")).map_err(unusable)?;
    let turns = Arc::new(Turns::new(ledger, Arc::clone(&journal))?);
    let binding = Mutex::new(Binding::load(&state).map_err(unusable)?);
    let url = source
        .as_ref()
        .ok()
        .and_then(|source| source.as_ref())
        .map(|source| source.remote.url());
    let environment = Arc::new(Environment::new(
        surroundings.environment,
        &launch,
        url,
        &layout.home(),
    ));
    Ok(Sandbox {
        boot: fresh_uuid(&*surroundings.entropy, surroundings.clock.now()),
        clock: surroundings.clock,
        entropy: surroundings.entropy,
        status: Status::new(),
        adapter: OnceLock::new(),
        stop: CancellationToken::new(),
        close: CancellationToken::new(),
        // From here on only the source of the clone has the token.
        launch: LaunchDocument {
            git_token: None,
            ..launch
        },
        journal,
        turns,
        binding,
        snapshots: Mutex::new(()),
        environment,
        processes,
        layout,
    })
}

/// Two sandboxds on one folder would mix their journals.
async fn take_folder(layout: &Layout) -> Result<std::fs::File> {
    let path = layout.state().join("lock");
    let deadline = tokio::time::Instant::now() + TAKE_OVER;
    let lock = std::fs::File::create(&path).map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            OPERATION,
            "the lock of the folder cannot be made",
        )
        .with_source(error)
    })?;
    while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::new(
                ErrorKind::Busy,
                OPERATION,
                "another sandboxd holds the folder",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(lock)
}

fn announce(sandbox: &Sandbox, address: std::net::SocketAddr) -> Result<Endpoint> {
    let written = Endpoint::of_this_process(address, sandbox.launch.sandbox.as_uuid(), sandbox.boot)
        .and_then(|endpoint| {
            let line = endpoint.to_line()?;
            replace_file(&sandbox.layout.endpoint(), line.as_bytes())?;
            Ok(endpoint)
        });
    written.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            OPERATION,
            "endpoint.json cannot be written",
        )
        .with_source(error)
    })
}

/// What to clone. The token moves from the launch document into the source and dies with it.
fn source(launch: &LaunchDocument) -> Result<Option<Source>, String> {
    let Some(url) = &launch.repo_url else {
        return Ok(None);
    };
    let remote = Remote::parse(url)?;
    Ok(Some(Source {
        remote,
        branch: launch.branch.clone(),
        token: launch.git_token.clone(),
    }))
}

async fn prepare(sandbox: Arc<Sandbox>, source: Result<Option<Source>, String>) {
    let Sandbox {
        layout,
        environment,
        processes,
        status,
        ..
    } = &*sandbox;
    let prepared = async {
        workspace::prepare(source?, layout, environment, processes, status).await?;
        status.phase("harness_listening");
        let tools = Tools {
            layout: layout.clone(),
            environment: Arc::clone(environment),
            processes: Arc::clone(processes),
            gateway: sandbox.launch.gateway.clone(),
            clock: Arc::clone(&sandbox.clock),
            entropy: Arc::clone(&sandbox.entropy),
        };
        let adapter = adapter::start(&sandbox.launch.harness, tools).await?;
        if let Some(bound) = sandbox.bound().await {
            adapter
                .open(&bound.opening)
                .await
                .map_err(|refused| format!("{refused:?}"))?;
        }
        Ok::<_, String>(adapter)
    };
    match prepared.await {
        Ok(adapter) => {
            let _ = sandbox.adapter.set(Arc::clone(&adapter));
            status.ready();
            if let Some(warning) = adapter.warning() {
                tracing::warn!(warning, "the sandbox is ready, but");
                status.detail(&warning);
            }
            tracing::info!("the sandbox is ready");
            status.failed(&adapter.ended().await);
        }
        Err(reason) => status.failed(&reason),
    }
}
