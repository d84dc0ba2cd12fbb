use http::Method;

use super::Reason;

/// A request target on the allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The target began with `/v1/`.
    pub versioned: bool,
    /// The path without its leading slash and version.
    pub tail: &'a str,
    /// The query, byte for byte.
    pub query: Option<&'a str>,
    /// Served below the gateway's root even when its base names a version (`mcp`, `model/info`).
    pub at_root: bool,
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
/// The MCP streamable HTTP transport opens its stream with GET and ends its session with DELETE.
const MCP: &[Method] = &[Method::GET, Method::POST, Method::DELETE];

/// Paths that mean the same with and without `/v1`.
const MODEL_PATHS: &[(&str, &[Method])] = &[
    ("chat/completions", POST),
    ("completions", POST),
    ("responses", POST),
    ("responses/compact", POST),
    ("responses/input_tokens", POST),
    ("messages", POST),
    ("messages/count_tokens", POST),
    ("embeddings", POST),
    ("moderations", POST),
    ("rerank", POST),
    ("audio/speech", POST),
    ("audio/transcriptions", POST),
    ("audio/translations", POST),
    ("images/generations", POST),
    ("images/edits", POST),
    ("images/variations", POST),
    ("models", GET),
];

/// Classifies a raw request target.
///
/// The list is an allow-list because everything else on a gateway administers keys, models, users and
/// spend. Creating MCP servers and testing connections (`POST /v1/mcp/server`, `/mcp-rest/test/...`) is
/// administration too, so those are not on it.
///
/// # Errors
/// `BadTarget` for a target whose path could mean something else to the gateway than it means here (dot
/// segments, escapes, empty segments, backslashes); `PathNotAllowed`; `MethodNotAllowed`.
pub fn route<'a>(method: &Method, target: &'a str) -> Result<Route<'a>, Reason> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let path = plain_path(path).ok_or(Reason::BadTarget)?;
    let (versioned, tail) = match path.strip_prefix("v1/") {
        Some(tail) => (true, tail),
        None => (false, path),
    };
    let (methods, at_root) = methods_of(versioned, tail).ok_or(Reason::PathNotAllowed)?;
    if !methods.contains(method) {
        return Err(Reason::MethodNotAllowed);
    }
    Ok(Route {
        versioned,
        tail,
        query,
        at_root,
    })
}

/// The path without its leading slash, if every reader would split it into the same segments.
fn plain_path(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,=/".contains(&byte);
    let segments_are_plain = || {
        // One trailing slash is plain: `/mcp/` is how MCP clients write their endpoint.
        rest.strip_suffix('/')
            .unwrap_or(rest)
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | ".."))
    };
    (rest.is_empty() || (rest.bytes().all(plain) && segments_are_plain())).then_some(rest)
}

fn methods_of(versioned: bool, tail: &str) -> Option<(&'static [Method], bool)> {
    if let Some((_, methods)) = MODEL_PATHS.iter().find(|(path, _)| *path == tail) {
        return Some((methods, false));
    }
    let segments: Vec<&str> = tail.split('/').collect();
    match (versioned, segments.as_slice()) {
        (_, ["responses", id] | ["responses", id, "input_items"]) if !id.is_empty() => Some((GET, false)),
        (_, ["responses", id, "cancel"]) if !id.is_empty() => Some((POST, false)),
        (_, ["models", ..]) => Some((GET, false)),
        (_, ["model", "info"]) => Some((GET, true)),
        (true, ["mcp", "server" | "tools"] | ["mcp", "server", _]) => Some((GET, true)),
        (false, ["mcp", ..]) => Some((MCP, true)),
        (false, ["mcp-rest", "tools", "list"]) => Some((GET, true)),
        (false, ["mcp-rest", "tools", "call"]) => Some((POST, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn model_paths_pass_with_and_without_a_version() {
        for (path, methods) in MODEL_PATHS {
            for method in *methods {
                let plain = format!("/{path}");
                let versioned = format!("/v1/{path}?beta=true");
                assert!(!route(method, &plain).unwrap().versioned);
                let route = route(method, &versioned).unwrap();
                assert_eq!(
                    (route.versioned, route.tail, route.query),
                    (true, *path, Some("beta=true"))
                );
            }
        }
        for path in [
            "/v1/responses/resp_1",
            "/models/openai/gpt",
            "/model/info",
            "/v1/mcp/server",
            "/mcp/",
        ] {
            assert!(route(&Method::GET, path).is_ok(), "{path}");
        }
        assert!(route(&Method::POST, "/mcp/github").is_ok());
        assert!(route(&Method::POST, "/mcp-rest/tools/call").is_ok());
    }

    #[test]
    fn administration_is_out_of_reach() {
        for path in [
            "/",
            "/key/generate",
            "/v1/key/generate",
            "/user/new",
            "/config/update",
            "/model/new",
            "/health",
            "/spend/logs",
            "/openapi.json",
            "/v1/mcp/make",
            "/mcp-rest/test/connection",
            "/v1/files",
            "/v1/v1/models",
            "/chat/completions/",
            "/anthropic/v1/messages",
            "/modelsx",
            "/v1/models2",
        ] {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                assert_eq!(
                    route(&method, path),
                    Err(Reason::PathNotAllowed),
                    "{method} {path}"
                );
            }
        }
        assert_eq!(
            route(&Method::POST, "/v1/mcp/server"),
            Err(Reason::MethodNotAllowed)
        );
        assert_eq!(
            route(&Method::DELETE, "/v1/models/x"),
            Err(Reason::MethodNotAllowed)
        );
        assert_eq!(
            route(&Method::CONNECT, "/v1/models"),
            Err(Reason::MethodNotAllowed)
        );
    }

    #[test]
    fn targets_with_two_readings_are_refused() {
        for target in [
            "",
            "*",
            "models",
            "//v1/models",
            "/v1//models",
            "/v1/./models",
            "/mcp/../key/generate",
            "/mcp/..",
            "/mcp/%2e%2e/key",
            "/mcp/..%2fkey",
            "/mcp\\..\\key",
            "/mcp/..;/key",
            "/mcp/a%00",
            "/mcp/a b",
            "/mcp/é",
            "/v1/models#x",
            "http://other/v1/models",
            "/mcp//",
        ] {
            assert_eq!(route(&Method::GET, target), Err(Reason::BadTarget), "{target}");
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_stays_below_an_allowed_root(target in "/[a-z0-9./%\\\\;?#-]{0,40}") {
            if let Ok(route) = route(&Method::GET, &target) {
                let first = route.tail.split('/').next().unwrap_or_default();
                prop_assert!(["responses", "models", "model", "mcp", "mcp-rest"].contains(&first));
                prop_assert!(!route.tail.contains("..") || !route.tail.split('/').any(|s| s == ".."));
                prop_assert!(!route.tail.contains('%'));
            }
        }
    }
}
