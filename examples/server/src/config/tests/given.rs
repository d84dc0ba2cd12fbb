//! What is given, where it is found, and what it means.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use super::super::setting::Group;
use super::super::{Database, Environment, Gateway, LogFormat, PullPolicy, RuntimeKind};
use super::*;

#[test]
fn the_five_required_settings_alone_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let config = load(&inputs(folder.path(), Flags::default(), &FIVE)).unwrap();
    assert_eq!(config.environment, Environment::Development);
    assert!(matches!(&config.database, Database::Sqlite(file) if *file == folder.path().join("lap.db")));
    assert_eq!(config.data_dir, folder.path().join("lap-data"));
    assert!(config.master_key.matches("canary-master-key") && config.encryption_key.is_none());
    assert_eq!(
        (config.listen.host.as_str(), config.listen.port),
        ("0.0.0.0", 3000)
    );
    assert_eq!(config.base_url.url, "http://localhost:3000");
    assert_eq!(config.runtime, RuntimeKind::Local);
    assert_eq!(config.default_harness, "builtin");
    assert_eq!(config.ui_username, "admin");
    assert_eq!(config.images.of("codex"), "opencode-sandbox:dev");
    assert_eq!(config.cluster.image_pull_policy, PullPolicy::Never);
    assert_eq!((config.warm_pool.size, config.warm_pool.max_provisioning), (2, 2));
    assert_eq!(config.warm_pool.ttl, Duration::from_secs(30 * 60));
    assert_eq!(config.warm_pool.recent_agents, Duration::from_secs(24 * 3600));
    assert_eq!(config.session_idle, Duration::from_secs(15 * 60));
    assert_eq!(config.turn_timeout, Duration::from_secs(30 * 60));
    assert_eq!(
        (config.log.filter.as_str(), config.log.format),
        ("info", LogFormat::Auto)
    );
    assert!(config.linear.is_none() && config.container_env.plain.is_empty());
    assert!(
        folder.path().read_dir().unwrap().next().is_none(),
        "loading leaves no trace"
    );
}

#[test]
fn nothing_given_names_the_five() {
    let folder = tempfile::tempdir().unwrap();
    let report = load(&inputs(folder.path(), Flags::default(), &[])).unwrap_err();
    assert_eq!(names(&report), FIVE.map(|(name, _)| name));
}

#[test]
fn a_value_that_is_not_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs = inputs(folder.path(), Flags::default(), &FIVE);
    inputs
        .environment
        .push(("UI_USERNAME".into(), OsString::from_vec(vec![0xff])));
    inputs
        .environment
        .push((OsString::from_vec(vec![0xff]), "ignored".into()));
    assert_eq!(names(&load(&inputs).unwrap_err()), ["UI_USERNAME"]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(".env"),
        "PORT=1\nUI_USERNAME='file # user'\nLAP_LOG=debug\nK8S_NAMESPACE=a\n",
    )
    .unwrap();
    let environment = [&FIVE[..], &[("PORT", "2"), ("UI_USERNAME", "")]].concat();
    let flags = Flags {
        port: Some(3),
        ..Flags::default()
    };
    let with_flag = load(&inputs(folder.path(), flags, &environment)).unwrap();
    let without = load(&inputs(folder.path(), Flags::default(), &environment)).unwrap();
    let only_file = load(&inputs(folder.path(), Flags::default(), &FIVE)).unwrap();
    assert_eq!(
        (with_flag.listen.port, without.listen.port, only_file.listen.port),
        (3, 2, 1)
    );
    assert_eq!(only_file.ui_username, "file # user");
    assert_eq!(
        without.ui_username, "admin",
        "an empty variable hides the file and means unset"
    );
    assert_eq!(with_flag.log.filter, "debug");
    let source = |config: &Config, name: &str| {
        config
            .effective
            .iter()
            .find(|setting| setting.name == name)
            .unwrap()
            .source
            .clone()
    };
    assert_eq!(source(&with_flag, "PORT"), "by --port");
    assert_eq!(source(&without, "PORT"), "in the environment");
    assert_eq!(source(&only_file, "PORT"), "in .env");
}

#[test]
fn an_environment_file_that_cannot_be_understood_is_named_with_the_line_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("my.env"),
        "PORT=1\n\nMASTER_KEY=canary and canary\n",
    )
    .unwrap();
    let flags = Flags {
        env_file: Some("my.env".into()),
        ..Flags::default()
    };
    let report = load(&inputs(folder.path(), flags, &FIVE)).unwrap_err();
    assert_eq!(names(&report), ["my.env"]);
    assert!(
        report.to_string().contains("line 3") && !report.to_string().contains("canary"),
        "{report}"
    );
    let flags = Flags {
        env_file: Some("absent.env".into()),
        ..Flags::default()
    };
    let report = load(&inputs(folder.path(), flags, &FIVE)).unwrap_err();
    assert!(report.to_string().contains("there is no such file"), "{report}");
}

#[test]
fn every_secret_can_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = [
        ("DATABASE_URL", "sqlite:other.db"),
        ("MASTER_KEY", "from-a-file"),
        ("LITELLM_API_KEY", "sk-from-a-file"),
        ("ENCRYPTION_KEY", ENCRYPTION_KEY),
        ("LINEAR_CLIENT_SECRET", "s"),
        ("LINEAR_WEBHOOK_SECRET", "w"),
    ];
    let mut environment: Vec<(String, String)> = Vec::new();
    for (name, value) in text {
        std::fs::write(folder.path().join(name), format!("{value}\n")).unwrap();
        environment.push((format!("{name}_FILE"), name.into()));
    }
    environment.push(("LITELLM_API_BASE".into(), "https://gateway".into()));
    environment.push(("PREINSTALLED_GITHUB_REPO".into(), "https://github.com/a/b".into()));
    environment.push(("LINEAR_CLIENT_ID".into(), "id".into()));
    let mut inputs = inputs(folder.path(), Flags::default(), &[]);
    inputs.environment = environment
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let config = load(&inputs).unwrap();
    assert!(config.master_key.matches("from-a-file"));
    assert!(matches!(&config.database, Database::Sqlite(file) if *file == folder.path().join("other.db")));
    assert!(config.encryption_key.unwrap().matches(ENCRYPTION_KEY));
    let linear = config.linear.unwrap();
    assert!(
        linear.client_secret.matches("s") && linear.webhook_secret.matches("w") && linear.client_id == "id"
    );
    assert!(matches!(config.gateway, Gateway::Configured { key, .. } if key.matches("sk-from-a-file")));
}

#[test]
fn secret_files_that_do_not_work_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("key"), "long-enough").unwrap();
    std::fs::write(path("empty"), "\n").unwrap();
    std::fs::write(path("large"), vec![b'x'; 65 * 1024]).unwrap();
    std::fs::write(path("binary"), [0xff, 0xfe]).unwrap();
    let (_, what) = only_problem(&[("MASTER_KEY_FILE", &path("key"))]);
    assert!(what.contains("set one of the two"), "{what}");
    for (file, reason) in [
        ("absent-canary", "there is no such file"),
        ("", "it is a folder"),
        ("empty", "is empty"),
        ("large", "larger than 64 KiB"),
        ("binary", "not UTF-8"),
    ] {
        let (name, what) = only_problem(&[("MASTER_KEY", ""), ("MASTER_KEY_FILE", &path(file))]);
        assert!(name == "MASTER_KEY" && what.contains(reason), "{file}: {what}");
        assert!(!what.contains("canary"), "{what}");
    }
    assert!(
        load_five(&[("MASTER_KEY_FILE", "")]).is_ok(),
        "an empty variable means unset"
    );
}

#[test]
fn the_base_url_follows_render_and_the_port() {
    let render = ("RENDER_EXTERNAL_URL", "https://lap.onrender.com/");
    assert_eq!(
        load_five(&[render]).unwrap().base_url.url,
        "https://lap.onrender.com"
    );
    let both = load_five(&[render, ("BASE_URL", "https://lap.acme.dev")]).unwrap();
    assert_eq!(both.base_url.url, "https://lap.acme.dev");
    assert_eq!(both.bound_to(9).base_url.url, "https://lap.acme.dev");
    let assumed = load_five(&[("PORT", "0")]).unwrap().bound_to(4321);
    assert_eq!(
        (assumed.base_url.url.as_str(), assumed.listen.port),
        ("http://localhost:4321", 4321)
    );
    assert_eq!(
        load_five(&[("PORT", "8080")]).unwrap().base_url.url,
        "http://localhost:8080"
    );
    assert_eq!(load_five(&[("RUST_LOG", "warn")]).unwrap().log.filter, "warn");
    assert_eq!(
        load_five(&[("RUST_LOG", "warn"), ("LAP_LOG", "error")])
            .unwrap()
            .log
            .filter,
        "error"
    );
}

#[test]
fn images_fall_back_per_harness() {
    let config = load_five(&[
        ("K8S_HARNESS_IMAGE", "all:1"),
        ("K8S_HARNESS_IMAGE_CLAUDE_SDK", "sdk:1"),
    ])
    .unwrap();
    assert_eq!(config.images.of("claude-agent-sdk"), "sdk:1");
    assert_eq!(config.images.of("opencode"), "all:1");
    assert_eq!(config.images.of("unheard-of"), "all:1");
}

#[test]
fn what_is_passed_on_loses_its_prefix() {
    let config = load_five(&[
        ("CONTAINER_ENV_GITHUB_TOKEN", "canary-github"),
        ("CONTAINER_ENV_EMPTY", ""),
        ("CONTAINER_ENV_SPACED", " x "),
        ("CONTAINER_ENV_GIT_TOKEN", "canary-git\n"),
        ("CONTAINER_ENV_", "ignored"),
    ])
    .unwrap();
    let passed: Vec<_> = config
        .container_env
        .plain
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(
        passed,
        [
            ("EMPTY", ""),
            ("GITHUB_TOKEN", "canary-github"),
            ("SPACED", " x ")
        ]
    );
    assert!(
        config
            .container_env
            .git_token
            .as_ref()
            .unwrap()
            .matches("canary-git")
    );
    let last = config.effective.last().unwrap();
    assert_eq!(
        (last.name.as_str(), last.value.as_str()),
        ("CONTAINER_ENV_GIT_TOKEN", "(hidden)")
    );
    assert!(
        load_five(&[("CONTAINER_ENV_GIT_TOKEN", "")])
            .unwrap()
            .container_env
            .git_token
            .is_none()
    );
}

#[test]
fn reserved_and_malformed_names_are_refused() {
    for name in [
        "CONTAINER_ENV_LITELLM_API_KEY",
        "CONTAINER_ENV_PORT",
        "CONTAINER_ENV_LAP_X",
        "CONTAINER_ENV_https_proxy",
        "CONTAINER_ENV_SSL_CERT_FILE",
        "CONTAINER_ENV_HOME",
        "CONTAINER_ENV_1X",
        "CONTAINER_ENV_A-B",
    ] {
        assert_eq!(only_problem(&[(name, "canary")]).0, name);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(".env"),
        "CONTAINER_ENV_SESSION_ID=x\nCONTAINER_ENV_OK=from-file\n",
    )
    .unwrap();
    let report = load(&inputs(folder.path(), Flags::default(), &FIVE)).unwrap_err();
    assert_eq!(names(&report), ["CONTAINER_ENV_SESSION_ID"]);
}

#[test]
fn no_secret_shows_in_debug_or_in_the_effective_settings() {
    let config = load_five(&[
        ("ENCRYPTION_KEY", ENCRYPTION_KEY),
        ("CONTAINER_ENV_X", "canary-x"),
        ("CONTAINER_ENV_GIT_TOKEN", "canary-git"),
        ("LINEAR_CLIENT_ID", "id"),
        ("LINEAR_CLIENT_SECRET", "canary-linear"),
        ("LINEAR_WEBHOOK_SECRET", "canary-webhook"),
    ])
    .unwrap();
    let text = format!("{config:?}");
    assert!(config.linear.is_some());
    assert!(
        !text.contains("canary") && !text.contains(ENCRYPTION_KEY),
        "{text}"
    );
    assert!(
        config
            .effective
            .iter()
            .any(|setting| setting.group == Group::Linear.title())
    );
}
