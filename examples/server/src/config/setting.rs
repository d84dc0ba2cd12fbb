//! What a setting is: one row of the table in [`super::table`].

/// One setting of the server: one environment variable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The name of the environment variable.
    pub(crate) name: &'static str,
    /// Where it stands in the documentation.
    pub(crate) group: Group,
    /// What values it takes.
    pub(crate) kind: Kind,
    /// What happens when it is not set.
    pub(crate) need: Need,
    /// Its value is never shown, and it may be given as a file: `<NAME>_FILE`.
    pub(crate) secret: bool,
    /// What it is, in one line.
    pub(crate) summary: &'static str,
    /// What else there is to know; may be empty.
    pub(crate) details: &'static str,
    /// A correct value, or for a secret the shape or a command that makes one.
    pub(crate) example: &'static str,
    /// What `.env.example` sets it to. `None` leaves it commented out with its default.
    pub(crate) template: Option<&'static str>,
}

/// What happens when a setting is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The server does not start without it, except that `--dev` fills it as described.
    Required(&'static str),
    /// It has this value.
    Default(&'static str),
    /// Its value depends on other settings, as described.
    Depends(&'static str),
    /// It stays unset, which means this.
    Optional(&'static str),
}

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// The address of a store; its scheme picks the store.
    Database,
    /// A secret of at least this many characters that fits into an HTTP header.
    Secret(usize),
    /// Base64 of exactly 32 bytes.
    EncryptionKey,
    /// An `http` or `https` address without credentials, query or fragment.
    HttpUrl,
    /// As `HttpUrl`; a trailing `/v1` is dropped, because the platform adds it.
    GatewayUrl,
    /// The address of a git repository without credentials.
    Repository,
    /// One line of text.
    Text,
    /// A container image reference.
    Image,
    /// A Kubernetes namespace.
    Namespace,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A whole number between these two, both included.
    Whole(u64, u64),
    /// A time in whole minutes between these two, both included.
    Minutes(u64, u64),
    /// A time in whole hours between these two, both included.
    Hours(u64, u64),
    /// An IP address or host name to listen on.
    Host,
    /// IP addresses and networks, separated by commas.
    Networks,
    /// A folder.
    Folder,
    /// A `tracing` filter. A lone word that is no level would silence the log.
    LogFilter(Lone),
}

impl Kind {
    /// What the values look like, for the documentation.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Database => "address of a store".into(),
            Self::Secret(1) => "secret".into(),
            Self::Secret(least) => format!("secret, at least {least} characters"),
            Self::EncryptionKey => "base64 of exactly 32 bytes".into(),
            Self::HttpUrl | Self::GatewayUrl => "http(s) URL".into(),
            Self::Repository => "git URL".into(),
            Self::Text => "text".into(),
            Self::Image => "image reference".into(),
            Self::Namespace => "Kubernetes name".into(),
            Self::Choice(words) => words.join(", "),
            Self::Switch => "true, false".into(),
            Self::Whole(least, most) => format!("whole number, {least} to {most}"),
            Self::Minutes(least, most) => format!("minutes, {least} to {most}"),
            Self::Hours(least, most) => format!("hours, {least} to {most}"),
            Self::Host => "IP address or host name".into(),
            Self::Networks => "IP addresses and networks".into(),
            Self::Folder => "folder".into(),
            Self::LogFilter(_) => "log filter".into(),
        }
    }
}

/// What a lone word in a log filter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lone {
    /// A level only.
    Level,
    /// A level or a module, as in any other program.
    Anything,
}

/// Where a setting stands in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The server does not start without these.
    Required,
    /// How the server runs and where it listens.
    Server,
    /// The log-in screen.
    Auth,
    /// What runs the sandboxes.
    Runtime,
    /// Container images of the harnesses.
    Images,
    /// The cluster that holds the sandboxes.
    Cluster,
    /// Sandboxes that are ready before anyone asks.
    WarmPool,
    /// Sessions and turns.
    Sessions,
    /// The public address and encryption at rest.
    Integrations,
    /// The Linear integration.
    Linear,
    /// Logs.
    Logs,
}

impl Group {
    /// Every group, in the order of the documentation.
    pub(crate) const ALL: [Self; 11] = [
        Self::Required,
        Self::Server,
        Self::Auth,
        Self::Runtime,
        Self::Images,
        Self::Cluster,
        Self::WarmPool,
        Self::Sessions,
        Self::Integrations,
        Self::Linear,
        Self::Logs,
    ];

    /// The heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Required => "Required",
            Self::Server => "Server",
            Self::Auth => "Auth",
            Self::Runtime => "Sandbox runtime",
            Self::Images => "Container images",
            Self::Cluster => "Cluster",
            Self::WarmPool => "Warm pool",
            Self::Sessions => "Sessions",
            Self::Integrations => "Integrations",
            Self::Linear => "Linear",
            Self::Logs => "Logs",
        }
    }

    /// What holds for all settings of the group; may be empty.
    pub(crate) const fn introduction(self) -> &'static str {
        match self {
            Self::Required => {
                "The server does not start without these. `--dev` fills every one that is unset."
            }
            Self::Images => {
                "An agent keeps the image it was created with. A change here reaches new agents only; delete and \
                 recreate an agent to give it the new image."
            }
            Self::WarmPool => {
                "Sandboxes that are started before anyone asks for them, so that a session opens in milliseconds."
            }
            Self::Linear => "The integration is on when all three are set. Otherwise its routes answer 404.",
            _ => "",
        }
    }
}

/// Text of the table without the marks of Markdown.
pub(crate) fn plain(text: &str) -> String {
    text.replace('`', "")
}
