//! One step of a task: a command that passes or fails.

use std::process::Command;

/// Runs cargo and says what it runs. `false` when it fails or cannot be started.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> bool {
    println!("xtask: cargo {}", arguments.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(arguments)
        .envs(environment.iter().copied())
        .status();
    match status {
        Ok(status) if status.success() => true,
        Ok(status) => {
            eprintln!("xtask: cargo {} failed: {status}", arguments.join(" "));
            false
        }
        Err(error) => {
            eprintln!("xtask: cargo could not be started: {error}");
            false
        }
    }
}

/// Whether a program answers.
pub(crate) fn have(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}
