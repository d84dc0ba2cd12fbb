//! The pool key: what is baked into a sandbox before anyone claims it.
//!
//! A pool key has two halves. The [`BlueprintHash`] comes from the agent and is stored on it. The
//! [`PlatformHash`] comes from the settings of a process that reach a sandbox. A claim matches both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::agent::AgentSpec;

/// The version of the protocol between the platform and `lap-sandboxd`. It is part of every pool key.
pub const PROTOCOL: u32 = 1;

macro_rules! hash_kinds {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes the hexadecimal text that a store kept.
            pub fn from_text(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The hash of a value's canonical form: JSON with fields in order of declaration and maps in order of keys.
            pub fn of(value: &impl Serialize) -> Self {
                let canonical = serde_json::to_vec(value).unwrap_or_default();
                let hash = digest::digest(&digest::SHA256, &canonical);
                Self(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
            }

            /// 64 hexadecimal digits.
            pub fn as_text(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.get(..12).unwrap_or(&self.0))
            }
        }
    )*};
}

hash_kinds! {
    /// The agent's half of the pool key.
    BlueprintHash;
    /// The half of the pool key that comes from a process's settings.
    PlatformHash;
}

/// Which parts of an opening a harness can take after its sandbox was launched. What it cannot take late is
/// baked in and therefore belongs to the pool key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateBindable {
    /// The model.
    pub model: bool,
    /// The agent's instructions.
    pub prompt: bool,
    /// Skills.
    pub skills: bool,
    /// MCP servers.
    pub mcp_servers: bool,
}

impl LateBindable {
    /// Everything can be bound late, as with `lap-sandboxd`.
    pub const ALL: Self = Self {
        model: true,
        prompt: true,
        skills: true,
        mcp_servers: true,
    };
    /// Nothing can: the profile of plain harness images.
    pub const NONE: Self = Self {
        model: false,
        prompt: false,
        skills: false,
        mcp_servers: false,
    };
}

/// What is baked into a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blueprint {
    /// Protocol version.
    pub protocol: u32,
    /// Container image.
    pub image: String,
    /// Harness.
    pub harness: String,
    /// Repository of the agent's own; absent: the platform's default.
    pub repo_url: Option<String>,
    /// Branch.
    pub branch: String,
    /// Python requirements.
    pub requirements: Option<String>,
    /// The names of the secrets whose stubs exist from launch.
    pub secrets: BTreeSet<String>,
    /// Egress allow list.
    pub allow_out: Vec<String>,
    /// Egress deny list.
    pub deny_out: Vec<String>,
    /// Parts the harness cannot take late, by name.
    pub baked: BTreeMap<String, String>,
}

impl Blueprint {
    /// The blueprint of an agent under a harness that takes `late` parts after launch.
    pub fn of(spec: &AgentSpec, late: LateBindable) -> Self {
        let mut baked = BTreeMap::new();
        let mut bake = |name: &str, is_late: bool, value: String| {
            if !is_late {
                baked.insert(name.to_owned(), value);
            }
        };
        bake("model", late.model, spec.model.clone());
        bake("prompt", late.prompt, spec.prompt.clone().unwrap_or_default());
        bake("skills", late.skills, spec.skill_ids.join("\n"));
        bake("mcp_servers", late.mcp_servers, spec.mcp_servers.join("\n"));
        Self {
            protocol: PROTOCOL,
            image: spec.image.clone(),
            harness: spec.harness.clone(),
            repo_url: spec.repo_url.clone(),
            branch: spec.branch.clone(),
            requirements: spec.requirements.clone(),
            secrets: spec.env_vars.keys().cloned().collect(),
            allow_out: spec.allow_out.clone(),
            deny_out: spec.deny_out.clone(),
            baked,
        }
    }

    /// The agent's half of the pool key.
    pub fn hash(&self) -> BlueprintHash {
        BlueprintHash::of(self)
    }
}
