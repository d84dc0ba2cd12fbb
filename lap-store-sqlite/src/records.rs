//! Low-traffic nouns.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::id::RecordId;
use lap_core::store::{NewRecord, Put, Record, RecordQuery, Records};
use sqlx::sqlite::SqliteRow;

use crate::error::Answer;
use crate::link::{Link, sql};
use crate::row::{Columns as _, json_text, stored};
use crate::store::SqliteStore;
use crate::writer::Tx;

#[async_trait]
impl Records for SqliteStore {
    async fn put_record(&self, record: NewRecord) -> Result<Put> {
        self.write("put record", move |tx| put(tx, record).boxed()).await
    }

    async fn record(&self, id: RecordId) -> Result<Option<Record>> {
        self.read("read record", move |link| find(link, id).boxed()).await
    }

    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>> {
        self.read("list records", move |link| list(link, query).boxed())
            .await
    }

    async fn delete_record(&self, id: RecordId) -> Result<bool> {
        self.write("delete record", move |tx| delete(tx, id).boxed())
            .await
    }
}

fn record(row: &SqliteRow) -> Answer<Record> {
    Ok(Record {
        id: row.id("id")?,
        kind: row.text("kind")?,
        owner: row.text("owner")?,
        unique_key: row.maybe_text("unique_key")?,
        version: row.number("version")?,
        body: row.json("body")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

async fn find(link: &mut Link, id: RecordId) -> Answer<Option<Record>> {
    let row = link
        .first(sql("SELECT * FROM lap_records WHERE id = ?1").bind(id.to_string()))
        .await?;
    row.as_ref().map(record).transpose()
}

async fn put(tx: &mut Tx, new: NewRecord) -> Answer<Put> {
    let before = find(tx, new.id).await?;
    let version = before.as_ref().map_or(0, |record| record.version);
    if version != new.expected_version {
        return Ok(Put::VersionIs(version));
    }
    if let Some(key) = &new.unique_key {
        let select =
            "SELECT id FROM lap_records WHERE kind = ?1 AND owner = ?2 AND unique_key = ?3 AND id <> ?4";
        let select = sql(select)
            .bind(new.kind.clone())
            .bind(new.owner.clone())
            .bind(key.clone())
            .bind(new.id.to_string());
        if let Some(row) = tx.first(select).await? {
            return row.id("id").map(Put::KeyTaken);
        }
    }
    let record = Record {
        id: new.id,
        kind: new.kind,
        owner: new.owner,
        unique_key: new.unique_key,
        version: version + 1,
        body: new.body,
        created_at: before.map_or(tx.now, |record| record.created_at),
        updated_at: tx.now,
    };
    save(tx, &record).await?;
    Ok(Put::Done(record))
}

async fn save(tx: &mut Tx, record: &Record) -> Answer<()> {
    let upsert = "INSERT INTO lap_records \
                  (id, kind, owner, unique_key, version, body, created_at, updated_at) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                  ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, owner = excluded.owner, \
                  unique_key = excluded.unique_key, version = excluded.version, body = excluded.body, \
                  updated_at = excluded.updated_at";
    let upsert = sql(upsert)
        .bind(record.id.to_string())
        .bind(record.kind.clone())
        .bind(record.owner.clone())
        .bind(record.unique_key.clone())
        .bind(stored(record.version))
        .bind(json_text(&record.body)?)
        .bind(record.created_at.unix_millis())
        .bind(record.updated_at.unix_millis());
    tx.run(upsert).await.map(drop)
}

async fn list(link: &mut Link, query: RecordQuery) -> Answer<Vec<Record>> {
    // Two texts, so that each has its index; the other filters are cheap on what the index leaves.
    let text = if query.owner.is_some() {
        "SELECT * FROM lap_records WHERE kind = ?1 AND owner = ?2 AND (?3 IS NULL OR unique_key = ?3) \
         AND (?4 IS NULL OR id < ?4) ORDER BY id DESC LIMIT ?5"
    } else {
        "SELECT * FROM lap_records WHERE kind = ?1 AND ?2 IS NULL AND (?3 IS NULL OR unique_key = ?3) \
         AND (?4 IS NULL OR id < ?4) ORDER BY id DESC LIMIT ?5"
    };
    let select = sql(text)
        .bind(query.kind)
        .bind(query.owner)
        .bind(query.unique_key)
        .bind(query.before.map(|id| id.to_string()))
        .bind(i64::from(query.limit));
    link.all(select).await?.iter().map(record).collect()
}

async fn delete(tx: &mut Tx, id: RecordId) -> Answer<bool> {
    Ok(tx
        .run(sql("DELETE FROM lap_records WHERE id = ?1").bind(id.to_string()))
        .await?
        > 0)
}
