//! Identifiers: one newtype per kind over UUID version 7 (RFC 9562), plain UUID text everywhere.
//!
//! Fresh ids and all other randomness come from [`Entropy`], so that a simulation owns them.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::time::Timestamp;

macro_rules! id_kinds {
    ($($(#[$doc:meta])* $name:ident = $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that is already known to name this kind of thing.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }

            /// A new id, unique and roughly ordered by time.
            pub fn fresh(entropy: &dyn Entropy, now: Timestamp) -> Self {
                Self(fresh_uuid(entropy, now))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Parses UUID text. The error says which noun was expected and does not echo the input.
            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::parse_str(text).map(Self).map_err(|_| {
                    Error::new(ErrorKind::Invalid, "parse id", concat!("this is not the id of a ", $noun, ": ids are UUIDs"))
                })
            }
        }
    )*};
}

id_kinds! {
    /// An agent: the definition of what to run.
    AgentId = "agent";
    /// One sandbox, warm or claimed: where an agent runs.
    SandboxId = "sandbox";
    /// One session: one conversation of one caller with one agent.
    SessionId = "session";
    /// One turn: one accepted message and its outcome.
    TurnId = "turn";
    /// One installation of the platform. Everything made in a runtime carries it.
    InstanceId = "instance";
    /// One machine that can hold sandboxes of its own (kept in its data folder).
    HostId = "host";
    /// One running process that takes work.
    WorkerId = "worker";
    /// One stored record of a low-traffic noun.
    RecordId = "record";
}

/// Where ids, nonces and keys come from.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills the buffer with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// A UUID of version 7 for the given time.
pub fn fresh_uuid(entropy: &dyn Entropy, now: Timestamp) -> Uuid {
    let mut random = [0u8; 10];
    entropy.fill(&mut random);
    uuid::Builder::from_unix_timestamp_millis(now.unix_millis().unsigned_abs(), &random).into_uuid()
}

/// The operating system's generator.
#[derive(Debug, Clone)]
pub struct SystemEntropy {
    random: SystemRandom,
}

impl SystemEntropy {
    /// A generator that needs no seed.
    pub fn new() -> Self {
        Self {
            random: SystemRandom::new(),
        }
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // ring reports an error only where the operating system has no random source at all. Going on would
        // make guessable keys and repeated nonces, so the process ends instead.
        if self.random.fill(bytes).is_err() {
            tracing::error!("the operating system has no source of randomness");
            std::process::abort();
        }
    }
}

/// A reproducible generator for tests and simulations (SplitMix64). Never use it for keys.
#[derive(Debug)]
pub struct SeededEntropy {
    state: std::sync::atomic::AtomicU64,
}

impl SeededEntropy {
    /// The same seed gives the same sequence.
    pub const fn new(seed: u64) -> Self {
        Self {
            state: std::sync::atomic::AtomicU64::new(seed),
        }
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .state
            .fetch_add(STEP, std::sync::atomic::Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_ordered_by_time() {
        let entropy = SeededEntropy::new(1);
        let early = SessionId::fresh(&entropy, Timestamp::from_unix_millis(1_000));
        let late = SessionId::fresh(&entropy, Timestamp::from_unix_millis(2_000));
        assert_eq!(early.as_uuid().get_version_num(), 7);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<SessionId>().unwrap(), early);
    }

    #[test]
    fn a_bad_id_is_refused_without_an_echo() {
        let error = "../etc/passwd".parse::<AgentId>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(!error.to_string().contains("passwd"));
    }
}
