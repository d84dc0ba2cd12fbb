//! What the agent and its tools see in their environment.

use std::collections::BTreeMap;
use std::path::Path;

use lap_harness::OpenRequest;

use crate::launch::LaunchDocument;

/// What may come through from sandboxd's own environment. Everything else stays outside.
const INHERITED: &[&str] = &["PATH", "LANG", "LC_ALL", "TERM", "TZ"];
/// Where programs are when the process was given no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// By this variable everything that runs in the sandbox is recognised, whoever started it.
pub(crate) const SANDBOX_MARKER: &str = "LAP_SANDBOX_ID";

/// Builds environments: always from nothing, never by inheriting.
#[derive(Debug)]
pub(crate) struct Environment {
    base: BTreeMap<String, String>,
    plain: BTreeMap<String, String>,
    platform: BTreeMap<String, String>,
}

impl Environment {
    pub(crate) fn new(
        process: impl IntoIterator<Item = (String, String)>,
        launch: &LaunchDocument,
        repo_url: Option<&str>,
        home: &Path,
    ) -> Self {
        let mut base: BTreeMap<_, _> = process
            .into_iter()
            .filter(|(name, _)| INHERITED.contains(&name.as_str()))
            .collect();
        base.entry("PATH".to_owned())
            .or_insert_with(|| DEFAULT_PATH.to_owned());
        base.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        base.insert(SANDBOX_MARKER.to_owned(), launch.sandbox.to_string());
        // Nobody sits in front of a sandbox to type a password.
        base.insert("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned());
        let mut platform = BTreeMap::from([
            ("LITELLM_API_BASE".to_owned(), launch.gateway.base.clone()),
            ("LITELLM_API_KEY".to_owned(), launch.gateway.key.clone()),
            (SANDBOX_MARKER.to_owned(), launch.sandbox.to_string()),
        ]);
        for (name, value) in [("REPO_URL", repo_url), ("BRANCH", launch.branch.as_deref())] {
            if let Some(value) = value {
                platform.insert(name.to_owned(), value.to_owned());
            }
        }
        Self {
            base,
            plain: launch.env.clone(),
            platform,
        }
    }

    /// For programs of the platform's own: no agent's variable reaches them.
    pub(crate) fn base(&self) -> &BTreeMap<String, String> {
        &self.base
    }

    /// The model of agents that name none.
    pub(crate) fn default_model(&self) -> Option<&str> {
        self.plain.get("LITELLM_DEFAULT_MODEL").map(String::as_str)
    }

    /// For a harness that runs before a session is bound. What the session binds reaches its tools later.
    pub(crate) fn for_harness(&self) -> BTreeMap<String, String> {
        let mut all = self.base.clone();
        all.extend(self.plain.clone());
        all.extend(self.platform.clone());
        clean(all)
    }

    /// For the harness and its tools. Plain variables, then the session's, then what the platform insists on.
    pub(crate) fn for_agent(&self, opening: &OpenRequest) -> BTreeMap<String, String> {
        let mut all = self.base.clone();
        all.extend(self.plain.clone());
        all.extend(opening.env.clone());
        all.insert("LITELLM_DEFAULT_MODEL".to_owned(), opening.model.clone());
        all.insert("SESSION_ID".to_owned(), opening.session.to_string());
        all.extend(self.platform.clone());
        clean(all)
    }
}

fn clean(mut all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.remove("GIT_TOKEN");
    // A name with '=' or a NUL anywhere would make every later spawn fail.
    all.retain(|name, value| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    all
}
