//! Rules between settings.

use super::super::{Gateway, RuntimeKind};
use super::*;

const PRODUCTION: [(&str, &str); 4] = [
    ("LAP_ENV", "production"),
    ("ENCRYPTION_KEY", ENCRYPTION_KEY),
    ("LAP_RUNTIME", "local"),
    ("LAP_ALLOW_UNISOLATED", "true"),
];

fn warned(config: &Config) -> Vec<&str> {
    config
        .warnings
        .iter()
        .map(|warning| warning.name.as_str())
        .collect()
}

#[test]
fn production_starts_when_everything_is_said() {
    let config = load_five(&PRODUCTION).unwrap();
    assert_eq!(config.runtime, RuntimeKind::Local);
    assert_eq!(warned(&config), ["BASE_URL"]);
    let config = load_five(&[&PRODUCTION[..], &[("BASE_URL", "http://lap.acme.dev")]].concat()).unwrap();
    assert!(config.warnings[0].to_string().contains("not an https address"));
    let config = load_five(&[&PRODUCTION[..], &[("BASE_URL", "https://lap.acme.dev")]].concat()).unwrap();
    assert!(config.warnings.is_empty());
}

#[test]
fn production_refuses_what_is_unsafe() {
    let without = |name: &str| {
        let rest: Vec<_> = PRODUCTION
            .into_iter()
            .filter(|(other, _)| *other != name)
            .collect();
        only_problem(&rest)
    };
    assert!(without("ENCRYPTION_KEY").1.contains("openssl rand -base64 32"));
    for name in ["ENCRYPTION_KEY", "LAP_RUNTIME", "LAP_ALLOW_UNISOLATED"] {
        assert_eq!(without(name).0, name);
    }
}

#[test]
fn production_refuses_dev() {
    let folder = tempfile::tempdir().unwrap();
    let report = load(&inputs(folder.path(), dev(), &PRODUCTION)).unwrap_err();
    assert_eq!(names(&report), ["LAP_ENV"]);
    assert!(
        folder.path().read_dir().unwrap().next().is_none(),
        "a refused start leaves no trace"
    );
}

#[test]
fn development_warns_of_what_production_refuses() {
    assert_eq!(
        warned(&load_five(&[]).unwrap()),
        ["ENCRYPTION_KEY", "LAP_RUNTIME"]
    );
    let quiet = load_five(&[("ENCRYPTION_KEY", ENCRYPTION_KEY), ("LAP_RUNTIME", "local")]).unwrap();
    assert!(quiet.warnings.is_empty());
}

#[test]
fn a_partly_set_linear_is_off_and_the_missing_ones_are_named() {
    let config = load_five(&[("LINEAR_CLIENT_ID", "id"), ("LINEAR_WEBHOOK_SECRET", "w")]).unwrap();
    assert!(config.linear.is_none());
    let warning = config
        .warnings
        .iter()
        .find(|warning| warning.name == "LINEAR_CLIENT_ID")
        .unwrap();
    assert!(warning.what.contains("LINEAR_CLIENT_SECRET is not"), "{warning}");
    let config = load_five(&[("LINEAR_CLIENT_SECRET", "s")]).unwrap();
    let warning = config
        .warnings
        .iter()
        .find(|warning| warning.name == "LINEAR_CLIENT_SECRET")
        .unwrap();
    assert!(
        warning
            .what
            .contains("LINEAR_CLIENT_ID and LINEAR_WEBHOOK_SECRET are not"),
        "{warning}"
    );
}

#[test]
fn names_that_are_nearly_right_are_pointed_out() {
    let config = load_five(&[
        ("WARM_POL_SIZE", "5"),
        ("MASTER_KEYS", "x"),
        ("PATH", "/bin"),
        ("HOME", "/"),
    ])
    .unwrap();
    let texts: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(
        texts.contains(&"WARM_POL_SIZE is not a setting of this server; did you mean WARM_POOL_SIZE?".into())
    );
    assert!(texts.iter().any(|text| text.starts_with("MASTER_KEYS")));
    assert!(
        !texts
            .iter()
            .any(|text| text.starts_with("PATH") || text.starts_with("HOME"))
    );
    assert!(
        warned(&load_five(&[("LINEAR_CLIENT_SECRET_FILE", "")]).unwrap()).len() == 2,
        "a known name is no mistake"
    );
}

#[test]
fn dev_takes_a_gateway_only_whole() {
    let folder = tempfile::tempdir().unwrap();
    let load = |environment: &[(&str, &str)]| load(&inputs(folder.path(), dev(), environment));
    let base = ("LITELLM_API_BASE", "http://127.0.0.1:4000");
    let key = ("LITELLM_API_KEY", "sk-x");
    assert!(matches!(load(&[]).unwrap().gateway, Gateway::Demo));
    assert!(
        matches!(load(&[base, key]).unwrap().gateway, Gateway::Configured { base, .. } if base == "http://127.0.0.1:4000")
    );
    assert_eq!(names(&load(&[base]).unwrap_err()), ["LITELLM_API_KEY"]);
    let config = load(&[key]).unwrap();
    assert!(matches!(config.gateway, Gateway::Demo));
    assert_eq!(warned(&config), ["LITELLM_API_KEY"]);
}

#[test]
fn isolation_is_tried_where_it_must_hold() {
    let folder = tempfile::tempdir().unwrap();
    let with = |can_isolate: fn() -> Result<(), String>, more: &[(&str, &str)]| {
        let mut given = inputs(folder.path(), Flags::default(), &[&FIVE, more].concat());
        given.can_isolate = can_isolate;
        load(&given)
    };
    let can = || Ok(());
    let cannot = || Err("nothing is installed".to_owned());
    let production = &PRODUCTION[..3];
    let none = [production, &[("LAP_ISOLATION", "none")]].concat();
    assert!(with(can, production).is_ok());
    assert_eq!(names(&with(can, &none).unwrap_err()), ["LAP_ALLOW_UNISOLATED"]);
    let report = with(cannot, production).unwrap_err();
    assert_eq!(names(&report), ["LAP_ALLOW_UNISOLATED"]);
    assert!(report.problems()[0].what.contains("nothing is installed"));

    let insisting = [("LAP_RUNTIME", "local"), ("LAP_ISOLATION", "userns")];
    assert!(with(can, &insisting).is_ok());
    assert_eq!(names(&with(cannot, &insisting).unwrap_err()), ["LAP_ISOLATION"]);
    // A development server that does not care starts without a try.
    let careless = [("LAP_RUNTIME", "local")];
    assert!(with(|| panic!("tried"), &careless).is_ok());
}
