use super::super::setting::{Kind, Need};
use super::super::table::{SETTINGS, find};
use super::*;

#[test]
fn rows_are_complete_and_unique_and_grouped() {
    for setting in SETTINGS {
        assert_eq!(
            SETTINGS.iter().filter(|other| other.name == setting.name).count(),
            1,
            "{}",
            setting.name
        );
        assert!(
            !setting.summary.is_empty() && !setting.example.is_empty(),
            "{} is incomplete",
            setting.name
        );
        assert!(
            setting.summary.len() <= 110,
            "the summary of {} is too long",
            setting.name
        );
        let keeps_secret = matches!(
            setting.kind,
            Kind::Secret(_) | Kind::EncryptionKey | Kind::Database
        );
        assert_eq!(setting.secret, keeps_secret, "{}", setting.name);
    }
    let order: Vec<_> = SETTINGS.iter().map(|setting| setting.group as usize).collect();
    assert!(order.is_sorted(), "rows of one group stand together");
}

#[test]
fn fixed_defaults_examples_and_templates_pass_their_own_validation() {
    for setting in SETTINGS {
        if let Need::Default(text) = setting.need {
            assert!(
                setting.kind.parse(text).is_ok(),
                "the default of {} is refused",
                setting.name
            );
        }
        if !setting.secret {
            assert!(
                setting.kind.parse(setting.example).is_ok(),
                "the example of {} is refused",
                setting.name
            );
        }
        if let Some(text) = setting.template.filter(|text| !text.is_empty()) {
            assert!(
                setting.kind.parse(text).is_ok(),
                "the template of {} is refused",
                setting.name
            );
        }
    }
}

#[test]
fn the_five_required_settings_of_the_reference_are_required() {
    let required = SETTINGS
        .iter()
        .filter(|setting| matches!(setting.need, Need::Required(_)));
    let required: Vec<_> = required.map(|setting| setting.name).collect();
    assert_eq!(required, FIVE.map(|(name, _)| name));
}

#[test]
fn the_defaults_of_the_reference_hold() {
    for (name, default) in [
        ("UI_USERNAME", "admin"),
        ("K8S_HARNESS_IMAGE", "opencode-sandbox:dev"),
        ("K8S_NAMESPACE", "default"),
        ("K8S_IMAGE_PULL_POLICY", "Never"),
        ("WARM_POOL_SIZE", "2"),
        ("WARM_POOL_TTL_MINUTES", "30"),
        ("WARM_POOL_MAX_PROVISIONING", "2"),
        ("WARM_POOL_RECENT_AGENT_HOURS", "24"),
        ("PORT", "3000"),
        ("LAP_ENV", "development"),
    ] {
        assert_eq!(find(name).unwrap().need, Need::Default(default), "{name}");
    }
    assert_eq!(
        find("PREINSTALLED_GITHUB_REPO").unwrap().template,
        Some("https://github.com/BerriAI/litellm")
    );
}

#[test]
fn no_wrong_value_of_any_setting_is_repeated() {
    for setting in SETTINGS {
        for wrong in [
            "canary",
            "canary \u{7} bell",
            "canáry canary",
            "canary://canary",
            "https://canary:canary@canary",
            "-1",
        ] {
            if setting.kind.parse(wrong).is_ok() {
                continue;
            }
            let report = load_five(&[(setting.name, wrong)]).expect_err(setting.name);
            assert!(
                names(&report).contains(&setting.name),
                "{} is not named: {report}",
                setting.name
            );
            let text = format!("{report} {report:?}");
            assert!(
                !text.contains("canar"),
                "{} repeats its value: {text}",
                setting.name
            );
        }
    }
}
