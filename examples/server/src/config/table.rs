//! The one table of settings. The loader, `.env.example`, `docs/configuration.md`, `--help` and the output of
//! `lap-server config` all come from it.

use super::setting::{Group, Kind, Lone, Need, Setting};

const MINUTES_PER_YEAR: u64 = 525_600;
const HOURS_PER_YEAR: u64 = 8_760;

/// What every row starts from.
const ROW: Setting = Setting {
    name: "",
    group: Group::Server,
    kind: Kind::Text,
    need: Need::Optional(""),
    secret: false,
    summary: "",
    details: "",
    example: "",
    template: None,
};

/// The setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Every setting, in the order of the documentation.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "DATABASE_URL",
        group: Group::Required,
        kind: Kind::Database,
        need: Need::Required("a SQLite file in the data folder"),
        secret: true,
        summary: "Where agents, sessions and events are stored. The scheme picks the store.",
        details: "`sqlite:lap.db` and `sqlite://lap.db` name a file relative to the working directory, \
                  `sqlite:///srv/lap.db` an absolute one. `postgres://user:password@host/database` (or \
                  `postgresql://`) names a PostgreSQL database, which any number of servers may share; the tables live \
                  in its schema `lap` and are made at the start, or before it by `lap-server migrate`. It has to be a \
                  direct connection, or a pooler in session mode: a transaction pooler is refused (on Neon, choose \
                  \"Direct\" in the connection details). Add `sslmode=verify-full` to check the server's certificate.",
        example: "sqlite:lap-data/lap.db",
        template: Some("sqlite:lap-data/lap.db"),
    },
    Setting {
        name: "MASTER_KEY",
        group: Group::Required,
        kind: Kind::Secret(8),
        need: Need::Required("a generated key, kept in the data folder and printed once"),
        secret: true,
        summary: "Bearer token of every API call and password of the web page.",
        details: "At least 8 ASCII characters. Treat it as a production secret. Make one with `openssl rand -hex 24`.",
        example: "$(openssl rand -hex 24)",
        template: Some(""),
    },
    Setting {
        name: "LITELLM_API_BASE",
        group: Group::Required,
        kind: Kind::GatewayUrl,
        need: Need::Required("the built-in demo model"),
        summary: "Base address of the LiteLLM gateway through which agents reach language models.",
        details: "Any OpenAI-compatible gateway works. Trailing slashes and a trailing `/v1` are dropped; the \
                  platform adds `/v1` itself.",
        example: "https://your-litellm-proxy.example.com",
        template: Some(""),
        ..ROW
    },
    Setting {
        name: "LITELLM_API_KEY",
        group: Group::Required,
        kind: Kind::Secret(1),
        need: Need::Required("the built-in demo model"),
        secret: true,
        summary: "Key of the gateway above. Agents only ever see a stub in its place.",
        details: "The vault swaps the stub for the key on its way to the gateway; the key itself never enters a \
                  sandbox. A gateway that asks for no key still needs some text here.",
        example: "sk-...",
        template: Some(""),
    },
    Setting {
        name: "PREINSTALLED_GITHUB_REPO",
        group: Group::Required,
        kind: Kind::Repository,
        need: Need::Required("nothing is cloned"),
        summary: "Git repository that is cloned into the sandbox when the agent has no `repo_url`.",
        details: "It must not hold a user name or token, because agents can read it. A private repository takes its \
                  token from `CONTAINER_ENV_GIT_TOKEN`.",
        example: "https://github.com/your-org/your-repo",
        template: Some("https://github.com/BerriAI/litellm"),
        ..ROW
    },
    Setting {
        name: "LAP_ENV",
        group: Group::Server,
        kind: Kind::Choice(&["development", "production"]),
        need: Need::Default("development"),
        summary: "What the server insists on.",
        details: "In `production` it refuses to start without `ENCRYPTION_KEY`, without an explicit `LAP_RUNTIME`, and \
                  with sandboxes that are not isolated (see `LAP_ALLOW_UNISOLATED`).",
        example: "production",
        ..ROW
    },
    Setting {
        name: "PORT",
        group: Group::Server,
        kind: Kind::Whole(0, 65_535),
        need: Need::Default("3000"),
        summary: "Port the server listens on; 0 takes any free one.",
        details: "The flag `--port` wins.",
        example: "3000",
        ..ROW
    },
    Setting {
        name: "BIND_HOST",
        group: Group::Server,
        kind: Kind::Host,
        need: Need::Depends("127.0.0.1 with --dev, else 0.0.0.0"),
        summary: "Address the server listens on.",
        details: "The flag `--bind` wins.",
        example: "0.0.0.0",
        ..ROW
    },
    Setting {
        name: "LAP_TRUSTED_PROXIES",
        group: Group::Server,
        kind: Kind::Networks,
        need: Need::Optional("no proxy is trusted"),
        summary: "Proxies in front of the server, whose `X-Forwarded-For` is believed.",
        details: "Peers with wrong keys are slowed down. Behind a proxy that is not named here everybody is one peer.",
        example: "10.0.0.0/8,127.0.0.1",
        ..ROW
    },
    Setting {
        name: "LAP_DATA_DIR",
        group: Group::Server,
        kind: Kind::Folder,
        need: Need::Depends(".lap with --dev, else lap-data, both in the working directory"),
        summary: "Folder for what this machine keeps: sandboxes, generated keys, the identity of the host.",
        details: "One server per folder. The flag `--data-dir` wins.",
        example: "/var/lib/lap",
        ..ROW
    },
    Setting {
        name: "UI_USERNAME",
        group: Group::Auth,
        kind: Kind::Text,
        need: Need::Default("admin"),
        summary: "Name shown on the log-in screen.",
        details: "Cosmetic: the password is `MASTER_KEY`, whatever the name.",
        example: "admin",
        ..ROW
    },
    Setting {
        name: "LAP_RUNTIME",
        group: Group::Runtime,
        kind: Kind::Choice(&["kubernetes", "local"]),
        need: Need::Depends("local, with a warning unless --dev is given; an error in production"),
        summary: "What runs the sandboxes.",
        details: "`local` runs them as processes of this machine. `kubernetes` is known but not part of this build \
                  yet, so it is refused.",
        example: "local",
        ..ROW
    },
    Setting {
        name: "LAP_ALLOW_UNISOLATED",
        group: Group::Runtime,
        kind: Kind::Switch,
        need: Need::Default("false"),
        summary: "Lets production run sandboxes that are not isolated from the server's machine.",
        details: "Without isolation an agent can read and change what the user of the server can. Set it only where \
                  every agent is trusted or the whole machine is the sandbox.",
        example: "true",
        ..ROW
    },
    Setting {
        name: "LAP_ISOLATION",
        group: Group::Runtime,
        kind: Kind::Choice(&["auto", "userns", "none"]),
        need: Need::Default("auto"),
        summary: "How sandboxes of the local runtime are kept apart from the machine.",
        details: "`userns` puts each into namespaces of its own, by bubblewrap or util-linux's `unshare`: it sees its \
                  folder and a read-only system, not the server's files and processes. `auto` does the same where \
                  this machine can (`lap-server doctor` tells) and `none` otherwise. See docs/isolation.md.",
        example: "userns",
        ..ROW
    },
    Setting {
        name: "LAP_ISOLATION_VISIBLE",
        group: Group::Runtime,
        kind: Kind::Text,
        need: Need::Optional("isolated sandboxes see the system folders only"),
        summary: "What isolated sandboxes see read-only besides the system: paths separated by colons.",
        details: "For harnesses and tools outside of `/usr`. Every agent can read what lies there.",
        example: "/opt/node:/srv/tools",
        ..ROW
    },
    Setting {
        name: "LAP_SANDBOX_MEMORY_MIB",
        group: Group::Runtime,
        kind: Kind::Whole(0, 67_108_864),
        need: Need::Default("4096"),
        summary: "Memory one sandbox of the local runtime may use, in MiB; 0 sets no limit.",
        details: "The kernel enforces it where the server's control group is delegated to it (cgroup v2); elsewhere a \
                  sandbox that uses more is killed within seconds. Either way the reason is told.",
        example: "8192",
        ..ROW
    },
    Setting {
        name: "LAP_SANDBOX_PROCESSES",
        group: Group::Runtime,
        kind: Kind::Whole(0, 100_000),
        need: Need::Default("512"),
        summary: "Processes one sandbox of the local runtime may have; 0 sets no limit.",
        example: "1024",
        ..ROW
    },
    Setting {
        name: "LAP_HARNESS",
        group: Group::Runtime,
        kind: Kind::Choice(lap_harness::names::HARNESSES),
        need: Need::Depends("builtin with the local runtime, opencode on Kubernetes"),
        summary: "Harness of agents that are created without a `harness_id`.",
        details: "`builtin` needs nothing installed. The others must be installed where sandboxes run.",
        example: "opencode",
        ..ROW
    },
    Setting {
        name: "K8S_HARNESS_IMAGE",
        group: Group::Images,
        kind: Kind::Image,
        need: Need::Default("opencode-sandbox:dev"),
        summary: "Image of sandbox pods whose harness has no image of its own below.",
        example: "registry.example.com/opencode-sandbox:1",
        ..ROW
    },
    harness_image(
        "K8S_HARNESS_IMAGE_OPENCODE",
        "Image of the `opencode` harness.",
        "opencode-sandbox:1",
    ),
    harness_image(
        "K8S_HARNESS_IMAGE_CLAUDE_SDK",
        "Image of the `claude-agent-sdk` harness.",
        "claude-sdk-sandbox:1",
    ),
    harness_image(
        "K8S_HARNESS_IMAGE_CLAUDE_CODE",
        "Image of the `claude-code` harness.",
        "claude-code-sandbox:1",
    ),
    harness_image(
        "K8S_HARNESS_IMAGE_CODEX",
        "Image of the `codex` harness.",
        "codex-sandbox:1",
    ),
    Setting {
        name: "K8S_NAMESPACE",
        group: Group::Cluster,
        kind: Kind::Namespace,
        need: Need::Default("default"),
        summary: "Namespace in which sandbox resources and their NodePort services are made.",
        example: "lap",
        ..ROW
    },
    Setting {
        name: "K8S_IMAGE_PULL_POLICY",
        group: Group::Cluster,
        kind: Kind::Choice(&["Never", "IfNotPresent", "Always"]),
        need: Need::Default("Never"),
        summary: "Image pull policy of every sandbox pod.",
        details: "`Never` suits images loaded straight into a kind cluster. With a registry choose `IfNotPresent` or \
                  `Always`, or pods fail with ErrImageNeverPull.",
        example: "IfNotPresent",
        ..ROW
    },
    Setting {
        name: "WARM_POOL_SIZE",
        group: Group::WarmPool,
        kind: Kind::Whole(0, 10_000),
        need: Need::Default("2"),
        summary: "How many warm sandboxes to keep, over all recently active agents. 0 turns the pool off.",
        example: "10",
        ..ROW
    },
    Setting {
        name: "WARM_POOL_TTL_MINUTES",
        group: Group::WarmPool,
        kind: Kind::Minutes(1, MINUTES_PER_YEAR),
        need: Need::Default("30"),
        summary: "Age at which a warm sandbox is replaced by a fresh one.",
        details: "This keeps warm sandboxes from falling behind the harness image.",
        example: "60",
        ..ROW
    },
    Setting {
        name: "WARM_POOL_MAX_PROVISIONING",
        group: Group::WarmPool,
        kind: Kind::Whole(1, 1_000),
        need: Need::Default("2"),
        summary: "How many sandboxes the pool starts at the same time.",
        details: "Raise it with a large `WARM_POOL_SIZE` to fill the pool faster after a restart of the cluster.",
        example: "5",
        ..ROW
    },
    Setting {
        name: "WARM_POOL_RECENT_AGENT_HOURS",
        group: Group::WarmPool,
        kind: Kind::Hours(1, HOURS_PER_YEAR),
        need: Need::Default("24"),
        summary: "Only agents that had a session in this many past hours get warm sandboxes.",
        example: "72",
        ..ROW
    },
    Setting {
        name: "LAP_SESSION_IDLE_MINUTES",
        group: Group::Sessions,
        kind: Kind::Minutes(1, MINUTES_PER_YEAR),
        need: Need::Default("15"),
        summary: "How long a session may be idle before its sandbox is given back.",
        details: "Counted from the last thing anyone sent to the session. A running turn is not idle.",
        example: "60",
        ..ROW
    },
    Setting {
        name: "LAP_TURN_TIMEOUT_MINUTES",
        group: Group::Sessions,
        kind: Kind::Minutes(1, 1_440),
        need: Need::Default("30"),
        summary: "How long one turn of an agent may take before it is ended as failed.",
        example: "120",
        ..ROW
    },
    Setting {
        name: "BASE_URL",
        group: Group::Integrations,
        kind: Kind::HttpUrl,
        need: Need::Depends(
            "RENDER_EXTERNAL_URL when that is set, else http://localhost:3000 with the port of PORT",
        ),
        summary: "Public address of this deployment, from which OAuth redirects and webhook addresses are built.",
        details: "Use https in public. Trailing slashes are dropped.",
        example: "https://lap.acme.dev",
        ..ROW
    },
    Setting {
        name: "RENDER_EXTERNAL_URL",
        group: Group::Integrations,
        kind: Kind::HttpUrl,
        need: Need::Optional("BASE_URL is not filled from it"),
        summary: "Set by Render; fills `BASE_URL` when that is unset.",
        example: "https://lap.onrender.com",
        ..ROW
    },
    Setting {
        name: "ENCRYPTION_KEY",
        group: Group::Integrations,
        kind: Kind::EncryptionKey,
        need: Need::Optional(
            "secrets are stored as plain text, with a warning; an error in production; generated with --dev",
        ),
        secret: true,
        summary: "Key that encrypts OAuth tokens and secrets of agents at rest in the database.",
        details: "Make one with `openssl rand -base64 32`. Keep it: what was stored under one key opens with that key \
                  only.",
        example: "$(openssl rand -base64 32)",
        ..ROW
    },
    Setting {
        name: "LINEAR_CLIENT_ID",
        group: Group::Linear,
        kind: Kind::Text,
        need: Need::Optional("Linear is off"),
        summary: "Client id of your Linear OAuth application.",
        details: "Create one at linear.app/settings/api/applications/new with the redirect address \
                  `${BASE_URL}/api/integrations/oauth/linear/callback`.",
        example: "0123456789abcdef",
        ..ROW
    },
    Setting {
        name: "LINEAR_CLIENT_SECRET",
        group: Group::Linear,
        kind: Kind::Secret(1),
        need: Need::Optional("Linear is off"),
        secret: true,
        summary: "Client secret of the same application.",
        example: "lin_...",
        ..ROW
    },
    Setting {
        name: "LINEAR_WEBHOOK_SECRET",
        group: Group::Linear,
        kind: Kind::Secret(1),
        need: Need::Optional("Linear is off"),
        secret: true,
        summary: "Webhook secret from Linear.",
        details: "Set the webhook address to `${BASE_URL}/api/integrations/webhooks/linear` and turn on the category \
                  \"Agent session events\".",
        example: "lin_wh_...",
        ..ROW
    },
    Setting {
        name: "LAP_LOG",
        group: Group::Logs,
        kind: Kind::LogFilter(Lone::Level),
        need: Need::Depends("RUST_LOG when that is set, else info"),
        summary: "What is logged: a level, or levels per module.",
        example: "info,lap_core=debug",
        ..ROW
    },
    Setting {
        name: "RUST_LOG",
        group: Group::Logs,
        kind: Kind::LogFilter(Lone::Anything),
        need: Need::Optional("LAP_LOG is not filled from it"),
        summary: "Used when `LAP_LOG` is unset.",
        example: "debug",
        ..ROW
    },
    Setting {
        name: "LAP_LOG_FORMAT",
        group: Group::Logs,
        kind: Kind::Choice(&["auto", "text", "json"]),
        need: Need::Default("auto"),
        summary: "Form of the log. `auto` writes text to a terminal and JSON otherwise.",
        example: "json",
        ..ROW
    },
];

/// The row of an image that falls back to `K8S_HARNESS_IMAGE`.
const fn harness_image(name: &'static str, summary: &'static str, example: &'static str) -> Setting {
    Setting {
        name,
        group: Group::Images,
        kind: Kind::Image,
        need: Need::Optional("K8S_HARNESS_IMAGE is used"),
        summary,
        example,
        ..ROW
    }
}
