//! The one row about the installation.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::seal::Sealed;
use lap_core::store::{Installation, Instance};

use crate::error::Answer;
use crate::link::{Link, sql};
use crate::row::Columns as _;
use crate::store::SqliteStore;
use crate::writer::Tx;

#[async_trait]
impl Installation for SqliteStore {
    async fn instance(&self, candidate: Instance) -> Result<Instance> {
        self.write("read instance", move |tx| instance(tx, candidate).boxed())
            .await
    }

    async fn ping(&self) -> Result<()> {
        self.read("ping store", |link| ping(link).boxed()).await
    }
}

async fn instance(tx: &mut Tx, candidate: Instance) -> Answer<Instance> {
    let insert = "INSERT INTO lap_instance (one, id, signing_seed) VALUES (1, ?1, ?2) ON CONFLICT DO NOTHING";
    tx.run(
        sql(insert)
            .bind(candidate.id.to_string())
            .bind(candidate.signing_seed.as_text().to_owned()),
    )
    .await?;
    let row = tx.one(sql("SELECT id, signing_seed FROM lap_instance")).await?;
    Ok(Instance {
        id: row.id("id")?,
        signing_seed: Sealed::from_text(row.text("signing_seed")?),
    })
}

/// Reads a page of the file, so that a lost disk shows.
async fn ping(link: &mut Link) -> Answer<()> {
    link.one(sql("SELECT last FROM lap_fence")).await.map(drop)
}
