use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::tables::{Tables, WorkRow, item};
use crate::error::Result;
use crate::id::WorkerId;
use crate::store::{Hold, NewWork, Take, WORKER_LAPSE, Work, WorkItem, WorkKind, Worker};
use crate::time::Timestamp;

/// An item as it is stored, for tests that look behind the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWork {
    /// Its kind.
    pub kind: WorkKind,
    /// Its key.
    pub key: String,
    /// How it is held now.
    pub hold: Option<Hold>,
    /// Its generation.
    pub generation: u64,
    /// When it is due; [`Timestamp::NEVER`] while it is held and was not enqueued meanwhile.
    pub due: Timestamp,
}

impl MemoryStore {
    /// Every item there is, in order of kinds and keys.
    pub fn stored_work(&self) -> Vec<StoredWork> {
        self.commit(|tables, _| {
            let stored = |((kind, key), row): (&(WorkKind, String), &WorkRow)| StoredWork {
                kind: *kind,
                key: key.clone(),
                hold: row.owner.map(|worker| Hold {
                    kind: *kind,
                    key: key.clone(),
                    worker,
                    fence: row.fence,
                }),
                generation: row.generation,
                due: row.due,
            };
            tables.work.iter().map(stored).collect()
        })
    }
}

#[async_trait]
impl Work for MemoryStore {
    async fn enqueue(&self, items: Vec<NewWork>) -> Result<()> {
        self.commit(|tables, now| items.into_iter().for_each(|item| tables.enqueue(item, now)));
        Ok(())
    }

    async fn take(&self, take: Take) -> Result<Vec<WorkItem>> {
        Ok(self.commit(|tables, now| take_due(tables, &take, now)))
    }

    async fn done(&self, item: &WorkItem) -> Result<bool> {
        Ok(self.commit(|tables, _| {
            let Some(row) = held(tables, item) else {
                return false;
            };
            if row.generation == item.generation {
                tables.work.remove(&key(item));
            } else {
                row.owner = None;
                row.attempts = 0;
            }
            true
        }))
    }

    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        Ok(self.commit(|tables, now| {
            let Some(row) = held(tables, item) else {
                return false;
            };
            row.owner = None;
            row.attempts = 0;
            row.due = row.due.min(now + after);
            true
        }))
    }

    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        Ok(self.commit(|tables, now| {
            let Some(row) = held(tables, item) else {
                return false;
            };
            row.owner = None;
            row.due = row.due.min(now + after);
            true
        }))
    }

    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>> {
        Ok(self.commit(|tables, _| {
            let mine = tables.work.iter().filter(|(_, row)| row.owner == Some(worker));
            mine.map(|(key, row)| item(key, row, worker)).collect()
        }))
    }

    async fn beat(&self, worker: &Worker) -> Result<u64> {
        Ok(self.commit(|tables, now| {
            tables.workers.insert(worker.id, now);
            let workers = &tables.workers;
            let is_alive = |id: &WorkerId| {
                workers
                    .get(id)
                    .is_some_and(|beat| now.since(*beat) < WORKER_LAPSE)
            };
            free(&mut tables.work, now, |owner| !is_alive(owner))
        }))
    }

    async fn retire(&self, worker: WorkerId) -> Result<()> {
        self.commit(|tables, now| {
            tables.workers.remove(&worker);
            free(&mut tables.work, now, |owner| *owner == worker);
        });
        Ok(())
    }
}

fn key(item: &WorkItem) -> (WorkKind, String) {
    (item.hold.kind, item.hold.key.clone())
}

/// The row, if the item is still held under its fence.
fn held<'a>(tables: &'a mut Tables, item: &WorkItem) -> Option<&'a mut WorkRow> {
    if !tables.is_held(&item.hold) {
        return None;
    }
    tables.work.get_mut(&key(item))
}

fn take_due(tables: &mut Tables, take: &Take, now: Timestamp) -> Vec<WorkItem> {
    let is_reached = |row: &WorkRow| row.place.is_none_or(|place| take.places.contains(&place));
    let mut due: Vec<_> = tables
        .work
        .iter()
        .filter(|((kind, _), row)| take.kinds.contains(kind) && is_reached(row))
        .filter(|(_, row)| row.owner.is_none() && row.due <= now)
        .map(|(key, row)| (row.due, key.clone()))
        .collect();
    due.sort();
    due.truncate(take.limit as usize);
    due.iter()
        .filter_map(|(_, key)| tables.take_one(key, take.worker))
        .collect()
}

/// Items of these owners are free and due at once.
fn free<'a>(
    work: impl IntoIterator<Item = (&'a (WorkKind, String), &'a mut WorkRow)>,
    now: Timestamp,
    is_lost: impl Fn(&WorkerId) -> bool,
) -> u64 {
    let mut freed = 0;
    for (_, row) in work {
        if row.owner.as_ref().is_some_and(&is_lost) {
            row.owner = None;
            row.due = now;
            freed += 1;
        }
    }
    freed
}
