//! Where a repository is, with credentials taken out of its address.

use lap_core::secret::Secret;

/// A repository address that may be shown, and the password that was in it.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    url: String,
    password: Option<Secret>,
}

impl Remote {
    /// Splits off credentials: git would write an address with them into `.git/config`.
    ///
    /// # Errors
    /// The reason for people.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with('-') || url.contains(|c: char| c.is_control() || c == ' ') {
            return Err("the repository address is not an address".to_owned());
        }
        let plain = Self {
            url: url.to_owned(),
            password: None,
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            // `host:path` in the manner of scp, or a path on this machine.
            let scp_like = url
                .split_once(':')
                .is_some_and(|(host, path)| !host.contains('/') && !path.starts_with(':'));
            return if scp_like || url.starts_with('/') {
                Ok(plain)
            } else {
                Err(unknown(url))
            };
        };
        match scheme {
            "https" | "http" => {}
            "ssh" | "git" | "file" => return Ok(plain),
            _ => return Err(unknown(scheme)),
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let Some((userinfo, host)) = rest[..end].rsplit_once('@') else {
            return Ok(plain);
        };
        let password = userinfo
            .split_once(':')
            .map_or(userinfo, |(_, password)| password);
        let password = (!password.is_empty()).then(|| Secret::new(percent_decoded(password)));
        Ok(Self {
            url: format!("{scheme}://{host}{}", &rest[end..]),
            password,
        })
    }

    /// The address without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The password that was part of the address.
    pub(crate) const fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// `scheme://host:port` of an address to which git sends passwords.
    pub(crate) fn http_origin(&self) -> Option<&str> {
        let (scheme, rest) = self.url.split_once("://")?;
        let end = rest.find('/').unwrap_or(rest.len());
        matches!(scheme, "https" | "http").then(|| &self.url[..scheme.len() + 3 + end])
    }
}

fn unknown(scheme: &str) -> String {
    let scheme: String = scheme.chars().take(40).collect();
    format!("the repository address has no known scheme ({scheme:?}); use https, ssh or file")
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_address() {
        let remote = Remote::parse("https://user:p%40ss@git.example:8443/a/b.git").unwrap();
        assert_eq!(remote.url(), "https://git.example:8443/a/b.git");
        assert_eq!(remote.password().unwrap().expose(), "p@ss");
        assert_eq!(remote.http_origin(), Some("https://git.example:8443"));
        let remote = Remote::parse("https://ghp_canary@github.com/a/b").unwrap();
        assert_eq!(remote.url(), "https://github.com/a/b");
        assert_eq!(remote.password().unwrap().expose(), "ghp_canary");
    }

    #[test]
    fn addresses_that_run_programs_are_refused() {
        for url in [
            "ext::sh -c touch%20x",
            "ext::sh",
            "-uploadpack=x",
            "foo://x",
            "relative/path",
            "",
            "a b",
        ] {
            assert!(Remote::parse(url).is_err(), "{url}");
        }
        for url in [
            "git@github.com:a/b.git",
            "ssh://git@host/a",
            "/srv/a.git",
            "file:///srv/a.git",
            "https://h/a",
        ] {
            assert_eq!(Remote::parse(url).unwrap().url(), url);
        }
    }
}
