use http::Method;

use super::GatewayBase;

/// Where a credential may be used. An empty list of hosts binds it to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Bound to the model gateway, wherever that is, as the platform's own key always is.
    pub gateway: bool,
    /// Host names, exact or `*.suffix` (sub-domains only), in lower case.
    pub hosts: Vec<String>,
    /// Ports; empty means 443.
    pub ports: Vec<u16>,
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
        let names_gateway = self.gateway || (self.names(&gateway.host()) && self.has_port(gateway.port()));
        let names_method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|bound| bound.eq_ignore_ascii_case(method.as_str()));
        names_gateway
            && names_method
            && (self.paths.is_empty() || self.paths.iter().any(|p| is_below(path, p)))
    }

    fn names(&self, host: &str) -> bool {
        self.hosts.iter().any(|bound| {
            let bound = bound.trim_end_matches('.').to_ascii_lowercase();
            match bound.strip_prefix("*.") {
                Some(suffix) => host
                    .strip_suffix(suffix)
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                None => !bound.is_empty() && host == bound,
            }
        })
    }

    fn has_port(&self, port: u16) -> bool {
        if self.ports.is_empty() {
            port == 443
        } else {
            self.ports.contains(&port)
        }
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
            hosts: vec![text.to_owned()],
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
        assert!(!covers(&host(""), "https://example.com"));
        assert!(!covers(&host("example.com"), "https://example.com:8443"));
        assert!(covers(
            &Binding {
                ports: vec![8443],
                ..host("example.com")
            },
            "https://example.com:8443"
        ));
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
