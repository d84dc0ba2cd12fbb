use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lap_core::id::{Entropy as _, SystemEntropy};
use lap_core::seal::{Sealed, Sealer};
use lap_core::secret::Secret;
use lap_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::client::ControlClient;
use crate::service::{
    ConfigDocument, PROTOCOL, PidFile, ensure_folder, lock, read, started, write_atomically,
};

/// A vault that is there by then is there; a loaded machine may take seconds.
const START: Duration = Duration::from_secs(30);
/// A vault that was told to end gets this long before it is ended.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often files and processes are looked at while waiting for them.
const LOOK: Duration = Duration::from_millis(5);
/// A longer log begins anew.
const LARGEST_LOG: u64 = 4 << 20;
const TOKEN_CONTEXT: &str = "vault/control-token";

/// How the vault process is started: a program that calls [`crate::serve`] with the document on its input.
#[derive(Debug, Clone)]
pub struct VaultCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment; nothing is inherited, because a server's environment holds secrets.
    pub env: Vec<(OsString, OsString)>,
}

/// Where the vault process lives and how it is started.
#[derive(Debug, Clone)]
pub struct VaultProcessConfig {
    /// The vault's folder, one per data folder of a server.
    pub folder: PathBuf,
    /// How it is started.
    pub command: VaultCommand,
    /// Seals what the vault keeps; base64 of 32 bytes. Without it the root key lies in the clear in a file only
    /// the owner can read.
    pub sealing_key: Option<Secret>,
    /// See [`crate::ServeConfig::idle_exit`].
    pub idle_exit: Option<Duration>,
    /// See [`crate::ServeConfig::orphan_exit`].
    pub orphan_exit: Option<Duration>,
    /// How long a model call waits for its key; ten seconds by default.
    pub grant_wait: Option<Duration>,
}

impl VaultProcessConfig {
    /// A vault in `folder` started by `command`, with the defaults.
    pub fn new(folder: impl Into<PathBuf>, command: VaultCommand) -> Self {
        Self {
            folder: folder.into(),
            command,
            sealing_key: None,
            idle_exit: None,
            orphan_exit: None,
            grant_wait: None,
        }
    }
}

/// A vault process that serves this folder.
#[derive(Debug)]
pub(super) struct VaultProcess {
    pub(super) client: ControlClient,
    pub(super) file: PidFile,
    pub(super) adopted: bool,
}

impl VaultProcess {
    /// A vault of this protocol serves the folder: the one that runs already, else a fresh one. Of several
    /// servers that ask at once one starts it and the others adopt it.
    ///
    /// # Errors
    /// `Unavailable` when the folder is not usable or the program does not become a vault; the message has the
    /// end of its log.
    pub(super) async fn ensure(config: &VaultProcessConfig) -> Result<Self> {
        ensure_folder(&config.folder)?;
        let _lock = lock(&config.folder.join("start.lock"), START).await?;
        let token = control_token(config)?;
        let client = ControlClient::new(config.folder.clone(), token.clone());
        if let Some(file) = running(&client).await? {
            return Ok(Self {
                client,
                file,
                adopted: true,
            });
        }
        let file = start(config, &client, &token).await?;
        Ok(Self {
            client,
            file,
            adopted: false,
        })
    }
}

/// The vault that runs already and speaks this protocol. Any other is ended.
async fn running(client: &ControlClient) -> Result<Option<PidFile>> {
    let Some(file) = client
        .pid_file()?
        .filter(|file| started(file.pid) == Some(file.started))
    else {
        return Ok(None);
    };
    match client.identify().await {
        Ok(identity) if identity == file && file.protocol == PROTOCOL => return Ok(Some(file)),
        Ok(_) => {
            tracing::info!(
                pid = file.pid,
                "the running vault is of another version and is replaced"
            );
            if let Err(error) = client.shutdown().await {
                tracing::debug!(
                    error = lap_core::error::chain(&error),
                    "the old vault did not take the call"
                );
            }
            end(&file, GRACE).await;
        }
        Err(error) => {
            let error = lap_core::error::chain(&error);
            tracing::warn!(
                pid = file.pid,
                error,
                "the running vault does not answer as ours and is replaced"
            );
            end(&file, Duration::ZERO).await;
        }
    }
    Ok(None)
}

/// The process is gone, by force after `grace`.
pub(super) async fn end(file: &PidFile, grace: Duration) {
    let deadline = Instant::now() + grace;
    let mut killed = false;
    while started(file.pid) == Some(file.started) {
        if !killed && Instant::now() >= deadline {
            killed = true;
            let pid = i32::try_from(file.pid).ok().and_then(Pid::from_raw);
            if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::KILL)) {
                tracing::warn!(%error, pid = file.pid, "the old vault cannot be ended");
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The token by which server and vault know each other. It survives the server, so that the next one can adopt
/// the vault, and is sealed like everything else that lies in files.
fn control_token(config: &VaultProcessConfig) -> Result<Secret> {
    let sealer = match &config.sealing_key {
        Some(key) => Sealer::from_base64(key.expose())?,
        None => Sealer::plaintext(),
    };
    let path = config.folder.join("control.token");
    let stored = read(&path)?
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Sealed::from_text);
    if let Some(stored) = stored {
        match sealer.open(TOKEN_CONTEXT, &stored).map(String::from_utf8) {
            Ok(Ok(token)) => return Ok(Secret::new(token)),
            _ => tracing::warn!("the vault's control token cannot be read; a running vault is replaced"),
        }
    }
    let mut random = [0; 32];
    let entropy = SystemEntropy::new();
    entropy.fill(&mut random);
    let token = Secret::new(URL_SAFE_NO_PAD.encode(random));
    let sealed = sealer.seal(TOKEN_CONTEXT, token.expose().as_bytes(), &entropy)?;
    write_atomically(&path, sealed.as_text().as_bytes())?;
    Ok(token)
}

async fn start(config: &VaultProcessConfig, client: &ControlClient, token: &Secret) -> Result<PidFile> {
    let failed = |what: &str| Error::new(ErrorKind::Unavailable, "start vault", what.to_owned());
    let log = config.folder.join("vault.log");
    let mut child = spawn(config, &log).map_err(|error| {
        failed(&format!("{} does not start", config.command.program.display())).with_source(error)
    })?;
    let document = document(config, token)?;
    let mut input = child
        .stdin
        .take()
        .ok_or_else(|| failed("the vault has no input"))?;
    // A program that ended already cannot read; what it logged is the better message.
    let written = input.write_all(document.expose().as_bytes()).await;
    drop(input);
    let deadline = Instant::now() + START;
    let pid = child.id();
    loop {
        if let Some(file) = client
            .pid_file()?
            .filter(|file| Some(file.pid) == pid && written.is_ok())
            && client.identify().await.is_ok_and(|identity| identity == file)
        {
            // Whoever started it collects it, else it would stay as a zombie.
            tokio::spawn(async move { child.wait().await });
            return Ok(file);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(&format!(
                "the vault ended at once ({status}): {}",
                tail(&log)
            )));
        }
        if Instant::now() >= deadline {
            if let Err(error) = child.start_kill() {
                tracing::debug!(%error, "the vault that did not start is gone already");
            }
            return Err(failed(&format!(
                "the vault did not start in time: {}",
                tail(&log)
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn spawn(config: &VaultProcessConfig, log: &Path) -> std::io::Result<Child> {
    let is_long = std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > LARGEST_LOG);
    let log = OpenOptions::new()
        .create(true)
        .append(!is_long)
        .write(true)
        .truncate(is_long)
        .mode(0o600)
        .open(log)?;
    Command::new(&config.command.program)
        .args(&config.command.args)
        .env_clear()
        .envs(config.command.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
}

fn document(config: &VaultProcessConfig, token: &Secret) -> Result<Secret> {
    let folder = std::path::absolute(&config.folder).map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "start vault",
            "the folder has no absolute path",
        )
        .with_source(error)
    })?;
    let millis =
        |duration: Option<Duration>| duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
    let document = ConfigDocument {
        folder,
        token: token.expose().to_owned(),
        sealing_key: config.sealing_key.as_ref().map(|key| key.expose().to_owned()),
        idle_exit_ms: millis(config.idle_exit),
        orphan_exit_ms: millis(config.orphan_exit),
        grant_wait_ms: millis(config.grant_wait),
    };
    serde_json::to_string(&document)
        .map(Secret::new)
        .map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "start vault",
                "the configuration has no JSON form",
            )
            .with_source(error)
        })
}

/// The end of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(600);
    String::from_utf8_lossy(&text[from..]).trim().replace('\n', " | ")
}
