//! The identity of the installation: its id and its signing key, one row for all processes.

use std::time::Duration;

use ring::hmac;
use serde::Serialize;

use crate::error::Result;
use crate::id::{Entropy, InstanceId, SandboxId};
use crate::seal::Sealer;
use crate::secret::Secret;
use crate::store::{Installation, Instance};
use crate::time::{Clock, Timestamp};
use crate::token::{Scope, SigningKey, VerifyingKey};

/// How long a token for a sandbox is good. It is checked when a call begins, so long streams outlive it.
const TOKEN_TTL: Duration = Duration::from_secs(5 * 60);

/// The identity of the installation: its id and its signing key.
#[derive(Debug)]
pub struct Identity {
    instance: InstanceId,
    key: SigningKey,
    fingerprint: hmac::Key,
}

impl Identity {
    /// Loads the identity, or makes it on first use. All processes on one store get the same.
    ///
    /// # Errors
    /// `Corrupt` when the stored key was sealed with another `ENCRYPTION_KEY`; `Unavailable`.
    pub async fn load(
        store: &(impl Installation + ?Sized),
        sealer: &Sealer,
        entropy: &dyn Entropy,
        clock: &dyn Clock,
    ) -> Result<Self> {
        let id = InstanceId::fresh(entropy, clock.now());
        let seed = SigningKey::fresh_seed(entropy);
        let candidate = Instance {
            id,
            signing_seed: sealer.seal(&context(id), &seed, entropy)?,
        };
        let stored = store.instance(candidate).await?;
        let seed = sealer.open(&context(stored.id), &stored.signing_seed)?;
        Ok(Self {
            instance: stored.id,
            key: SigningKey::from_seed(&seed)?,
            fingerprint: hmac::Key::new(hmac::HMAC_SHA256, &seed),
        })
    }

    /// Names the installation.
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// With which sandboxes check their callers.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// A token for the harness protocol of one sandbox, good for five minutes.
    pub fn control_token(&self, sandbox: SandboxId, now: Timestamp) -> Secret {
        self.key.mint(sandbox, Scope::Control, now, TOKEN_TTL)
    }

    /// A keyed hash of a request, so that a stored hash does not give away what a short secret in it was.
    pub(super) fn body_hash(&self, request: &impl Serialize) -> String {
        let bytes = serde_json::to_vec(request).unwrap_or_default();
        hmac::sign(&self.fingerprint, &bytes)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn context(id: InstanceId) -> String {
    format!("instance/{id}/signing_seed")
}
