//! Verbs on agents.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::mask::{is_mask, mask, no_masks};
use super::{Engine, validate};
use crate::agent::{Agent, AgentSpec};
use crate::blueprint::{Blueprint, BlueprintHash};
use crate::caller::Caller;
use crate::error::{Error, ErrorKind, Result};
use crate::id::AgentId;
use crate::secret::Secret;
use crate::store::{AgentPage, AgentQuery, AgentUpdate, Created, Idempotency, NewAgent, Updated};

/// What a caller defines. `None` means the platform's default.
#[derive(Debug, Clone, Default)]
pub struct AgentDefinition {
    /// See [`AgentSpec::name`].
    pub name: Option<String>,
    /// See [`AgentSpec::model`].
    pub model: String,
    /// See [`AgentSpec::prompt`].
    pub prompt: Option<String>,
    /// See [`AgentSpec::tools`].
    pub tools: Vec<Value>,
    /// See [`AgentSpec::harness`].
    pub harness: Option<String>,
    /// See [`AgentSpec::repo_url`].
    pub repo_url: Option<String>,
    /// See [`AgentSpec::branch`].
    pub branch: Option<String>,
    /// See [`AgentSpec::pfp_url`].
    pub pfp_url: Option<String>,
    /// See [`AgentSpec::mcp_servers`].
    pub mcp_servers: Vec<String>,
    /// See [`AgentSpec::permission`].
    pub permission: Value,
    /// Secret environment in the clear. It is sealed before anything else happens.
    pub env_vars: BTreeMap<String, Secret>,
    /// See [`AgentSpec::env_var_hosts`].
    pub env_var_hosts: BTreeMap<String, Vec<String>>,
    /// See [`AgentSpec::requirements`].
    pub requirements: Option<String>,
    /// See [`AgentSpec::skill_ids`].
    pub skill_ids: Vec<String>,
    /// See [`AgentSpec::allow_out`].
    pub allow_out: Vec<String>,
    /// See [`AgentSpec::deny_out`].
    pub deny_out: Vec<String>,
    /// See [`AgentSpec::projects`].
    pub projects: Vec<Value>,
    /// See [`AgentSpec::template_id`].
    pub template_id: Option<String>,
}

/// The command to create an agent.
#[derive(Debug, Clone, Default)]
pub struct CreateAgent {
    /// The definition.
    pub definition: AgentDefinition,
    /// The client's key, so that a repetition creates nothing.
    pub idempotency_key: Option<String>,
}

/// What to change. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentChange {
    /// `Some(None)` removes the name.
    pub name: Option<Option<String>>,
    /// The avatar.
    pub pfp_url: Option<Option<String>>,
    /// MCP servers.
    pub mcp_servers: Option<Vec<String>>,
    /// What the agent may do without asking.
    pub permission: Option<Value>,
    /// The image of new sandboxes.
    pub image: Option<String>,
    /// Instructions.
    pub prompt: Option<Option<String>>,
    /// The model.
    pub model: Option<String>,
    /// The branch.
    pub branch: Option<String>,
    /// Memories to preload.
    pub preload_memory_limit: Option<u32>,
    /// Sandbox projects.
    pub projects: Option<Vec<Value>>,
    /// All variables. A mask in place of a value leaves the stored one as it is.
    pub env_vars: Option<BTreeMap<String, Secret>>,
    /// Bindings.
    pub env_var_hosts: Option<BTreeMap<String, Vec<String>>>,
    /// Egress allow list.
    pub allow_out: Option<Vec<String>>,
    /// Egress deny list.
    pub deny_out: Option<Vec<String>>,
}

const CREATE: &str = "create agent";
const UPDATE: &str = "update agent";

impl Engine {
    /// The agent exists. Its image is resolved now and kept.
    ///
    /// # Errors
    /// `Invalid` with the field, `KeyReused`, `Unavailable`.
    pub async fn create_agent(&self, caller: &Caller, new: CreateAgent) -> Result<Agent> {
        validate::idempotency_key(CREATE, new.idempotency_key.as_deref())?;
        let (parts, config) = (&self.core.parts, &self.core.config);
        let definition = new.definition;
        validate::environment(CREATE, "env_vars", validate::pairs(&definition.env_vars))?;
        no_masks(CREATE, &AgentSpec::default(), &definition.env_vars)?;
        let id = AgentId::fresh(&*parts.entropy, parts.clock.now());
        let idempotency = new.idempotency_key.map(|key| Idempotency {
            principal: caller.principal().to_owned(),
            operation: "create_agent",
            parent: String::new(),
            key,
            body_hash: self.core.identity.body_hash(&fingerprint(&definition)),
        });
        let harness = definition
            .harness
            .unwrap_or_else(|| config.default_harness.clone());
        let spec = AgentSpec {
            name: definition.name,
            model: definition.model,
            prompt: definition.prompt,
            tools: definition.tools,
            image: config.images.of(&harness).to_owned(),
            harness,
            repo_url: definition.repo_url,
            branch: definition.branch.unwrap_or_else(|| "main".to_owned()),
            pfp_url: definition.pfp_url,
            mcp_servers: definition.mcp_servers,
            permission: definition.permission,
            env_vars: self.seal_env(id, &definition.env_vars)?,
            env_var_hosts: definition.env_var_hosts,
            requirements: definition.requirements,
            skill_ids: definition.skill_ids,
            allow_out: definition.allow_out,
            deny_out: definition.deny_out,
            projects: definition.projects,
            template_id: definition.template_id,
            ..AgentSpec::default()
        };
        let blueprint_hash = self.blueprint_hash(CREATE, &spec)?;
        let created_by = caller.principal().to_owned();
        match parts
            .store
            .create_agent(NewAgent {
                id,
                spec,
                blueprint_hash,
                created_by,
                idempotency,
            })
            .await?
        {
            Created::New(agent) | Created::Replayed(agent) => Ok(agent),
            Created::KeyReused => Err(key_reused(CREATE)),
        }
    }

    /// The agent.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn agent(&self, id: AgentId) -> Result<Agent> {
        self.core.agent(id).await
    }

    /// Some agents.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage> {
        self.core.parts.store.list_agents(query).await
    }

    /// The agent has the change; a concurrent change to other fields is kept.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` with the field, `Unavailable`; `Busy` when others change it all the time.
    pub async fn update_agent(&self, _caller: &Caller, id: AgentId, change: AgentChange) -> Result<Agent> {
        for _ in 0..8 {
            let agent = self.core.agent(id).await?;
            let spec = self.apply(&agent, change.clone())?;
            let blueprint_hash = self.blueprint_hash(UPDATE, &spec)?;
            let update = AgentUpdate {
                id,
                expected_version: agent.version,
                spec,
                blueprint_hash,
            };
            match self.core.parts.store.update_agent(update).await? {
                Updated::Done(agent) => return Ok(agent),
                Updated::Changed => {}
                Updated::Missing => return Err(Error::not_found(UPDATE, "agent", id)),
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            UPDATE,
            "others keep changing this agent; try again",
        ))
    }

    /// The agent is gone and everything it owned is stopped.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn delete_agent(&self, _caller: &Caller, id: AgentId) -> Result<()> {
        let ended = self.core.parts.store.delete_agent(id).await?;
        let ended = ended.ok_or_else(|| Error::not_found("delete agent", "agent", id))?;
        for session in ended {
            self.core.runs.end_session(session);
            self.core.changed(session);
        }
        self.core.work_is_due();
        Ok(())
    }

    /// The agent's secret environment as it may be shown: values masked but for the last two characters of
    /// long ones.
    ///
    /// # Errors
    /// `Corrupt` when a value was sealed with another key.
    pub fn masked_env(&self, agent: &Agent) -> Result<BTreeMap<String, String>> {
        agent
            .spec
            .env_vars
            .keys()
            .map(|name| Ok((name.clone(), mask(&self.open_env(agent, name)?))))
            .collect()
    }

    pub(super) fn open_env(&self, agent: &Agent, name: &str) -> Result<Secret> {
        let sealed = agent.spec.env_vars.get(name);
        let sealed = sealed.ok_or_else(|| Error::not_found("read variable", "variable", name))?;
        let bytes = self
            .core
            .parts
            .sealer
            .open(&AgentSpec::env_context(agent.id, name), sealed)?;
        String::from_utf8(bytes).map(Secret::new).map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "read variable",
                "the stored value is not text",
            )
        })
    }

    fn seal_env(
        &self,
        agent: AgentId,
        env: &BTreeMap<String, Secret>,
    ) -> Result<BTreeMap<String, crate::seal::Sealed>> {
        let (sealer, entropy) = (&self.core.parts.sealer, &*self.core.parts.entropy);
        env.iter()
            .map(|(name, value)| {
                let context = AgentSpec::env_context(agent, name);
                Ok((
                    name.clone(),
                    sealer.seal(&context, value.expose().as_bytes(), entropy)?,
                ))
            })
            .collect()
    }

    fn apply(&self, agent: &Agent, change: AgentChange) -> Result<AgentSpec> {
        let mut spec = agent.spec.clone();
        macro_rules! set {
            ($($field:ident),*) => {$(
                if let Some(value) = change.$field {
                    spec.$field = value;
                }
            )*};
        }
        if let Some(env) = change.env_vars {
            let mut values = BTreeMap::new();
            for (name, value) in env {
                // Any mask: whoever sends back one that somebody else's change has outdated means no change either.
                let value = if is_mask(&value) && spec.env_vars.contains_key(&name) {
                    self.open_env(agent, &name)?
                } else {
                    value
                };
                values.insert(name, value);
            }
            validate::environment(UPDATE, "env_vars", validate::pairs(&values))?;
            no_masks(UPDATE, &spec, &values)?;
            spec.env_vars = self.seal_env(agent.id, &values)?;
            // A binding of a variable that is gone has no meaning; the original pruned it too.
            spec.env_var_hosts.retain(|name, _| values.contains_key(name));
        }
        set!(
            name,
            pfp_url,
            mcp_servers,
            permission,
            image,
            prompt,
            model,
            branch,
            preload_memory_limit,
            projects
        );
        set!(env_var_hosts, allow_out, deny_out);
        Ok(spec)
    }

    fn blueprint_hash(&self, operation: &'static str, spec: &AgentSpec) -> Result<BlueprintHash> {
        validate::agent(operation, spec)?;
        let late = self
            .core
            .parts
            .harness
            .late_bindable(&spec.harness)
            .ok_or_else(|| {
                let message = format!(
                    "there is no harness named {}",
                    spec.harness.chars().take(64).collect::<String>()
                );
                Error::invalid(operation, "harness_id", message)
            })?;
        Ok(Blueprint::of(spec, late).hash())
    }
}

pub(super) fn key_reused(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::KeyReused,
        operation,
        "this Idempotency-Key was used before with another request",
    )
}

/// Everything that makes two requests the same request.
fn fingerprint(definition: &AgentDefinition) -> Value {
    let env: BTreeMap<_, _> = definition
        .env_vars
        .iter()
        .map(|(name, value)| (name, value.expose()))
        .collect();
    json!([
        definition.name,
        definition.model,
        definition.prompt,
        definition.tools,
        definition.harness,
        definition.repo_url,
        definition.branch,
        definition.pfp_url,
        definition.mcp_servers,
        definition.permission,
        env,
        definition.env_var_hosts,
        definition.requirements,
        definition.skill_ids,
        definition.allow_out,
        definition.deny_out,
        definition.projects,
        definition.template_id,
    ])
}
