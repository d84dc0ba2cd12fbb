//! Who asks. Every command carries a [`Caller`]; it is recorded on rows and events.

use std::collections::BTreeSet;

/// The person or program on whose behalf a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    principal: String,
    scopes: BTreeSet<String>,
}

impl Caller {
    /// A caller that may do everything.
    pub fn new(principal: impl Into<String>) -> Self {
        Self {
            principal: principal.into(),
            scopes: BTreeSet::from(["*".to_owned()]),
        }
    }

    /// A caller with these scopes only.
    pub fn with_scopes(principal: impl Into<String>, scopes: impl IntoIterator<Item = String>) -> Self {
        Self {
            principal: principal.into(),
            scopes: scopes.into_iter().collect(),
        }
    }

    /// The name recorded as `created_by`.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Whether the caller has the scope, by name or through `*`.
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.contains("*") || self.scopes.contains(scope)
    }
}

impl Default for Caller {
    /// The holder of the master key, known as `ui` since the original system.
    fn default() -> Self {
        Self::new("ui")
    }
}
