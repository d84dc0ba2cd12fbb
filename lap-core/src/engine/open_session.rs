//! The verb that opens a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::agents::key_reused;
use super::core::Core;
use super::{Engine, validate, work};
use crate::agent::Agent;
use crate::blueprint::Blueprint;
use crate::caller::Caller;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AgentId, SandboxId, SessionId, TurnId};
use crate::opening::{Grant, Opening, Skill};
use crate::secret::Secret;
use crate::session::Session;
use crate::store::{Idempotency, NewTurn, Open, Opened, OpenedSession};

/// The command to open a session.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// With this agent.
    pub agent: AgentId,
    /// Title.
    pub title: Option<String>,
    /// The parts of the first message, which becomes turn 1.
    pub prompt: Option<Vec<Value>>,
    /// Plain environment of this session only.
    pub env: BTreeMap<String, Secret>,
    /// Skills of this session only.
    pub skills: Vec<Skill>,
    /// The client's key, so that a repetition opens nothing.
    pub idempotency_key: Option<String>,
}

impl OpenSession {
    /// A session with this agent and nothing else.
    pub const fn with(agent: AgentId) -> Self {
        Self {
            agent,
            title: None,
            prompt: None,
            env: BTreeMap::new(),
            skills: Vec::new(),
            idempotency_key: None,
        }
    }
}

const OPEN: &str = "open session";

impl Engine {
    /// The session exists and is being brought up. It takes turns at once; they wait until it is ready.
    ///
    /// # Cancel safety
    /// If dropped, the session was opened or not; repeat with the same idempotency key to learn which.
    ///
    /// # Errors
    /// `NotFound` for the agent, `Invalid` with the field, `KeyReused`, `Unavailable`.
    pub async fn open_session(&self, caller: &Caller, open: OpenSession) -> Result<Session> {
        check(&open)?;
        let core = &self.core;
        let now = core.parts.clock.now();
        let id = SessionId::fresh(&*core.parts.entropy, now);
        for _ in 0..8 {
            let agent = core.agent(open.agent).await?;
            let opening = self.opening(id, &agent, &open)?;
            let command = Open {
                session: id,
                agent: agent.id,
                agent_version: agent.version,
                platform_hash: core.worker.platform_hash.clone(),
                cold_sandbox: SandboxId::fresh(&*core.parts.entropy, now),
                place: core.worker.place,
                worker: core.worker.id,
                title: open.title.clone(),
                opening: opening.seal(&core.parts.sealer, &*core.parts.entropy)?,
                first_turn: self.first_turn(caller, &open),
                idempotency: self.open_idempotency(caller, id, &open),
                created_by: caller.principal().to_owned(),
            };
            match self.commit_open(command).await? {
                Opened::Warm(opened) | Opened::Cold(opened) => return Ok(opened.session),
                Opened::Replayed(session) => return Ok(session),
                Opened::NoAgent => return Err(Error::not_found(OPEN, "agent", open.agent)),
                Opened::KeyReused => return Err(key_reused(OPEN)),
                Opened::AgentChanged => {}
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            OPEN,
            "the agent keeps changing; try again",
        ))
    }

    /// The commit and the start of the bring-up belong together, so they do not end with a caller who leaves.
    async fn commit_open(&self, command: Open) -> Result<Opened> {
        let core = Arc::clone(&self.core);
        let committed = tokio::spawn(async move {
            let answer = core.parts.store.open(command).await?;
            match &answer {
                Opened::Warm(opened) => {
                    metrics::counter!("warm_pool_hit_total").increment(1);
                    begin(&core, opened);
                }
                Opened::Cold(opened) => {
                    metrics::counter!("warm_pool_miss_total").increment(1);
                    begin(&core, opened);
                }
                _ => {}
            }
            Ok(answer)
        });
        committed
            .await
            .map_err(|panic| Error::new(ErrorKind::Internal, OPEN, "the open broke off").with_source(panic))?
    }

    fn opening(&self, session: SessionId, agent: &Agent, open: &OpenSession) -> Result<Opening> {
        let late = self.core.parts.harness.late_bindable(&agent.spec.harness);
        let late = late.ok_or_else(|| Error::unsupported(OPEN, format!("harness {}", agent.spec.harness)))?;
        let grants = agent.spec.env_vars.keys().map(|name| {
            let hosts = agent.spec.env_var_hosts.get(name).cloned().unwrap_or_default();
            Ok(Grant {
                name: name.clone(),
                value: self.open_env(agent, name)?,
                hosts,
            })
        });
        Ok(Opening {
            session,
            agent: agent.id,
            blueprint: Blueprint::of(&agent.spec, late),
            title: open.title.clone(),
            model: agent.spec.model.clone(),
            prompt: agent.spec.prompt.clone(),
            skills: open.skills.clone(),
            mcp_servers: agent
                .spec
                .mcp_servers
                .iter()
                .map(|name| json!({ "name": name }))
                .collect(),
            permission: agent.spec.permission.clone(),
            env: open.env.clone(),
            grants: grants.collect::<Result<_>>()?,
        })
    }

    fn first_turn(&self, caller: &Caller, open: &OpenSession) -> Option<NewTurn> {
        let parts = open.prompt.clone()?;
        let id = TurnId::fresh(&*self.core.parts.entropy, self.core.parts.clock.now());
        Some(NewTurn {
            id,
            parts,
            model: None,
            created_by: caller.principal().to_owned(),
        })
    }

    /// The key is the client's, else the session id, which makes the store's own repetition safe.
    fn open_idempotency(&self, caller: &Caller, id: SessionId, open: &OpenSession) -> Idempotency {
        let env: BTreeMap<_, _> = open
            .env
            .iter()
            .map(|(name, value)| (name, value.expose()))
            .collect();
        let request = json!([open.title, open.prompt, env, open.skills]);
        Idempotency {
            principal: caller.principal().to_owned(),
            operation: "open",
            parent: open.agent.to_string(),
            key: open.idempotency_key.clone().unwrap_or_else(|| id.to_string()),
            body_hash: self.core.identity.body_hash(&request),
        }
    }
}

/// Starts the bring-up here when it is this process's, else tells whoever reaches the sandbox.
pub(super) fn begin(core: &Arc<Core>, opened: &OpenedSession) {
    match &opened.work {
        Some(item) => work::start(core, item.clone(), None),
        None => core.work_is_due(),
    }
}

fn check(open: &OpenSession) -> Result<()> {
    validate::idempotency_key(OPEN, open.idempotency_key.as_deref())?;
    validate::environment(OPEN, "env_vars", validate::pairs(&open.env))?;
    if open.title.as_ref().is_some_and(|title| title.len() > 1000) {
        return Err(Error::invalid(OPEN, "title", "a title has at most 1000 bytes"));
    }
    match &open.prompt {
        Some(parts) => validate::parts(OPEN, parts),
        None => Ok(()),
    }
}
