use http::Method;
use lap_core::{Error, Result};

use super::GatewayBase;

/// One host a credential may go to: a name or `*.suffix` (sub-domains only), with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    name: String,
    port: u16,
}

impl HostRule {
    /// Parses `name`, `*.suffix`, or either with `:port`; without a port it is 443. A URL stands for its host
    /// and port.
    ///
    /// # Errors
    /// `Invalid` for an empty name, a port that is none, or a wildcard anywhere but in front.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Error::invalid(
                "read host binding",
                "hosts",
                "a host is a name or *.suffix, optionally with :port",
            )
        };
        if text.contains("://") {
            let base = GatewayBase::parse(text)?;
            return Ok(Self {
                name: base.host(),
                port: base.port(),
            });
        }
        let (name, port) = match text.trim().rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().map_err(|_| invalid())?),
            _ => (text.trim(), 443),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        if labels.is_empty() || labels.contains(['*', '/', '@']) || labels.split('.').any(str::is_empty) {
            return Err(invalid());
        }
        Ok(Self { name, port })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let names = match self.name.strip_prefix("*.") {
            Some(suffix) => host
                .strip_suffix(suffix)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => host == self.name,
        };
        names && port == self.port
    }
}

/// Where a credential may be used. With no hosts it is bound to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Bound to the model gateway, wherever that is, as the platform's own key always is.
    pub gateway: bool,
    /// Hosts with their ports.
    pub hosts: Vec<HostRule>,
    /// Methods; empty means every one.
    pub methods: Vec<String>,
    /// Path prefixes at segment borders; empty means every path.
    pub paths: Vec<String>,
}

impl Binding {
    /// The binding of the platform's own model key.
    pub fn to_gateway() -> Self {
        Self {
            gateway: true,
            ..Self::default()
        }
    }

    /// Whether a request to this path of the gateway is within the binding.
    pub fn covers(&self, gateway: &GatewayBase, method: &Method, path: &str) -> bool {
        let (host, port) = (gateway.host(), gateway.port());
        let names_gateway = self.gateway || self.hosts.iter().any(|rule| rule.covers(&host, port));
        let names_method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|bound| bound.eq_ignore_ascii_case(method.as_str()));
        names_gateway
            && names_method
            && (self.paths.is_empty() || self.paths.iter().any(|p| is_below(path, p)))
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(binding: &Binding, base: &str) -> bool {
        binding.covers(&GatewayBase::parse(base).unwrap(), &Method::POST, "/v1/messages")
    }

    #[test]
    fn an_unbound_credential_is_bound_to_nothing() {
        assert!(!covers(&Binding::default(), "https://gateway.example.com"));
        assert!(covers(&Binding::to_gateway(), "http://10.0.0.1:4000"));
    }

    #[test]
    fn hosts_match_at_label_borders_and_ports_are_named() {
        let host = |text: &str| Binding {
            hosts: vec![HostRule::parse(text).unwrap()],
            ..Binding::default()
        };
        assert!(covers(&host("API.example.com."), "https://api.example.com"));
        assert!(covers(&host("*.example.com"), "https://a.b.example.com"));
        for other in [
            "https://example.com",
            "https://evilexample.com",
            "https://example.com.evil.com",
        ] {
            assert!(!covers(&host("*.example.com"), other), "{other}");
        }
        assert!(!covers(&host("example.com"), "https://example.com:8443"));
        assert!(!covers(&host("example.com:8443"), "https://example.com"));
        assert!(covers(&host("example.com:8443"), "https://example.com:8443"));
        assert!(covers(&host("10.0.0.1:4000"), "http://10.0.0.1:4000"));
        assert!(covers(&host("http://gateway/lite/v1"), "http://Gateway"));
        assert!(!covers(&host("http://gateway"), "https://gateway"));
        for bad in [
            "",
            "*",
            "*.",
            "a.*.com",
            "a..b",
            "host:port",
            "ftp://a",
            ":443",
            "a/b",
        ] {
            assert!(HostRule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn methods_and_paths_narrow_a_binding() {
        let paths = Binding {
            paths: vec!["/v1/mess".to_owned()],
            ..Binding::to_gateway()
        };
        assert!(!covers(&paths, "https://g"));
        let paths = Binding {
            paths: vec!["/v1/messages".to_owned()],
            ..Binding::to_gateway()
        };
        assert!(covers(&paths, "https://g"));
        let methods = Binding {
            methods: vec!["get".to_owned()],
            ..Binding::to_gateway()
        };
        assert!(!covers(&methods, "https://g"));
    }
}
