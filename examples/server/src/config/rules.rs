//! Rules between settings. Each looks at the values that passed their own validation.

use super::choice::{Environment, IsolationChoice, RuntimeKind};
use super::report::Report;
use super::setting::Setting;
use super::source::{Flags, Inputs, Layers, Source};
use super::table::SETTINGS;
use super::values::Values;

/// Reports every rule that is broken, and warns of what is odd.
pub(crate) fn check(values: &Values, inputs: &Inputs, layers: &Layers, report: &mut Report) {
    let flags = &inputs.flags;
    let environment = values.text("LAP_ENV").and_then(Environment::from_word);
    if environment == Some(Environment::Production) {
        production(values, flags, report);
    } else {
        development(values, flags, report);
    }
    if values.text("LAP_RUNTIME").and_then(RuntimeKind::from_word) == Some(RuntimeKind::Kubernetes) {
        let what = "chooses the Kubernetes runtime, which is not part of this build yet; use local for now";
        report.problem("LAP_RUNTIME", values.source("LAP_RUNTIME"), what);
    }
    isolation(values, inputs, report);
    gateway(values, flags, report);
    linear(values, report);
    misspelt(layers, report);
}

fn production(values: &Values, flags: &Flags, report: &mut Report) {
    if flags.dev {
        let what =
            "is production, and --dev (which try implies) is for development only; drop one of the two";
        report.problem_with("LAP_ENV", what, Some("LAP_ENV=development".into()));
    }
    if !values.has("ENCRYPTION_KEY") && !report.names("ENCRYPTION_KEY") {
        let what = "is not set, and with LAP_ENV=production secrets are never stored as plain text; make a key with: \
                    openssl rand -base64 32";
        report.problem("ENCRYPTION_KEY", None, what);
    }
    if !values.has("LAP_RUNTIME") && !report.names("LAP_RUNTIME") {
        let what = "is not set, and with LAP_ENV=production agents run on the server's own machine only when you say so";
        report.problem("LAP_RUNTIME", None, what);
    }
    let is_local_address = |url: &str| url.starts_with("http://localhost") || url.starts_with("http://127.");
    match values.get("BASE_URL") {
        Some((_, Source::Default)) => {
            report.warn(
                "BASE_URL",
                "is not set: OAuth redirects and webhook addresses will name localhost",
            );
        }
        Some(_)
            if values
                .text("BASE_URL")
                .is_some_and(|url| url.starts_with("http:") && !is_local_address(url)) =>
        {
            report.warn(
                "BASE_URL",
                "is not an https address: keys and cookies travel in the clear",
            );
        }
        _ => {}
    }
}

fn development(values: &Values, flags: &Flags, report: &mut Report) {
    if flags.dev {
        return;
    }
    if !values.has("ENCRYPTION_KEY") && !report.names("ENCRYPTION_KEY") {
        let what = "is not set: OAuth tokens and secrets of agents are stored as plain text. Make a key with: \
                    openssl rand -base64 32";
        report.warn("ENCRYPTION_KEY", what);
    }
    if values.source("LAP_RUNTIME") == Some(&Source::Default) {
        let what = "is not set: sandboxes run as processes of this machine. Set LAP_RUNTIME=local if that is \
                    meant";
        report.warn("LAP_RUNTIME", what);
    }
}

/// What has to hold is tried, because it depends on the machine. Where nothing has to hold the start is not delayed.
fn isolation(values: &Values, inputs: &Inputs, report: &mut Report) {
    if values.text("LAP_RUNTIME") != Some("local") {
        return;
    }
    let choice = values.text("LAP_ISOLATION").and_then(IsolationChoice::from_word);
    let must_isolate =
        values.text("LAP_ENV") == Some("production") && values.switch("LAP_ALLOW_UNISOLATED") == Some(false);
    match choice {
        Some(IsolationChoice::UserNamespaces) => {
            if let Err(reason) = (inputs.can_isolate)() {
                let what = format!("asks for isolation, and this machine cannot isolate: {reason}");
                report.problem_with("LAP_ISOLATION", &what, Some("LAP_ISOLATION=auto".into()));
            }
        }
        Some(IsolationChoice::Auto) if must_isolate => {
            if let Err(reason) = (inputs.can_isolate)() {
                let what = format!(
                    "is not true, and this machine cannot isolate agents from itself ({reason}); with \
                     LAP_ENV=production that is refused unless you accept it"
                );
                report.problem("LAP_ALLOW_UNISOLATED", None, &what);
            }
        }
        Some(IsolationChoice::None) if must_isolate => {
            let what = "is not true, and LAP_ISOLATION=none does not isolate agents from the server's machine; with \
                        LAP_ENV=production that is refused unless you accept it";
            report.problem("LAP_ALLOW_UNISOLATED", None, what);
        }
        _ => {}
    }
}

/// Without `--dev` both halves are required anyway.
fn gateway(values: &Values, flags: &Flags, report: &mut Report) {
    let is_given = |name: &str, report: &Report| values.has(name) || report.names(name);
    let base = is_given("LITELLM_API_BASE", report);
    let key = is_given("LITELLM_API_KEY", report);
    if flags.dev && base && !key {
        let what = "is not set, but LITELLM_API_BASE is; if the gateway asks for no key, set any text";
        report.problem("LITELLM_API_KEY", None, what);
    }
    if flags.dev && key && !base {
        report.warn(
            "LITELLM_API_KEY",
            "is set, but LITELLM_API_BASE is not: the built-in demo model is used",
        );
    }
}

fn linear(values: &Values, report: &mut Report) {
    let names = [
        "LINEAR_CLIENT_ID",
        "LINEAR_CLIENT_SECRET",
        "LINEAR_WEBHOOK_SECRET",
    ];
    let is_given = |name: &&str| values.has(name) || report.names(name);
    let (given, missing): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| is_given(name));
    if !given.is_empty() && !missing.is_empty() {
        let verb = if missing.len() == 1 { "is" } else { "are" };
        let what = format!(
            "is set, but {} {verb} not: the Linear integration stays off",
            missing.join(" and ")
        );
        report.warn(given[0], what);
    }
}

/// Warns of names that are nearly, but not quite, the name of a setting.
fn misspelt(layers: &Layers, report: &mut Report) {
    for name in layers.names().filter(|name| name.len() >= 6 && !is_known(name)) {
        if let Some(setting) = SETTINGS.iter().find(|setting| is_near(name, setting)) {
            report.warn(
                name,
                format!("is not a setting of this server; did you mean {}?", setting.name),
            );
        }
    }
}

fn is_known(name: &str) -> bool {
    let bare = name.strip_suffix("_FILE").unwrap_or(name);
    SETTINGS
        .iter()
        .any(|setting| setting.name == name || (setting.secret && setting.name == bare))
}

fn is_near(name: &str, setting: &Setting) -> bool {
    let upper = name.to_ascii_uppercase();
    distance(upper.as_bytes(), setting.name.as_bytes()) <= if setting.name.len() >= 10 { 2 } else { 1 }
}

/// How many letters have to be added, removed or changed (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
