//! The opencode process: started, waited for, watched.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lap_core::id::fresh_uuid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::api::Server;
use super::config::Files;
use crate::adapter::Tools;
use crate::processes::Owned;

/// How it is installed.
pub(super) const INSTALL: &str = "npm install -g opencode-ai";
/// What it prints when it listens.
const LISTENING: &str = "listening on http://";
/// A cold start takes seconds; on a machine that is busy with other things, many.
const START: Duration = Duration::from_secs(90);
/// One question about its health. A request that comes too early is never answered.
const HEALTH: Duration = Duration::from_secs(2);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(25);
/// The first look at a work tree: configuration, plugins, MCP servers.
pub(super) const FIRST_LOOK: Duration = Duration::from_secs(60);
/// What the log's end may add to a reason.
const MAX_LAST_WORDS: usize = 600;

/// A running opencode.
pub(super) struct Process {
    pub(super) server: Server,
    pub(super) version: String,
    ended: watch::Receiver<Option<String>>,
    keeper: AbortHandle,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The keeper owns the process, and a dropped process is killed.
        self.keeper.abort();
    }
}

impl Process {
    /// Starts `opencode serve` and waits until it answers.
    ///
    /// # Errors
    /// The reason for people.
    pub(super) async fn start(tools: &Tools, files: &Files) -> Result<Self, String> {
        let password = fresh_uuid(&*tools.entropy, tools.clock.now())
            .simple()
            .to_string()
            + &fresh_uuid(&*tools.entropy, tools.clock.now())
                .simple()
                .to_string();
        let log_path = tools.layout.log().join("opencode.log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(|error| format!("the log folder cannot be written: {error}"))?;
        let mut command = Command::new("opencode");
        command
            .args(["serve", "--hostname", "127.0.0.1", "--port", "0"])
            .args(["--print-logs", "--log-level", "WARN"])
            .current_dir(files.folder())
            .env_clear()
            .envs(environment(tools, files, &password))
            .stdout(Stdio::piped())
            .stderr(log);
        let mut owned = tools.processes.spawn(&mut command).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "the harness \"opencode\" is not installed in this sandbox: `{INSTALL}` installs it; \"builtin\" needs \
                 nothing installed"
            ),
            _ => format!("opencode cannot be started: {error}"),
        })?;
        let deadline = Instant::now() + START;
        let stdout = owned.child.stdout.take().ok_or("opencode has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = tokio::select! {
            address = tokio::time::timeout_at(deadline, listening(&mut lines)) => address.ok().flatten(),
            _ = owned.child.wait() => None,
        };
        let address =
            address.ok_or_else(|| format!("opencode does not listen: {}", last_words(&log_path)))?;
        let server = Server::new(address, &password, &tools.layout.workspace())?;
        let (say, ended) = watch::channel(None);
        let keeper = tokio::spawn(keep(owned, lines, say, log_path)).abort_handle();
        let mut process = Self {
            server,
            version: String::new(),
            ended,
            keeper,
        };
        process.version = process.healthy(deadline).await?;
        Ok(process)
    }

    /// Waits until the server is ready; returns its version.
    async fn healthy(&self, deadline: Instant) -> Result<String, String> {
        let ask = async {
            loop {
                match self.server.get("/global/health", HEALTH).await {
                    Ok(health) if health["healthy"] == Value::Bool(true) => {
                        return health["version"].as_str().unwrap_or_default().to_owned();
                    }
                    _ => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        tokio::select! {
            version = tokio::time::timeout_at(deadline, ask) => {
                version.map_err(|_| format!("opencode was not ready within {} s", START.as_secs()))
            }
            reason = self.ended() => Err(reason),
        }
    }

    /// Resolves with the reason when the process has ended.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "opencode ended".to_owned(),
        }
    }
}

/// Waits for the address. `None` when the output ends before.
async fn listening(lines: &mut Lines<impl tokio::io::AsyncBufRead + Unpin>) -> Option<SocketAddr> {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, address)) = line.split_once(LISTENING) {
            return address.trim().trim_end_matches('/').parse().ok();
        }
    }
    None
}

/// Owns the process until it ends, and reads its output, because a full pipe would stop it.
async fn keep(
    mut owned: Owned,
    mut lines: Lines<BufReader<impl AsyncRead + Unpin>>,
    say: watch::Sender<Option<String>>,
    log: std::path::PathBuf,
) {
    let drain = async {
        while let Ok(Some(_)) = lines.next_line().await {}
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        status = owned.child.wait() => status,
        () = drain => return,
    };
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    tracing::warn!(how, "opencode ended");
    say.send_replace(Some(format!("opencode ended ({how}): {}", last_words(&log))));
}

/// The environment: the agent's, then what opencode needs to keep to itself.
fn environment(tools: &Tools, files: &Files, password: &str) -> BTreeMap<String, String> {
    let mut all = tools.environment.for_harness();
    // The configuration is the platform's; a variable would be a second one.
    all.retain(|name, _| !name.starts_with("OPENCODE_"));
    let home = tools.layout.home();
    let folder = |name: &str| home.join(name).to_string_lossy().into_owned();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    for (name, value) in [
        ("XDG_CONFIG_HOME", path(files.config_home())),
        ("XDG_DATA_HOME", folder(".local/share")),
        ("XDG_STATE_HOME", folder(".local/state")),
        ("XDG_CACHE_HOME", folder(".cache")),
        ("OPENCODE_CONFIG", path(&files.config())),
        ("OPENCODE_SERVER_PASSWORD", password.to_owned()),
    ] {
        all.insert(name.to_owned(), value);
    }
    for switch in [
        // A repository's own opencode.json, plugins, agents, commands, tools and MCP servers.
        "OPENCODE_DISABLE_PROJECT_CONFIG",
        "OPENCODE_DISABLE_AUTOUPDATE",
        "OPENCODE_DISABLE_MODELS_FETCH",
        "OPENCODE_DISABLE_LSP_DOWNLOAD",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS",
        "OPENCODE_DISABLE_SHARE",
        "OPENCODE_DISABLE_CLAUDE_CODE",
        "OPENCODE_DISABLE_EXTERNAL_SKILLS",
        "OPENCODE_DISABLE_EMBEDDED_WEB_UI",
    ] {
        all.insert(switch.to_owned(), "1".to_owned());
    }
    all
}

/// The end of the log, for a reason.
fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4 * MAX_LAST_WORDS)..]).into_owned();
    let words: Vec<char> = text.trim().chars().collect();
    if words.is_empty() {
        return "it said nothing".to_owned();
    }
    words[words.len().saturating_sub(MAX_LAST_WORDS)..]
        .iter()
        .collect()
}
