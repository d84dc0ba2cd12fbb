//! `lap-server doctor`: is this machine fit to serve with this configuration?

mod database;
mod folder;
mod gateway;
mod isolation;
mod port;
mod programs;

use std::fmt;
use std::process::ExitCode;

use super::{VERSION, print};
use crate::config::{Config, Database, Flags, GeneratedKeys, Inputs, load, wrap};

const WIDTH: usize = 80;

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    subject: String,
    text: String,
    /// What the person can do about it.
    advice: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// The server would not start, or sessions would fail.
    Bad,
}

impl Finding {
    fn new(grade: Grade, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            grade,
            subject: subject.into(),
            text: text.into(),
            advice: None,
        }
    }

    fn good(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Grade::Good, subject, text)
    }

    fn note(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Grade::Note, subject, text)
    }

    fn bad(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Grade::Bad, subject, text)
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.grade {
            Grade::Good => "ok",
            Grade::Note => "note",
            Grade::Bad => "FAIL",
        };
        let mut label = format!("{mark:4}  {:14}", self.subject);
        let advice = self.advice.iter().map(|advice| format!("-> {advice}"));
        for text in std::iter::once(self.text.clone()).chain(advice) {
            for row in wrap(&text, WIDTH) {
                writeln!(f, "  {label}  {row}")?;
                label = " ".repeat(label.chars().count());
            }
        }
        Ok(())
    }
}

/// Looks at everything, prints what it found, and ends with 0, or with 1 when something fails.
pub(crate) async fn run(flags: Flags) -> ExitCode {
    print::line(format!("lap-server {VERSION}\n"));
    let mut is_fit = true;
    let mut section = |title: &str, findings: Vec<Finding>| {
        print::line(title);
        findings.iter().for_each(print::text);
        is_fit &= findings.iter().all(|finding| finding.grade != Grade::Bad);
    };
    let (config, findings) = configuration(flags);
    section("Configuration", findings);
    section("Sandboxes", isolation::look(config.as_ref()).await);
    section("Programs", programs::look(config.as_ref()).await);
    if let Some(config) = &config {
        section("Model gateway", vec![gateway::look(&config.gateway).await]);
        let found = match &config.database {
            Database::Sqlite(file) => database::look(file),
            Database::Postgres(address) => vec![database::ask(address).await],
        };
        section("Storage", [folder::look(&config.data_dir), found].concat());
        section("Network", vec![port::look(&config.listen)]);
    }
    if is_fit {
        print::line("\nThis machine is fit.");
        ExitCode::SUCCESS
    } else {
        print::line("\nSomething above fails.");
        ExitCode::FAILURE
    }
}

fn configuration(flags: Flags) -> (Option<Config>, Vec<Finding>) {
    let inputs = match Inputs::from_process(flags, GeneratedKeys::Preview) {
        Ok(inputs) => inputs,
        Err(error) => {
            return (
                None,
                vec![Finding::bad(
                    "folder",
                    format!("cannot read the working directory: {error}"),
                )],
            );
        }
    };
    match load(&inputs) {
        Ok(config) => {
            let mut findings = vec![Finding::good(
                "settings",
                "complete and valid (lap-server config shows them)",
            )];
            findings.extend(
                config
                    .warnings
                    .iter()
                    .map(|warning| Finding::note("warning", warning.to_string())),
            );
            (Some(config), findings)
        }
        Err(report) => {
            let problems = report.problems().iter();
            let mut findings: Vec<_> = problems
                .map(|problem| Finding::bad("setting", format!("{} {}", problem.name, problem.what)))
                .collect();
            let advice = "lap-server check-config shows examples; lap-server doctor --dev looks at the machine without \
                          any configuration";
            if let Some(last) = findings.last_mut() {
                *last = last.clone().advise(advice);
            }
            (None, findings)
        }
    }
}

/// A span of bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut whole = count as f64 / 1024.0;
    let mut unit = 0;
    while whole >= 1024.0 && unit + 1 < UNITS.len() {
        whole /= 1024.0;
        unit += 1;
    }
    format!("{whole:.1} {}", UNITS[unit])
}
