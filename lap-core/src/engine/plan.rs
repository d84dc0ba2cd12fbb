//! The one plan by which every path brings a sandbox and a conversation up. It depends on stored state and
//! settings only, so a repetition and another process come to the same plan.

use std::collections::BTreeMap;

use super::core::Core;
use crate::blueprint::Blueprint;
use crate::error::{Error, Result};
use crate::harness::OpenConversation;
use crate::id::SandboxId;
use crate::opening::{Grant, Opening};
use crate::runtime::LaunchSpec;
use crate::secret::Secret;
use crate::vault::{Attach, Attachment, GATEWAY_KEY};

/// What the vault prepares.
pub(super) fn attach(sandbox: SandboxId, blueprint: &Blueprint) -> Attach {
    Attach {
        sandbox,
        secrets: blueprint.secrets.clone(),
        allow_out: blueprint.allow_out.clone(),
        deny_out: blueprint.deny_out.clone(),
    }
}

/// What the runtime starts.
///
/// # Errors
/// `Invalid` when a variable that the agent could read holds a secret that must stay in the vault: secrets creep
/// back through merged environments, so this is checked last and on the whole.
pub(super) fn launch(
    core: &Core,
    sandbox: SandboxId,
    opening: &Opening,
    attachment: Attachment,
) -> Result<LaunchSpec> {
    let mut blueprint = opening.blueprint.clone();
    if blueprint.repo_url.is_none() {
        blueprint.repo_url.clone_from(&core.config.platform.repo_url);
    }
    let mut env = core.config.platform.env.clone();
    env.extend(attachment.env);
    refuse_secrets(&env, &grants(core, opening))?;
    Ok(LaunchSpec {
        sandbox,
        instance: core.identity.instance(),
        public_key: core.identity.verifying_key(),
        blueprint,
        env,
        git_token: core.config.git_token.clone(),
        gateway: attachment.gateway,
        labels: labels(opening),
    })
}

/// For people and for sweeps.
pub(super) fn labels(opening: &Opening) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("litellm-agent-id".to_owned(), opening.agent.to_string()),
        ("litellm-session-id".to_owned(), opening.session.to_string()),
    ])
}

/// What the vault redeems.
pub(super) fn grants(core: &Core, opening: &Opening) -> Vec<Grant> {
    let gateway = Grant {
        name: GATEWAY_KEY.to_owned(),
        value: core.config.gateway.key.clone(),
        // The vault binds this one to the gateway, wherever that is.
        hosts: Vec::new(),
    };
    std::iter::once(gateway)
        .chain(opening.grants.iter().cloned())
        .collect()
}

/// What the harness holds.
pub(super) fn conversation(core: &Core, opening: &Opening, fence: u64) -> OpenConversation {
    let mut env = opening.env.clone();
    env.insert("SESSION_ID".to_owned(), Secret::new(opening.session.to_string()));
    env.insert("AGENT_ID".to_owned(), Secret::new(opening.agent.to_string()));
    OpenConversation {
        session: opening.session,
        fence,
        title: opening.title.clone(),
        prompt: opening.prompt.clone(),
        model: opening.model.clone(),
        skills: opening.skills.clone(),
        mcp_servers: opening.mcp_servers.clone(),
        permission: opening.permission.clone(),
        answer_timeout: core.config.answer_timeout,
        env,
        history: Vec::new(),
    }
}

fn refuse_secrets(env: &BTreeMap<String, String>, grants: &[Grant]) -> Result<()> {
    /// Shorter values occur by chance, and are no secrets.
    const SHORTEST: usize = 8;
    let leaked = env.iter().find_map(|(name, value)| {
        let held = |grant: &&Grant| {
            let secret = grant.value.expose();
            secret.len() >= SHORTEST && value.contains(secret)
        };
        grants.iter().find(held).map(|grant| (name, &grant.name))
    });
    match leaked {
        None => Ok(()),
        Some((name, secret)) => Err(Error::invalid(
            "plan sandbox",
            name.clone(),
            format!(
                "the plain variable {name} holds the value of {secret}, which must stay in the vault; remove it"
            ),
        )),
    }
}
