use lap_core::event::Event;
use lap_core::sandbox::{Place, Sandbox};
use lap_core::session::Session;
use lap_core::store::{
    AgentPage, AgentQuery, BringUp, PoolCount, Record, RecordQuery, SessionQuery, TurnQuery, WorkItem,
};
use lap_core::turn::Turn;

use crate::scene::Scene;

/// The kind of all records that laws write.
pub(crate) const RECORD_KIND: &str = "note";

/// Everything that can be read from a store. Two equal ones mean that nothing happened in between.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot {
    agents: AgentPage,
    sessions: Vec<Session>,
    bring_ups: Vec<Option<BringUp>>,
    turns: Vec<Turn>,
    events: Vec<Event>,
    sandboxes: Vec<Sandbox>,
    counts: Vec<PoolCount>,
    held: Vec<WorkItem>,
    records: Vec<Record>,
}

impl Scene<'_> {
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let store = &self.store;
        let query = SessionQuery {
            limit: 10_000,
            ..SessionQuery::default()
        };
        let sessions = store.list_sessions(query).await.unwrap();
        let (mut bring_ups, mut turns, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for session in &sessions {
            bring_ups.push(store.bring_up(session.id).await.unwrap());
            turns.extend(
                store
                    .list_turns(TurnQuery {
                        session: session.id,
                        after: 0,
                        limit: 10_000,
                    })
                    .await
                    .unwrap(),
            );
            events.extend(self.events(session.id).await);
        }
        let mut sandboxes = store.sandboxes_at(self.place).await.unwrap();
        sandboxes.extend(store.sandboxes_at(Place::Cluster).await.unwrap());
        sandboxes.sort_by_key(|sandbox| sandbox.id);
        let mut counts = store.count_sandboxes().await.unwrap();
        counts.sort_by_key(|row| (row.blueprint_hash.clone(), row.platform_hash.clone(), row.state));
        let mut held = store.held(self.worker).await.unwrap();
        held.sort_by_key(|item| item.hold.fence);
        let kind = RECORD_KIND.to_owned();
        let records = store
            .list_records(RecordQuery {
                kind,
                limit: 10_000,
                ..RecordQuery::default()
            })
            .await
            .unwrap();
        let agents = store
            .list_agents(AgentQuery {
                limit: 10_000,
                ..AgentQuery::default()
            })
            .await
            .unwrap();
        Snapshot {
            agents,
            sessions,
            bring_ups,
            turns,
            events,
            sandboxes,
            counts,
            held,
            records,
        }
    }
}
