//! Agents: create, list, get, change, delete.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use lap_core::agent::Agent;
use lap_core::engine::{AgentChange, AgentDefinition, CreateAgent};
use lap_core::secret::Secret;
use lap_core::store::{AgentOrder, AgentQuery};

use crate::app::App;
use crate::auth::Authenticated;
use crate::body::JsonBody;
use crate::idempotency::IdempotencyKey;
use crate::path::AgentPath;
use crate::problem::Problem;
use crate::query::Parameters;
use crate::sessions::no_skills;
use crate::wire::agent::{AgentList, ApiAgent, ApiAgentInList, ChangeAgentBody, CreateAgentBody, projects};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// Lists agents. Parameters that cannot be read count as absent, as in the original.
#[utoipa::path(get, path = "/api/v1/managed_agents/agents", tag = "agents",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent"),
        ("offset" = Option<u32>, Query),
        ("sort" = Option<String>, Query, description = "`created_at`, `name`, `harness_id` or `sessions`"),
        ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("search" = Option<String>, Query, description = "Part of name, id or harness")),
    responses((status = 200, body = AgentList)))]
pub(crate) async fn list(State(app): State<App>, parameters: Parameters) -> Result<Json<AgentList>, Problem> {
    let limit = parameters
        .lenient("limit")
        .filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let query = AgentQuery {
        search: parameters.text("search").map(str::to_owned),
        order: match parameters.text("sort") {
            Some("name") => AgentOrder::Name,
            Some("harness_id") => AgentOrder::Harness,
            Some("sessions") => AgentOrder::Sessions,
            _ => AgentOrder::CreatedAt,
        },
        descending: parameters.text("order") != Some("asc"),
        limit: limit.unwrap_or(DEFAULT_LIMIT),
        offset: parameters.lenient("offset").unwrap_or(0),
    };
    let (limit, offset) = (query.limit, query.offset);
    let page = app.engine.list_agents(query).await?;
    let shown = page.agents.into_iter().map(|summary| {
        let masked = app.engine.masked_env(&summary.agent)?;
        Ok(ApiAgentInList::new(summary, masked))
    });
    let data = shown.collect::<lap_core::Result<_>>()?;
    Ok(Json(AgentList {
        data,
        total: page.total,
        limit,
        offset,
    }))
}

/// Creates an agent.
#[utoipa::path(post, path = "/api/v1/managed_agents/agents", tag = "agents",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body creates one agent")),
    request_body = CreateAgentBody, responses((status = 200, body = ApiAgent)))]
pub(crate) async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<CreateAgentBody>,
) -> Result<Json<ApiAgent>, Problem> {
    no_skills(body.skill_ids.as_deref())?;
    if body.template_id.is_some() {
        // There is no library of templates yet, so every id in it is unknown.
        return Err(Problem::not_found("there is no such template").about_field("template_id"));
    }
    let new = CreateAgent {
        definition: definition(body),
        idempotency_key,
    };
    shown(&app, app.engine.create_agent(&caller, new).await?)
}

/// Shows an agent.
#[utoipa::path(get, path = "/api/v1/managed_agents/agents/{agent_id}", tag = "agents",
    params(("agent_id" = String, Path)), responses((status = 200, body = ApiAgent)))]
pub(crate) async fn get(State(app): State<App>, AgentPath(id): AgentPath) -> Result<Json<ApiAgent>, Problem> {
    shown(&app, app.engine.agent(id).await?)
}

/// Changes an agent. Sessions that are open keep what they were opened with.
#[utoipa::path(patch, path = "/api/v1/managed_agents/agents/{agent_id}", tag = "agents",
    params(("agent_id" = String, Path)), request_body = ChangeAgentBody,
    responses((status = 200, body = ApiAgent)))]
pub(crate) async fn change(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    AgentPath(id): AgentPath,
    JsonBody(body): JsonBody<ChangeAgentBody>,
) -> Result<Json<ApiAgent>, Problem> {
    let change = AgentChange {
        name: body.name,
        pfp_url: body.pfp_url,
        mcp_servers: body.mcp_servers,
        permission: body.permission,
        image: body.harness_image,
        prompt: body.prompt,
        model: body.model,
        branch: body.branch,
        preload_memory_limit: body.preload_memory_limit,
        projects: body.projects.map(projects),
        env_vars: body.env_vars.map(secrets),
        env_var_hosts: body.env_var_hosts,
        allow_out: body.allow_out,
        deny_out: body.deny_out,
    };
    shown(&app, app.engine.update_agent(&caller, id, change).await?)
}

/// Deletes an agent and stops everything it owns.
#[utoipa::path(delete, path = "/api/v1/managed_agents/agents/{agent_id}", tag = "agents",
    params(("agent_id" = String, Path)), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    AgentPath(id): AgentPath,
) -> Result<StatusCode, Problem> {
    app.engine.delete_agent(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn definition(body: CreateAgentBody) -> AgentDefinition {
    AgentDefinition {
        name: body.name,
        model: body.model,
        prompt: body.prompt,
        tools: body.tools.unwrap_or_default(),
        harness: body.harness_id,
        repo_url: body.repo_url,
        branch: body.branch,
        pfp_url: body.pfp_url,
        mcp_servers: body.mcp_servers.unwrap_or_default(),
        permission: body.permission.unwrap_or_default(),
        env_vars: secrets(body.env_vars.unwrap_or_default()),
        env_var_hosts: body.env_var_hosts.unwrap_or_default(),
        requirements: body.requirements,
        skill_ids: body.skill_ids.unwrap_or_default(),
        allow_out: body.allow_out.unwrap_or_default(),
        deny_out: body.deny_out.unwrap_or_default(),
        projects: projects(body.projects.unwrap_or_default()),
        template_id: body.template_id,
    }
}

fn secrets(values: BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    values
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)))
        .collect()
}

fn shown(app: &App, agent: Agent) -> Result<Json<ApiAgent>, Problem> {
    let masked = app.engine.masked_env(&agent)?;
    Ok(Json(ApiAgent::new(agent, masked)))
}
