//! From configuration to backends to engine. This is the only place that names concrete backends.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use lap_core::backends::Backends;
use lap_core::capability::Isolation;
use lap_core::engine::{Engine, EngineConfig, Gateway as EngineGateway, Identity, Platform};
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{Entropy, InstanceId, SystemEntropy};
use lap_core::runtime::SandboxRuntime as _;
use lap_core::seal::Sealer;
use lap_core::secret::Secret;
use lap_core::store::Store;
use lap_core::time::{Clock, SystemClock};
use lap_core::vault::Vault;
use lap_harness::SandboxdHarness;
use lap_local::{LocalConfig, LocalRuntime, ResourceLimits};
use lap_store_postgres::{PostgresOptions, PostgresStore};
use lap_store_sqlite::{SqliteOptions, SqliteStore};
use lap_vault::{LocalVault, LocalVaultConfig, VaultCommand, VaultProcessConfig};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::config::{Config, Database, Gateway, IsolationChoice};
use crate::demo_model::DemoModel;

/// What of the server's environment reaches its own child processes. Everything else may be secret.
const PASSED_ON: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TERM", "TZ"];

/// A running platform.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// The engine.
    pub(crate) engine: Engine,
    /// The vault, to end it where the platform ends with this process.
    pub(crate) vault: Arc<LocalVault>,
    /// How sandboxes are kept apart.
    pub(crate) isolation: Isolation,
    /// The model inside the server, while it is used.
    _demo_model: Option<DemoModel>,
}

/// Starts every part.
///
/// # Errors
/// What the part says: the database that cannot be opened, the vault that does not start.
pub(crate) async fn assemble(config: &Config) -> Result<Assembled> {
    close_memory();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let sealer = match &config.encryption_key {
        Some(key) => Sealer::from_base64(key.expose())?,
        None => Sealer::plaintext(),
    };
    let store = open_store(&config.database, Arc::clone(&clock)).await?;
    let identity = Identity::load(&*store, &sealer, &*entropy, &*clock).await?;
    let program = std::env::current_exe().map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "start",
            "the server cannot find its own program",
        )
        .with_source(error)
    })?;
    let demo_model = match &config.gateway {
        Gateway::Demo => Some(start_demo(&*entropy, Arc::clone(&clock)).await?),
        Gateway::Configured { .. } => None,
    };
    let (gateway_base, gateway_key) = match (&config.gateway, &demo_model) {
        (Gateway::Configured { base, key }, _) => (base.clone(), key.clone()),
        (Gateway::Demo, Some(demo)) => (demo.base.clone(), demo.key.clone()),
        (Gateway::Demo, None) => (String::new(), Secret::new("")),
    };
    let vault = Arc::new(start_vault(config, program.clone(), gateway_base).await?);
    let local = local_config(config, program, identity.instance())
        .with_clock(Arc::clone(&clock))
        .with_entropy(Arc::clone(&entropy));
    let runtime = LocalRuntime::open(local).await?;
    let isolation = runtime.capabilities().isolation;
    let parts = Backends {
        store,
        runtime: Arc::new(runtime),
        vault: Arc::clone(&vault) as Arc<dyn Vault>,
        harness: Arc::new(SandboxdHarness::new()),
        clock,
        entropy,
        sealer: Arc::new(sealer),
    };
    let engine = Engine::start(parts, engine_config(config, gateway_key)).await?;
    Ok(Assembled {
        engine,
        vault,
        isolation,
        _demo_model: demo_model,
    })
}

/// The store that the configuration names.
pub(crate) async fn open_store(database: &Database, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
    Ok(match database {
        Database::Sqlite(path) => Arc::new(SqliteStore::open(SqliteOptions::new(path, clock)).await?),
        Database::Postgres(address) => {
            let mut options = PostgresOptions::new(address.clone());
            options.application_name = "lap-server".to_owned();
            Arc::new(PostgresStore::connect(options).await?)
        }
    })
}

/// How the configuration wants local sandboxes.
fn local_config(config: &Config, program: PathBuf, instance: InstanceId) -> LocalConfig {
    let local = LocalConfig::new(&config.data_dir, program, instance)
        .with_arguments(["sandboxd"])
        .with_environment(std::env::vars_os(), &[] as &[&str])
        .with_visible(&config.local.visible)
        .with_resources(ResourceLimits {
            memory_bytes: config.local.memory_bytes,
            processes: config.local.processes,
        });
    match config.local.isolation {
        IsolationChoice::Auto => local.with_isolation_where_available(),
        IsolationChoice::UserNamespaces => local.with_isolation(Isolation::UserNamespaces),
        IsolationChoice::None => local.with_isolation(Isolation::None),
    }
}

/// This process holds real keys, and agents of the local runtime may run as its user: they must not read its
/// memory or environment.
fn close_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user can read the memory of this one");
    }
}

async fn start_demo(entropy: &dyn Entropy, clock: Arc<dyn Clock>) -> Result<DemoModel> {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    DemoModel::start(any_port, entropy, clock).await.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "start demo model",
            "the demo model cannot listen",
        )
        .with_source(error)
    })
}

async fn start_vault(config: &Config, program: PathBuf, gateway: String) -> Result<LocalVault> {
    let command = VaultCommand {
        program,
        args: vec![OsString::from("vault")],
        env: std::env::vars_os()
            .filter(|(name, _)| PASSED_ON.iter().any(|passed| name == passed))
            .collect(),
    };
    let mut process = VaultProcessConfig::new(config.data_dir.join("vault"), command);
    process.sealing_key.clone_from(&config.encryption_key);
    LocalVault::process(
        LocalVaultConfig {
            gateway,
            gateway_roots: None,
        },
        process,
    )
    .await
}

fn engine_config(config: &Config, gateway_key: Secret) -> EngineConfig {
    let plain = &config.container_env.plain;
    let mut engine = EngineConfig::default();
    engine.platform = Platform {
        repo_url: config.preinstalled_repo.clone(),
        env: plain
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
        // The demo model has another address at each start, which no sandbox sees.
        gateway_base: match &config.gateway {
            Gateway::Demo => "demo".to_owned(),
            Gateway::Configured { base, .. } => base.clone(),
        },
        revision: crate::command::VERSION.to_owned(),
    };
    engine.gateway = EngineGateway { key: gateway_key };
    engine.git_token.clone_from(&config.container_env.git_token);
    engine.images.clone_from(&config.images);
    engine.default_harness.clone_from(&config.default_harness);
    engine.idle_timeout = config.session_idle;
    engine.turn_timeout = config.turn_timeout;
    engine
}
