//! What a backend can do, as data. The engine checks before it calls and refuses; it never ignores.

use crate::sandbox::Place;

/// How well sandboxes are kept apart from the platform and from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Not at all: the agent runs as the server's user and can read what the server can read.
    None,
    /// Linux user, mount and process namespaces.
    UserNamespaces,
    /// A user id of its own.
    Uid,
    /// A container of a cluster.
    Container,
}

impl Isolation {
    /// The word shown to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::UserNamespaces => "userns",
            Self::Uid => "uid",
            Self::Container => "container",
        }
    }
}

/// Whether traffic can go around the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Egress {
    /// The system closes every other way out.
    Enforced,
    /// Programs that ignore their proxy settings get around it.
    Advisory,
}

/// What a runtime can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Where its sandboxes live.
    pub place: Place,
    /// How they are kept apart.
    pub isolation: Isolation,
    /// Whether the vault can be bypassed.
    pub egress: Egress,
    /// Commands can be run inside.
    pub exec: bool,
    /// A sandbox can be suspended and resumed.
    pub suspend: bool,
}

impl Capabilities {
    /// A runtime at `place` that promises nothing else.
    pub const fn at(place: Place) -> Self {
        Self {
            place,
            isolation: Isolation::None,
            egress: Egress::Advisory,
            exec: false,
            suspend: false,
        }
    }

    /// Says how sandboxes are kept apart.
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Says whether the vault can be bypassed.
    #[must_use]
    pub const fn with_egress(mut self, egress: Egress) -> Self {
        self.egress = egress;
        self
    }
}
