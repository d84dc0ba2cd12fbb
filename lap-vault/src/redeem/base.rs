use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use lap_core::{Error, Result};

use super::Route;

/// The base URL of the model gateway, taken apart once so that joining it with a path cannot go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayBase {
    scheme: Scheme,
    authority: Authority,
    /// The path before a trailing `/v1`: empty, or `/` and segments without a trailing slash.
    root: String,
    /// The base ended in `/v1`.
    versioned: bool,
}

impl GatewayBase {
    /// Parses a base such as `https://gateway.example.com`, `http://10.0.0.1:4000/litellm/v1/`.
    ///
    /// # Errors
    /// `Invalid` for anything but an http or https URL with a host and a plain path.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid("read gateway base", "gateway", why.to_owned());
        let uri: Uri = text
            .trim()
            .parse()
            .map_err(|_| invalid("the gateway base is not a URL such as https://gateway.example.com"))?;
        let parts = uri.into_parts();
        let scheme = parts
            .scheme
            .filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
            .ok_or_else(|| invalid("the gateway base must begin with http:// or https://"))?;
        let authority = parts
            .authority
            .ok_or_else(|| invalid("the gateway base names no host"))?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(invalid(
                "the gateway base must name a host and carry no user or password",
            ));
        }
        let path = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(invalid("the gateway base must not carry a query"));
        }
        let path = path.path().trim_end_matches('/');
        if path
            .split('/')
            .skip(1)
            .any(|segment| matches!(segment, "" | "." | ".."))
            || path.contains('%')
        {
            return Err(invalid("the path of the gateway base must be plain segments"));
        }
        let (root, versioned) = match path.strip_suffix("/v1") {
            Some(root) => (root, true),
            None => (path, false),
        };
        Ok(Self {
            scheme,
            authority,
            root: root.to_owned(),
            versioned,
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The host in lower case, as bindings compare it.
    pub fn host(&self) -> String {
        self.authority.host().trim_end_matches('.').to_ascii_lowercase()
    }

    /// The port, spelled out or the scheme's own.
    pub fn port(&self) -> u16 {
        self.authority
            .port_u16()
            .unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// The host and port as written, for receipts.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The path at the gateway: `v1` occurs exactly once when either side asks for it.
    ///
    /// A versioned request goes below the root's `/v1`. An unversioned model path goes below the base as
    /// it was written, because that is where the client would have sent it without the relay. MCP and
    /// model information live at the root.
    pub fn path(&self, route: &Route<'_>) -> String {
        let version = if route.versioned || (self.versioned && !route.at_root) {
            "/v1"
        } else {
            ""
        };
        format!("{}{version}/{}", self.root, route.tail)
    }

    /// The full address at the gateway.
    ///
    /// # Errors
    /// `Invalid` when path and query do not form a URL, which [`super::route`] has excluded.
    pub fn join(&self, route: &Route<'_>) -> Result<Uri> {
        let mut path = self.path(route);
        if let Some(query) = route.query {
            path.push('?');
            path.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Error::invalid("join gateway path", "path", "not a URL").with_source(error))
    }
}

impl std::fmt::Display for GatewayBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if self.versioned { "/v1" } else { "" };
        write!(f, "{}://{}{}{version}", self.scheme, self.authority, self.root)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::super::route;
    use super::*;

    fn joined(base: &str, method: Method, target: &str) -> String {
        GatewayBase::parse(base)
            .unwrap()
            .join(&route(&method, target).unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn the_version_occurs_exactly_once() {
        for base in ["https://g", "https://g/", "https://g/v1", "https://g/v1/"] {
            assert_eq!(
                joined(base, Method::POST, "/v1/chat/completions?a=b"),
                "https://g/v1/chat/completions?a=b"
            );
            assert_eq!(joined(base, Method::POST, "/mcp/"), "https://g/mcp/");
            assert_eq!(joined(base, Method::GET, "/model/info"), "https://g/model/info");
            assert_eq!(
                joined(base, Method::GET, "/v1/mcp/server"),
                "https://g/v1/mcp/server"
            );
        }
        assert_eq!(
            joined("https://g", Method::POST, "/chat/completions"),
            "https://g/chat/completions"
        );
        assert_eq!(
            joined("https://g/v1", Method::POST, "/chat/completions"),
            "https://g/v1/chat/completions"
        );
        let with_path = "http://h:4000/lite/llm/v1/";
        assert_eq!(
            joined(with_path, Method::POST, "/v1/messages"),
            "http://h:4000/lite/llm/v1/messages"
        );
        assert_eq!(
            joined("http://h/v1beta/openai", Method::GET, "/models"),
            "http://h/v1beta/openai/models"
        );
    }

    #[test]
    fn bases_that_are_not_a_plain_url_are_refused() {
        for base in [
            "",
            "gateway",
            "ftp://g",
            "https://",
            "https://user:pw@g",
            "https://g/?a=b",
            "https://g/a/../b",
            "https://g//a",
            "https://g/%2e",
            "/v1",
        ] {
            assert!(GatewayBase::parse(base).is_err(), "{base}");
        }
    }

    proptest! {
        #[test]
        fn no_base_and_path_double_the_version(
            segments in proptest::collection::vec("[a-uw-z]{1,5}", 0..3),
            base_v1 in any::<bool>(), slash in any::<bool>(), path_v1 in any::<bool>(),
        ) {
            let mut base = format!("https://g.example:8443/{}", segments.join("/"));
            if base_v1 { base = format!("{}/v1", base.trim_end_matches('/')); }
            if slash { base.push('/'); }
            let target = if path_v1 { "/v1/responses" } else { "/responses" };
            let url = joined(&base, Method::POST, target);
            prop_assert_eq!(url.matches("/v1").count(), usize::from(base_v1 || path_v1));
            prop_assert!(url.ends_with("/responses") && !url.contains("//responses"));
            prop_assert!(url.starts_with("https://g.example:8443/"));
        }
    }
}
