//! What is in effect, for people: every value that may be shown, and where it came from.

use super::parse::Parsed;
use super::passthrough::ContainerEnv;
use super::setting::{Group, Need, Setting};
use super::source::Source;
use super::table::SETTINGS;
use super::values::Values;

/// One setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    /// The heading it stands under.
    pub(crate) group: &'static str,
    /// The variable.
    pub(crate) name: String,
    /// Its value, `(hidden)` for a secret.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) source: String,
}

/// Every setting of the table, then what is passed on to sandboxes.
pub(crate) fn list(values: &Values, container_env: &ContainerEnv) -> Vec<Effective> {
    let mut list: Vec<_> = SETTINGS
        .iter()
        .map(|setting| effective(setting, values))
        .collect();
    let git_token = container_env.git_token.iter().map(|_| "GIT_TOKEN");
    for name in container_env.plain.keys().map(String::as_str).chain(git_token) {
        list.push(Effective {
            group: "Passed on to sandboxes",
            name: format!("CONTAINER_ENV_{name}"),
            value: "(hidden)".into(),
            source: String::new(),
        });
    }
    list
}

fn effective(setting: &Setting, values: &Values) -> Effective {
    let (value, source) = match values.get(setting.name) {
        Some((parsed, Source::Setting(other))) => (shown(setting, parsed), format!("from {other}")),
        Some((parsed, source)) => (shown(setting, parsed), source.to_string()),
        None => ("(unset)".into(), unset(setting.need)),
    };
    Effective {
        group: setting.group.title(),
        name: setting.name.into(),
        value,
        source,
    }
}

fn unset(need: Need) -> String {
    match need {
        Need::Required(meaning) | Need::Optional(meaning) => meaning.into(),
        Need::Default(_) | Need::Depends(_) => String::new(),
    }
}

fn shown(setting: &Setting, parsed: &Parsed) -> String {
    match parsed {
        Parsed::Secret(_) | Parsed::Postgres(_) => "(hidden)".into(),
        // A SQLite address holds no password, though other addresses in the same variable may.
        Parsed::SqliteFile(path) => format!("sqlite:{path}"),
        Parsed::Text(_) if setting.secret => "(hidden)".into(),
        Parsed::Text(text) => text.clone(),
        Parsed::Whole(number) => number.to_string(),
        Parsed::Span(span) if setting.group == Group::WarmPool && setting.name.ends_with("_HOURS") => {
            (span.as_secs() / 3600).to_string()
        }
        Parsed::Span(span) => (span.as_secs() / 60).to_string(),
        Parsed::Switch(on) => on.to_string(),
    }
}
