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
use sqlx::postgres::PgRow;

use crate::ending::{Ending, end_session};
use crate::error::{Answer, Failure};
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, clean, place_text};
use crate::store::PostgresStore;
use crate::{sessions, work};

#[async_trait]
impl Sandboxes for PostgresStore {
    async fn plan_sandbox(&self, new: NewSandbox) -> Result<()> {
        self.core()
            .ask("plan sandbox", new, |link, new| plan_for_pool(link, new).boxed())
            .await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>> {
        self.core()
            .ask("read sandbox", id, |link, id| find(link, id).boxed())
            .await
    }

    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool> {
        let asked = (id, address.to_owned());
        self.core()
            .ask("warm sandbox", asked, |link, asked| warm(link, asked).boxed())
            .await
    }

    async fn replace_sandbox(&self, replace: Replace) -> Result<Replaced> {
        self.core()
            .write("replace sandbox", replace, |tx, replace| {
                replace_broken(tx, replace).boxed()
            })
            .await
    }

    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool> {
        let asked = (id, reason.to_owned());
        self.core()
            .write("lose sandbox", asked, |tx, asked| lose(tx, asked).boxed())
            .await
    }

    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool> {
        self.core()
            .ask("bury sandbox", id, |link, id| bury(link, id).boxed())
            .await
    }

    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>> {
        self.core()
            .ask("list sandboxes", place, |link, place| {
                list_at(link, place).boxed()
            })
            .await
    }

    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>> {
        self.core()
            .ask("count sandboxes", (), |link, ()| count(link).boxed())
            .await
    }
}

pub(crate) fn sandbox(row: &PgRow) -> Answer<Sandbox> {
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
        .first(sql("SELECT * FROM lap.sandboxes WHERE id = $1").bind(id.as_uuid()))
        .await?;
    row.as_ref().map(sandbox).transpose()
}

async fn plan_for_pool(link: &mut Link, new: NewSandbox) -> Answer<()> {
    let insert = "INSERT INTO lap.sandboxes \
                  (id, blueprint_hash, platform_hash, state, state_since, place, created_at) \
                  VALUES ($1, $2, $3, 'provisioning', lap.now_ms(), $4, lap.now_ms()) ON CONFLICT (id) DO NOTHING";
    let insert = sql(insert)
        .bind(new.id.as_uuid())
        .bind(new.blueprint_hash.as_text().to_owned())
        .bind(new.platform_hash.as_text().to_owned())
        .bind(place_text(new.place));
    link.run(insert).await.map(drop)
}

/// The new sandbox is provisioning.
pub(crate) async fn plan(tx: &mut Tx, new: NewSandbox, session: Option<SessionId>) -> Answer<Sandbox> {
    let insert = "INSERT INTO lap.sandboxes \
                  (id, blueprint_hash, platform_hash, state, state_since, session, place, created_at) \
                  VALUES ($1, $2, $3, 'provisioning', $4, $5, $6, $4) RETURNING *";
    let insert = sql(insert)
        .bind(new.id.as_uuid())
        .bind(new.blueprint_hash.as_text().to_owned())
        .bind(new.platform_hash.as_text().to_owned())
        .bind(tx.now.unix_millis())
        .bind(session.map(|session| session.as_uuid()))
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
    let update = "UPDATE lap.sandboxes SET state = 'claimed', state_since = $4, session = $3 WHERE id = \
                  (SELECT id FROM lap.sandboxes \
                   WHERE state = 'warm' AND blueprint_hash = $1 AND platform_hash = $2 \
                   ORDER BY state_since, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *";
    let update = sql(update)
        .bind(blueprint.as_text().to_owned())
        .bind(platform.as_text().to_owned())
        .bind(session.as_uuid())
        .bind(tx.now.unix_millis());
    tx.first(update).await?.as_ref().map(sandbox).transpose()
}

async fn warm(link: &mut Link, (id, address): (SandboxId, String)) -> Answer<bool> {
    let update = "UPDATE lap.sandboxes SET state = 'warm', state_since = lap.now_ms(), address = $2 \
                  WHERE id = $1 AND state = 'provisioning' AND session IS NULL";
    Ok(link
        .run(sql(update).bind(id.as_uuid()).bind(clean(address)))
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
    let update = "UPDATE lap.sandboxes SET state = $2, state_since = $3, reason = $4 \
                  WHERE id = $1 AND state IN ('provisioning', 'warm', 'claimed') RETURNING *";
    let update = sql(update)
        .bind(id.as_uuid())
        .bind(state.as_str())
        .bind(tx.now.unix_millis())
        .bind(clean(reason));
    let Some(row) = tx.first(update).await? else {
        return Ok(None);
    };
    let sandbox = sandbox(&row)?;
    work::enqueue_cleanup(tx, id, sandbox.place).await?;
    Ok(Some(sandbox))
}

async fn replace_broken(tx: &mut Tx, replace: Replace) -> Answer<Replaced> {
    let id = replace.session;
    sessions::lock(tx, id).await?;
    let is_current = sessions::find(&mut tx.link, id).await?.is_some_and(|session| {
        session.state == SessionState::Creating && session.sandbox == Some(replace.broken)
    });
    if !is_current || !work::holds(tx, &replace.hold, WorkKind::BringUp, id).await? {
        return Ok(Replaced::Stale);
    }
    let Some(broken) = find(&mut tx.link, replace.broken).await? else {
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
        let update = sql("UPDATE lap.sessions SET sandbox = $2 WHERE id = $1");
        tx.run(update.bind(id.as_uuid()).bind(new.id.as_uuid())).await?;
        work::move_to(tx, &replace.hold, new.place).await?;
    }
    Ok(replaced)
}

async fn lose(tx: &mut Tx, (id, reason): (SandboxId, String)) -> Answer<bool> {
    let Some(before) = find(&mut tx.link, id).await? else {
        return Ok(false);
    };
    if let Some(owner) = before.session {
        sessions::lock(tx, owner).await?;
    }
    let Some(lost) = let_go(tx, id, SandboxState::Dead, &reason).await? else {
        return Ok(false);
    };
    if lost.session != before.session {
        // It was claimed meanwhile, and its session is not locked.
        return Err(Failure::Race);
    }
    let Some(owner) = lost.session else {
        return Ok(true);
    };
    let session = sessions::find(&mut tx.link, owner).await?;
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

async fn bury(link: &mut Link, id: SandboxId) -> Answer<bool> {
    let update = "UPDATE lap.sandboxes SET state = 'gone', state_since = lap.now_ms() \
                  WHERE id = $1 AND state IN ('stopping', 'dead')";
    if link.run(sql(update).bind(id.as_uuid())).await? > 0 {
        return Ok(true);
    }
    Ok(find(link, id)
        .await?
        .is_some_and(|sandbox| sandbox.state == SandboxState::Gone))
}

async fn list_at(link: &mut Link, place: Place) -> Answer<Vec<Sandbox>> {
    let select = "SELECT * FROM lap.sandboxes WHERE place = $1 AND state <> 'gone' ORDER BY id";
    link.all(sql(select).bind(place_text(place)))
        .await?
        .iter()
        .map(sandbox)
        .collect()
}

async fn count(link: &mut Link) -> Answer<Vec<PoolCount>> {
    let select = "SELECT blueprint_hash, platform_hash, state, count(*) AS count FROM lap.sandboxes \
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
