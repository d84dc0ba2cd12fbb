use http::header::{
    ACCEPT_ENCODING, ALT_SVC, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue, IF_RANGE, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

/// Belong to one connection, RFC 9110 section 7.6.1.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Every header in which gateways look for a key, the swapped one included: it is put back afterwards.
const CREDENTIALS: [HeaderName; 8] = [
    http::header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-litellm-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("ocp-apim-subscription-key"),
    HeaderName::from_static("x-auth-token"),
    COOKIE,
];

/// Rebuilt by the connection to the gateway, or a claim about the network that a sandbox must not make.
const NOT_FORWARDED: [HeaderName; 11] = [
    HOST,
    CONTENT_LENGTH,
    EXPECT,
    MAX_FORWARDS,
    FORWARDED,
    VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("http2-settings"),
    ACCEPT_ENCODING,
    // A part of an answer could begin in the middle of an echoed secret.
    IF_RANGE,
    RANGE,
];

/// By these, servers and proxies in front of them take another method or path for the request's own. The relay has
/// allowed that of the request line and no other.
const OVERRIDES: [HeaderName; 7] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-rewrite-url"),
];

/// Leaves in a request's headers only what the gateway may see of the sandbox.
///
/// The answer must be readable to be searched for the secret, so the only encoding asked for is none.
pub fn clean_request(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    for name in HOP_BY_HOP
        .iter()
        .chain(&CREDENTIALS)
        .chain(&NOT_FORWARDED)
        .chain(&OVERRIDES)
    {
        headers.remove(name);
    }
    let forwarded: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded-"))
        .cloned()
        .collect();
    for name in forwarded {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Leaves in an answer's headers only what belongs to the exchange: cookies of the gateway's own login,
/// other addresses of it and connection details stay out of the sandbox.
pub fn clean_response(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    for name in HOP_BY_HOP.iter().chain(&[SET_COOKIE, ALT_SVC]) {
        headers.remove(name);
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_cookies_and_connection_details_do_not_pass() {
        let mut headers: HeaderMap = [
            ("authorization", "Bearer a"),
            ("x-api-key", "b"),
            ("x-goog-api-key", "c"),
            ("cookie", "d"),
            ("connection", "close, X-Named"),
            ("x-named", "e"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("host", "relay"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("expect", "100-continue"),
            ("range", "bytes=20-"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/key/generate"),
            ("x-rewrite-url", "/key/generate"),
            ("content-type", "application/json"),
            ("anthropic-version", "2023-06-01"),
            ("accept-encoding", "br"),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
        clean_request(&mut headers);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ("accept-encoding", "identity"),
                ("anthropic-version", "2023-06-01"),
                ("content-type", "application/json")
            ]
        );
    }

    #[test]
    fn a_gateways_cookies_do_not_reach_the_sandbox() {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_static("session=1"));
        headers.insert(ALT_SVC, HeaderValue::from_static("h3=\":443\""));
        headers.insert("x-litellm-version", HeaderValue::from_static("1"));
        clean_response(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-litellm-version"]
        );
    }
}
