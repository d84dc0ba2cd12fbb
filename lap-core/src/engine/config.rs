//! Typed settings of an engine. Nothing here is read from the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::blueprint::{PROTOCOL, PlatformHash};
use crate::secret::Secret;

/// The settings of this process that reach a sandbox. Their hash is the platform's half of every pool key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// Repository for agents that have none of their own; absent: an empty workspace.
    pub repo_url: Option<String>,
    /// Plain environment of every sandbox.
    pub env: BTreeMap<String, String>,
    /// Base URL of the model gateway, as the vault reaches it.
    pub gateway_base: String,
    /// Anything else that must make old warm sandboxes unfit, e.g. a build id.
    pub revision: String,
}

impl Platform {
    /// The platform's half of the pool key.
    pub fn hash(&self) -> PlatformHash {
        #[derive(Serialize)]
        struct Canonical<'a> {
            protocol: u32,
            repo_url: &'a Option<String>,
            env: &'a BTreeMap<String, String>,
            gateway_base: &'a str,
            revision: &'a str,
        }
        PlatformHash::of(&Canonical {
            protocol: PROTOCOL,
            repo_url: &self.repo_url,
            env: &self.env,
            gateway_base: &self.gateway_base,
            revision: &self.revision,
        })
    }
}

/// The key with which the vault speaks to the model gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// The real key.
    pub key: Secret,
}

/// Which image a harness runs in. The choice is stored in the agent when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// For harnesses without their own.
    pub default: String,
    /// By harness.
    pub by_harness: BTreeMap<String, String>,
}

impl Images {
    /// The image of a harness.
    pub fn of(&self, harness: &str) -> &str {
        self.by_harness.get(harness).unwrap_or(&self.default)
    }
}

/// Typed settings of an engine.
#[derive(Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// What reaches a sandbox.
    pub platform: Platform,
    /// The gateway's key; goes to the vault only.
    pub gateway: Gateway,
    /// Token for cloning repositories; gone before an agent starts.
    pub git_token: Option<Secret>,
    /// Images by harness.
    pub images: Images,
    /// Harness of agents that name none.
    pub default_harness: String,
    /// A ready session without ingress for this long is ended.
    pub idle_timeout: Duration,
    /// A turn that takes longer is stopped.
    pub turn_timeout: Duration,
    /// How long an agent's question or request for permission waits for an answer before it counts as refused.
    pub answer_timeout: Duration,
    /// A session that is not ready after this long fails.
    pub bring_up_timeout: Duration,
    /// A warm sandbox that does not answer within this time is replaced.
    pub warm_timeout: Duration,
    /// Turns that may wait behind the open one.
    pub queue_limit: u32,
    /// How much of a sandbox is kept when it is put away.
    pub snapshot_limit_bytes: usize,
    /// How long processes of a sandbox may take to end before they are killed.
    pub stop_grace: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            platform: Platform::default(),
            gateway: Gateway { key: Secret::new("") },
            git_token: None,
            images: Images {
                default: "opencode-sandbox:dev".to_owned(),
                by_harness: BTreeMap::new(),
            },
            default_harness: "opencode".to_owned(),
            idle_timeout: Duration::from_secs(15 * 60),
            turn_timeout: Duration::from_secs(30 * 60),
            answer_timeout: Duration::from_secs(600),
            bring_up_timeout: Duration::from_secs(600),
            warm_timeout: Duration::from_secs(2),
            queue_limit: 16,
            snapshot_limit_bytes: 8 * 1024 * 1024,
            stop_grace: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The passthrough environment may hold tokens, so only its names are shown.
        f.debug_struct("EngineConfig")
            .field("repo_url", &self.platform.repo_url)
            .field("env", &self.platform.env.keys())
            .field("default_harness", &self.default_harness)
            .field("idle_timeout", &self.idle_timeout)
            .field("turn_timeout", &self.turn_timeout)
            .field("bring_up_timeout", &self.bring_up_timeout)
            .finish_non_exhaustive()
    }
}
