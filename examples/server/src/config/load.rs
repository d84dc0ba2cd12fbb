//! From inputs to a validated [`Config`], or to everything that is wrong with them.

use std::path::Path;

use lap_http::Network;

use super::choice::{Environment, IsolationChoice, LogFormat, PullPolicy, RuntimeKind};
use super::keys::{self, GeneratedKey};
use super::parse::Parsed;
use super::passthrough::{self, ContainerEnv};
use super::report::Report;
use super::source::{Inputs, Layers, Source};
use super::values::Values;
use super::{
    BaseUrl, Cluster, Config, Database, Gateway, Images, Linear, Listen, Local, Log, WarmPool, defaults,
    effective, rules,
};

/// Reads and validates the whole configuration.
///
/// The disk is changed only when everything else is right, and then only to keep generated keys.
///
/// # Errors
/// A report that names every setting that is missing or wrong and holds no value that was set.
pub(crate) fn load(inputs: &Inputs) -> Result<Config, Report> {
    let mut report = Report::default();
    let layers = Layers::read(inputs, &mut report);
    let mut values = Values::gather(inputs, &layers, &mut report);
    defaults::fill(&mut values, &inputs.flags);
    rules::check(&values, inputs, &layers, &mut report);
    let container_env = passthrough::collect(&layers, &mut report);
    let mut generated = Vec::new();
    if report.is_clean() && inputs.flags.dev {
        let folder = values
            .text("LAP_DATA_DIR")
            .map(|folder| inputs.folder.join(folder));
        let folder = folder.unwrap_or_else(|| inputs.folder.clone());
        generated = keys::provide(inputs, &folder, &mut values, &mut report);
    }
    report.sort();
    if !report.is_clean() {
        return Err(report);
    }
    let config = assemble(&values, inputs, container_env, generated);
    match config {
        Some(config) => Ok(Config {
            warnings: report.into_warnings(),
            ..config
        }),
        None => {
            report.problem_with(
                "lap-server",
                "has a table of settings that contradicts itself; please report it",
                None,
            );
            Err(report)
        }
    }
}

/// `None` only when a row of the table has another kind than is asked for here, which a test rules out.
fn assemble(
    values: &Values,
    inputs: &Inputs,
    container_env: ContainerEnv,
    generated_keys: Vec<GeneratedKey>,
) -> Option<Config> {
    Some(Config {
        environment: Environment::from_word(values.text("LAP_ENV")?)?,
        is_dev: inputs.flags.dev,
        listen: Listen {
            host: values.text("BIND_HOST")?.into(),
            port: values.whole("PORT")?,
        },
        trusted_proxies: trusted_proxies(values),
        base_url: BaseUrl {
            url: values.text("BASE_URL")?.into(),
            is_assumed: values.source("BASE_URL") == Some(&Source::Default),
        },
        data_dir: absolute(&inputs.folder, values.text("LAP_DATA_DIR")?),
        database: database(values, &inputs.folder)?,
        master_key: values.secret("MASTER_KEY")?,
        encryption_key: values.secret("ENCRYPTION_KEY"),
        generated_keys,
        gateway: gateway(values),
        preinstalled_repo: values.text("PREINSTALLED_GITHUB_REPO").map(str::to_owned),
        ui_username: values.text("UI_USERNAME")?.into(),
        runtime: RuntimeKind::from_word(values.text("LAP_RUNTIME")?)?,
        local: local(values, &inputs.folder)?,
        default_harness: values.text("LAP_HARNESS")?.into(),
        images: images(values)?,
        cluster: Cluster {
            namespace: values.text("K8S_NAMESPACE")?.into(),
            image_pull_policy: PullPolicy::from_word(values.text("K8S_IMAGE_PULL_POLICY")?)?,
        },
        warm_pool: warm_pool(values)?,
        session_idle: values.span("LAP_SESSION_IDLE_MINUTES")?,
        turn_timeout: values.span("LAP_TURN_TIMEOUT_MINUTES")?,
        effective: effective::list(values, &container_env),
        container_env,
        linear: linear(values),
        log: Log {
            filter: values.text("LAP_LOG")?.into(),
            format: LogFormat::from_word(values.text("LAP_LOG_FORMAT")?)?,
        },
        warnings: Vec::new(),
    })
}

fn database(values: &Values, folder: &Path) -> Option<Database> {
    match values.get("DATABASE_URL")?.0 {
        Parsed::Postgres(address) => Some(Database::Postgres(address.clone())),
        Parsed::SqliteFile(path) => Some(Database::Sqlite(absolute(folder, path))),
        _ => None,
    }
}

fn trusted_proxies(values: &Values) -> Vec<Network> {
    let names = values.text("LAP_TRUSTED_PROXIES").unwrap_or_default().split(',');
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Processes of other working directories use these paths.
fn absolute(folder: &Path, path: &str) -> std::path::PathBuf {
    folder.join(path).components().collect()
}

fn gateway(values: &Values) -> Gateway {
    match (values.text("LITELLM_API_BASE"), values.secret("LITELLM_API_KEY")) {
        (Some(base), Some(key)) => Gateway::Configured {
            base: base.into(),
            key,
        },
        _ => Gateway::Demo,
    }
}

fn images(values: &Values) -> Option<Images> {
    let own = [
        ("opencode", "K8S_HARNESS_IMAGE_OPENCODE"),
        ("claude-agent-sdk", "K8S_HARNESS_IMAGE_CLAUDE_SDK"),
        ("claude-code", "K8S_HARNESS_IMAGE_CLAUDE_CODE"),
        ("codex", "K8S_HARNESS_IMAGE_CODEX"),
    ];
    let own = own
        .into_iter()
        .filter_map(|(harness, name)| Some((harness.to_owned(), values.text(name)?.to_owned())));
    Some(Images {
        default: values.text("K8S_HARNESS_IMAGE")?.into(),
        by_harness: own.collect(),
    })
}

fn local(values: &Values, folder: &Path) -> Option<Local> {
    let visible = values.text("LAP_ISOLATION_VISIBLE").unwrap_or_default();
    let memory_mib: u64 = values.whole("LAP_SANDBOX_MEMORY_MIB")?;
    let processes: u32 = values.whole("LAP_SANDBOX_PROCESSES")?;
    Some(Local {
        isolation: IsolationChoice::from_word(values.text("LAP_ISOLATION")?)?,
        visible: visible
            .split(':')
            .filter(|path| !path.is_empty())
            .map(|path| absolute(folder, path))
            .collect(),
        memory_bytes: (memory_mib > 0).then(|| memory_mib * 1024 * 1024),
        processes: (processes > 0).then_some(processes),
    })
}

fn warm_pool(values: &Values) -> Option<WarmPool> {
    Some(WarmPool {
        size: values.whole("WARM_POOL_SIZE")?,
        ttl: values.span("WARM_POOL_TTL_MINUTES")?,
        max_provisioning: values.whole("WARM_POOL_MAX_PROVISIONING")?,
        recent_agents: values.span("WARM_POOL_RECENT_AGENT_HOURS")?,
    })
}

fn linear(values: &Values) -> Option<Linear> {
    Some(Linear {
        client_id: values.text("LINEAR_CLIENT_ID")?.into(),
        client_secret: values.secret("LINEAR_CLIENT_SECRET")?,
        webhook_secret: values.secret("LINEAR_WEBHOOK_SECRET")?,
    })
}
