//! From text to typed value, one function per kind. An error is the rest of a sentence that begins with the name
//! of the setting, and it never repeats the text: a secret may have been put into the wrong variable.

use std::net::IpAddr;
use std::time::Duration;

use lap_core::seal::Sealer;
use lap_core::secret::Secret;
use lap_http::Network;
use lap_store_postgres::PostgresOptions;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::setting::{Kind, Lone};

/// A value that passed the validation of its kind.
#[derive(Debug, Clone)]
pub(crate) enum Parsed {
    /// Anything that stays text.
    Text(String),
    /// A secret.
    Secret(Secret),
    /// A number.
    Whole(u64),
    /// A time.
    Span(Duration),
    /// A yes or no.
    Switch(bool),
    /// The address of a PostgreSQL database.
    Postgres(Secret),
    /// The path of a SQLite file.
    SqliteFile(String),
}

impl Kind {
    /// The typed value of `text`.
    pub(crate) fn parse(&self, text: &str) -> Result<Parsed, String> {
        if text.chars().any(char::is_control) {
            return Err("holds a line break or another control character".into());
        }
        match *self {
            Self::Database => database(text),
            Self::Secret(least) => secret(text, least),
            Self::EncryptionKey => encryption_key(text),
            Self::HttpUrl => http_url(text).map(Parsed::Text),
            Self::GatewayUrl => http_url(text).map(|url| Parsed::Text(without_v1(&url))),
            Self::Repository => repository(text),
            Self::Text | Self::Folder => Ok(Parsed::Text(text.into())),
            Self::Image => image(text),
            Self::Namespace => namespace(text),
            Self::Choice(words) => choice(text, words),
            Self::Switch => switch(text),
            Self::Whole(least, most) => whole(text, least, most).map(Parsed::Whole),
            Self::Minutes(least, most) => {
                whole(text, least, most).map(|n| Parsed::Span(Duration::from_secs(n * 60)))
            }
            Self::Hours(least, most) => {
                whole(text, least, most).map(|n| Parsed::Span(Duration::from_secs(n * 3600)))
            }
            Self::Host => host(text),
            Self::Networks => networks(text),
            Self::LogFilter(lone) => log_filter(text, lone),
        }
    }
}

fn networks(text: &str) -> Result<Parsed, String> {
    let names: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    match names.iter().find_map(|name| name.parse::<Network>().err()) {
        None => Ok(Parsed::Text(names.join(","))),
        Some(error) => Err(format!(
            "holds something that is {error}; separate several by commas"
        )),
    }
}

fn database(text: &str) -> Result<Parsed, String> {
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("sqlite") => sqlite_file(&text["sqlite:".len()..]),
        Some("postgres" | "postgresql") => postgres(text),
        _ => Err(
            "has no known scheme; the known ones are sqlite: (a file), postgres:// and postgresql://".into(),
        ),
    }
}

/// Whether it leads to a pooler shows in the host's name at best; the store finds the others out when it connects.
fn postgres(text: &str) -> Result<Parsed, String> {
    let address = Secret::new(text);
    PostgresOptions::new(address.clone())
        .check()
        .map(|()| Parsed::Postgres(address))
        .map_err(|error| format!("cannot be used: {}", error.message()))
}

fn sqlite_file(rest: &str) -> Result<Parsed, String> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path == ":memory:" || query.split('&').any(|pair| pair == "mode=memory") {
        return Err(
            "names a database in memory, which would forget everything at the end; name a file".into(),
        );
    }
    if !query.is_empty() && query != "mode=rwc" {
        return Err("has parameters after a '?'; give the path of the file alone".into());
    }
    if path.is_empty() || path.ends_with('/') {
        return Err("does not name a file".into());
    }
    Ok(Parsed::SqliteFile(path.into()))
}

fn secret(text: &str, least: usize) -> Result<Parsed, String> {
    if !text.is_ascii() {
        return Err("holds characters that are not ASCII and cannot travel in an HTTP header".into());
    }
    if text.len() < least {
        return Err(format!("is too short: it needs at least {least} characters"));
    }
    Ok(Parsed::Secret(Secret::new(text)))
}

fn encryption_key(text: &str) -> Result<Parsed, String> {
    Sealer::from_base64(text)
        .map(|_| Parsed::Secret(Secret::new(text)))
        .map_err(|_| "is not base64 of exactly 32 bytes; make a key with: openssl rand -base64 32".into())
}

/// An address without its trailing slashes.
fn http_url(text: &str) -> Result<String, String> {
    let url = parse_url(text)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is not an http:// or https:// URL".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not hold a query ('?') or fragment ('#')".into());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn without_v1(url: &str) -> String {
    url.strip_suffix("/v1")
        .unwrap_or(url)
        .trim_end_matches('/')
        .to_owned()
}

fn parse_url(text: &str) -> Result<Url, String> {
    if text.contains(char::is_whitespace) {
        return Err("is not a URL: it holds white space".into());
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            "is not a URL: it does not begin with a scheme such as https://".into()
        }
        other => format!("is not a URL: {other}"),
    })?;
    Ok(url)
}

fn repository(text: &str) -> Result<Parsed, String> {
    if is_scp_address(text) {
        return Ok(Parsed::Text(text.into()));
    }
    let url = parse_url(text)?;
    match url.scheme() {
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => Err(
            "must not hold a user name or token, because agents can read it; give the token as CONTAINER_ENV_GIT_TOKEN"
                .into(),
        ),
        "ssh" | "git" if url.password().is_some() => Err("must not hold a password, because agents can read it".into()),
        "http" | "https" | "ssh" | "git" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(Parsed::Text(text.into())),
        "file" => Ok(Parsed::Text(text.into())),
        _ => Err("is not the URL of a git repository; it begins with https://, http://, ssh://, git:// or file://, or \
                  has the form git@host:path"
            .into()),
    }
}

/// `git@host:path`, as git understands it. A leading dash would be an option to git.
fn is_scp_address(text: &str) -> bool {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    plain(user)
        && plain(host)
        && !path.is_empty()
        && !path.starts_with(['/', '-'])
        && !path.contains(char::is_whitespace)
}

fn image(text: &str) -> Result<Parsed, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if text.len() > 512 || !begins_well || !text.chars().all(allowed) {
        return Err("is not an image reference such as registry.example.com/name:tag".into());
    }
    Ok(Parsed::Text(text.into()))
}

fn namespace(text: &str) -> Result<Parsed, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.len() > 63 || !text.chars().all(allowed) || text.starts_with('-') || text.ends_with('-') {
        return Err("is not a Kubernetes name: up to 63 lower-case letters, digits and inner dashes".into());
    }
    Ok(Parsed::Text(text.into()))
}

fn choice(text: &str, words: &[&str]) -> Result<Parsed, String> {
    let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
    word.map(|word| Parsed::Text((*word).into()))
        .ok_or_else(|| format!("is not one of {}", words.join(", ")))
}

fn switch(text: &str) -> Result<Parsed, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Parsed::Switch(true)),
        "false" => Ok(Parsed::Switch(false)),
        _ => Err("is neither true nor false".into()),
    }
}

fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let range = format!("a whole number between {least} and {most} is needed");
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("is not a whole number; {range}"));
    }
    if text.starts_with('-') {
        return Err(format!("is negative; {range}"));
    }
    match text.parse::<u64>() {
        Ok(number) if number < least => Err(format!("is too small; {range}")),
        Ok(number) if number <= most => Ok(number),
        _ => Err(format!("is too large; {range}")),
    }
}

fn host(text: &str) -> Result<Parsed, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let is_name = bare.len() <= 253
        && bare.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        // What consists of digits and dots only is a failed IPv4 address, not a name.
        && bare.chars().any(|c| c.is_ascii_alphabetic());
    if bare.parse::<IpAddr>().is_ok() || is_name {
        return Ok(Parsed::Text(bare.into()));
    }
    Err("is neither an IP address nor a host name (the port goes into PORT)".into())
}

fn log_filter(text: &str, lone: Lone) -> Result<Parsed, String> {
    let form =
        "a level (error, warn, info, debug, trace, off) or a list such as info,lap_core=debug is needed";
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_strict = |directive: &str| directive.contains('=') || is_level(directive.trim());
    if lone == Lone::Level && !text.split(',').all(is_strict) {
        return Err(format!("is not a log filter; {form}"));
    }
    EnvFilter::try_new(text).map_err(|_| format!("is not a log filter; {form}"))?;
    Ok(Parsed::Text(text.into()))
}
