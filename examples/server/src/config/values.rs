//! Every setting of the table, found, read from its file when it came as one, and understood.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lap_core::secret::Secret;

use super::env_file::reason;
use super::parse::Parsed;
use super::report::Report;
use super::setting::{Need, Setting, plain};
use super::source::{Found, Inputs, Layers, Source};
use super::table::{self, SETTINGS};

/// No secret is longer; a larger file is surely the wrong one.
const LARGEST_SECRET_FILE: u64 = 64 * 1024;

/// The understood values by name. A name is missing when it is unset, or wrong and in the report.
#[derive(Debug, Default)]
pub(crate) struct Values {
    values: BTreeMap<&'static str, (Parsed, Source)>,
}

impl Values {
    /// Understands everything that was set and adds fixed defaults. Reports every value that is wrong and every
    /// required one that is missing, in one pass.
    pub(crate) fn gather(inputs: &Inputs, layers: &Layers, report: &mut Report) -> Self {
        let mut values = Self::default();
        for setting in SETTINGS {
            if let Some((parsed, source)) = understand(setting, inputs, layers, report) {
                values.values.insert(setting.name, (parsed, source));
            }
        }
        values
    }

    /// Whether there is a value, given or filled.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Where the value came from.
    pub(crate) fn source(&self, name: &str) -> Option<&Source> {
        self.values.get(name).map(|(_, source)| source)
    }

    /// The value and where it came from.
    pub(crate) fn get(&self, name: &str) -> Option<(&Parsed, &Source)> {
        self.values.get(name).map(|(parsed, source)| (parsed, source))
    }

    /// Fills a value that nobody set.
    pub(crate) fn fill(&mut self, name: &str, parsed: Parsed, source: Source) {
        if let Some(setting) = table::find(name) {
            self.values.entry(setting.name).or_insert((parsed, source));
        }
    }

    /// The text of a setting that stays text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)?.0 {
            Parsed::Text(text) | Parsed::SqliteFile(text) => Some(text),
            _ => None,
        }
    }

    /// The secret.
    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        match self.get(name)?.0 {
            Parsed::Secret(secret) => Some(secret.clone()),
            _ => None,
        }
    }

    /// The number, when it fits.
    pub(crate) fn whole<N: TryFrom<u64>>(&self, name: &str) -> Option<N> {
        match self.get(name)?.0 {
            Parsed::Whole(number) => N::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The time.
    pub(crate) fn span(&self, name: &str) -> Option<Duration> {
        match self.get(name)?.0 {
            Parsed::Span(span) => Some(*span),
            _ => None,
        }
    }

    /// The yes or no.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        match self.get(name)?.0 {
            Parsed::Switch(on) => Some(*on),
            _ => None,
        }
    }
}

fn understand(
    setting: &'static Setting,
    inputs: &Inputs,
    layers: &Layers,
    report: &mut Report,
) -> Option<(Parsed, Source)> {
    let found = match find(setting, &inputs.folder, layers) {
        Ok(found) => found,
        Err(what) => {
            report.problem(setting.name, None, what);
            return None;
        }
    };
    match (found, setting.need) {
        (Found::Text(text, source), _) => match setting.kind.parse(&text) {
            Ok(parsed) => Some((parsed, source)),
            Err(what) => {
                report.problem(setting.name, Some(&source), what);
                None
            }
        },
        (Found::NotText(source), _) => {
            report.problem(setting.name, Some(&source), "is not UTF-8 text");
            None
        }
        (_, Need::Default(text)) => Some((setting.kind.parse(text).ok()?, Source::Default)),
        (Found::Empty(source), Need::Required(_)) if !inputs.flags.dev => {
            report.problem(
                setting.name,
                None,
                format!("is empty ({source}). {}", plain(setting.summary)),
            );
            None
        }
        (Found::Nothing, Need::Required(_)) if !inputs.flags.dev => {
            report.problem(
                setting.name,
                None,
                format!("is not set. {}", plain(setting.summary)),
            );
            None
        }
        _ => None,
    }
}

/// What was set for the setting itself or, for a secret, in the file that `<NAME>_FILE` names.
fn find(setting: &Setting, folder: &Path, layers: &Layers) -> Result<Found, String> {
    let direct = layers.find(setting.name);
    if !setting.secret {
        return Ok(direct);
    }
    let variable = format!("{}_FILE", setting.name);
    match (direct, layers.find(&variable)) {
        (direct, Found::Nothing | Found::Empty(_)) => Ok(direct),
        (
            Found::Text(_, value_source) | Found::NotText(value_source),
            Found::Text(_, source) | Found::NotText(source),
        ) => Err(format!(
            "is set {value_source} and {variable} is set {source}; set one of the two"
        )),
        (_, Found::NotText(_)) => Err(format!("cannot be read: {variable} is not UTF-8 text")),
        (_, Found::Text(path, _)) => match read_secret(&folder.join(path)) {
            Ok(text) if text.is_empty() => Ok(Found::Empty(Source::SecretFile(variable))),
            Ok(text) => Ok(Found::Text(text, Source::SecretFile(variable))),
            Err(why) => Err(format!(
                "cannot be read from the file that {variable} names: {why}"
            )),
        },
    }
}

/// The content without surrounding white space: editors and secret stores add a line end.
fn read_secret(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| reason(&error))?.len();
    if size > LARGEST_SECRET_FILE {
        return Err("it is larger than 64 KiB".into());
    }
    let text = std::fs::read_to_string(path).map_err(|error| reason(&error))?;
    Ok(text.trim().to_owned())
}
