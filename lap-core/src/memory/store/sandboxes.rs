use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use super::tables::Tables;
use super::transitions::Ending;
use crate::error::Result;
use crate::id::{SandboxId, SessionId};
use crate::sandbox::{Place, Sandbox, SandboxState};
use crate::session::{EndedBy, SessionState};
use crate::store::{NewSandbox, PoolCount, Replace, Replaced, Sandboxes, WorkKind};
use crate::time::Timestamp;
use crate::turn::TurnState;

#[async_trait]
impl Sandboxes for MemoryStore {
    async fn plan_sandbox(&self, new: NewSandbox) -> Result<()> {
        self.commit(|tables, now| {
            if !tables.sandboxes.contains_key(&new.id) {
                tables.plan(planned(new, None, now));
            }
        });
        Ok(())
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>> {
        Ok(self.commit(|tables, _| tables.sandboxes.get(&id).map(|row| row.sandbox.clone())))
    }

    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool> {
        Ok(self.commit(|tables, now| {
            let is_planned =
                |sandbox: &Sandbox| sandbox.state == SandboxState::Provisioning && sandbox.session.is_none();
            let Some(row) = tables
                .sandboxes
                .get_mut(&id)
                .filter(|row| is_planned(&row.sandbox))
            else {
                return false;
            };
            row.sandbox.state = SandboxState::Warm;
            row.sandbox.state_since = now;
            row.sandbox.address = Some(address.to_owned());
            row.warm_at = Some(now);
            true
        }))
    }

    async fn replace_sandbox(&self, replace: Replace) -> Result<Replaced> {
        Ok(self.commit(|tables, now| replace_sandbox(tables, &replace, now).unwrap_or(Replaced::Stale)))
    }

    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool> {
        Ok(self.commit(|tables, now| lose(tables, id, reason, now)))
    }

    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool> {
        Ok(self.commit(|tables, now| {
            let Some(row) = tables
                .sandboxes
                .get_mut(&id)
                .filter(|row| !row.sandbox.state.is_live())
            else {
                return false;
            };
            if row.sandbox.state != SandboxState::Gone {
                row.sandbox.state = SandboxState::Gone;
                row.sandbox.state_since = now;
            }
            true
        }))
    }

    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>> {
        Ok(self.commit(|tables, _| {
            present(tables)
                .filter(|sandbox| sandbox.place == place)
                .cloned()
                .collect()
        }))
    }

    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>> {
        Ok(self.commit(|tables, _| count(tables)))
    }
}

fn present(tables: &Tables) -> impl Iterator<Item = &Sandbox> {
    tables
        .sandboxes
        .values()
        .map(|row| &row.sandbox)
        .filter(|sandbox| sandbox.state != SandboxState::Gone)
}

fn planned(new: NewSandbox, session: Option<SessionId>, now: Timestamp) -> Sandbox {
    Sandbox {
        id: new.id,
        blueprint_hash: new.blueprint_hash,
        platform_hash: new.platform_hash,
        state: SandboxState::Provisioning,
        state_since: now,
        session,
        place: new.place,
        address: None,
        reason: None,
        created_at: now,
    }
}

/// `None`: the caller was late and nothing changes.
fn replace_sandbox(tables: &mut Tables, replace: &Replace, now: Timestamp) -> Option<Replaced> {
    let id = replace.session;
    let session = tables.session(id)?;
    let is_current = session.state == SessionState::Creating && session.sandbox == Some(replace.broken);
    if !is_current || !tables.holds(&replace.hold, WorkKind::BringUp, id) {
        return None;
    }
    let broken = tables.sandboxes.get(&replace.broken)?.sandbox.clone();
    tables.let_go(broken.id, SandboxState::Dead, &replace.reason, now);
    let warm = tables
        .oldest_warm(&broken.blueprint_hash, &broken.platform_hash)
        .filter(|_| replace.warm);
    let new = match warm {
        Some(warm) => tables.claim(warm, id, now)?,
        None => {
            let new = NewSandbox {
                id: replace.cold_sandbox,
                blueprint_hash: broken.blueprint_hash,
                platform_hash: broken.platform_hash,
                place: replace.place,
            };
            tables.plan(planned(new, Some(id), now))
        }
    };
    let session = tables.session_mut(id)?;
    session.sandbox = Some(new.id);
    session.address.clone_from(&new.address);
    // Whoever goes on with the bring-up has to reach the new sandbox.
    tables.work.get_mut(&(WorkKind::BringUp, id.to_string()))?.place = Some(new.place);
    Some(if warm.is_some() {
        Replaced::Warm(new)
    } else {
        Replaced::Cold(new)
    })
}

fn lose(tables: &mut Tables, id: SandboxId, reason: &str, now: Timestamp) -> bool {
    if !tables.let_go(id, SandboxState::Dead, reason, now) {
        return false;
    }
    let owner = tables.sandboxes.get(&id).and_then(|row| row.sandbox.session);
    let session = owner.and_then(|session| tables.session(session));
    if let Some(session) = session.filter(|session| session.state.is_active() && session.sandbox == Some(id))
    {
        let ending = Ending {
            state: SessionState::Dead,
            by: EndedBy::Error,
            reason: Some(reason),
            // The sandbox may have worked on the open turn; it never saw the queued ones.
            open: TurnState::Unknown,
            queued: TurnState::Failed,
        };
        tables.end_session(session.id, &ending, now);
    }
    true
}

fn count(tables: &Tables) -> Vec<PoolCount> {
    let mut counts = BTreeMap::new();
    for sandbox in present(tables) {
        let key = (
            sandbox.blueprint_hash.clone(),
            sandbox.platform_hash.clone(),
            sandbox.state,
        );
        *counts.entry(key).or_insert(0) += 1;
    }
    let row = |((blueprint_hash, platform_hash, state), count)| PoolCount {
        blueprint_hash,
        platform_hash,
        state,
        count,
    };
    counts.into_iter().map(row).collect()
}
