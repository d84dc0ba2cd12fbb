//! `lap-server config`: what is in effect and where it came from.

use std::process::ExitCode;

use super::{PrintConfig, configuration, print};
use crate::config::{Config, Effective, Flags, GeneratedKeys, reference};

/// Prints the effective values, or a text that is generated from the table of settings.
pub(crate) fn run(what: &PrintConfig, flags: Flags) -> ExitCode {
    if what.env_example {
        print::text(reference::env_example());
        return ExitCode::SUCCESS;
    }
    if what.markdown {
        print::text(reference::markdown());
        return ExitCode::SUCCESS;
    }
    match configuration(flags, GeneratedKeys::Preview) {
        Ok(config) => {
            print::text(render(&config));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn render(config: &Config) -> String {
    let width = |of: fn(&Effective) -> &str, most: usize| {
        let widths = config.effective.iter().map(|setting| of(setting).chars().count());
        widths.filter(|width| *width <= most).max().unwrap_or(0)
    };
    let (names, values) = (
        width(|setting| &setting.name, 40),
        width(|setting| &setting.value, 48),
    );
    let mut text = String::new();
    let mut group = "";
    for setting in &config.effective {
        if setting.group != group {
            group = setting.group;
            text.push_str(&format!("\n{group}\n"));
        }
        let row = format!(
            "  {:names$}  {:values$}  {}",
            setting.name, setting.value, setting.source
        );
        text.push_str(row.trim_end());
        text.push('\n');
    }
    for warning in &config.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    format!("{}\n", text.trim())
}
