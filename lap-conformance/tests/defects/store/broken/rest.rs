use async_trait::async_trait;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::RecordId;
use lap_core::store::{
    Hint, HintStream, Hints, Installation, Instance, NewRecord, Put, Record, RecordQuery, Records,
};

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Records for Broken {
    async fn put_record(&self, mut record: NewRecord) -> Result<Put> {
        match self.defect {
            Defect::IgnoresUniqueKeys => record.unique_key = None,
            Defect::LastPutWins => {
                let stored = self.store.record(record.id).await?;
                record.expected_version = stored.map_or(0, |record| record.version);
            }
            _ => {}
        }
        self.store.put_record(record).await
    }

    async fn record(&self, id: RecordId) -> Result<Option<Record>> {
        self.store.record(id).await
    }

    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>> {
        let mut records = self.store.list_records(query).await?;
        if self.is(Defect::ListsOldestFirst) {
            records.reverse();
        }
        Ok(records)
    }

    async fn delete_record(&self, id: RecordId) -> Result<bool> {
        if self.is(Defect::KeepsDeletedRecords) {
            return Ok(self.store.record(id).await?.is_some());
        }
        self.store.delete_record(id).await
    }
}

#[async_trait]
impl Installation for Broken {
    async fn instance(&self, candidate: Instance) -> Result<Instance> {
        if self.is(Defect::EveryCandidateWins) {
            Ok(candidate)
        } else {
            self.store.instance(candidate).await
        }
    }

    async fn ping(&self) -> Result<()> {
        if self.is(Defect::FailsPings) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "ping store",
                "it does not answer",
            ));
        }
        self.store.ping().await
    }
}

impl Hints for Broken {
    fn hint(&self, hint: Hint) {
        if !self.is(Defect::SwallowsHints) {
            self.store.hint(hint);
        }
    }

    fn hints(&self) -> HintStream {
        self.store.hints()
    }
}
