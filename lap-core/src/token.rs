//! Signed tokens with which the platform speaks to a sandbox.
//!
//! Ed25519 (RFC 8032). The instance holds the signing key; a sandbox holds the verifying key only, so what is
//! inside a sandbox can check a caller and can never pose as one. A token names one sandbox, one scope and
//! a time to live of minutes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Entropy, SandboxId};
use crate::secret::Secret;
use crate::time::Timestamp;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The harness protocol.
    Control,
    /// Running commands and reading files.
    Exec,
    /// A terminal.
    Tty,
}

impl Scope {
    const fn code(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Exec => 2,
            Self::Tty => 3,
        }
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not a token of this format.
    Malformed,
    /// The signature is not the instance's.
    BadSignature,
    /// It was made for another sandbox.
    WrongSandbox,
    /// It was made for another scope.
    WrongScope,
    /// Its time is over.
    Expired,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::BadSignature => "the token was not signed by this instance",
            Self::WrongSandbox => "the token is for another sandbox",
            Self::WrongScope => "the token is for another scope",
            Self::Expired => "the token has expired",
        })
    }
}

const VERSION: u8 = 1;
const CLAIMS: usize = 1 + 1 + 16 + 8;
const SIGNATURE: usize = 64;

/// The instance's private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// 32 fresh random bytes from which [`SigningKey::from_seed`] makes a key.
    pub fn fresh_seed(entropy: &dyn Entropy) -> [u8; 32] {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        seed
    }

    /// The key of this seed.
    ///
    /// # Errors
    /// `Corrupt` when the seed is not 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(|pair| Self { pair })
            .map_err(|_| {
                Error::new(
                    ErrorKind::Corrupt,
                    "load signing key",
                    "the stored signing key is not 32 bytes long",
                )
            })
    }

    /// The public half, for sandboxes.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey {
            bytes: self.pair.public_key().as_ref().to_vec(),
        }
    }

    /// A token for `sandbox` and `scope` that is good until `now + ttl`.
    pub fn mint(&self, sandbox: SandboxId, scope: Scope, now: Timestamp, ttl: Duration) -> Secret {
        let mut token = Vec::with_capacity(CLAIMS + SIGNATURE);
        token.push(VERSION);
        token.push(scope.code());
        token.extend_from_slice(sandbox.as_uuid().as_bytes());
        token.extend_from_slice(&(now + ttl).unix_millis().to_be_bytes());
        let signature = self.pair.sign(&token);
        token.extend_from_slice(signature.as_ref());
        Secret::new(URL_SAFE_NO_PAD.encode(token))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// The instance's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    bytes: Vec<u8>,
}

impl VerifyingKey {
    /// Reads the text form.
    ///
    /// # Errors
    /// `Invalid` when the text is not base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self> {
        match STANDARD.decode(text) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self { bytes }),
            _ => Err(Error::invalid(
                "read public key",
                "public_key",
                "the public key is not base64 of 32 bytes",
            )),
        }
    }

    /// The text form: base64 of the 32 bytes.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    /// Accepts exactly the tokens minted for this sandbox and scope that have not expired.
    ///
    /// # Errors
    /// The reason of the refusal. A signature is checked before any claim is read.
    pub fn verify(
        &self,
        token: &str,
        sandbox: SandboxId,
        scope: Scope,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        // A longer text cannot be a token; refusing it first bounds the work.
        if token.len() > 2 * (CLAIMS + SIGNATURE) {
            return Err(Refusal::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::Malformed)?;
        if bytes.len() != CLAIMS + SIGNATURE || bytes[0] != VERSION {
            return Err(Refusal::Malformed);
        }
        let (claims, signature) = bytes.split_at(CLAIMS);
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(claims, signature)
            .map_err(|_| Refusal::BadSignature)?;
        if claims[2..18] != sandbox.as_uuid().as_bytes()[..] {
            return Err(Refusal::WrongSandbox);
        }
        if claims[1] != scope.code() {
            return Err(Refusal::WrongScope);
        }
        let mut until = [0; 8];
        until.copy_from_slice(&claims[18..]);
        if Timestamp::from_unix_millis(i64::from_be_bytes(until)) <= now {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SeededEntropy;

    fn key(seed: u64) -> SigningKey {
        SigningKey::from_seed(&SigningKey::fresh_seed(&SeededEntropy::new(seed))).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_sandbox_scope_and_time_only() {
        let entropy = SeededEntropy::new(7);
        let now = Timestamp::from_unix_millis(1_000_000);
        let (ours, other) = (SandboxId::fresh(&entropy, now), SandboxId::fresh(&entropy, now));
        let key = key(1);
        let token = key.mint(ours, Scope::Control, now, Duration::from_secs(60));
        let public = VerifyingKey::from_base64(&key.verifying_key().to_base64()).unwrap();
        let verify = |sandbox, scope, at| public.verify(token.expose(), sandbox, scope, at);
        assert_eq!(verify(ours, Scope::Control, now), Ok(()));
        assert_eq!(verify(other, Scope::Control, now), Err(Refusal::WrongSandbox));
        assert_eq!(verify(ours, Scope::Exec, now), Err(Refusal::WrongScope));
        assert_eq!(
            verify(ours, Scope::Control, now + Duration::from_secs(60)),
            Err(Refusal::Expired)
        );
        let stranger = super::tests::key(2).verifying_key();
        assert_eq!(
            stranger.verify(token.expose(), ours, Scope::Control, now),
            Err(Refusal::BadSignature)
        );
        assert_eq!(
            public.verify("", ours, Scope::Control, now),
            Err(Refusal::Malformed)
        );
        assert_eq!(
            public.verify(&"A".repeat(1 << 20), ours, Scope::Control, now),
            Err(Refusal::Malformed)
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let now = Timestamp::from_unix_millis(0);
        let sandbox = SandboxId::fresh(&SeededEntropy::new(3), now);
        let key = key(1);
        let token = key.mint(sandbox, Scope::Tty, now, Duration::from_secs(1));
        let bytes = URL_SAFE_NO_PAD.decode(token.expose()).unwrap();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert!(
                key.verifying_key()
                    .verify(&forged, sandbox, Scope::Tty, now)
                    .is_err(),
                "byte {at}"
            );
        }
    }
}
