//! Random calls about the pool, work, records and time.

use std::collections::BTreeMap;
use std::time::Duration;

use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::id::{RecordId, SandboxId};
use lap_core::store::*;
use serde_json::json;

use super::compare::{both, comparable};
use super::world::World;

/// One random call each.
impl World {
    pub(crate) async fn pool(&mut self) {
        if self.chance(2) {
            self.sandboxes.push(SandboxId::fresh(&self.entropy, self.now()));
            let new = NewSandbox {
                id: self.pick(&self.sandboxes),
                blueprint_hash: BlueprintHash::from_text(format!("blueprint-{}", self.below(2))),
                platform_hash: PlatformHash::from_text("platform"),
                place: self.places[self.below(3)],
            };
            let _ = both!(self, plan_sandbox(new));
        } else {
            let _ = both!(self, warm_sandbox(self.pick(&self.sandboxes), "127.0.0.1:2"));
        }
    }

    pub(crate) async fn work(&mut self) {
        match self.below(9) {
            0 | 1 => self.take().await,
            2 => {
                let new = NewWork {
                    kind: WorkKind::ALL[self.below(8)],
                    key: if self.chance(2) {
                        format!("key-{}", self.below(3))
                    } else {
                        self.pick(&self.sessions).to_string()
                    },
                    place: self.chance(2).then(|| self.places[self.below(3)]),
                    after: Duration::from_secs(self.below(20) as u64),
                };
                let _ = both!(self, enqueue(vec![new.clone(), new.clone()]));
            }
            3 => {
                let worker = Worker {
                    id: self.workers[self.below(2)],
                    place: self.places[0],
                    platform_hash: PlatformHash::from_text("platform"),
                };
                let memory = self.memory.beat(&worker).await.unwrap();
                assert_eq!(
                    memory,
                    self.postgres.beat(&worker).await.unwrap(),
                    "beat in step {}",
                    self.step
                );
            }
            4 if self.chance(5) => {
                let _ = both!(self, retire(self.workers[self.below(2)]));
            }
            _ => self.settle().await,
        }
    }

    async fn take(&mut self) {
        let take = Take {
            worker: self.workers[self.below(2)],
            kinds: WorkKind::ALL[..1 + self.below(8)].to_vec(),
            places: self.places[..self.below(4)].to_vec(),
            limit: 1000,
        };
        let by_key = |items: Vec<WorkItem>| -> BTreeMap<_, _> {
            items
                .into_iter()
                .map(|item| ((item.hold.kind, item.key().to_owned()), item))
                .collect()
        };
        let memory = by_key(self.memory.take(take.clone()).await.unwrap());
        let postgres = by_key(self.postgres.take(take).await.unwrap());
        assert_eq!(
            comparable(&memory),
            comparable(&postgres),
            "take in step {}",
            self.step
        );
        self.items
            .extend(memory.into_values().zip(postgres.into_values()));
    }

    async fn settle(&mut self) {
        let kind = WorkKind::ALL[self.below(8)];
        let Some((left, right)) = self.item(kind) else {
            return;
        };
        let after = Duration::from_secs(self.below(20) as u64);
        let (memory, postgres) = match self.below(3) {
            0 => (self.memory.done(&left).await, self.postgres.done(&right).await),
            1 => (
                self.memory.again(&left, after).await,
                self.postgres.again(&right, after).await,
            ),
            _ => (
                self.memory.fail(&left, after).await,
                self.postgres.fail(&right, after).await,
            ),
        };
        assert_eq!(
            memory.unwrap(),
            postgres.unwrap(),
            "settling in step {}",
            self.step
        );
    }

    pub(crate) async fn records(&mut self) {
        if self.chance(3) {
            self.records.push(RecordId::fresh(&self.entropy, self.now()));
        }
        let owner = ["", "agent"][self.below(2)].to_owned();
        let kind = ["skill", "memory"][self.below(2)].to_owned();
        let unique_key = self.chance(2).then(|| format!("unique-{}", self.below(3)));
        match self.below(5) {
            0 => {
                let _ = both!(self, record(self.pick(&self.records)));
            }
            1 => {
                let query = RecordQuery {
                    kind,
                    owner: self.chance(2).then_some(owner),
                    unique_key: unique_key.filter(|_| self.chance(2)),
                    before: self.chance(2).then(|| self.pick(&self.records)),
                    limit: self.below(5) as u32,
                };
                let _ = both!(self, list_records(query));
            }
            2 if self.chance(3) => {
                let _ = both!(self, delete_record(self.pick(&self.records)));
            }
            _ => {
                let new = NewRecord {
                    id: self.pick(&self.records),
                    kind,
                    owner,
                    unique_key,
                    body: json!({ "step": self.step }),
                    expected_version: self.below(3) as u64,
                };
                let _ = both!(self, put_record(new));
            }
        }
    }

    pub(crate) async fn time(&mut self) {
        let seconds = if self.chance(200) {
            90_000
        } else {
            self.below(4) as u64
        };
        self.pass(Duration::from_millis(seconds * 1000 + 1)).await;
    }
}
