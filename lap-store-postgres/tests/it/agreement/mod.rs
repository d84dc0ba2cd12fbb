//! The memory store is the executable specification: under the same calls, PostgreSQL answers the same.

mod compare;
mod lives;
mod rooms;
mod world;

use compare::{both, comparable};
use lap_core::session::SessionState;
use lap_core::store::*;
use world::World;

use crate::database::Place;

impl World {
    /// Everything that can be read about what was touched lately.
    async fn look(&mut self) {
        let session = self.pick(&self.sessions);
        let _ = both!(self, session(session));
        let _ = both!(self, bring_up(session));
        let _ = both!(
            self,
            events(session, (self.below(5) as u64), (self.below(50) as u32))
        );
        let _ = both!(self, cursor(session, self.sandboxes[0]));
        let _ = both!(self, sandbox(self.pick(&self.sandboxes)));
        let _ = both!(self, turn(self.pick(&self.turns)));
        let _ = both!(
            self,
            list_turns(TurnQuery {
                session,
                after: self.below(2) as u64,
                limit: 5
            })
        );
        let query = SessionQuery {
            agent: self.chance(2).then(|| self.pick(&self.agents)),
            states: SessionState::ALL[..self.below(4)].to_vec(),
            before: self.chance(2).then(|| self.pick(&self.sessions)),
            limit: self.below(6) as u32,
        };
        let _ = both!(self, list_sessions(query));
        let _ = both!(self, sandboxes_at(self.places[self.below(3)]));
        let sorted = |mut counts: Vec<PoolCount>| {
            counts.sort_by(|a, b| (&a.blueprint_hash, a.state).cmp(&(&b.blueprint_hash, b.state)));
            counts
        };
        let memory = sorted(self.memory.count_sandboxes().await.unwrap());
        assert_eq!(memory, sorted(self.postgres.count_sandboxes().await.unwrap()));
        let worker = self.workers[self.below(2)];
        let sorted = |mut items: Vec<WorkItem>| {
            items.sort_by(|a, b| (a.hold.kind, &a.hold.key).cmp(&(b.hold.kind, &b.hold.key)));
            comparable(&items)
        };
        let memory = sorted(self.memory.held(worker).await.unwrap());
        assert_eq!(
            memory,
            sorted(self.postgres.held(worker).await.unwrap()),
            "held in step {}",
            self.step
        );
    }

    async fn walk(&mut self, steps: usize) {
        for step in 0..steps {
            self.step = step;
            match self.below(24) {
                0 | 1 => self.agents().await,
                2..=4 => self.open().await,
                5..=7 => self.advance().await,
                8..=10 => self.accept().await,
                11..=14 => self.turns().await,
                15 | 16 => self.append().await,
                17 => self.ends().await,
                18 => self.pool().await,
                19 | 20 => self.work().await,
                21 => self.records().await,
                22 => self.time().await,
                _ => self.look().await,
            }
        }
        self.look().await;
    }
}

async fn agree(seed: u64) {
    let place = Place::new().await;
    World::new(seed, &place).await.walk(1200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_answers_as_memory_does() {
    for seed in 0..4 {
        agree(seed).await;
    }
}
