//! The one row about the installation.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::seal::Sealed;
use lap_core::store::{Installation, Instance};

use crate::error::{Answer, Failure};
use crate::link::{Link, sql};
use crate::row::Columns as _;
use crate::store::PostgresStore;

#[async_trait]
impl Installation for PostgresStore {
    async fn instance(&self, candidate: Instance) -> Result<Instance> {
        self.core()
            .ask("read instance", candidate, |link, candidate| {
                instance(link, candidate).boxed()
            })
            .await
    }

    async fn ping(&self) -> Result<()> {
        self.core()
            .ask("ping store", (), |link, ()| ping(link).boxed())
            .await
    }
}

async fn instance(link: &mut Link, candidate: Instance) -> Answer<Instance> {
    let insert = "INSERT INTO lap.instance (one, id, signing_seed) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
    let insert = sql(insert)
        .bind(candidate.id.as_uuid())
        .bind(candidate.signing_seed.as_text().to_owned());
    link.run(insert).await?;
    // A statement of its own, because a concurrent insert is committed only now.
    let row = link.one(sql("SELECT id, signing_seed FROM lap.instance")).await?;
    Ok(Instance {
        id: row.id("id")?,
        signing_seed: Sealed::from_text(row.text("signing_seed")?),
    })
}

/// Reads a table and asks whether the server would write: a standby is no store.
async fn ping(link: &mut Link) -> Answer<()> {
    let row = link
        .one(sql(
            "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only FROM (SELECT max(version) \
             FROM lap.migrations) AS schema",
        ))
        .await?;
    if row.flag("is_read_only")? {
        return Err(Failure::ReadOnly);
    }
    Ok(())
}
