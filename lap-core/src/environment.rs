//! Names of environment variables that people may give to a sandbox, and those the platform keeps for itself.
//!
//! One rule for every door: variables that the server passes on to all sandboxes, variables of an agent, and
//! variables of a session. A reserved name is refused, never dropped in silence.

use std::fmt;

/// Why a sandbox cannot get a variable of this name from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRefusal {
    /// It is not made of letters, digits and underscores, or it begins with a digit.
    Malformed,
    /// The platform sets it in every sandbox.
    Platform,
    /// It would lead traffic around the vault.
    Proxy,
    /// It decides whom TLS clients trust, and the vault sets it to its own authority.
    Authority,
    /// The start of the harness depends on it.
    Process,
}

impl fmt::Display for NameRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "is malformed: letters, digits and underscores are allowed, and no digit first"
            }
            Self::Platform => "is kept by the platform for itself",
            Self::Proxy => "would lead traffic around the vault",
            Self::Authority => "is set by the vault to its own certificate authority",
            Self::Process => "decides how the harness starts",
        })
    }
}

/// Names that the platform sets itself.
pub const PLATFORM_NAMES: &[&str] = &[
    "REPO_URL",
    "BRANCH",
    "LITELLM_API_KEY",
    "LITELLM_API_BASE",
    "LITELLM_DEFAULT_MODEL",
    "AGENT_PROMPT",
    "AGENT_REQUIREMENTS",
    "AGENT_ID",
    "SESSION_ID",
    "SKILLS_JSON",
    "PLATFORM_URL",
    "PORT",
    "GIT_TOKEN",
    "HARNESS_AUTH_TOKEN",
    "HARNESS_PROGRESS_TOKEN",
];

/// Prefixes that belong to the platform and its vault.
pub const PLATFORM_PREFIXES: &[&str] = &["LAP_", "VAULT_", "REAL_", "HOST_"];

/// Names that decide where traffic goes, in any case, because programs read both cases.
pub const PROXY_NAMES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY"];

/// Names that decide whom TLS clients trust.
pub const AUTHORITY_NAMES: &[&str] = &[
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "PIP_CERT",
];

/// Names on which the start of the harness depends. `PATH` is not one of them: programs of the platform never
/// see a variable that came from outside, and a harness image may need a longer path.
pub const PROCESS_NAMES: &[&str] = &["HOME", "LD_PRELOAD", "LD_AUDIT"];

/// Whether people may give a sandbox a variable of this name.
///
/// `GIT_TOKEN` is refused here. The server-wide passthrough takes it out before it asks, because there it means
/// the token of the clone.
///
/// # Errors
/// The reason, as the rest of a sentence that begins with the name.
pub fn check_name(name: &str) -> Result<(), NameRefusal> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(NameRefusal::Malformed);
    }
    if PLATFORM_NAMES.contains(&name) || PLATFORM_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(NameRefusal::Platform);
    }
    if PROXY_NAMES.contains(&name.to_ascii_uppercase().as_str()) {
        return Err(NameRefusal::Proxy);
    }
    if AUTHORITY_NAMES.contains(&name) {
        return Err(NameRefusal::Authority);
    }
    if PROCESS_NAMES.contains(&name) {
        return Err(NameRefusal::Process);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in [
            "GITHUB_TOKEN",
            "NPM_TOKEN",
            "_x",
            "repo_url",
            "PATH",
            "HOSTNAME",
            "LAPTOP",
            "TMPDIR",
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn malformed_and_reserved_names_are_refused_with_the_reason() {
        for (name, why) in [
            ("", NameRefusal::Malformed),
            ("1X", NameRefusal::Malformed),
            ("A-B", NameRefusal::Malformed),
            ("A=B", NameRefusal::Malformed),
            ("Ä", NameRefusal::Malformed),
            ("LITELLM_API_KEY", NameRefusal::Platform),
            ("GIT_TOKEN", NameRefusal::Platform),
            ("LAP_ACCESS_TOKEN", NameRefusal::Platform),
            ("VAULT_URL", NameRefusal::Platform),
            ("REAL_X", NameRefusal::Platform),
            ("HOST_X", NameRefusal::Platform),
            ("https_proxy", NameRefusal::Proxy),
            ("No_Proxy", NameRefusal::Proxy),
            ("NODE_EXTRA_CA_CERTS", NameRefusal::Authority),
            ("LD_PRELOAD", NameRefusal::Process),
            ("HOME", NameRefusal::Process),
        ] {
            assert_eq!(check_name(name), Err(why), "{name}");
        }
    }
}
