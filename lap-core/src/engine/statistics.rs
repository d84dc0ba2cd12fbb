//! Figures about the installation, for its operators.

use std::collections::BTreeMap;

use super::Engine;
use crate::agent::AgentSummary;
use crate::error::Result;
use crate::id::{AgentId, SessionId};
use crate::session::SessionState;
use crate::store::{AgentOrder, AgentQuery, PoolCount, SessionQuery};

/// Sessions that are looked at, so that the answer takes bounded time.
const SESSIONS: usize = 5_000;
const PAGE: u32 = 500;
/// Agents that are listed.
const AGENTS: u32 = 50;

/// See [`Engine::statistics`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// All agents.
    pub agents: u64,
    /// The agents with the most sessions, at most 50.
    pub busiest: Vec<AgentSummary>,
    /// Sessions by state, of the newest 5000.
    pub sessions: BTreeMap<SessionState, u64>,
    /// Active sessions (creating or ready) by agent, of the newest 5000.
    pub active: BTreeMap<AgentId, u64>,
    /// There are more sessions than were looked at.
    pub is_partial: bool,
    /// Sandboxes that are not gone, by pool key and state.
    pub sandboxes: Vec<PoolCount>,
}

impl Engine {
    /// Figures as of now. They are read one after the other, so they may disagree by what happens meanwhile.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn statistics(&self) -> Result<Statistics> {
        let store = &self.core.parts.store;
        let query = AgentQuery {
            order: AgentOrder::Sessions,
            limit: AGENTS,
            ..AgentQuery::default()
        };
        let page = store.list_agents(query).await?;
        let mut statistics = Statistics {
            agents: page.total,
            busiest: page.agents,
            sessions: BTreeMap::new(),
            active: BTreeMap::new(),
            is_partial: true,
            sandboxes: store.count_sandboxes().await?,
        };
        let (mut seen, mut before) = (0, None);
        while seen < SESSIONS {
            let Some(last) = self.count(before, &mut statistics, &mut seen).await? else {
                statistics.is_partial = false;
                break;
            };
            before = Some(last);
        }
        Ok(statistics)
    }

    /// Counts a page of sessions; `None` when it was the last one.
    async fn count(
        &self,
        before: Option<SessionId>,
        statistics: &mut Statistics,
        seen: &mut usize,
    ) -> Result<Option<SessionId>> {
        let query = SessionQuery {
            before,
            limit: PAGE,
            ..SessionQuery::default()
        };
        let sessions = self.core.parts.store.list_sessions(query).await?;
        for session in &sessions {
            *statistics.sessions.entry(session.state).or_default() += 1;
            if session.state.is_active() {
                *statistics.active.entry(session.agent).or_default() += 1;
            }
        }
        *seen += sessions.len();
        let full = sessions.len() == PAGE as usize;
        Ok(sessions.last().filter(|_| full).map(|session| session.id))
    }
}
