//! The loader, without a process around it.

mod given;
mod keys;
mod rules;
mod table;
mod values;

use std::path::Path;

use super::report::Report;
use super::{Config, Flags, GeneratedKeys, Inputs, load};

/// The five required settings, right.
const FIVE: [(&str, &str); 5] = [
    ("DATABASE_URL", "sqlite:lap.db"),
    ("MASTER_KEY", "canary-master-key"),
    ("LITELLM_API_BASE", "https://gateway.example.com"),
    ("LITELLM_API_KEY", "canary-gateway-key"),
    ("PREINSTALLED_GITHUB_REPO", "https://github.com/BerriAI/litellm"),
];

/// A key that decodes to 32 bytes.
const ENCRYPTION_KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE=";

fn inputs(folder: &Path, flags: Flags, environment: &[(&str, &str)]) -> Inputs {
    let environment = environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    Inputs {
        flags,
        environment,
        folder: folder.into(),
        keys: GeneratedKeys::Keep,
        can_isolate: || Err("bwrap is not installed".into()),
    }
}

fn dev() -> Flags {
    Flags {
        dev: true,
        ..Flags::default()
    }
}

/// Loads the five required settings and these on top, in a folder of its own.
fn load_five(more: &[(&str, &str)]) -> Result<Config, Report> {
    let folder = tempfile::tempdir().unwrap();
    // Later entries of the environment replace earlier ones of the same name.
    let environment = [&FIVE, more].concat();
    load(&inputs(folder.path(), Flags::default(), &environment))
}

fn names(report: &Report) -> Vec<&str> {
    report
        .problems()
        .iter()
        .map(|problem| problem.name.as_str())
        .collect()
}

/// The only problem with these settings, as text.
fn only_problem(more: &[(&str, &str)]) -> (String, String) {
    let report = load_five(more).expect_err("this configuration must be refused");
    assert_eq!(report.problems().len(), 1, "{report}");
    (
        report.problems()[0].name.clone(),
        report.problems()[0].what.clone(),
    )
}
