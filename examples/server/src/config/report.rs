//! What is wrong with a configuration, and what is merely odd. Neither ever holds a value that was set.

use std::fmt;

use super::setting::Need;
use super::source::Source;
use super::table;

const WIDTH: usize = 100;
const INDENT: &str = "      ";

/// One setting that keeps the server from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The variable, or for a file its path.
    pub(crate) name: String,
    /// What is wrong, as the rest of a sentence that begins with the name.
    pub(crate) what: String,
    /// A line that would be right.
    pub(crate) example: Option<String>,
}

/// Something that works but is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The variable it is about.
    pub(crate) name: String,
    /// What is odd and what to do, as the rest of a sentence that begins with the name.
    pub(crate) what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.what)
    }
}

/// Everything that is wrong with a configuration, in one message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Report {
    /// Adds a problem with the setting `name`; the example comes from the table.
    pub(crate) fn problem(&mut self, name: &str, source: Option<&Source>, what: impl Into<String>) {
        let mut what = what.into();
        if let Some(source) = source {
            what = format!("{what} (set {source})");
        }
        let example = table::find(name).map(|setting| format!("{name}={}", setting.example));
        self.problem_with(name, what, example);
    }

    /// Adds a problem with an example of its own, or none.
    pub(crate) fn problem_with(&mut self, name: &str, what: impl Into<String>, example: Option<String>) {
        self.problems.push(Problem {
            name: name.to_owned(),
            what: what.into(),
            example,
        });
    }

    /// Adds a warning about the setting `name`.
    pub(crate) fn warn(&mut self, name: &str, what: impl Into<String>) {
        self.warnings.push(Warning {
            name: name.to_owned(),
            what: what.into(),
        });
    }

    /// Whether a problem with this setting was added.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.problems.iter().any(|problem| problem.name == name)
    }

    /// Whether nothing keeps the server from starting.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// What keeps the server from starting.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The warnings alone.
    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    /// Brings the problems into the order of the table, whatever check found them; others come last.
    pub(crate) fn sort(&mut self) {
        let place = |name: &str| table::SETTINGS.iter().position(|setting| setting.name == name);
        self.problems
            .sort_by_key(|problem| place(&problem.name).unwrap_or(usize::MAX));
    }

    fn misses_required(&self) -> bool {
        self.problems
            .iter()
            .filter_map(|problem| table::find(&problem.name))
            .any(|setting| matches!(setting.need, Need::Required(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "setting is" } else { "settings are" };
        writeln!(f, "lap-server cannot start: {count} {noun} missing or wrong.\n")?;
        for problem in &self.problems {
            writeln!(f, "  {}", problem.name)?;
            for line in wrap(&problem.what, WIDTH - INDENT.len()) {
                writeln!(f, "{INDENT}{line}")?;
            }
            if let Some(example) = &problem.example {
                writeln!(f, "{INDENT}example: {example}")?;
            }
        }
        if !self.warnings.is_empty() {
            writeln!(f, "\nWarnings:")?;
        }
        for warning in &self.warnings {
            for line in wrap(&warning.to_string(), WIDTH - INDENT.len()) {
                writeln!(f, "  {line}")?;
            }
        }
        writeln!(
            f,
            "\nSet them in the environment or in a file named .env in the working directory."
        )?;
        writeln!(f, "A template: lap-server config --env-example > .env")?;
        if self.misses_required() {
            writeln!(f, "To try LAP without any configuration: lap-server --dev")?;
        }
        write!(f, "Every setting: lap-server --help")
    }
}

impl std::error::Error for Report {}

/// Breaks a text into lines of at most `width` characters, between words.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.len() - 1;
        if lines[line].is_empty() {
            lines[line].push_str(word);
        } else if lines[line].chars().count() + 1 + word.chars().count() <= width {
            lines[line].push(' ');
            lines[line].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
