//! Keys that `--dev` generates and keeps in the data folder, readable by the owner only.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lap_core::id::{Entropy as _, SystemEntropy};

use super::env_file::reason;
use super::parse::Parsed;
use super::report::Report;
use super::source::{GeneratedKeys, Inputs, Source};
use super::table;
use super::values::Values;

/// A key that nobody gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GeneratedKey {
    /// The setting it fills.
    pub(crate) name: &'static str,
    /// The file that keeps it.
    pub(crate) path: PathBuf,
    /// It was made just now. Otherwise an earlier start made it.
    pub(crate) is_fresh: bool,
}

/// A key that is generated when it is unset.
struct Kept {
    name: &'static str,
    file: &'static str,
    fresh: fn() -> String,
}

const KEPT: [Kept; 2] = [
    Kept {
        name: "MASTER_KEY",
        file: "master-key",
        fresh: fresh_master_key,
    },
    Kept {
        name: "ENCRYPTION_KEY",
        file: "encryption-key",
        fresh: fresh_encryption_key,
    },
];

/// Fills the keys that are unset. Repeating the call gives the same keys, also from two processes at once.
pub(crate) fn provide(
    inputs: &Inputs,
    folder: &Path,
    values: &mut Values,
    report: &mut Report,
) -> Vec<GeneratedKey> {
    let mut generated = Vec::new();
    for Kept { name, file, fresh } in KEPT {
        if values.has(name) || report.names(name) {
            continue;
        }
        let path = folder.join(file);
        let kept = keep_or_read(&path, fresh, inputs.keys);
        let parsed = kept.and_then(|(text, is_fresh)| Ok((parse(name, &text)?, is_fresh)));
        match parsed {
            Ok((parsed, is_fresh)) => {
                values.fill(name, parsed, Source::Generated(path.clone()));
                generated.push(GeneratedKey { name, path, is_fresh });
            }
            Err(why) => {
                let what = format!(
                    "was to be kept in {}, but {why}; set it, or choose another data folder",
                    path.display()
                );
                report.problem(name, None, what);
            }
        }
    }
    generated
}

fn parse(name: &str, text: &str) -> Result<Parsed, String> {
    let setting = table::find(name).ok_or("it is not a setting")?;
    setting
        .kind
        .parse(text.trim())
        .map_err(|what| format!("the content of the file {what}"))
}

/// The content of the file, and whether it was made just now.
fn keep_or_read(path: &Path, fresh: fn() -> String, keys: GeneratedKeys) -> Result<(String, bool), String> {
    match read(path) {
        Ok(text) => return Ok((text, false)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(reason(&error)),
    }
    let text = fresh();
    if keys == GeneratedKeys::Preview {
        return Ok((text, true));
    }
    match write_new(path, &text) {
        Ok(()) => Ok((text, true)),
        // Another process was faster: its key is the key.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path)
            .map(|text| (text, false))
            .map_err(|error| reason(&error)),
        Err(error) => Err(reason(&error)),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if metadata.mode() & 0o077 != 0 {
        let why = "other users may read the file (make it private: chmod 600)";
        return Err(io::Error::other(why));
    }
    std::fs::read_to_string(path)
}

/// Makes the file with its whole content or not at all, and never replaces one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = path.with_extension(format!("draft-{}", hex(random::<8>())));
    let written = write_draft(&draft, text).and_then(|()| std::fs::hard_link(&draft, path));
    // A draft that cannot be removed is harmless: it is private, and nothing reads it.
    let _ = std::fs::remove_file(&draft);
    written?;
    // Without this the name itself may be lost with the power, and with it everything sealed under the key.
    std::fs::File::open(folder)?.sync_all()
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn fresh_master_key() -> String {
    format!("sk-lap-{}", hex(random::<24>()))
}

fn fresh_encryption_key() -> String {
    STANDARD.encode(random::<32>())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy::new().fill(&mut bytes);
    bytes
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
