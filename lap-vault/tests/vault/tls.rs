//! Gateways behind TLS: HTTP/2, private authorities, wrong certificates.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{CANARY, Rig, body, client, refusal, whole};

struct TlsGateway {
    base: String,
    pem: String,
    seen: Arc<Mutex<Vec<(Version, String)>>>,
}

/// A gateway with a certificate of its own for this name.
async fn gateway(name: &str, alpn: &[&[u8]]) -> TlsGateway {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request: Request<Incoming>| {
                    let log = Arc::clone(&log);
                    async move {
                        let key = request.headers()["authorization"].to_str().unwrap().to_owned();
                        log.lock().unwrap().push((request.version(), key));
                        let size = request.into_body().collect().await.unwrap().to_bytes().len();
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{size} {CANARY}")))))
                    }
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    TlsGateway {
        base,
        pem: certified.cert.pem(),
        seen,
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    for (alpn, version) in [
        (vec![b"h2".as_slice(), b"http/1.1"], Version::HTTP_2),
        (vec![], Version::HTTP_11),
    ] {
        let gateway = gateway("localhost", &alpn).await;
        let rig = Rig::start().await;
        rig.service
            .set_gateway(&gateway.base, Some(&gateway.pem))
            .unwrap();
        for _ in 0..2 {
            let response = client()
                .request(rig.post("").body(body("hello")).unwrap())
                .await
                .unwrap();
            assert_eq!(response.version(), Version::HTTP_11);
            let (status, _, text) = whole(response).await;
            assert_eq!((status, text), (200, format!("5 {}", "*".repeat(CANARY.len()))));
        }
        let seen = gateway.seen.lock().unwrap().clone();
        assert_eq!(seen, vec![(version, format!("Bearer {CANARY}")); 2]);
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_gateway_that_cannot_prove_its_name() {
    let (unknown, other) = (
        gateway("localhost", &[]).await,
        gateway("other.example", &[]).await,
    );
    let rig = Rig::start().await;
    for (gateway, roots) in [
        (&unknown, None),
        (&unknown, Some(&other.pem)),
        (&other, Some(&other.pem)),
    ] {
        rig.service
            .set_gateway(&gateway.base, roots.map(String::as_str))
            .unwrap();
        let response = client()
            .request(rig.post("").body(body("hello")).unwrap())
            .await
            .unwrap();
        assert_eq!(refusal(response).await, (502, "upstream_connect".to_owned()));
    }
    assert!(unknown.seen.lock().unwrap().is_empty() && other.seen.lock().unwrap().is_empty());
}
