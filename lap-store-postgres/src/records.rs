//! Low-traffic nouns.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::id::RecordId;
use lap_core::store::{NewRecord, Put, Record, RecordQuery, Records};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::{Answer, Failure};
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};
use crate::store::PostgresStore;

#[async_trait]
impl Records for PostgresStore {
    async fn put_record(&self, record: NewRecord) -> Result<Put> {
        self.core()
            .write("put record", record, |tx, record| put(tx, record).boxed())
            .await
    }

    async fn record(&self, id: RecordId) -> Result<Option<Record>> {
        self.core()
            .ask("read record", id, |link, id| find(link, id).boxed())
            .await
    }

    async fn list_records(&self, query: RecordQuery) -> Result<Vec<Record>> {
        self.core()
            .ask("list records", query, |link, query| list(link, query).boxed())
            .await
    }

    async fn delete_record(&self, id: RecordId) -> Result<bool> {
        self.core()
            .ask("delete record", id, |link, id| delete(link, id).boxed())
            .await
    }
}

fn record(row: &PgRow) -> Answer<Record> {
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
        .first(sql("SELECT * FROM lap.records WHERE id = $1").bind(id.as_uuid()))
        .await?;
    row.as_ref().map(record).transpose()
}

async fn put(tx: &mut Tx, new: NewRecord) -> Answer<Put> {
    let select = sql("SELECT version FROM lap.records WHERE id = $1 FOR NO KEY UPDATE");
    let before = tx.first(select.bind(new.id.as_uuid())).await?;
    let version = before.map_or(Ok(0), |row| row.number("version"))?;
    if version != new.expected_version {
        return Ok(Put::VersionIs(version));
    }
    if let Some(key) = &new.unique_key {
        let select =
            "SELECT id FROM lap.records WHERE kind = $1 AND owner = $2 AND unique_key = $3 AND id <> $4";
        let select = sql(select)
            .bind(clean(&new.kind))
            .bind(clean(&new.owner))
            .bind(clean(key))
            .bind(new.id.as_uuid());
        if let Some(row) = tx.first(select).await? {
            return row.id("id").map(Put::KeyTaken);
        }
    }
    save(tx, new, version).await.map(Put::Done)
}

/// A row that appeared meanwhile, under the id or the unique key, is a race: the next attempt sees it.
async fn save(tx: &mut Tx, new: NewRecord, version: u64) -> Answer<Record> {
    let upsert = "INSERT INTO lap.records AS r \
                  (id, kind, owner, unique_key, version, body, created_at, updated_at) \
                  VALUES ($1, $2, $3, $4, $5 + 1, $6, $7, $7) \
                  ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, owner = excluded.owner, \
                  unique_key = excluded.unique_key, version = excluded.version, body = excluded.body, \
                  updated_at = excluded.updated_at WHERE r.version = $5 RETURNING *";
    let upsert = sql(upsert)
        .bind(new.id.as_uuid())
        .bind(clean(new.kind))
        .bind(clean(new.owner))
        .bind(new.unique_key.map(clean))
        .bind(stored(version))
        .bind(json_text(&new.body)?)
        .bind(tx.now.unix_millis());
    match tx.first(upsert).await {
        Ok(Some(row)) => record(&row),
        Ok(None) => Err(Failure::Race),
        Err(failure) if failure.is_duplicate_in(&["records_key"]) => Err(Failure::Race),
        Err(failure) => Err(failure),
    }
}

async fn list(link: &mut Link, query: RecordQuery) -> Answer<Vec<Record>> {
    // Two texts, so that each has its index; the other filters are cheap on what the index leaves.
    let text = if query.owner.is_some() {
        "SELECT * FROM lap.records WHERE kind = $1 AND owner = $2 AND ($3::text IS NULL OR unique_key = $3) \
         AND id < $4 ORDER BY id DESC LIMIT $5"
    } else {
        "SELECT * FROM lap.records WHERE kind = $1 AND $2::text IS NULL AND ($3::text IS NULL OR unique_key = $3) \
         AND id < $4 ORDER BY id DESC LIMIT $5"
    };
    let select = sql(text)
        .bind(clean(query.kind))
        .bind(query.owner.map(clean))
        .bind(query.unique_key.map(clean))
        .bind(query.before.map_or(Uuid::max(), |id| id.as_uuid()))
        .bind(i64::from(query.limit));
    link.all(select).await?.iter().map(record).collect()
}

async fn delete(link: &mut Link, id: RecordId) -> Answer<bool> {
    Ok(link
        .run(sql("DELETE FROM lap.records WHERE id = $1").bind(id.as_uuid()))
        .await?
        > 0)
}
