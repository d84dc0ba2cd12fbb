//! Project tasks.
//!
//! `cargo xtask test` passes the tests on a machine that has Rust and git. `cargo xtask gate` checks form: formatting,
//! lints, documentation, dependencies. CI runs both.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to the person who runs it"
)]

mod postgres;
mod step;

use std::process::ExitCode;

use postgres::Database;
use step::{cargo, have};

const HELP: &str = "\
cargo xtask <task>

  test    all tests of the workspace, documentation examples and a smoke run of the benches included. Uses the
          PostgreSQL that LAP_TEST_POSTGRES_URL names, else makes one of this machine's programs
  postgres
          the tests of the PostgreSQL store only, with the same database
  gate    formatting, lints, documentation and dependency rules, all without warnings
  bench   the benchmarks of docs/benchmarks.md (takes minutes; wants a quiet machine)
";

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let passed = match task.as_deref() {
        Some("test") => test(),
        Some("postgres") => match Database::find_or_make() {
            Ok(database) => cargo(
                &["test", "--package", "lap-store-postgres"],
                &[(postgres::URL, database.url())],
            ),
            Err(why) => {
                eprintln!("xtask: {why}");
                false
            }
        },
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
    let database = match Database::find_or_make() {
        Ok(database) => Some(database),
        Err(why) if std::env::var_os("CI").is_some() => {
            eprintln!("xtask: {why}");
            return false;
        }
        Err(why) => {
            eprintln!("xtask: {why}\nxtask: THE POSTGRESQL STORE IS NOT TESTED");
            None
        }
    };
    let passed = match &database {
        Some(database) => tests(&["test", "--workspace"], &[(postgres::URL, database.url())]),
        None => tests(&["test", "--workspace", "--exclude", "lap-store-postgres"], &[]),
    };
    if passed && database.is_none() {
        eprintln!("xtask: passed, but THE POSTGRESQL STORE WAS NOT TESTED, because there is no PostgreSQL");
    }
    passed
}

fn tests(workspace: &[&str], environment: &[(&str, &str)]) -> bool {
    cargo(&["build", "--package", "lap-server"], &[])
        && cargo(workspace, environment)
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
