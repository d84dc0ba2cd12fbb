//! Secrets print as nothing, are not serialisable, and leave by one named door: [`Secret::expose`].

use std::fmt;

use ring::digest;
use secrecy::{ExposeSecret, SecretString};

/// A secret text. Its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The only way out. Every call site is a place to review.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }

    /// Compares in a time that depends on neither text: both sides are hashed first.
    pub fn matches(&self, candidate: &str) -> bool {
        let ours = digest::digest(&digest::SHA256, self.expose().as_bytes());
        let theirs = digest::digest(&digest::SHA256, candidate.as_bytes());
        let difference = ours
            .as_ref()
            .iter()
            .zip(theirs.as_ref())
            .fold(0u8, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_and_compares() {
        let secret = Secret::new("sk-canary");
        assert!(!format!("{secret:?}").contains("canary"));
        assert!(secret.matches("sk-canary"));
        assert!(!secret.matches("sk-canarz"));
        assert!(!secret.matches(""));
    }
}
