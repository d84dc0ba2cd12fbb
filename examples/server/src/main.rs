//! The reference LAP server.

mod command;
#[expect(
    dead_code,
    reason = "the serving code, which reads the rest, is not part of the binary yet"
)]
mod config;

use std::process::ExitCode;

use command::{Command, Verb, check_config, configuration, doctor, print, print_config};
use config::GeneratedKeys;

fn main() -> ExitCode {
    let (verb, flags) = Command::from_process();
    match verb {
        Verb::CheckConfig => check_config::run(flags),
        Verb::Config(what) => print_config::run(&what, flags),
        Verb::Doctor => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(doctor::run(flags)),
            Err(error) => {
                print::error(format!("no runtime can be started: {error}"));
                ExitCode::FAILURE
            }
        },
        Verb::Serve | Verb::Try(_) => match configuration(flags, GeneratedKeys::Keep) {
            Ok(_) => not_yet(),
            Err(code) => code,
        },
        Verb::Sandboxd | Verb::Vault => not_yet(),
    }
}

fn not_yet() -> ExitCode {
    print::error("this command is not part of the binary yet");
    ExitCode::FAILURE
}
