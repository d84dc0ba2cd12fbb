//! The `.env` file of the working directory, or the one named by `--env-file`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::report::Report;
use super::source::Inputs;

const QUOTING: &str = "write NAME=value, one a line; put single quotes around a value with spaces, # or $";

/// What an environment file sets. Not `Debug`: some of it is secret.
#[derive(Default)]
pub(crate) struct EnvFile {
    /// The file as the person named it.
    pub(crate) name: String,
    /// The last value of each name.
    pub(crate) values: BTreeMap<String, String>,
}

impl EnvFile {
    /// Reads the file. A missing `.env` is empty; a missing file named by `--env-file` is a problem.
    pub(crate) fn read(inputs: &Inputs, report: &mut Report) -> Self {
        let chosen = inputs.flags.env_file.as_deref();
        let path = chosen.unwrap_or_else(|| Path::new(".env"));
        let name = path.display().to_string();
        match std::fs::read_to_string(inputs.folder.join(path)) {
            Ok(text) => Self {
                values: parse(&name, &text, report),
                name,
            },
            Err(error) if error.kind() == ErrorKind::NotFound && chosen.is_none() => Self::default(),
            Err(error) => {
                report.problem_with(&name, format!("cannot be read: {}", reason(&error)), None);
                Self::default()
            }
        }
    }
}

fn parse(name: &str, text: &str, report: &mut Report) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for entry in dotenvy::from_read_iter(text.as_bytes()) {
        match entry {
            Ok((key, value)) => {
                values.insert(key, value);
            }
            Err(dotenvy::Error::LineParse(line, _)) => {
                // The line may hold a secret, so only its number is told. What dotenvy returns begins at the
                // value when the name was right.
                let end = line.lines().next().unwrap_or_default();
                let is_it =
                    |candidate: &str| !candidate.trim_start().starts_with('#') && candidate.ends_with(end);
                let number = text.lines().position(is_it);
                let place =
                    number.map_or_else(|| "a line".to_owned(), |number| format!("line {}", number + 1));
                report.problem_with(name, format!("{place} cannot be understood; {QUOTING}"), None);
            }
            Err(_) => report.problem_with(name, format!("cannot be understood; {QUOTING}"), None),
        }
    }
    values
}

/// Why a file could not be read, in words.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        ErrorKind::IsADirectory => "it is a folder".into(),
        _ => error.to_string(),
    }
}
