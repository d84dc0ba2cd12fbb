use async_trait::async_trait;
use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::error::Result;
use lap_core::id::SandboxId;
use lap_core::sandbox::{Place, Sandbox};
use lap_core::store::{NewSandbox, PoolCount, Replace, Replaced, Sandboxes, Sessions, Turns};

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Sandboxes for Broken {
    async fn plan_sandbox(&self, mut new: NewSandbox) -> Result<()> {
        self.notes().places.insert(new.place);
        match self.defect {
            Defect::IgnoresPlatforms => new.platform_hash = PlatformHash::from_text("any"),
            Defect::IgnoresBlueprints => new.blueprint_hash = BlueprintHash::from_text("any"),
            _ => {}
        }
        self.store.plan_sandbox(new).await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>> {
        self.store.sandbox(id).await
    }

    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool> {
        Ok(self.store.warm_sandbox(id, address).await? || self.is(Defect::WarmsAnything))
    }

    async fn replace_sandbox(&self, mut replace: Replace) -> Result<Replaced> {
        replace.hold = self.hold(&replace.hold);
        match self.defect {
            Defect::ReplacesColdOnly => replace.warm = false,
            Defect::ReplacesWarmAlways => replace.warm = true,
            Defect::ReplacesTwice => {
                let session = self.store.session(replace.session).await?;
                replace.broken = session
                    .and_then(|session| session.sandbox)
                    .unwrap_or(replace.broken);
            }
            _ => {}
        }
        self.store.replace_sandbox(replace).await
    }

    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool> {
        let session = self.store.sandbox(id).await?.and_then(|sandbox| sandbox.session);
        match (self.defect, session) {
            (Defect::ClaimsTheDead, None) => return Ok(true),
            (Defect::AbortsTurnsOfLostSandboxes, Some(session)) => {
                self.store.abort(session, None).await?;
            }
            _ => {}
        }
        let is_lost = self.store.lose_sandbox(id, reason).await?;
        self.lose_cleanups().await;
        if let Some(session) = session.filter(|_| !is_lost && self.is(Defect::TellsLossesAgain)) {
            self.write(session).await?;
        }
        Ok(is_lost || self.is(Defect::LosesAgain))
    }

    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool> {
        let is_gone = self.store.bury_sandbox(id).await?;
        Ok(is_gone || self.is(Defect::BuriesTheLiving) || self.is(Defect::ClaimsTheDead))
    }

    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>> {
        if !self.is(Defect::FindsSandboxesEverywhere) {
            return self.store.sandboxes_at(place).await;
        }
        let places: Vec<_> = self.notes().places.iter().copied().collect();
        let mut found = Vec::new();
        for place in places {
            found.extend(self.store.sandboxes_at(place).await?);
        }
        Ok(found)
    }

    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>> {
        self.store.count_sandboxes().await
    }
}
