//! The one table of all sandboxes.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::error::Result;
use lap_core::id::{SandboxId, SessionId};
use lap_core::sandbox::{Place, Sandbox, SandboxState};
use lap_core::session::{EndedBy, SessionState};
use lap_core::store::{NewSandbox, PoolCount, Replace, Replaced, Sandboxes, WorkKind};
use lap_core::turn::TurnState;
use sqlx::sqlite::SqliteRow;

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::link::{Link, sql};
use crate::row::{Columns as _, place_text};
use crate::store::SqliteStore;
use crate::writer::Tx;
use crate::{sessions, work};

#[async_trait]
impl Sandboxes for SqliteStore {
    async fn plan_sandbox(&self, new: NewSandbox) -> Result<()> {
        self.write("plan sandbox", move |tx| plan_for_pool(tx, new).boxed())
            .await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>> {
        self.read("read sandbox", move |link| find(link, id).boxed())
            .await
    }

    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool> {
        let address = address.to_owned();
        self.write("warm sandbox", move |tx| warm(tx, id, address).boxed())
            .await
    }

    async fn replace_sandbox(&self, replace: Replace) -> Result<Replaced> {
        self.write("replace sandbox", move |tx| replace_broken(tx, replace).boxed())
            .await
    }

    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool> {
        let reason = reason.to_owned();
        self.write("lose sandbox", move |tx| lose(tx, id, reason).boxed())
            .await
    }

    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool> {
        self.write("bury sandbox", move |tx| bury(tx, id).boxed()).await
    }

    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>> {
        self.read("list sandboxes", move |link| list_at(link, place).boxed())
            .await
    }

    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>> {
        self.read("count sandboxes", |link| count(link).boxed()).await
    }
}

pub(crate) fn sandbox(row: &SqliteRow) -> Answer<Sandbox> {
    Ok(Sandbox {
        id: row.id("id")?,
        blueprint_hash: BlueprintHash::from_text(row.text("blueprint_hash")?),
        platform_hash: PlatformHash::from_text(row.text("platform_hash")?),
        state: row.named("state", SandboxState::from_name)?,
        state_since: row.time("state_since")?,
        session: row.maybe_id("session")?,
        place: row.place("place")?,
        address: row.maybe_text("address")?,
        reason: row.maybe_text("reason")?,
        created_at: row.time("created_at")?,
    })
}

pub(crate) async fn find(link: &mut Link, id: SandboxId) -> Answer<Option<Sandbox>> {
    let row = link
        .first(sql("SELECT * FROM lap_sandboxes WHERE id = ?1").bind(id.to_string()))
        .await?;
    row.as_ref().map(sandbox).transpose()
}

async fn plan_for_pool(tx: &mut Tx, new: NewSandbox) -> Answer<()> {
    if find(tx, new.id).await?.is_none() {
        plan(tx, new, None).await?;
    }
    Ok(())
}

/// The new sandbox is provisioning.
pub(crate) async fn plan(tx: &mut Tx, new: NewSandbox, session: Option<SessionId>) -> Answer<Sandbox> {
    let insert = "INSERT INTO lap_sandboxes \
                  (id, blueprint_hash, platform_hash, state, state_since, session, place, created_at) \
                  VALUES (?1, ?2, ?3, 'provisioning', ?4, ?5, ?6, ?4) RETURNING *";
    let insert = sql(insert)
        .bind(new.id.to_string())
        .bind(new.blueprint_hash.as_text().to_owned())
        .bind(new.platform_hash.as_text().to_owned())
        .bind(tx.now.unix_millis())
        .bind(session.map(|session| session.to_string()))
        .bind(place_text(new.place));
    sandbox(&tx.one(insert).await?)
}

/// The sandbox of the key that has been warm longest belongs to the session now.
pub(crate) async fn claim(
    tx: &mut Tx,
    blueprint: &BlueprintHash,
    platform: &PlatformHash,
    session: SessionId,
) -> Answer<Option<Sandbox>> {
    let update = "UPDATE lap_sandboxes SET state = 'claimed', state_since = ?4, session = ?3 WHERE id = \
                  (SELECT id FROM lap_sandboxes \
                   WHERE state = 'warm' AND blueprint_hash = ?1 AND platform_hash = ?2 \
                   ORDER BY state_since, id LIMIT 1) RETURNING *";
    let update = sql(update)
        .bind(blueprint.as_text().to_owned())
        .bind(platform.as_text().to_owned())
        .bind(session.to_string())
        .bind(tx.now.unix_millis());
    tx.first(update).await?.as_ref().map(sandbox).transpose()
}

async fn warm(tx: &mut Tx, id: SandboxId, address: String) -> Answer<bool> {
    let update = "UPDATE lap_sandboxes SET state = 'warm', state_since = ?2, address = ?3 \
                  WHERE id = ?1 AND state = 'provisioning' AND session IS NULL";
    Ok(tx
        .run(
            sql(update)
                .bind(id.to_string())
                .bind(tx.now.unix_millis())
                .bind(address),
        )
        .await?
        > 0)
}

/// A live sandbox is stopping or dead, and its `cleanup` item is due. `None` when it was not live.
pub(crate) async fn let_go(
    tx: &mut Tx,
    id: SandboxId,
    state: SandboxState,
    reason: &str,
) -> Answer<Option<Sandbox>> {
    let update = "UPDATE lap_sandboxes SET state = ?2, state_since = ?3, reason = ?4 \
                  WHERE id = ?1 AND state IN ('provisioning', 'warm', 'claimed') RETURNING *";
    let update = sql(update)
        .bind(id.to_string())
        .bind(state.as_str())
        .bind(tx.now.unix_millis())
        .bind(reason.to_owned());
    let Some(row) = tx.first(update).await? else {
        return Ok(None);
    };
    let sandbox = sandbox(&row)?;
    work::enqueue_cleanup(tx, id, sandbox.place).await?;
    Ok(Some(sandbox))
}

async fn replace_broken(tx: &mut Tx, replace: Replace) -> Answer<Replaced> {
    let id = replace.session;
    let is_current = sessions::find(tx, id).await?.is_some_and(|session| {
        session.state == SessionState::Creating && session.sandbox == Some(replace.broken)
    });
    if !is_current || !work::holds(tx, &replace.hold, WorkKind::BringUp, id).await? {
        return Ok(Replaced::Stale);
    }
    let Some(broken) = find(tx, replace.broken).await? else {
        return Ok(Replaced::Stale);
    };
    let_go(tx, broken.id, SandboxState::Dead, &replace.reason).await?;
    let warm = if replace.warm {
        claim(tx, &broken.blueprint_hash, &broken.platform_hash, id).await?
    } else {
        None
    };
    let replaced = match warm {
        Some(warm) => Replaced::Warm(warm),
        None => {
            let new = NewSandbox {
                id: replace.cold_sandbox,
                blueprint_hash: broken.blueprint_hash,
                platform_hash: broken.platform_hash,
                place: replace.place,
            };
            Replaced::Cold(plan(tx, new, Some(id)).await?)
        }
    };
    if let Replaced::Warm(new) | Replaced::Cold(new) = &replaced {
        let update = sql("UPDATE lap_sessions SET sandbox = ?2 WHERE id = ?1");
        tx.run(update.bind(id.to_string()).bind(new.id.to_string()))
            .await?;
        work::move_to(tx, &replace.hold, new.place).await?;
    }
    Ok(replaced)
}

async fn lose(tx: &mut Tx, id: SandboxId, reason: String) -> Answer<bool> {
    let Some(lost) = let_go(tx, id, SandboxState::Dead, &reason).await? else {
        return Ok(false);
    };
    let Some(owner) = lost.session else {
        return Ok(true);
    };
    let session = sessions::find(tx, owner).await?;
    if session.is_some_and(|session| session.state.is_active() && session.sandbox == Some(id)) {
        let ending = Ending {
            state: SessionState::Dead,
            by: EndedBy::Error,
            reason: Some(reason),
            // The sandbox may have worked on the open turn; it never saw the queued ones.
            open: TurnState::Unknown,
            queued: TurnState::Failed,
        };
        end_session(tx, owner, &ending).await?;
    }
    Ok(true)
}

async fn bury(tx: &mut Tx, id: SandboxId) -> Answer<bool> {
    let update = "UPDATE lap_sandboxes SET state = 'gone', state_since = ?2 \
                  WHERE id = ?1 AND state IN ('stopping', 'dead')";
    if tx
        .run(sql(update).bind(id.to_string()).bind(tx.now.unix_millis()))
        .await?
        > 0
    {
        return Ok(true);
    }
    Ok(find(tx, id)
        .await?
        .is_some_and(|sandbox| sandbox.state == SandboxState::Gone))
}

async fn list_at(link: &mut Link, place: Place) -> Answer<Vec<Sandbox>> {
    let select = "SELECT * FROM lap_sandboxes WHERE place = ?1 AND state <> 'gone' ORDER BY id";
    link.all(sql(select).bind(place_text(place)))
        .await?
        .iter()
        .map(sandbox)
        .collect()
}

async fn count(link: &mut Link) -> Answer<Vec<PoolCount>> {
    let select = "SELECT blueprint_hash, platform_hash, state, count(*) AS count FROM lap_sandboxes \
                  WHERE state <> 'gone' GROUP BY blueprint_hash, platform_hash, state";
    let rows = link.all(sql(select)).await?;
    let counted = rows.iter().map(|row| {
        Ok(PoolCount {
            blueprint_hash: BlueprintHash::from_text(row.text("blueprint_hash")?),
            platform_hash: PlatformHash::from_text(row.text("platform_hash")?),
            state: row.named("state", SandboxState::from_name)?,
            count: row.number("count")?,
        })
    });
    counted.collect()
}
