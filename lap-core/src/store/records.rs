use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::id::RecordId;
use crate::time::Timestamp;

/// A low-traffic noun (skill, memory, automation, project, ...) as a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Its kind, e.g. `skill`.
    pub kind: String,
    /// Whose it is, e.g. an agent's id; empty: the installation's.
    pub owner: String,
    /// Unique within kind and owner when given.
    pub unique_key: Option<String>,
    /// Grows by one with each put.
    pub version: u64,
    /// The document.
    pub body: Value,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When it was last put.
    pub updated_at: Timestamp,
}

/// A record to put.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// Its id.
    pub id: RecordId,
    /// Its kind.
    pub kind: String,
    /// Whose it is.
    pub owner: String,
    /// Unique within kind and owner when given.
    pub unique_key: Option<String>,
    /// The document.
    pub body: Value,
    /// The version it replaces; 0: it must not exist.
    pub expected_version: u64,
}

/// The answer to a put.
#[derive(Debug, Clone, PartialEq)]
pub enum Put {
    /// Done.
    Done(Record),
    /// The version differs (0: it does not exist).
    VersionIs(u64),
    /// Another record of the kind and owner has the unique key.
    KeyTaken(RecordId),
}

/// Which records to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct RecordQuery {
    /// Of this kind.
    pub kind: String,
    /// Of this owner; `None`: of all.
    pub owner: Option<String>,
    /// With this unique key.
    pub unique_key: Option<String>,
    /// Older than this one only.
    pub before: Option<RecordId>,
    /// At most this many.
    pub limit: u32,
}

/// Keeps low-traffic nouns, so that a custom store stays small.
#[async_trait]
pub trait Records {
    /// The record has this body, if its version was the expected one.
    async fn put_record(&self, record: NewRecord) -> Result<Put>;

    /// The record.
    async fn record(&self, id: RecordId) -> Result<Option<Record>>;

    /// Records, newest first.
    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>>;

    /// The record is gone. `false` when there was none.
    async fn delete_record(&self, id: RecordId) -> Result<bool>;
}
