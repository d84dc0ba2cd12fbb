//! The reference LAP server: configuration, backends, engine, HTTP.

mod assemble;
mod banner;
mod catalog;
mod child;
mod command;
mod config;
mod demo_model;
mod listen;
mod logging;
mod serve;
mod try_prompt;

use std::process::ExitCode;

use command::{Command, Verb, check_config, configuration, doctor, migrate, print, print_config};
use config::{Flags, GeneratedKeys};

fn main() -> ExitCode {
    let (verb, flags) = Command::from_process();
    match verb {
        Verb::CheckConfig => check_config::run(flags),
        Verb::Config(what) => print_config::run(&what, flags),
        Verb::Doctor => block_on(Threads::One, doctor::run(flags)),
        Verb::Migrate => configured(flags, GeneratedKeys::Preview, |config| {
            block_on(Threads::One, migrate::run(config))
        }),
        Verb::Serve => configured(flags, GeneratedKeys::Keep, |config| {
            block_on(Threads::Many, serve::run(config))
        }),
        Verb::Try(what) => configured(flags, GeneratedKeys::Preview, |config| {
            block_on(Threads::Many, try_prompt::run(config, what))
        }),
        Verb::Sandboxd => block_on(Threads::One, child::sandboxd()),
        Verb::Vault => block_on(Threads::Many, child::vault()),
    }
}

fn configured(flags: Flags, keys: GeneratedKeys, run: impl FnOnce(config::Config) -> ExitCode) -> ExitCode {
    configuration(flags, keys).map_or_else(|code| code, run)
}

/// How many threads a command needs. A sandbox's own process is one of many, so it has one.
enum Threads {
    One,
    Many,
}

fn block_on(threads: Threads, command: impl Future<Output = ExitCode>) -> ExitCode {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            print::error(format!("no runtime can be started: {error}"));
            ExitCode::FAILURE
        }
    }
}
