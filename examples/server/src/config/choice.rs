//! The settings that are one of a few words, as types.

/// What the server insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Environment {
    /// Lenient: oddities are warnings.
    Development,
    /// Strict: what would be unsafe is refused.
    Production,
}

/// What runs the sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuntimeKind {
    /// Processes of this machine.
    Local,
    /// Pods of a cluster.
    Kubernetes,
}

/// How sandboxes of the local runtime are kept apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsolationChoice {
    /// As well as the machine can.
    Auto,
    /// By namespaces, or the server does not start.
    UserNamespaces,
    /// Not at all.
    None,
}

/// When a pod pulls its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    /// It must be on the node already.
    Never,
    /// When it is not on the node.
    IfNotPresent,
    /// At every start.
    Always,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

impl Environment {
    /// The choice of this word. The table has already refused any other.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "development" => Some(Self::Development),
            "production" => Some(Self::Production),
            _ => None,
        }
    }
}

impl RuntimeKind {
    /// The choice of this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "local" => Some(Self::Local),
            "kubernetes" => Some(Self::Kubernetes),
            _ => None,
        }
    }
}

impl IsolationChoice {
    /// The choice of this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "userns" => Some(Self::UserNamespaces),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl PullPolicy {
    /// The choice of this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "Never" => Some(Self::Never),
            "IfNotPresent" => Some(Self::IfNotPresent),
            "Always" => Some(Self::Always),
            _ => None,
        }
    }
}

impl LogFormat {
    /// The choice of this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}
