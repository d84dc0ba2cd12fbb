//! `lap-server check-config`: would the server start with this configuration?

use std::process::ExitCode;

use super::{configuration, print};
use crate::config::{Flags, GeneratedKeys};

/// Says what is wrong, or that nothing is. Changes nothing on the disk.
pub(crate) fn run(flags: Flags) -> ExitCode {
    let config = match configuration(flags, GeneratedKeys::Preview) {
        Ok(config) => config,
        Err(code) => return code,
    };
    for warning in &config.warnings {
        print::line(format!("warning: {warning}"));
    }
    print::line("The configuration is right.");
    ExitCode::SUCCESS
}
