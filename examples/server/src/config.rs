//! The configuration of the server: read from flags, the environment and `.env`, understood by one table, and
//! handed on as one typed value. Nothing else in the server reads the environment.

mod choice;
mod defaults;
mod effective;
mod env_file;
mod keys;
mod load;
mod parse;
mod passthrough;
pub(crate) mod reference;
mod report;
mod rules;
mod setting;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use lap_core::secret::Secret;
use lap_http::Network;

pub(crate) use choice::{Environment, IsolationChoice, LogFormat, PullPolicy, RuntimeKind};
pub(crate) use effective::Effective;
pub(crate) use keys::GeneratedKey;
pub(crate) use lap_core::engine::Images;
pub(crate) use load::load;
pub(crate) use passthrough::ContainerEnv;
pub(crate) use report::{Warning, wrap};
pub(crate) use source::{Flags, GeneratedKeys, Inputs};

/// Everything the server needs to know, validated. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What the server insists on.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the rules of the loader have decided by it already")
    )]
    pub(crate) environment: Environment,
    /// Started with `--dev`.
    pub(crate) is_dev: bool,
    /// Where it listens.
    pub(crate) listen: Listen,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<Network>,
    /// The public address.
    pub(crate) base_url: BaseUrl,
    /// Where this machine keeps its things; absolute. It may not exist yet.
    pub(crate) data_dir: PathBuf,
    /// The store.
    pub(crate) database: Database,
    /// Bearer token of every API call.
    pub(crate) master_key: Secret,
    /// Base64 of the 32 bytes that encrypt at rest. Without it, secrets are stored in the clear.
    pub(crate) encryption_key: Option<Secret>,
    /// Which of the two keys above were generated.
    pub(crate) generated_keys: Vec<GeneratedKey>,
    /// Where language models are reached.
    pub(crate) gateway: Gateway,
    /// What is cloned for an agent without a repository; nothing when `None`.
    pub(crate) preinstalled_repo: Option<String>,
    /// The name on the log-in screen.
    pub(crate) ui_username: String,
    /// What runs the sandboxes.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the rules of the loader have decided by it already")
    )]
    pub(crate) runtime: RuntimeKind,
    /// How local sandboxes are kept apart, and what they may take.
    pub(crate) local: Local,
    /// The harness of agents that do not choose one.
    pub(crate) default_harness: String,
    /// Container images.
    pub(crate) images: Images,
    /// The Kubernetes cluster.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "checked and shown; the part that uses it is not in this build"
        )
    )]
    pub(crate) cluster: Cluster,
    /// The warm pool.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "checked and shown; the part that uses it is not in this build"
        )
    )]
    pub(crate) warm_pool: WarmPool,
    /// How long a session may be idle.
    pub(crate) session_idle: Duration,
    /// How long a turn may take.
    pub(crate) turn_timeout: Duration,
    /// What every sandbox gets.
    pub(crate) container_env: ContainerEnv,
    /// The Linear integration, when it is on.
    pub(crate) linear: Option<Linear>,
    /// Logs.
    pub(crate) log: Log,
    /// What works but is probably not meant. The server logs these at start.
    pub(crate) warnings: Vec<Warning>,
    /// Every setting with its value, secrets hidden, and where it came from.
    pub(crate) effective: Vec<Effective>,
}

impl Config {
    /// The configuration once the listener is bound: port 0 becomes the real port, also in a base URL that
    /// nobody gave.
    #[must_use]
    pub(crate) fn bound_to(mut self, port: u16) -> Self {
        self.listen.port = port;
        if self.base_url.is_assumed {
            self.base_url = BaseUrl::assumed(port);
        }
        self
    }
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    /// An IP address without brackets, or a host name.
    pub(crate) host: String,
    /// 0 takes any free port.
    pub(crate) port: u16,
}

/// The public address of the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    /// Without a trailing slash.
    pub(crate) url: String,
    /// Nobody gave it: it names this machine and follows the port.
    pub(crate) is_assumed: bool,
}

impl BaseUrl {
    /// The address of a browser on this machine.
    pub(crate) fn assumed(port: u16) -> Self {
        Self {
            url: format!("http://localhost:{port}"),
            is_assumed: true,
        }
    }
}

/// The store that `DATABASE_URL` names.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// The address of a PostgreSQL database, which holds a password.
    Postgres(Secret),
    /// A SQLite file; absolute. Neither the file nor its folder need exist.
    Sqlite(PathBuf),
}

/// Where language models are reached.
#[derive(Debug, Clone)]
pub(crate) enum Gateway {
    /// The model inside the server, for a first try without a gateway.
    Demo,
    /// An OpenAI-compatible gateway.
    Configured {
        /// Without a trailing slash and without `/v1`.
        base: String,
        /// Its key.
        key: Secret,
    },
}

/// The local runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// How sandboxes are kept apart from the machine.
    pub(crate) isolation: IsolationChoice,
    /// What isolated sandboxes see besides the system, read-only; absolute.
    pub(crate) visible: Vec<PathBuf>,
    /// Memory of one sandbox in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes of one sandbox.
    pub(crate) processes: Option<u32>,
}

/// The cluster that holds the sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Namespace of everything that is made.
    pub(crate) namespace: String,
    /// When pods pull their images.
    pub(crate) image_pull_policy: PullPolicy,
}

/// The warm pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WarmPool {
    /// How many sandboxes to keep; 0 turns the pool off.
    pub(crate) size: u32,
    /// Age at which one is replaced.
    pub(crate) ttl: Duration,
    /// How many are started at the same time.
    pub(crate) max_provisioning: u32,
    /// How long ago an agent's last session may be.
    pub(crate) recent_agents: Duration,
}

/// The Linear integration.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// Client id of the OAuth application.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "checked and shown; the part that uses it is not in this build"
        )
    )]
    pub(crate) client_id: String,
    /// Its secret.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "checked and shown; the part that uses it is not in this build"
        )
    )]
    pub(crate) client_secret: Secret,
    /// Signs the webhooks.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "checked and shown; the part that uses it is not in this build"
        )
    )]
    pub(crate) webhook_secret: Secret,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// A filter that `tracing` understands.
    pub(crate) filter: String,
    /// The form.
    pub(crate) format: LogFormat,
}
