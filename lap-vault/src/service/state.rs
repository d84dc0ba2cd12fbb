use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lap_core::id::{Entropy, SandboxId};
use lap_core::seal::{Sealed, Sealer};
use lap_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{read, write_atomically};

const VERSION: u32 = 1;
const CONTEXT: &str = "vault/root-key";

/// What survives a restart: the port, the root key of the stubs, and which sandbox has stubs of which names.
/// Values never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) port: Option<u16>,
    root_key: Sealed,
    pub(super) sandboxes: BTreeMap<Uuid, BTreeSet<String>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    port: Option<u16>,
    root_key: String,
    sandboxes: BTreeMap<Uuid, BTreeSet<String>>,
}

impl State {
    /// A state with a fresh root key and nothing attached.
    pub(super) fn fresh(sealer: &Sealer, entropy: &dyn Entropy) -> Result<Self> {
        let mut root = [0; 32];
        entropy.fill(&mut root);
        let root_key = sealer.seal(CONTEXT, &root, entropy)?;
        Ok(Self {
            port: None,
            root_key,
            sandboxes: BTreeMap::new(),
        })
    }

    /// The root key in the clear.
    pub(super) fn root_key(&self, sealer: &Sealer) -> Result<[u8; 32]> {
        let bytes = sealer.open(CONTEXT, &self.root_key)?;
        bytes
            .try_into()
            .map_err(|_| corrupt("the root key has another length"))
    }

    /// Which sandboxes were attached, with the names of their stubs.
    pub(super) fn attached(&self) -> impl Iterator<Item = (SandboxId, &BTreeSet<String>)> {
        self.sandboxes
            .iter()
            .map(|(sandbox, names)| (SandboxId::from_uuid(*sandbox), names))
    }
}

/// Where the state is kept; an embedded vault may keep it nowhere.
#[derive(Debug, Clone)]
pub(super) struct StateFile(pub(super) Option<PathBuf>);

impl StateFile {
    /// The stored state, or a fresh one.
    ///
    /// A file that cannot be read (another encryption key, damage) is set aside and a fresh state begins. Its
    /// stubs stop working, which fails closed; refusing to start would stop every sandbox instead.
    pub(super) fn load(&self, sealer: &Sealer, entropy: &dyn Entropy) -> Result<State> {
        let Some(path) = &self.0 else {
            return State::fresh(sealer, entropy);
        };
        let Some(bytes) = read(path)? else {
            return State::fresh(sealer, entropy);
        };
        match parse(&bytes).and_then(|state| state.root_key(sealer).map(|_| state)) {
            Ok(state) => Ok(state),
            Err(error) => {
                let aside = path.with_extension("unreadable");
                tracing::error!(
                    error = lap_core::error::chain(&error), kept_as = %aside.display(),
                    "the vault's state cannot be read; it starts afresh and earlier stubs are dead"
                );
                std::fs::rename(path, &aside)
                    .map_err(|error| super::files::failed("set vault state aside", path, error))?;
                State::fresh(sealer, entropy)
            }
        }
    }

    /// Stores the state.
    pub(super) fn store(&self, state: &State) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let stored = Stored {
            version: VERSION,
            port: state.port,
            root_key: STANDARD.encode(state.root_key.as_text()),
            sandboxes: state.sandboxes.clone(),
        };
        let bytes = serde_json::to_vec(&stored).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "write vault state",
                "the state has no JSON form",
            )
            .with_source(error)
        })?;
        write_atomically(path, &bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<State> {
    // The parser's message is left out: it can quote what it read.
    let stored: Stored =
        serde_json::from_slice(bytes).map_err(|_| corrupt("the file is not a vault state"))?;
    if stored.version != VERSION {
        return Err(corrupt("the file was written by another version"));
    }
    let root_key = STANDARD
        .decode(&stored.root_key)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| corrupt("the root key is damaged"))?;
    Ok(State {
        port: stored.port,
        root_key: Sealed::from_text(root_key),
        sandboxes: stored.sandboxes,
    })
}

fn corrupt(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "read vault state", message)
}

#[cfg(test)]
mod tests {
    use lap_core::id::SeededEntropy;

    use super::*;

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    #[test]
    fn a_state_survives_and_its_root_key_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile(Some(folder.path().join("state.json")));
        let (sealer, entropy) = (Sealer::from_base64(KEY).unwrap(), SeededEntropy::new(1));
        let mut state = file.load(&sealer, &entropy).unwrap();
        state.port = Some(4321);
        state
            .sandboxes
            .insert(Uuid::from_u128(7), BTreeSet::from(["LITELLM_API_KEY".to_owned()]));
        file.store(&state).unwrap();
        assert_eq!(file.load(&sealer, &entropy).unwrap(), state);
        let text = std::fs::read_to_string(file.0.as_ref().unwrap()).unwrap();
        assert!(!text.contains(&STANDARD.encode(state.root_key(&sealer).unwrap())));
    }

    #[test]
    fn an_unreadable_state_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile(Some(folder.path().join("state.json")));
        let entropy = SeededEntropy::new(1);
        let sealed = file.load(&Sealer::from_base64(KEY).unwrap(), &entropy).unwrap();
        file.store(&sealed).unwrap();
        let fresh = file.load(&Sealer::plaintext(), &entropy).unwrap();
        assert_ne!(fresh, sealed);
        assert!(folder.path().join("state.unreadable").exists());
    }
}
