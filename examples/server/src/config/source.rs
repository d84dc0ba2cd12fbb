//! Where settings come from: flags, the process environment, a `.env` file. The earlier wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::env_file::EnvFile;
use super::report::Report;

/// Flags of the command line that are settings, and the two that say how to read the others.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Flags {
    /// Fill every required setting that is unset with an embedded default: a SQLite file, generated keys,
    /// local processes, a demo model; listen on 127.0.0.1
    #[arg(long, global = true)]
    pub(crate) dev: bool,
    /// Listen on this port; 0 takes any free one (PORT)
    #[arg(long, global = true, value_name = "N")]
    pub(crate) port: Option<u16>,
    /// Listen on this address (BIND_HOST)
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) bind: Option<String>,
    /// Keep sandboxes and generated keys in this folder (LAP_DATA_DIR)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Read settings from this file instead of .env in the working directory
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
}

/// Everything the configuration is made from. Not `Debug`: the environment holds secrets.
#[derive(Clone)]
pub(crate) struct Inputs {
    /// Flags of the command line.
    pub(crate) flags: Flags,
    /// The process environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The working directory.
    pub(crate) folder: PathBuf,
    /// What happens to keys that have to be generated.
    pub(crate) keys: GeneratedKeys,
    /// Tries whether this machine can isolate sandboxes, and if not, tells why.
    pub(crate) can_isolate: fn() -> Result<(), String>,
}

/// What happens to keys that `--dev` has to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GeneratedKeys {
    /// They are written to the data folder, which is made when it is missing.
    Keep,
    /// They are thrown away: a command that only looks leaves no trace.
    Preview,
}

impl Inputs {
    /// The inputs of this process.
    ///
    /// # Errors
    /// The working directory is gone or may not be read.
    pub(crate) fn from_process(flags: Flags, keys: GeneratedKeys) -> std::io::Result<Self> {
        Ok(Self {
            flags,
            environment: std::env::vars_os().collect(),
            folder: std::env::current_dir()?,
            keys,
            can_isolate: || {
                let tried = lap_local::isolation::available();
                tried.map(drop).map_err(|reason| reason.to_string())
            },
        })
    }
}

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A flag of the command line.
    Flag(&'static str),
    /// The process environment.
    Environment,
    /// An environment file; its name.
    EnvFile(String),
    /// The file that this variable names.
    SecretFile(String),
    /// Another setting.
    Setting(&'static str),
    /// `--dev` filled it.
    Dev,
    /// A key that was generated and is kept at this path.
    Generated(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "by {flag}"),
            Self::Environment => f.write_str("in the environment"),
            Self::EnvFile(name) => write!(f, "in {name}"),
            Self::SecretFile(variable) => write!(f, "by {variable}"),
            Self::Setting(name) => write!(f, "by {name}"),
            Self::Dev => f.write_str("by --dev"),
            Self::Generated(path) => write!(f, "generated, in {}", path.display()),
            Self::Default => f.write_str("by default"),
        }
    }
}

/// What was found for a name. Not `Debug`: the text may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nobody set it.
    Nothing,
    /// It was set to the empty text, which means the same, but the message can say so.
    Empty(Source),
    /// It is not UTF-8.
    NotText(Source),
    /// This text, without surrounding white space.
    Text(String, Source),
}

/// All texts that were set, before anything is understood.
pub(crate) struct Layers {
    flags: BTreeMap<&'static str, (String, Source)>,
    environment: BTreeMap<String, OsString>,
    file: EnvFile,
}

impl Layers {
    /// Reads the environment file and arranges the inputs by precedence.
    pub(crate) fn read(inputs: &Inputs, report: &mut Report) -> Self {
        let file = EnvFile::read(inputs, report);
        let environment = inputs.environment.iter();
        let environment = environment
            .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.clone())))
            .collect();
        Self {
            flags: flag_texts(&inputs.flags, report),
            environment,
            file,
        }
    }

    /// What was set for `name`. An empty variable hides the same name in the environment file.
    pub(crate) fn find(&self, name: &str) -> Found {
        let found = self.find_raw(name);
        match found {
            Found::Text(text, source) if text.trim().is_empty() => Found::Empty(source),
            Found::Text(text, source) => Found::Text(text.trim().to_owned(), source),
            other => other,
        }
    }

    /// As [`Self::find`], but the text is left as it is, even when it is empty.
    pub(crate) fn find_raw(&self, name: &str) -> Found {
        if let Some((text, source)) = self.flags.get(name) {
            return Found::Text(text.clone(), source.clone());
        }
        if let Some(value) = self.environment.get(name) {
            return match value.to_str() {
                Some(text) => Found::Text(text.to_owned(), Source::Environment),
                None => Found::NotText(Source::Environment),
            };
        }
        match self.file.values.get(name) {
            Some(text) => Found::Text(text.clone(), Source::EnvFile(self.file.name.clone())),
            None => Found::Nothing,
        }
    }

    /// Every name that was set in the environment or the file.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let only_in_file = self
            .file
            .values
            .keys()
            .filter(|name| !self.environment.contains_key(*name));
        self.environment.keys().chain(only_in_file).map(String::as_str)
    }
}

fn flag_texts(flags: &Flags, report: &mut Report) -> BTreeMap<&'static str, (String, Source)> {
    let mut texts = BTreeMap::new();
    if let Some(port) = flags.port {
        texts.insert("PORT", (port.to_string(), Source::Flag("--port")));
    }
    if let Some(host) = &flags.bind {
        texts.insert("BIND_HOST", (host.clone(), Source::Flag("--bind")));
    }
    match flags.data_dir.as_ref().map(|folder| folder.to_str()) {
        Some(Some(folder)) => {
            texts.insert("LAP_DATA_DIR", (folder.to_owned(), Source::Flag("--data-dir")));
        }
        Some(None) => report.problem(
            "LAP_DATA_DIR",
            Some(&Source::Flag("--data-dir")),
            "is not UTF-8 text",
        ),
        None => {}
    }
    texts
}
