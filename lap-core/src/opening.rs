//! What is bound to a sandbox after the claim. Stored sealed with the session, so any process can finish the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blueprint::Blueprint;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AgentId, Entropy, SessionId};
use crate::seal::{Sealed, Sealer};
use crate::secret::Secret;

/// A skill file for the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skill {
    /// Lower-case kebab name, safe as a folder name.
    pub slug: String,
    /// Markdown.
    pub content: String,
}

/// One credential for one sandbox.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The variable under which the sandbox sees the stub.
    pub name: String,
    /// The real value.
    pub value: Secret,
    /// Hosts to which it may go. Empty: nowhere but where the vault itself binds it (the model gateway).
    pub hosts: Vec<String>,
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Opening {
    /// The session.
    pub session: SessionId,
    /// Its agent.
    pub agent: AgentId,
    /// What its sandbox is made from, so that a bring-up does not depend on later changes of the agent.
    pub blueprint: Blueprint,
    /// Title given by the client.
    pub title: Option<String>,
    /// Model.
    pub model: String,
    /// Instructions for the harness.
    pub prompt: Option<String>,
    /// Skills.
    pub skills: Vec<Skill>,
    /// MCP servers.
    pub mcp_servers: Vec<Value>,
    /// See [`AgentSpec::permission`](crate::agent::AgentSpec::permission).
    pub permission: Value,
    /// Plain environment of this session. The values may be sensitive, so they print nothing.
    pub env: BTreeMap<String, Secret>,
    /// Credentials that go to the vault.
    pub grants: Vec<Grant>,
}

#[derive(Serialize, Deserialize)]
struct StoredGrant {
    name: String,
    value: String,
    hosts: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    agent: uuid::Uuid,
    blueprint: Blueprint,
    title: Option<String>,
    model: String,
    prompt: Option<String>,
    skills: Vec<Skill>,
    mcp_servers: Vec<Value>,
    #[serde(default)]
    permission: Value,
    env: BTreeMap<String, String>,
    grants: Vec<StoredGrant>,
}

impl Opening {
    fn context(session: SessionId) -> String {
        format!("session/{session}/opening")
    }

    /// Seals the opening for its session.
    ///
    /// # Errors
    /// `Internal` when it cannot be encoded or encrypted.
    pub fn seal(&self, sealer: &Sealer, entropy: &dyn Entropy) -> Result<Sealed> {
        let expose = |secret: &Secret| secret.expose().to_owned();
        let stored = Stored {
            agent: self.agent.as_uuid(),
            blueprint: self.blueprint.clone(),
            title: self.title.clone(),
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            skills: self.skills.clone(),
            mcp_servers: self.mcp_servers.clone(),
            permission: self.permission.clone(),
            env: self
                .env
                .iter()
                .map(|(name, value)| (name.clone(), expose(value)))
                .collect(),
            grants: self
                .grants
                .iter()
                .map(|grant| StoredGrant {
                    name: grant.name.clone(),
                    value: expose(&grant.value),
                    hosts: grant.hosts.clone(),
                })
                .collect(),
        };
        let bytes = serde_json::to_vec(&stored).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "seal opening",
                "the opening has no JSON form",
            )
            .with_source(error)
        })?;
        sealer.seal(&Self::context(self.session), &bytes, entropy)
    }

    /// Opens what [`Opening::seal`] made for `session`.
    ///
    /// # Errors
    /// `Corrupt` when it was sealed with another key, for another session, or was damaged.
    pub fn unseal(session: SessionId, sealed: &Sealed, sealer: &Sealer) -> Result<Self> {
        let bytes = sealer.open(&Self::context(session), sealed)?;
        // The source is left out on purpose: a parser's message can quote the secret text.
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "open session",
                "the stored opening is not of this version",
            )
        })?;
        Ok(Self {
            session,
            agent: AgentId::from_uuid(stored.agent),
            blueprint: stored.blueprint,
            title: stored.title,
            model: stored.model,
            prompt: stored.prompt,
            skills: stored.skills,
            mcp_servers: stored.mcp_servers,
            permission: stored.permission,
            env: stored
                .env
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            grants: stored
                .grants
                .into_iter()
                .map(|grant| Grant {
                    name: grant.name,
                    value: Secret::new(grant.value),
                    hosts: grant.hosts,
                })
                .collect(),
        })
    }
}
