//! The hidden commands: what runs inside a sandbox, and what holds the real keys. Both read their document from
//! standard input and never look at the server's configuration.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use lap_core::error::{Result, chain};
use lap_core::id::SystemEntropy;
use lap_core::time::SystemClock;
use lap_sandboxd::Surroundings;

use crate::command::print;
use crate::config::{Log, LogFormat};
use crate::logging;

/// A launch document is small; more is not one.
const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Runs sandboxd until it is told to stop.
pub(crate) async fn sandboxd() -> ExitCode {
    log();
    if let Err(error) = lap_local::leave_terminal() {
        // It is the leader of its session already, or may not be: both are fine to go on with.
        tracing::debug!(%error, "sandboxd stays in its session");
    }
    let mut document = String::new();
    if let Err(error) = std::io::stdin()
        .take(LARGEST_DOCUMENT)
        .read_to_string(&mut document)
    {
        print::error(format!("sandboxd: the launch document cannot be read: {error}"));
        return ExitCode::FAILURE;
    }
    let surroundings = Surroundings {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        environment: std::env::vars().collect(),
    };
    ended(
        "sandboxd",
        lap_sandboxd::run(&document, surroundings, std::io::stdout()).await,
    )
}

/// Runs the vault until it is told to stop or nobody needs it.
pub(crate) async fn vault() -> ExitCode {
    log();
    let served = match lap_vault::ServeConfig::from_reader(std::io::stdin()) {
        Ok(config) => lap_vault::serve(config).await,
        Err(error) => Err(error),
    };
    ended("vault", served)
}

fn log() {
    logging::start(&Log {
        filter: "info".to_owned(),
        format: LogFormat::Text,
    });
}

fn ended(name: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(format!("{name}: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}
