//! Values at rest: AES-256-GCM (NIST SP 800-38D) with a key id and associated data.
//!
//! A [`Sealed`] is what stores see. It is bound to a context (what it is and whose it is), so a sealed value
//! moved to another row does not open. Without a key, values are stored in the clear under the scheme
//! `plain`; the server logs a warning and production refuses to start.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;

use crate::error::{Error, ErrorKind, Result};
use crate::id::Entropy;

/// A sealed value, as text that a store keeps without understanding it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(String);

impl Sealed {
    /// Takes text that was read from a store.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text a store keeps.
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

/// Seals and opens values.
pub struct Sealer {
    key: Option<(String, LessSafeKey)>,
}

impl Sealer {
    /// A sealer with a key: base64 of 32 bytes, for example the output of `openssl rand -base64 32`.
    ///
    /// # Errors
    /// `Invalid` when the text is not base64 of exactly 32 bytes. The text is not echoed.
    pub fn from_base64(key: &str) -> Result<Self> {
        let bytes = STANDARD
            .decode(key.trim())
            .ok()
            .filter(|bytes| bytes.len() == 32)
            .ok_or_else(|| {
                Error::invalid(
                    "read encryption key",
                    "ENCRYPTION_KEY",
                    "the key is not base64 of exactly 32 bytes; make one with: openssl rand -base64 32",
                )
            })?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "read encryption key",
                "the key was not accepted",
            )
        })?;
        // The key id is eight hexadecimal digits of a hash: it tells keys apart and reveals nothing.
        let hash = digest::digest(&digest::SHA256, bytes);
        let id = hash.as_ref()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            key: Some((id, LessSafeKey::new(key))),
        })
    }

    /// A sealer without a key: values are stored in the clear. For development only.
    pub const fn plaintext() -> Self {
        Self { key: None }
    }

    /// Whether values are encrypted at rest.
    pub const fn is_encrypting(&self) -> bool {
        self.key.is_some()
    }

    /// Seals `value` for `context`; only the same context opens it.
    ///
    /// # Errors
    /// `Internal` when the cipher refuses, which it does only for absurd sizes.
    pub fn seal(&self, context: &str, value: &[u8], entropy: &dyn Entropy) -> Result<Sealed> {
        let Some((id, key)) = &self.key else {
            return Ok(Sealed(format!("plain:{}", STANDARD.encode(value))));
        };
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut bytes = value.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.as_bytes()),
            &mut bytes,
        )
        .map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "seal value",
                "the value could not be encrypted",
            )
        })?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut bytes);
        Ok(Sealed(format!("aes256gcm:{id}:{}", STANDARD.encode(sealed))))
    }

    /// Opens a value sealed for `context`.
    ///
    /// # Errors
    /// `Corrupt` when the value was sealed with another key or for another context, or was changed.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<Vec<u8>> {
        let corrupt = |message: &str| Error::new(ErrorKind::Corrupt, "open sealed value", message);
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|_| corrupt("the stored value is damaged"))
        };
        if let Some(plain) = sealed.0.strip_prefix("plain:") {
            return decode(plain);
        }
        let (id, text) = sealed
            .0
            .strip_prefix("aes256gcm:")
            .and_then(|rest| rest.split_once(':'))
            .ok_or_else(|| {
                corrupt("the stored value has an unknown scheme; a newer version may have written it")
            })?;
        let Some((_, key)) = self.key.as_ref().filter(|(ours, _)| ours == id) else {
            return Err(corrupt(
                "the stored value was sealed with another ENCRYPTION_KEY; start with that key",
            ));
        };
        let bytes = decode(text)?;
        if bytes.len() < NONCE_LEN {
            return Err(corrupt("the stored value is damaged"));
        }
        let (nonce, body) = bytes.split_at(NONCE_LEN);
        let nonce =
            Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt("the stored value is damaged"))?;
        let mut body = body.to_vec();
        let plain = key
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut body)
            .map_err(|_| corrupt("the stored value is damaged or belongs elsewhere"))?;
        Ok(plain.to_vec())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_encrypting() {
            "Sealer(aes256gcm)"
        } else {
            "Sealer(plain)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SeededEntropy;

    #[test]
    fn a_sealed_value_opens_only_with_its_key_and_context() {
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer::from_bytes(&[7; 32]).unwrap();
        let sealed = sealer.seal("agent/1/env", b"canary", &entropy).unwrap();
        assert!(!sealed.as_text().contains("canary") && !format!("{sealed:?}").contains("aes"));
        assert_eq!(sealer.open("agent/1/env", &sealed).unwrap(), b"canary");
        assert_eq!(
            sealer.open("agent/2/env", &sealed).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let other = Sealer::from_bytes(&[8; 32]).unwrap();
        assert!(
            other
                .open("agent/1/env", &sealed)
                .unwrap_err()
                .to_string()
                .contains("another ENCRYPTION_KEY")
        );
        assert_eq!(
            sealer
                .seal("c", b"", &entropy)
                .and_then(|s| sealer.open("c", &s))
                .unwrap(),
            b""
        );
    }

    #[test]
    fn plaintext_values_open_after_a_key_was_set() {
        let entropy = SeededEntropy::new(1);
        let sealed = Sealer::plaintext().seal("c", b"value", &entropy).unwrap();
        assert_eq!(
            Sealer::from_bytes(&[7; 32]).unwrap().open("c", &sealed).unwrap(),
            b"value"
        );
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused_without_an_echo() {
        let error = Sealer::from_base64("c2hvcnQ=").unwrap_err();
        assert!(error.message().contains("openssl rand -base64 32") && !error.message().contains("c2hvcnQ"));
    }
}
