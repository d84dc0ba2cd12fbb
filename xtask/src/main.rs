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
mod tools;
mod walls;

use std::process::ExitCode;

use postgres::Database;
use step::{cargo, have};

const HELP: &str = "\
cargo xtask <task>

  test    all tests of the workspace, documentation examples and a smoke run of the benches included. Uses the
          PostgreSQL that LAP_TEST_POSTGRES_URL names, else makes one of this machine's programs; opencode and the
          LiteLLM proxy that LAP_TEST_OPENCODE and LAP_TEST_LITELLM name, else installs them with npm and pip below
          target/test-tools
  postgres
          the tests of the PostgreSQL store only, with the same database
  tools   installs the programs that tests run against, where they are not there yet
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
        Some("tools") => {
            let (_, missing) = tools::find_or_install();
            missing.iter().for_each(|why| eprintln!("xtask: {why}"));
            missing.is_empty()
        }
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
    let in_ci = std::env::var_os("CI").is_some();
    let mut untested = Vec::new();
    let database = Database::find_or_make()
        .map_err(|why| untested.push(format!("THE POSTGRESQL STORE: {why}")))
        .ok();
    let (tools, missing) = tools::find_or_install();
    untested.extend(missing.into_iter().map(|why| format!("REAL HARNESSES: {why}")));
    let walls = walls::find_or_install()
        .map_err(|why| untested.push(format!("LOCAL SANDBOXES: {why}")))
        .is_ok();
    untested
        .iter()
        .for_each(|what| eprintln!("xtask: NOT TESTED: {what}"));
    if in_ci && !untested.is_empty() {
        return false;
    }
    let mut environment: Vec<(&str, &str)> =
        tools.iter().map(|(name, path)| (*name, path.as_str())).collect();
    let mut arguments = vec!["test", "--workspace"];
    match &database {
        Some(database) => environment.push((postgres::URL, database.url())),
        None => arguments.extend(["--exclude", "lap-store-postgres"]),
    }
    if !walls {
        arguments.extend(["--exclude", "lap-local"]);
    }
    let passed = tests(&arguments, &environment);
    if passed {
        untested
            .iter()
            .for_each(|what| eprintln!("xtask: passed, but NOT TESTED: {what}"));
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
