use async_trait::async_trait;
use lap_core::agent::Agent;
use lap_core::blueprint::BlueprintHash;
use lap_core::error::Result;
use lap_core::id::{AgentId, SessionId};
use lap_core::session::EndedBy;
use lap_core::store::{
    AgentPage, AgentQuery, AgentUpdate, Agents, Created, End, NewAgent, SessionQuery, Sessions, Updated,
};
use lap_core::time::Clock;

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Agents for Broken {
    async fn create_agent(&self, mut new: NewAgent) -> Result<Created> {
        if let Some(request) = &mut new.idempotency {
            self.request(request);
        }
        match self.defect {
            Defect::LosesNames => new.spec.name = None,
            Defect::IgnoresCreationKeys => new.idempotency = None,
            Defect::IgnoresBlueprints => new.blueprint_hash = BlueprintHash::from_text("any"),
            Defect::CreatesTwice if self.store.agent(new.id).await?.is_some() => {
                new.id = AgentId::fresh(&self.entropy, self.clock.now());
                new.idempotency = None;
            }
            _ => {}
        }
        self.store.create_agent(new).await
    }

    async fn agent(&self, id: AgentId) -> Result<Option<Agent>> {
        self.store.agent(id).await
    }

    async fn list_agents(&self, mut query: AgentQuery) -> Result<AgentPage> {
        match self.defect {
            Defect::SearchHasWildcards => {
                query.search = query.search.map(|text| text.replace(['%', '_'], ""))
            }
            Defect::IgnoresDirection => query.descending = false,
            _ => {}
        }
        let mut page = self.store.list_agents(query).await?;
        match self.defect {
            Defect::CountsThePage => page.total = page.agents.len() as u64,
            Defect::CountsActiveSessionsOnly => {
                for summary in &mut page.agents {
                    summary.session_count *= u64::from(summary.has_active_session);
                }
            }
            _ => {}
        }
        Ok(page)
    }

    async fn update_agent(&self, mut update: AgentUpdate) -> Result<Updated> {
        if self.is(Defect::LastUpdateWins) {
            let stored = self.store.agent(update.id).await?;
            update.expected_version = stored.map_or(update.expected_version, |agent| agent.version);
        }
        self.store.update_agent(update).await
    }

    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>> {
        if self.is(Defect::KeepsDeletedAgents) {
            let query = SessionQuery {
                agent: Some(id),
                limit: 1000,
                ..SessionQuery::default()
            };
            let sessions = self.store.list_sessions(query).await?;
            for session in &sessions {
                let by = EndedBy::AgentDeleted;
                self.store
                    .end(End {
                        session: session.id,
                        by,
                        reason: None,
                        only_if_idle_for: None,
                    })
                    .await?;
            }
            let known = self.store.agent(id).await?;
            return Ok(known.map(|_| sessions.iter().map(|session| session.id).collect()));
        }
        let ended = self.store.delete_agent(id).await?;
        Ok(if self.is(Defect::HidesEndedSessions) {
            ended.map(|_| Vec::new())
        } else {
            ended
        })
    }
}
