//! One value at a time: what is understood, and what is refused for which reason.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one table of values")]
fn right_values_are_understood() {
    let shown = |name: &str, value: &str| {
        let config = load_five(&[(name, value)]).unwrap_or_else(|report| panic!("{name}={value}: {report}"));
        config
            .effective
            .iter()
            .find(|setting| setting.name == name)
            .unwrap()
            .value
            .clone()
    };
    for (name, value, understood) in [
        ("DATABASE_URL", "sqlite://lap.db", "sqlite:lap.db"),
        (
            "DATABASE_URL",
            "sqlite:///srv/lap.db?mode=rwc",
            "sqlite:/srv/lap.db",
        ),
        ("DATABASE_URL", "postgres://u:canary@h/db", "(hidden)"),
        (
            "DATABASE_URL",
            "postgresql://h/db?sslmode=verify-full",
            "(hidden)",
        ),
        (
            "LITELLM_API_BASE",
            "http://10.0.0.1:4000///",
            "http://10.0.0.1:4000",
        ),
        (
            "LITELLM_API_BASE",
            "https://x.example/openai/v1/",
            "https://x.example/openai",
        ),
        (
            "PREINSTALLED_GITHUB_REPO",
            "git@github.com:org/repo.git",
            "git@github.com:org/repo.git",
        ),
        (
            "PREINSTALLED_GITHUB_REPO",
            "ssh://git@github.com/org/repo",
            "ssh://git@github.com/org/repo",
        ),
        ("PREINSTALLED_GITHUB_REPO", "file:///srv/repo", "file:///srv/repo"),
        ("PORT", " 8080\n", "8080"),
        ("PORT", "0", "0"),
        ("BIND_HOST", "[::1]", "::1"),
        ("BIND_HOST", "localhost", "localhost"),
        ("LAP_TRUSTED_PROXIES", " 10.0.0.0/8 , ::1", "10.0.0.0/8,::1"),
        ("WARM_POOL_SIZE", "0", "0"),
        ("WARM_POOL_RECENT_AGENT_HOURS", "72", "72"),
        ("K8S_IMAGE_PULL_POLICY", "ifnotpresent", "IfNotPresent"),
        (
            "K8S_HARNESS_IMAGE_CODEX",
            "localhost:5000/a/b:1@sha256:00",
            "localhost:5000/a/b:1@sha256:00",
        ),
        ("BASE_URL", "https://lap.acme.dev/", "https://lap.acme.dev"),
        ("LAP_ALLOW_UNISOLATED", "True", "true"),
        ("LAP_LOG", "info,lap_core=debug", "info,lap_core=debug"),
        ("ENCRYPTION_KEY", ENCRYPTION_KEY, "(hidden)"),
    ] {
        assert_eq!(shown(name, value), understood, "{name}={value}");
    }
}

#[test]
fn wrong_values_are_refused_with_the_reason() {
    for (name, value, reason) in WRONG.iter().copied() {
        let (named, what) = only_problem(&[(name, value)]);
        assert_eq!(named, name);
        assert!(what.contains(reason), "{name}={value}: {what}");
    }
}

/// Setting, wrong value, and a part of the reason.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "DATABASE_URL",
        "postgres://u:canary@h:port/db",
        "not an address of a PostgreSQL database",
    ),
    (
        "DATABASE_URL",
        "postgresql://u:canary@ep-x-1-pooler.eu-central-1.aws.neon.tech/db",
        "name the direct host ep-x-1.eu-central-1.aws.neon.tech",
    ),
    ("DATABASE_URL", "mysql://h/db", "known ones are sqlite:"),
    ("DATABASE_URL", "sqlite::memory:", "name a file"),
    ("DATABASE_URL", "sqlite:", "does not name a file"),
    ("DATABASE_URL", "sqlite:lap.db?mode=ro", "path of the file alone"),
    ("MASTER_KEY", "1234567", "at least 8 characters"),
    ("MASTER_KEY", "pass\u{f6}rd-long", "not ASCII"),
    ("LITELLM_API_BASE", "gateway", "is not a URL"),
    ("LITELLM_API_BASE", "ftp://gateway", "http:// or https://"),
    (
        "LITELLM_API_BASE",
        "https://user:canary@gateway",
        "user name or password",
    ),
    ("LITELLM_API_BASE", "https://gateway?x=1", "query"),
    ("LITELLM_API_KEY", "a\u{1}b", "control character"),
    (
        "PREINSTALLED_GITHUB_REPO",
        "https://canary@github.com/a/b",
        "CONTAINER_ENV_GIT_TOKEN",
    ),
    ("PREINSTALLED_GITHUB_REPO", "ext::sh -c true", "is not a URL"),
    ("PREINSTALLED_GITHUB_REPO", "ext::true", "git repository"),
    ("PREINSTALLED_GITHUB_REPO", "-oProxyCommand=x@h:p", "is not a URL"),
    ("LAP_ENV", "staging", "development, production"),
    ("PORT", "65536", "too large"),
    ("PORT", "99999999999999999999999", "too large"),
    ("PORT", "-1", "negative"),
    ("PORT", "80.5", "not a whole number"),
    ("WARM_POOL_TTL_MINUTES", "0", "too small"),
    ("WARM_POOL_MAX_PROVISIONING", "0", "too small"),
    ("WARM_POOL_RECENT_AGENT_HOURS", "two", "not a whole number"),
    ("K8S_NAMESPACE", "My_Space", "not a Kubernetes name"),
    ("K8S_HARNESS_IMAGE", "two words", "not an image reference"),
    (
        "K8S_IMAGE_PULL_POLICY",
        "Sometimes",
        "Never, IfNotPresent, Always",
    ),
    ("BIND_HOST", "1.2.3.4:80", "neither an IP address"),
    ("BIND_HOST", "1.2.3.400", "neither an IP address"),
    (
        "LAP_TRUSTED_PROXIES",
        "10.0.0.0/8, proxy",
        "neither an IP address nor a network",
    ),
    (
        "LAP_TRUSTED_PROXIES",
        "10.0.0.0/64",
        "neither an IP address nor a network",
    ),
    ("LAP_ALLOW_UNISOLATED", "yes", "neither true nor false"),
    ("LAP_LOG", "verbose", "not a log filter"),
    ("RUST_LOG", "a=b=c", "not a log filter"),
    ("LAP_RUNTIME", "kubernetes", "not part of this build yet"),
    ("LAP_RUNTIME", "docker", "kubernetes, local"),
    ("ENCRYPTION_KEY", "c2hvcnQ=", "openssl rand -base64 32"),
    ("ENCRYPTION_KEY", "not base64!", "openssl rand -base64 32"),
];
