//! The launch document: what a sandbox is told at its start, over standard input.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use lap_core::error::{Error, Result};
use lap_core::id::{InstanceId, SandboxId};
use lap_core::secret::Secret;
use lap_core::token::VerifyingKey;
use serde::Deserialize;
use uuid::Uuid;

const OPERATION: &str = "read the launch document";

/// Where models answer, and the stub key the agent sees.
#[derive(Clone, Deserialize)]
pub struct GatewayAddress {
    /// The base address, with or without `/v1`.
    pub base: String,
    /// The key the sandbox sends. Platforms give a stub here that their relay swaps.
    #[serde(default)]
    pub key: String,
}

impl fmt::Debug for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayAddress")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Everything that is fixed for the life of the sandbox.
#[derive(Debug, Clone)]
pub struct LaunchDocument {
    /// Who this sandbox is.
    pub sandbox: SandboxId,
    /// The installation it belongs to.
    pub instance: InstanceId,
    /// Verifies the platform's tokens.
    pub public_key: VerifyingKey,
    /// The sandbox's own folder.
    pub folder: PathBuf,
    /// Where to serve; port 0 takes any.
    pub listen: SocketAddr,
    /// The harness to run.
    pub harness: String,
    /// What to clone into the workspace.
    pub repo_url: Option<String>,
    /// Which branch of it.
    pub branch: Option<String>,
    /// For the clone only; nothing that runs later sees it.
    pub git_token: Option<Secret>,
    /// Variables the agent and its tools see.
    pub env: BTreeMap<String, String>,
    /// Where models answer.
    pub gateway: GatewayAddress,
}

#[derive(Deserialize)]
struct Wire {
    sandbox: Uuid,
    instance: Uuid,
    public_key: String,
    folder: PathBuf,
    listen: SocketAddr,
    harness: String,
    #[serde(default)]
    repo_url: Option<String>,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default)]
    git_token: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    gateway: GatewayAddress,
    protocol: u32,
}

impl LaunchDocument {
    /// Reads and checks the JSON text.
    ///
    /// # Errors
    /// `Invalid` with the field; values are not echoed, because one of them is a token.
    pub fn parse(text: &str) -> Result<Self> {
        let wire: Wire = serde_json::from_str(text).map_err(|error| {
            // serde's messages can quote a value, so only the position is passed on.
            let at = format!("line {} column {}", error.line(), error.column());
            Error::invalid(
                OPERATION,
                "document",
                format!("it is not valid JSON of the expected shape ({at})"),
            )
        })?;
        if wire.protocol != lap_harness::PROTOCOL_VERSION {
            let message = format!("this sandboxd speaks protocol {}", lap_harness::PROTOCOL_VERSION);
            return Err(Error::invalid(OPERATION, "protocol", message));
        }
        if !wire.folder.is_absolute() {
            return Err(Error::invalid(
                OPERATION,
                "folder",
                "the folder is not an absolute path",
            ));
        }
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut env = wire.env;
        // The token is for the clone; a copy among the variables would outlive it.
        env.remove("GIT_TOKEN");
        Ok(Self {
            sandbox: SandboxId::from_uuid(wire.sandbox),
            instance: InstanceId::from_uuid(wire.instance),
            public_key: VerifyingKey::from_base64(&wire.public_key)?,
            folder: wire.folder,
            listen: wire.listen,
            harness: wire.harness,
            repo_url: given(wire.repo_url),
            branch: given(wire.branch),
            git_token: given(wire.git_token).map(Secret::new),
            env,
            gateway: wire.gateway,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lap_core::error::ErrorKind;
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({
            "sandbox": "01995f6e-0000-7000-8000-000000000001",
            "instance": "01995f6e-0000-7000-8000-000000000002",
            "public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "folder": "/tmp/sandbox", "listen": "127.0.0.1:0", "harness": "builtin",
            "git_token": "ghp_canary", "env": {"GIT_TOKEN": "ghp_canary", "A": "1"},
            "gateway": {"base": "http://127.0.0.1:1", "key": "stub_canary"}, "protocol": 1
        })
    }

    #[test]
    fn the_token_is_in_one_place_and_prints_nowhere() {
        let launch = LaunchDocument::parse(&document().to_string()).unwrap();
        assert_eq!(launch.env.len(), 1);
        assert!(launch.git_token.is_some());
        assert!(!format!("{launch:?}").contains("canary"));
    }

    #[test]
    fn each_bad_field_is_refused_without_an_echo() {
        for (field, value) in [
            ("sandbox", json!("canary")),
            ("public_key", json!("canary")),
            ("folder", json!("canary")),
            ("listen", json!("canary")),
            ("protocol", json!(2)),
            ("gateway", json!("canary")),
            ("env", json!({"A": 1})),
        ] {
            let mut document = document();
            document[field] = value;
            let error = LaunchDocument::parse(&document.to_string()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{field}");
            assert!(!format!("{error:?}").contains("canary"), "{field}: {error:?}");
        }
    }
}
