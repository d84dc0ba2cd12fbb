//! Keeps web pages of other sites out: those that have rebound their name to this address, and those that send
//! requests from the browser of someone who may.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};

use crate::app::App;
use crate::options::HttpOptions;
use crate::problem::Problem;

/// Answers only under the names the server goes by, and changes nothing for pages of another site.
pub(crate) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    if !host_is_allowed(&app.options, authority(&request)) {
        let detail = "this server does not answer under that host name; BASE_URL names the one it has";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail).into_response();
    }
    if !origin_is_allowed(&app.options, &request) {
        let detail = "pages of another site may not do this";
        return Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail).into_response();
    }
    next.run(request).await
}

fn host_is_allowed(options: &HttpOptions, authority: Option<&str>) -> bool {
    let allowed = &options.allowed_hosts;
    let Some(host) = authority.and_then(host) else {
        return allowed.is_empty();
    };
    let is = |name: &String| {
        // A name can be rebound to this address; an address cannot.
        let any = name.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
        name.eq_ignore_ascii_case(host) || (any && host.parse::<IpAddr>().is_ok())
    };
    allowed.is_empty() || allowed.iter().any(is)
}

fn origin_is_allowed(options: &HttpOptions, request: &Request) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return true;
    }
    // Programs send none.
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else { return false };
    let Some((_, site)) = origin.split_once("://") else {
        // `null`: a page that hides where it is from.
        return false;
    };
    let same = |other: &str| without_default_port(site).eq_ignore_ascii_case(without_default_port(other));
    let base = options
        .base_url
        .split_once("://")
        .map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    authority(request).is_some_and(same)
        || base.is_some_and(same)
        || options
            .allowed_origins
            .iter()
            .any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin))
}

/// Whom the request is for, with the port.
fn authority(request: &Request) -> Option<&str> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(header::HOST)?.to_str().ok()?,
    };
    authority.rsplit('@').next()
}

/// Without the port.
fn host(authority: &str) -> Option<&str> {
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    }
}

/// A proxy may have ended TLS, so the scheme is not known and both ports count as default.
fn without_default_port(authority: &str) -> &str {
    let bare = authority
        .strip_suffix(":443")
        .or_else(|| authority.strip_suffix(":80"));
    bare.unwrap_or(authority)
}
