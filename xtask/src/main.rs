//! Project tasks.
//!
//! `cargo xtask test` passes the tests on a machine that has Rust and git. `cargo xtask gate` checks form: formatting,
//! lints, documentation, dependencies. CI runs both.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to the person who runs it"
)]

mod step;

use std::process::ExitCode;

use step::{cargo, have};

const HELP: &str = "\
cargo xtask <task>

  test    all tests of the workspace, documentation examples and a smoke run of the benches included
  gate    formatting, lints, documentation and dependency rules, all without warnings
  bench   the benchmarks of docs/benchmarks.md (takes minutes; wants a quiet machine)
";

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let passed = match task.as_deref() {
        Some("test") => test(),
        Some("gate") => gate(),
        Some("bench") => bench(),
        Some("help" | "--help" | "-h") | None => {
            println!("{HELP}");
            true
        }
        Some(other) => {
            eprintln!("xtask: there is no task named {other}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The server's binary is built first: tests of other packages start it.
fn test() -> bool {
    cargo(&["build", "--package", "lap-server"], &[])
        && cargo(&["test", "--workspace"], &[])
        && cargo(&["test", "--package", "lap-benches", "--benches"], &[])
}

/// The platform benchmark starts sandboxes with the server's binary of the same profile.
fn bench() -> bool {
    cargo(&["build", "--release", "--package", "lap-server"], &[])
        && cargo(&["bench", "--package", "lap-benches"], &[])
}

fn gate() -> bool {
    cargo(&["fmt", "--all", "--check"], &[])
        && cargo(
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
            &[],
        )
        && cargo(
            &["doc", "--workspace", "--no-deps"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
        && dependencies()
}

/// Licences, bans and sources. Advisories need a database from the network and are checked where it can be had.
fn dependencies() -> bool {
    if !have("cargo-deny") && !cargo(&["install", "cargo-deny", "--locked"], &[]) {
        return false;
    }
    cargo(&["deny", "check", "licenses", "bans", "sources"], &[])
}
