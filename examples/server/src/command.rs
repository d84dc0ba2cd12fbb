//! The command line: what can be asked of `lap-server`, and the commands that only look.

pub(crate) mod check_config;
pub(crate) mod doctor;
pub(crate) mod migrate;
pub(crate) mod print;
pub(crate) mod print_config;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Flags, GeneratedKeys, Inputs, load, reference};

/// The version of the package and the build.
pub(crate) const VERSION: &str = env!("LAP_VERSION");

/// Exit code for a configuration that is wrong. Wrong arguments end with the same code.
pub(crate) const EXIT_CONFIGURATION: u8 = 2;

const ABOUT: &str = "Runs coding agents in sandboxes and serves them over an HTTP API.";

const LONG_ABOUT: &str = "\
Runs coding agents in sandboxes and serves them over an HTTP API.

Nothing needs to be installed or configured for a first try:

    lap-server --dev               serves on http://127.0.0.1:3000
    lap-server try \"list the files and say what this is\"

For a deployment, set the five required settings below and start it without flags.";

/// A parsed command line.
#[derive(Debug, Parser)]
#[command(name = "lap-server", version = VERSION, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = "`--help` lists every setting.", after_long_help = reference::help())]
pub(crate) struct Command {
    /// Flags that are settings.
    #[command(flatten)]
    pub(crate) flags: Flags,
    /// Check the configuration and exit, as `check-config` does
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Verb {
    /// Serve the HTTP API; this is what happens without a command
    Serve,
    /// Run one prompt in a fresh session, print what the agent does, and exit; implies --dev
    Try(Try),
    /// Print every setting with its value, secrets hidden, and where it came from
    Config(PrintConfig),
    /// Say whether the server would start with this configuration: exit code 0, or 2 and what is wrong
    CheckConfig,
    /// Bring the database's schema up to this version, and exit; a start does the same
    Migrate,
    /// Look at this machine: isolation, harnesses, gateway, data folder, database, port
    Doctor,
    /// What runs inside a sandbox; started by the server.
    #[command(hide = true)]
    Sandboxd,
    /// What swaps stub keys for real ones; started by the server.
    #[command(hide = true)]
    Vault,
}

/// Arguments of `try`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Try {
    /// What the agent is asked to do
    pub(crate) prompt: String,
    /// The model, by the name the gateway knows
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Clone this git repository into the sandbox
    #[arg(long, value_name = "URL")]
    pub(crate) repo: Option<String>,
    /// Keep the sandbox's folder afterwards and print where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Arguments of `config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PrintConfig {
    /// Print a template for .env instead
    #[arg(long)]
    pub(crate) env_example: bool,
    /// Print the tables of docs/configuration.md instead
    #[arg(long, hide = true, conflicts_with = "env_example")]
    pub(crate) markdown: bool,
}

/// The configuration of this process, or the exit code after the person was told what is wrong.
pub(crate) fn configuration(flags: Flags, keys: GeneratedKeys) -> Result<Config, ExitCode> {
    let inputs = Inputs::from_process(flags, keys).map_err(|error| {
        print::error(format!("the working directory cannot be read: {error}"));
        ExitCode::FAILURE
    })?;
    load(&inputs).map_err(|report| {
        print::error(report);
        ExitCode::from(EXIT_CONFIGURATION)
    })
}

impl Command {
    /// The command line of this process. Prints help, or what is wrong with it, and exits where that is asked for.
    pub(crate) fn from_process() -> (Verb, Flags) {
        Self::parse().into_parts()
    }

    fn into_parts(self) -> (Verb, Flags) {
        let verb = if self.check_config {
            Verb::CheckConfig
        } else {
            self.verb.unwrap_or(Verb::Serve)
        };
        let dev = self.flags.dev || matches!(verb, Verb::Try(_));
        (verb, Flags { dev, ..self.flags })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parts(arguments: &[&str]) -> (Verb, Flags) {
        let arguments = ["lap-server"].iter().chain(arguments);
        Command::try_parse_from(arguments).unwrap().into_parts()
    }

    #[test]
    fn the_definition_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_flags_go_before_or_after_the_verb() {
        assert!(matches!(parts(&[]), (Verb::Serve, Flags { dev: false, .. })));
        assert!(matches!(
            parts(&["--dev", "--port", "0"]),
            (
                Verb::Serve,
                Flags {
                    dev: true,
                    port: Some(0),
                    ..
                }
            )
        ));
        assert!(matches!(
            parts(&["doctor", "--dev"]),
            (Verb::Doctor, Flags { dev: true, .. })
        ));
        assert!(matches!(parts(&["--check-config"]), (Verb::CheckConfig, _)));
    }

    #[test]
    fn try_implies_dev() {
        let (Verb::Try(what), flags) = parts(&["try", "do it", "--keep"]) else {
            panic!("not try")
        };
        assert!(flags.dev && what.keep && what.prompt == "do it");
    }
}
