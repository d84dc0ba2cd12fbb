//! `CONTAINER_ENV_<NAME>`: variables of the server that every sandbox gets as `<NAME>`.

use std::collections::BTreeMap;

use lap_core::environment::{self, NameRefusal};
use lap_core::secret::Secret;

use super::report::Report;
use super::source::{Found, Layers};

const PREFIX: &str = "CONTAINER_ENV_";

/// The git token: used for the clone, gone before the agent starts.
const GIT_TOKEN: &str = "GIT_TOKEN";

/// What every sandbox gets. The values print as nothing: they are often credentials.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerEnv {
    /// Plain variables that the agent can read.
    pub(crate) plain: BTreeMap<String, Secret>,
    /// `CONTAINER_ENV_GIT_TOKEN`: for the clone only, never in the environment of the agent.
    pub(crate) git_token: Option<Secret>,
}

/// Collects the variables. A reserved or malformed name is a problem; an empty name is ignored.
pub(crate) fn collect(layers: &Layers, report: &mut Report) -> ContainerEnv {
    let mut collected = ContainerEnv::default();
    for variable in layers.names() {
        let Some(name) = variable.strip_prefix(PREFIX).filter(|name| !name.is_empty()) else {
            continue;
        };
        if let Some(why) = refusal(name) {
            report.problem_with(variable, why, None);
            continue;
        }
        match layers.find_raw(variable) {
            // GIT_TOKEN is used by the platform, so for it an empty text means unset, as everywhere else.
            Found::Text(value, _) if name == GIT_TOKEN => {
                collected.git_token = Some(value.trim())
                    .filter(|token| !token.is_empty())
                    .map(Secret::new);
            }
            Found::Text(value, _) => {
                collected.plain.insert(name.to_owned(), Secret::new(value));
            }
            Found::NotText(source) => {
                report.problem_with(variable, format!("is not UTF-8 text (set {source})"), None)
            }
            Found::Nothing | Found::Empty(_) => {}
        }
    }
    collected
}

/// Why this name cannot be passed on, as the rest of a sentence that begins with the variable.
fn refusal(name: &str) -> Option<String> {
    if name == GIT_TOKEN {
        return None;
    }
    let why = environment::check_name(name).err()?;
    Some(match why {
        NameRefusal::Malformed => format!("passes on a name that {why}"),
        _ => format!("passes on {name}, which {why}; remove it"),
    })
}

/// The reserved names in groups, for the documentation: what they are, and the names.
pub(crate) fn reserved() -> [(&'static str, String); 5] {
    let list = |names: &[&str]| {
        let names = names.iter().filter(|name| **name != GIT_TOKEN);
        names
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let prefixes: Vec<_> = environment::PLATFORM_PREFIXES
        .iter()
        .map(|prefix| format!("`{prefix}*`"))
        .collect();
    [
        ("set by the platform", list(environment::PLATFORM_NAMES)),
        ("prefixes of the platform and its vault", prefixes.join(" ")),
        ("proxies, in any case", list(environment::PROXY_NAMES)),
        ("certificate authorities", list(environment::AUTHORITY_NAMES)),
        ("start of the harness", list(environment::PROCESS_NAMES)),
    ]
}
