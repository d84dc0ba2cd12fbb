use std::time::Duration;

use async_trait::async_trait;
use lap_core::error::Result;
use lap_core::id::WorkerId;
use lap_core::store::{NewWork, Take, Work, WorkItem, WorkKind, Worker};

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Work for Broken {
    async fn enqueue(&self, mut items: Vec<NewWork>) -> Result<()> {
        for item in &mut items {
            self.notes().places.extend(item.place);
            match self.defect {
                Defect::IgnoresKinds => item.kind = WorkKind::Automation,
                Defect::FirstDueWins => {
                    item.after = *self
                        .notes()
                        .first_dues
                        .entry(item.key.clone())
                        .or_insert(item.after);
                }
                _ => {}
            }
        }
        self.store.enqueue(items).await
    }

    async fn take(&self, mut take: Take) -> Result<Vec<WorkItem>> {
        let limit = take.limit as usize;
        match self.defect {
            Defect::IgnoresPlaces => take.places.extend(self.notes().places.iter().copied()),
            Defect::TakesByKey => take.limit = 1000,
            _ => {}
        }
        let mut taken = self.store.take(take).await?;
        if self.is(Defect::TakesByKey) {
            taken.sort_by(|a, b| b.key().cmp(a.key()));
            for spare in taken.drain(limit.min(taken.len())..) {
                self.store.again(&spare, Duration::ZERO).await?;
            }
        }
        if let Some(first) = taken.first().filter(|_| self.is(Defect::SharesItems)).cloned() {
            let shared = self.notes().shared_item.get_or_insert(first).clone();
            taken[0].hold.key = shared.hold.key;
        }
        Ok(taken.into_iter().map(|item| self.given(item)).collect())
    }

    async fn done(&self, item: &WorkItem) -> Result<bool> {
        let mut item = self.item(item);
        if self.is(Defect::LosesEnqueuesWhileHeld) {
            let held = self.store.held(item.hold.worker).await?;
            let present = held.iter().find(|present| present.hold == item.hold);
            item.generation = present.map_or(item.generation, |present| present.generation);
        }
        self.store.done(&item).await
    }

    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        self.store.again(&self.item(item), after).await
    }

    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        match self.defect {
            Defect::ForgetsAttempts => self.store.again(item, after).await,
            _ => self.store.fail(&self.item(item), after).await,
        }
    }

    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>> {
        if self.is(Defect::HoldsNothing) {
            Ok(Vec::new())
        } else {
            self.store.held(worker).await
        }
    }

    async fn beat(&self, worker: &Worker) -> Result<u64> {
        if self.is(Defect::NeverFrees) {
            Ok(0)
        } else {
            self.store.beat(worker).await
        }
    }

    async fn retire(&self, worker: WorkerId) -> Result<()> {
        if self.is(Defect::RetiresInName) {
            Ok(())
        } else {
            self.store.retire(worker).await
        }
    }
}

impl Broken {
    fn item(&self, item: &WorkItem) -> WorkItem {
        WorkItem {
            hold: self.hold(&item.hold),
            ..item.clone()
        }
    }
}
