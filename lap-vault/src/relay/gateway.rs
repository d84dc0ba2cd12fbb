use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lap_core::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::Limits;
use super::body::UploadBody;
use crate::redeem::GatewayBase;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The one upstream of the relay, with its pool of connections.
#[derive(Debug)]
pub struct Gateway {
    /// Where it is.
    pub base: GatewayBase,
    pub(super) client: Client<Patient, UploadBody>,
}

impl Gateway {
    /// Prepares the way to a gateway; nothing is connected yet.
    ///
    /// The gateway's certificate is checked against the system's roots and, where the system has none,
    /// Mozilla's; `extra_roots` (PEM) adds a private authority. There is no way to skip the check.
    ///
    /// # Errors
    /// `Invalid` for a base that is no URL or for roots that are no certificates.
    pub fn new(base: &str, extra_roots: Option<&str>, limits: &Limits) -> Result<Self> {
        let base = GatewayBase::parse(base)?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(limits.connect));
        http.set_keepalive(Some(Duration::from_secs(60)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(base.is_https(), extra_roots)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(256)
            .http1_max_headers(200)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .build(Patient {
                inner: https,
                patience: limits.connect,
            });
        Ok(Self { base, client })
    }
}

fn tls(is_https: bool, extra_roots: Option<&str>) -> Result<ClientConfig> {
    let failed = |why: &str| Error::new(ErrorKind::Internal, "prepare TLS", why.to_owned());
    let builder = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("no protocol version is available").with_source(error))
    };
    if !is_https {
        // A plain gateway needs no roots, and reading the system's takes milliseconds.
        return Ok(builder()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth());
    }
    let Some(pem) = extra_roots else {
        let config = match builder()?.with_native_roots() {
            Ok(config) => config,
            Err(_) => builder()?.with_webpki_roots(),
        };
        return Ok(config.with_no_client_auth());
    };
    let invalid = || Error::invalid("read gateway certificates", "extra_roots", "not PEM certificates");
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots
            .add(certificate.map_err(|_| invalid())?)
            .map_err(|_| invalid())?;
        added += 1;
    }
    if added == 0 {
        return Err(invalid());
    }
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

/// Bounds connecting as a whole: the TCP connector's own limit ends before the TLS handshake.
#[derive(Debug, Clone)]
pub(super) struct Patient {
    inner: HttpsConnector<HttpConnector>,
    patience: Duration,
}

impl tower_service::Service<Uri> for Patient {
    type Response = <HttpsConnector<HttpConnector> as tower_service::Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let patience = self.patience;
        Box::pin(async move { tokio::time::timeout(patience, connecting).await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_roots_must_be_certificates() {
        let limits = Limits::default();
        assert!(Gateway::new("https://gateway.example.com", None, &limits).is_ok());
        for pem in [
            "",
            "no pem",
            "-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n",
        ] {
            let error = Gateway::new("https://gateway.example.com", Some(pem), &limits).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{pem}");
        }
    }
}
