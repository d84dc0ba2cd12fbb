//! The configuration as a person meets it: the real binary, in a folder of its own, with nothing in its environment.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::path::Path;
use std::process::{Command, Output};

const REQUIRED: [&str; 5] = [
    "DATABASE_URL",
    "MASTER_KEY",
    "LITELLM_API_BASE",
    "LITELLM_API_KEY",
    "PREINSTALLED_GITHUB_REPO",
];

const FIVE: [(&str, &str); 5] = [
    ("DATABASE_URL", "sqlite:lap.db"),
    ("MASTER_KEY", "canary-master-key"),
    ("LITELLM_API_BASE", "http://127.0.0.1:9"),
    ("LITELLM_API_KEY", "canary-gateway-key"),
    ("PREINSTALLED_GITHUB_REPO", "https://github.com/BerriAI/litellm"),
];

/// What the binary says and how it ends.
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lap-server"));
    command
        .current_dir(folder)
        .env_clear()
        .args(arguments)
        .envs(environment.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Answer {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}

#[test]
fn started_with_nothing_it_names_the_five_required_settings_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["serve"],
        &["check-config"],
        &["--check-config"],
        &["config"],
    ] {
        let answer = run(folder.path(), arguments, &[]);
        assert_eq!(answer.code, Some(2), "{arguments:?}: {}", answer.err);
        for name in REQUIRED {
            assert!(
                answer.err.contains(&format!("\n  {name}\n")),
                "{name} is not named: {}",
                answer.err
            );
            assert!(
                answer.err.contains(&format!("example: {name}=")),
                "{name} has no example: {}",
                answer.err
            );
        }
        assert!(
            answer.err.contains("5 settings are missing or wrong") && answer.err.contains("lap-server --dev")
        );
    }
    assert!(is_empty(folder.path()), "a refused start leaves no trace");
}

#[test]
fn ten_wrong_values_are_all_named_and_none_is_repeated() {
    let wrong = [
        ("DATABASE_URL", "mysql://user:canary-password@db.example/lap"),
        ("MASTER_KEY", "canary"),
        ("LITELLM_API_BASE", "https://user:canary-password@gateway.example"),
        ("LITELLM_API_KEY", "canary\u{e9}"),
        ("PREINSTALLED_GITHUB_REPO", "https://canary-token@github.com/a/b"),
        ("ENCRYPTION_KEY", "Y2FuYXJ5"),
        ("PORT", "canary-port"),
        ("WARM_POOL_SIZE", "canary-size"),
        ("K8S_IMAGE_PULL_POLICY", "canary-policy"),
        ("CONTAINER_ENV_LITELLM_API_KEY", "canary-passed-on"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let answer = run(folder.path(), &[], &wrong);
    assert_eq!(answer.code, Some(2));
    assert!(
        answer.err.contains("10 settings are missing or wrong"),
        "{}",
        answer.err
    );
    for (name, value) in wrong {
        assert!(
            answer.err.contains(&format!("\n  {name}\n")),
            "{name} is not named: {}",
            answer.err
        );
        assert!(!answer.err.contains(value), "{name} is repeated: {}", answer.err);
    }
    assert!(
        !format!("{}{}", answer.out, answer.err).contains("canary"),
        "{}",
        answer.err
    );
    assert!(answer.err.contains("openssl rand -base64 32"), "{}", answer.err);
}

#[test]
fn the_five_required_settings_alone_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let answer = run(folder.path(), &["check-config"], &FIVE);
    assert_eq!(
        (answer.code, answer.err.as_str()),
        (Some(0), ""),
        "{}",
        answer.out
    );
    assert!(answer.out.contains("The configuration is right."));
    assert!(answer.out.contains("warning: ENCRYPTION_KEY") && answer.out.contains("warning: LAP_RUNTIME"));
    assert!(is_empty(folder.path()), "checking leaves no trace");
}

#[test]
fn a_secret_comes_from_a_file_or_directly_but_not_both() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "canary-file-key\n").unwrap();
    let mut environment = FIVE.to_vec();
    environment.push(("MASTER_KEY_FILE", "key"));
    let both = run(folder.path(), &["check-config"], &environment);
    assert!(
        both.code == Some(2) && both.err.contains("MASTER_KEY_FILE is set in the environment"),
        "{}",
        both.err
    );
    environment.retain(|(name, _)| *name != "MASTER_KEY");
    assert_eq!(run(folder.path(), &["check-config"], &environment).code, Some(0));
    let shown = run(folder.path(), &["config"], &environment);
    assert!(
        shown.out.contains("by MASTER_KEY_FILE") && !shown.out.contains("canary"),
        "{}",
        shown.out
    );
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(".env"),
        "PORT=1111\nUI_USERNAME=file\nWARM_POOL_SIZE=7\n",
    )
    .unwrap();
    std::fs::write(folder.path().join("other.env"), "PORT=4444\n").unwrap();
    let line = |arguments: &[&str], environment: &[(&str, &str)], name: &str| {
        let answer = run(folder.path(), arguments, &[&FIVE, environment].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        let line = answer
            .out
            .lines()
            .find(|line| line.trim_start().starts_with(name))
            .unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&["config"], &[], "PORT"), "1111 in .env");
    assert_eq!(
        line(&["config"], &[("PORT", "2222")], "PORT"),
        "2222 in the environment"
    );
    assert_eq!(
        line(&["config", "--port", "3333"], &[("PORT", "2222")], "PORT"),
        "3333 by --port"
    );
    assert_eq!(
        line(&["config", "--env-file", "other.env"], &[], "PORT"),
        "4444 in other.env"
    );
    assert_eq!(
        line(&["config"], &[("UI_USERNAME", "")], "UI_USERNAME"),
        "admin by default"
    );
    assert_eq!(line(&["config"], &[], "WARM_POOL_SIZE"), "7 in .env");
    assert_eq!(
        line(&["config"], &[], "BASE_URL"),
        "http://localhost:1111 by default"
    );
}

#[test]
fn the_effective_configuration_hides_every_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = [
        ("ENCRYPTION_KEY", "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE="),
        ("LINEAR_CLIENT_ID", "linear-id"),
        ("LINEAR_CLIENT_SECRET", "canary-linear"),
        ("LINEAR_WEBHOOK_SECRET", "canary-webhook"),
        ("CONTAINER_ENV_NPM_TOKEN", "canary-npm"),
    ];
    let answer = run(folder.path(), &["config"], &[&FIVE[..], &secrets].concat());
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(
        !answer.out.contains("canary") && !answer.out.contains("Y2Fu"),
        "{}",
        answer.out
    );
    assert!(
        answer.out.contains("CONTAINER_ENV_NPM_TOKEN") && answer.out.contains("linear-id"),
        "{}",
        answer.out
    );
}

#[test]
fn dev_needs_nothing_and_looking_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [["config", "--dev"], ["check-config", "--dev"]] {
        let answer = run(folder.path(), &arguments, &[]);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    }
    assert!(is_empty(folder.path()));
}

#[test]
fn help_names_every_setting_and_version_names_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(folder.path(), &["--help"], &[]);
    let template = run(folder.path(), &["config", "--env-example"], &[]);
    let names = template
        .out
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='));
    let names: Vec<_> = names
        .map(|(name, _)| name)
        .filter(|name| !name.contains(' '))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names.iter().filter(|name| !name.starts_with("CONTAINER_ENV_")) {
        assert!(help.out.contains(name), "{name} is not in --help");
    }
    assert!(
        !help.out.contains("sandboxd") && !help.out.contains("vault "),
        "inner commands are hidden"
    );
    let version = run(folder.path(), &["--version"], &[]);
    assert!(
        version
            .out
            .starts_with(concat!("lap-server ", env!("CARGO_PKG_VERSION"))),
        "{}",
        version.out
    );
}

#[test]
fn the_template_becomes_right_when_its_gaps_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    let template = run(folder.path(), &["config", "--env-example"], &[]).out;
    std::fs::write(folder.path().join(".env"), &template).unwrap();
    let gaps = run(folder.path(), &["check-config"], &[]);
    assert!(
        gaps.code == Some(2) && gaps.err.contains("3 settings"),
        "{}",
        gaps.err
    );
    let filled = template
        .replace("\nMASTER_KEY=\n", "\nMASTER_KEY=long-enough\n")
        .replace(
            "\nLITELLM_API_BASE=\n",
            "\nLITELLM_API_BASE=https://gateway.example\n",
        )
        .replace("\nLITELLM_API_KEY=\n", "\nLITELLM_API_KEY=sk-x\n");
    std::fs::write(folder.path().join(".env"), filled).unwrap();
    let right = run(folder.path(), &["check-config"], &[]);
    assert_eq!(right.code, Some(0), "{}", right.err);
    assert!(!right.out.contains("did you mean"), "{}", right.out);
}

#[test]
fn doctor_reads_well_and_fails_on_what_would_fail() {
    let folder = tempfile::tempdir().unwrap();
    let fit = run(folder.path(), &["doctor", "--dev", "--port", "0"], &[]);
    assert_eq!((fit.code, fit.err.as_str()), (Some(0), ""), "{}", fit.out);
    for word in [
        "isolation",
        "opencode",
        "claude",
        "codex",
        "git",
        "npm install -g",
        "demo model",
        "free",
        "will be made",
    ] {
        assert!(fit.out.contains(word), "{word} is missing: {}", fit.out);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    std::fs::write(folder.path().join("not-a.db"), "this is no database").unwrap();
    let environment = [
        ("DATABASE_URL", "sqlite:not-a.db"),
        ("LITELLM_API_BASE", "http://127.0.0.1:9"),
        ("LITELLM_API_KEY", "canary-key"),
    ];
    let unfit = run(folder.path(), &["doctor", "--dev", "--port", &port], &environment);
    assert_eq!(unfit.code, Some(1), "{}", unfit.out);
    for word in [
        "FAIL  port",
        "is taken",
        "FAIL  gateway",
        "Connection refused",
        "FAIL  database",
        "is not a SQLite database",
    ] {
        assert!(unfit.out.contains(word), "{word} is missing: {}", unfit.out);
    }
    assert!(!unfit.out.contains("canary"));
    let bare = run(folder.path(), &["doctor"], &[]);
    assert!(
        bare.code == Some(1) && REQUIRED.iter().all(|name| bare.out.contains(name)),
        "{}",
        bare.out
    );
}

/// A committed text that is generated. `LAP_BLESS=1` writes it anew.
fn assert_in_step(file: &Path, generated: &str) {
    if std::env::var_os("LAP_BLESS").is_some() {
        std::fs::write(file, generated).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    let rule = "run: LAP_BLESS=1 cargo test -p lap-server --test configuration";
    assert!(
        committed == generated,
        "{} is not what the table of settings says; {rule}",
        file.display()
    );
}

#[test]
fn the_template_in_the_repository_is_in_step_with_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let generated = run(folder.path(), &["config", "--env-example"], &[]).out;
    assert_in_step(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.env.example"),
        &generated,
    );
}

#[test]
fn the_documentation_is_in_step_with_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let tables = run(folder.path(), &["config", "--markdown"], &[]).out;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = ("<!-- settings: begin -->\n", "<!-- settings: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    assert_in_step(&file, &format!("{before}{begin}\n{tables}\n{end}{after}"));
}
