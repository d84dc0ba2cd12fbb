//! What every door checks, whoever embeds the engine. Wire shapes are checked by the doors themselves.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::agent::AgentSpec;
use crate::environment::check_name;
use crate::error::{Error, Result};

const MAX_VARIABLES: usize = 50;
const MAX_ENVIRONMENT_BYTES: usize = 16_384;
const MAX_RULES: usize = 200;
const MAX_TEXT: usize = 256 * 1024;
const MAX_DEFINITION: usize = 384 * 1024;
/// Lists carry these of up to 200 agents.
const MAX_NAME: usize = 1024;

/// Names and sizes of variables that a caller gives to a sandbox.
pub(super) fn environment<'a>(
    operation: &'static str,
    field: &str,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    let (mut count, mut bytes) = (0, 0);
    for (name, value) in variables {
        count += 1;
        bytes += name.len() + value.len();
        let at = || format!("{field}.{}", name.chars().take(100).collect::<String>());
        if let Err(refusal) = check_name(name) {
            return Err(Error::invalid(
                operation,
                at(),
                format!("the variable name {refusal}"),
            ));
        }
        if value.contains('\0') {
            return Err(Error::invalid(operation, at(), "the value has a NUL byte"));
        }
    }
    if count > MAX_VARIABLES {
        return Err(Error::invalid(
            operation,
            field,
            format!("there are {count} variables; at most {MAX_VARIABLES} are allowed"),
        ));
    }
    if bytes > MAX_ENVIRONMENT_BYTES {
        let message =
            format!("the variables have {bytes} bytes; at most {MAX_ENVIRONMENT_BYTES} are allowed");
        return Err(Error::invalid(operation, field, message));
    }
    Ok(())
}

/// A definition as a whole.
pub(super) fn agent(operation: &'static str, spec: &AgentSpec) -> Result<()> {
    required(operation, "model", &spec.model)?;
    required(operation, "branch", &spec.branch)?;
    let breaks = |c: char| c.is_whitespace() || c.is_control();
    if spec.branch.starts_with('-') || spec.branch.contains(breaks) || spec.branch.len() > MAX_NAME {
        return Err(Error::invalid(
            operation,
            "branch",
            "this is not the name of a branch",
        ));
    }
    if spec.model.len() > MAX_NAME {
        let message = format!("at most {MAX_NAME} bytes are allowed");
        return Err(Error::invalid(operation, "model", message));
    }
    for (field, text) in [
        ("pfp_url", &spec.pfp_url),
        ("prompt", &spec.prompt),
        ("requirements", &spec.requirements),
        ("name", &spec.name),
    ] {
        if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(Error::invalid(
                operation,
                field,
                format!("at most {MAX_TEXT} bytes are allowed"),
            ));
        }
    }
    if let Some(url) = &spec.repo_url {
        repository(operation, url)?;
    }
    if spec.preload_memory_limit > 50 {
        return Err(Error::invalid(
            operation,
            "preload_memory_limit",
            "at most 50 memories can be preloaded",
        ));
    }
    permission(operation, &spec.permission)?;
    // A list shows up to 200 of them whole.
    let bytes = serde_json::to_vec(spec).map_or(usize::MAX, |document| document.len());
    if bytes > MAX_DEFINITION {
        let message = format!("the definition has {bytes} bytes; at most {MAX_DEFINITION} are allowed");
        return Err(Error::invalid(operation, "prompt", message));
    }
    egress(operation, "allow_out", &spec.allow_out)?;
    egress(operation, "deny_out", &spec.deny_out)?;
    bindings(operation, spec)
}

/// A policy: one action for everything, or one per tool, or per pattern of a tool's input.
fn permission(operation: &'static str, policy: &Value) -> Result<()> {
    let is_action = |rule: &Value| matches!(rule.as_str(), Some("allow" | "ask" | "deny"));
    let is_rule = |rule: &Value| match rule {
        Value::Object(patterns) => patterns.values().all(is_action),
        other => is_action(other),
    };
    let is_policy = match policy {
        Value::Null => true,
        Value::Object(tools) => tools.values().all(is_rule),
        other => is_action(other),
    };
    if is_policy && policy.to_string().len() <= MAX_TEXT {
        return Ok(());
    }
    let message = "expected \"allow\", \"ask\" or \"deny\", or an object with one of them per tool, or per pattern of a \
                   tool's input, e.g. {\"bash\": {\"*\": \"ask\", \"git status *\": \"allow\"}}";
    Err(Error::invalid(operation, "permission", message))
}

fn required(operation: &'static str, field: &'static str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid(operation, field, "a value is required"));
    }
    Ok(())
}

/// A repository that git can clone without running anything else: `ext::` and option-like texts are refused.
fn repository(operation: &'static str, url: &str) -> Result<()> {
    let schemes = ["https://", "http://", "ssh://", "git://", "file://"];
    let has_scheme = schemes
        .iter()
        .any(|scheme| url.starts_with(scheme) && url.len() > scheme.len());
    let authority = url
        .split_once("://")
        .map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    if !url.starts_with("ssh://") && authority.contains('@') {
        let message = "a URL with credentials would be stored and shown; give the server CONTAINER_ENV_GIT_TOKEN instead";
        return Err(Error::invalid(operation, "repo_url", message));
    }
    if has_scheme && !url.chars().any(|c| c.is_control() || c.is_whitespace()) && url.len() <= 2048 {
        return Ok(());
    }
    Err(Error::invalid(
        operation,
        "repo_url",
        "this is not the URL of a repository, e.g. https://github.com/acme/app",
    ))
}

fn egress(operation: &'static str, field: &'static str, rules: &[String]) -> Result<()> {
    if rules.len() > MAX_RULES {
        return Err(Error::invalid(
            operation,
            field,
            format!("at most {MAX_RULES} rules are allowed"),
        ));
    }
    for (index, rule) in rules.iter().enumerate() {
        if !is_egress_rule(rule) {
            let message = "a rule is a host name, *.domain, an IPv4 address or a range like 10.0.0.0/8";
            return Err(Error::invalid(operation, format!("{field}[{index}]"), message));
        }
    }
    Ok(())
}

/// The original's rule: an optional `*.`, then a name or an address, then an optional prefix length.
fn is_egress_rule(rule: &str) -> bool {
    let name = rule.strip_prefix("*.").unwrap_or(rule);
    let (name, prefix) = match name.split_once('/') {
        Some((name, prefix)) => (name, Some(prefix)),
        None => (name, None),
    };
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let is_prefix = prefix
        .is_none_or(|digits| (1..=2).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit()));
    rule.len() <= 253 && is_name && is_prefix
}

/// Every binding names a variable of the agent, and every host of it is allowed by the egress rules.
fn bindings(operation: &'static str, spec: &AgentSpec) -> Result<()> {
    for (name, hosts) in &spec.env_var_hosts {
        let field = format!("env_var_hosts.{name}");
        if !spec.env_vars.contains_key(name) {
            return Err(Error::invalid(
                operation,
                field,
                "there is no variable of this name in env_vars",
            ));
        }
        if let Some(host) = hosts.iter().find(|host| !is_covered(host, &spec.allow_out)) {
            let message = format!("the host {host} is not covered by allow_out");
            return Err(Error::invalid(operation, field, message));
        }
    }
    Ok(())
}

fn is_covered(host: &str, allowed: &[String]) -> bool {
    let host = host.to_ascii_lowercase();
    allowed.is_empty()
        || allowed
            .iter()
            .map(|rule| rule.to_ascii_lowercase())
            .any(|rule| match rule.strip_prefix("*.") {
                Some(domain) => host == domain || host.ends_with(&format!(".{domain}")) || host == rule,
                None => host == rule,
            })
}

/// Message parts: at least one, and each an object with a type.
pub(super) fn parts(operation: &'static str, parts: &[serde_json::Value]) -> Result<()> {
    if parts.is_empty() {
        return Err(Error::invalid(
            operation,
            "parts",
            "a message needs text, parts or attachments",
        ));
    }
    for (index, part) in parts.iter().enumerate() {
        if part
            .get("type")
            .and_then(serde_json::Value::as_str)
            .is_none_or(str::is_empty)
        {
            let field = format!("parts[{index}].type");
            return Err(Error::invalid(
                operation,
                field,
                "a part is an object with a type, e.g. {\"type\":\"text\",\"text\":\"hello\"}",
            ));
        }
    }
    Ok(())
}

/// A client's idempotency key.
pub(super) fn idempotency_key(operation: &'static str, key: Option<&str>) -> Result<()> {
    match key {
        Some(key) if key.is_empty() || key.len() > 255 || key.chars().any(char::is_control) => {
            Err(Error::invalid(
                operation,
                "Idempotency-Key",
                "the key has 1 to 255 printable characters",
            ))
        }
        _ => Ok(()),
    }
}

/// Variables as pairs of texts.
pub(super) fn pairs(
    variables: &BTreeMap<String, crate::secret::Secret>,
) -> impl Iterator<Item = (&str, &str)> {
    variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_rules_are_the_originals() {
        for rule in ["api.example.com", "*.example.com", "10.0.0.0/8", "a_b"] {
            assert!(is_egress_rule(rule), "{rule}");
        }
        for rule in ["", "*.", "a:443", "a/", "a/123", "ex ample", "::1", "https://a"] {
            assert!(!is_egress_rule(rule), "{rule}");
        }
    }

    #[test]
    fn a_branch_is_one_short_word() {
        let spec = |branch: &str| AgentSpec {
            model: "m".to_owned(),
            branch: branch.to_owned(),
            ..AgentSpec::default()
        };
        for branch in ["main", "feature/ä", "v1.2"] {
            assert!(agent("t", &spec(branch)).is_ok(), "{branch}");
        }
        for branch in ["", "-x", "a b", "a\0b", "a\u{1b}[31m", &"x".repeat(MAX_NAME + 1)] {
            assert!(agent("t", &spec(branch)).is_err(), "{branch:?}");
        }
    }

    #[test]
    fn repositories_cannot_smuggle_commands() {
        for url in [
            "https://github.com/acme/app",
            "file:///srv/repo.git",
            "ssh://git@host/repo",
        ] {
            assert!(repository("t", url).is_ok(), "{url}");
        }
        for url in [
            "",
            "ext::sh -c id",
            "--upload-pack=id",
            "https://",
            "not a url",
            "https://a\nb",
        ] {
            assert!(repository("t", url).is_err(), "{url}");
        }
    }
}
