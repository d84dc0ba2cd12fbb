use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use lap_core::secret::Secret;
use lap_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::relay::Limits;

/// What the vault process is started with.
#[derive(Debug)]
pub struct ServeConfig {
    /// The vault's folder: state, lock, control socket, pid file.
    pub folder: PathBuf,
    /// Proves to the vault that a control call is the server's, and to the server that the vault is its own.
    pub token: Secret,
    /// Seals the root key in the state file; base64 of 32 bytes.
    pub sealing_key: Option<Secret>,
    /// With no server connected and no sandbox attached for this long, the vault ends.
    pub idle_exit: Duration,
    /// With no server connected and no request for this long, the vault ends whatever is attached: a later
    /// server starts it again with the same port and the same stubs.
    pub orphan_exit: Duration,
    /// What bounds the relay.
    pub limits: Limits,
}

/// The configuration as it crosses the standard input of the vault process.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigDocument {
    pub(crate) folder: PathBuf,
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) sealing_key: Option<String>,
    #[serde(default)]
    pub(crate) idle_exit_ms: Option<u64>,
    #[serde(default)]
    pub(crate) orphan_exit_ms: Option<u64>,
    #[serde(default)]
    pub(crate) grant_wait_ms: Option<u64>,
}

impl ServeConfig {
    /// How long an idle vault lives unless the configuration says otherwise.
    pub const IDLE_EXIT: Duration = Duration::from_secs(5 * 60);
    /// How long a vault whose server does not come back lives unless the configuration says otherwise.
    pub const ORPHAN_EXIT: Duration = Duration::from_secs(6 * 60 * 60);

    /// A configuration with the defaults.
    pub fn new(folder: impl Into<PathBuf>, token: Secret) -> Self {
        Self {
            folder: folder.into(),
            token,
            sealing_key: None,
            idle_exit: Self::IDLE_EXIT,
            orphan_exit: Self::ORPHAN_EXIT,
            limits: Limits::default(),
        }
    }

    /// Reads the document that the server writes to the standard input, to its end.
    ///
    /// # Errors
    /// `Invalid` when it is not that document. Nothing of it is echoed, because it holds secrets.
    pub fn from_reader(reader: impl Read) -> Result<Self> {
        let invalid = || {
            Error::invalid(
                "read vault configuration",
                "stdin",
                "the vault is started by the server, which writes a configuration document to its input",
            )
        };
        let mut text = String::new();
        reader
            .take(1 << 20)
            .read_to_string(&mut text)
            .map_err(|_| invalid())?;
        let document: ConfigDocument = serde_json::from_str(&text).map_err(|_| invalid())?;
        zeroize::Zeroize::zeroize(&mut text);
        if document.token.len() < 32 || !document.folder.is_absolute() {
            return Err(invalid());
        }
        let millis = |value: Option<u64>, default| value.map_or(default, Duration::from_millis);
        let mut config = Self::new(document.folder, Secret::new(document.token));
        config.sealing_key = document.sealing_key.map(Secret::new);
        config.idle_exit = millis(document.idle_exit_ms, Self::IDLE_EXIT);
        config.orphan_exit = millis(document.orphan_exit_ms, Self::ORPHAN_EXIT);
        config.limits.grant = millis(document.grant_wait_ms, config.limits.grant);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_shape_is_refused_without_an_echo() {
        let token = "c".repeat(32);
        let good = format!(r#"{{"folder":"/data/vault","token":"{token}"}}"#);
        assert_eq!(
            ServeConfig::from_reader(good.as_bytes()).unwrap().idle_exit,
            ServeConfig::IDLE_EXIT
        );
        for bad in [
            String::new(),
            good.replace("/data", "data"),
            good.replace("ccc", ""),
            good.replace("\"token\"", "\"sk-canary\""),
        ] {
            let error = ServeConfig::from_reader(bad.as_bytes()).unwrap_err();
            assert!(!format!("{error:?}").contains("canary"), "{bad}");
        }
    }
}
