use async_trait::async_trait;

use super::MemoryStore;
use super::tables::Tables;
use crate::error::Result;
use crate::id::RecordId;
use crate::store::{NewRecord, Put, Record, RecordQuery, Records};
use crate::time::Timestamp;

#[async_trait]
impl Records for MemoryStore {
    async fn put_record(&self, record: NewRecord) -> Result<Put> {
        Ok(self.commit(|tables, now| put(tables, record, now)))
    }

    async fn record(&self, id: RecordId) -> Result<Option<Record>> {
        Ok(self.commit(|tables, _| tables.records.get(&id).cloned()))
    }

    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>> {
        Ok(self.commit(|tables, _| {
            let newest_first = tables.records.values().rev();
            let found = newest_first.filter(|record| is_meant(record, &query));
            found.take(query.limit as usize).cloned().collect()
        }))
    }

    async fn delete_record(&self, id: RecordId) -> Result<bool> {
        Ok(self.commit(|tables, _| tables.records.remove(&id).is_some()))
    }
}

fn is_meant(record: &Record, query: &RecordQuery) -> bool {
    record.kind == query.kind
        && query.owner.as_ref().is_none_or(|owner| record.owner == *owner)
        && (query.unique_key.is_none() || record.unique_key == query.unique_key)
        && query.before.is_none_or(|before| record.id < before)
}

fn put(tables: &mut Tables, new: NewRecord, now: Timestamp) -> Put {
    let stored = tables.records.get(&new.id);
    let version = stored.map_or(0, |record| record.version);
    if version != new.expected_version {
        return Put::VersionIs(version);
    }
    let created_at = stored.map_or(now, |record| record.created_at);
    let is_rival = |record: &&Record| {
        record.id != new.id
            && record.kind == new.kind
            && record.owner == new.owner
            && record.unique_key.is_some()
            && record.unique_key == new.unique_key
    };
    if let Some(rival) = tables.records.values().find(is_rival) {
        return Put::KeyTaken(rival.id);
    }
    let record = Record {
        id: new.id,
        kind: new.kind,
        owner: new.owner,
        unique_key: new.unique_key,
        version: version + 1,
        body: new.body,
        created_at,
        updated_at: now,
    };
    tables.records.insert(record.id, record.clone());
    Put::Done(record)
}
