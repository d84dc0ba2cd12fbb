use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use lap_core::id::{Entropy, SandboxId};
use ring::hmac;

/// What every stub begins with.
pub const STUB_MARKER: &str = "stub_";

/// Letters and digits of base 32 in lower case (RFC 4648), which no shell, URL or header has to escape.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The root key from which every stub of this vault is derived.
pub struct StubKey(hmac::Key);

impl StubKey {
    /// Takes the root key in.
    pub fn new(root: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, root))
    }

    /// The stub of a credential: the marker, the name and 160 bits only the holder of the root key can
    /// make. The same sandbox and name give the same stub for ever.
    pub fn stub(&self, sandbox: SandboxId, name: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"lap stub v1\0");
        context.update(sandbox.as_uuid().as_bytes());
        context.update(name.as_bytes());
        format!("{STUB_MARKER}{name}_{}", base32(&context.sign().as_ref()[..20]))
    }
}

impl fmt::Debug for StubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StubKey(…)")
    }
}

/// Whether a credential may have this name: what an environment variable may be called, within reason.
pub fn is_credential_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 128
        && bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whose credential a stub stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubRef {
    /// The sandbox that holds the stub.
    pub sandbox: SandboxId,
    /// The credential's name.
    pub name: Arc<str>,
}

/// Finds a stub in a time that tells nothing about the stubs that exist.
///
/// What is presented is first hashed under a key that only this process knows, and the hash is looked up: a
/// client cannot steer which comparisons succeed up to which byte.
pub struct StubIndex {
    key: hmac::Key,
    entries: HashMap<[u8; 32], StubRef>,
}

impl StubIndex {
    /// An index with no stubs.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            entries: HashMap::new(),
        }
    }

    /// Adds a stub.
    pub fn insert(&mut self, stub: &str, owner: StubRef) {
        self.entries.insert(self.digest(stub), owner);
    }

    /// Removes every stub of a sandbox.
    pub fn remove(&mut self, sandbox: SandboxId) {
        self.entries.retain(|_, owner| owner.sandbox != sandbox);
    }

    /// Whose stub this is.
    pub fn find(&self, presented: &str) -> Option<&StubRef> {
        self.entries.get(&self.digest(presented))
    }

    fn digest(&self, text: &str) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(&self.key, text.as_bytes()).as_ref());
        digest
    }
}

impl fmt::Debug for StubIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StubIndex")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let mut word = [0u8; 8];
        word[3..3 + group.len()].copy_from_slice(group);
        let word = u64::from_be_bytes(word);
        let letters = (group.len() * 8).div_ceil(5);
        for letter in 0..letters {
            let index = (word >> (35 - 5 * letter)) & 31;
            text.push(char::from(BASE32[usize::try_from(index).unwrap_or(0)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use lap_core::id::SeededEntropy;
    use lap_core::time::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn sandbox(seed: u64) -> SandboxId {
        SandboxId::fresh(&SeededEntropy::new(seed), Timestamp::from_unix_millis(1))
    }

    #[test]
    fn base_32_follows_the_vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_stub_depends_on_root_sandbox_and_name_and_on_nothing_else() {
        let key = StubKey::new(&[1; 32]);
        let stub = key.stub(sandbox(1), "LITELLM_API_KEY");
        assert_eq!(stub, StubKey::new(&[1; 32]).stub(sandbox(1), "LITELLM_API_KEY"));
        assert_eq!(stub.len(), "stub_LITELLM_API_KEY_".len() + 32);
        assert!(stub.starts_with("stub_LITELLM_API_KEY_"));
        for other in [
            key.stub(sandbox(2), "LITELLM_API_KEY"),
            key.stub(sandbox(1), "LITELLM_API_KEZ"),
            StubKey::new(&[2; 32]).stub(sandbox(1), "LITELLM_API_KEY"),
        ] {
            assert_ne!(stub[stub.len() - 32..], other[other.len() - 32..]);
        }
    }

    #[test]
    fn stubs_leave_the_index_with_their_sandbox() {
        let mut index = StubIndex::new(&SeededEntropy::new(9));
        let key = StubKey::new(&[1; 32]);
        for seed in 1..=2 {
            let owner = StubRef {
                sandbox: sandbox(seed),
                name: "K".into(),
            };
            index.insert(&key.stub(sandbox(seed), "K"), owner);
        }
        index.remove(sandbox(1));
        assert!(index.find(&key.stub(sandbox(1), "K")).is_none());
        assert_eq!(
            index.find(&key.stub(sandbox(2), "K")).unwrap().sandbox,
            sandbox(2)
        );
    }

    proptest! {
        #[test]
        fn nothing_but_the_exact_stub_is_found(cut in 0usize..60, flip in 0usize..60, suffix in "[a-z]{0,3}") {
            let mut index = StubIndex::new(&SeededEntropy::new(9));
            let stub = StubKey::new(&[1; 32]).stub(sandbox(1), "KEY");
            index.insert(&stub, StubRef { sandbox: sandbox(1), name: "KEY".into() });
            let mut other: Vec<u8> = stub.bytes().take(stub.len().saturating_sub(cut % 3)).collect();
            let at = flip % other.len();
            other[at] = if other[at] == b'z' { b'a' } else { b'z' };
            let other = format!("{}{suffix}", String::from_utf8(other).unwrap());
            prop_assert!(other == stub || index.find(&other).is_none());
        }
    }
}
