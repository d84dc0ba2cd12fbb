//! What the model gateway offers, read with the server's own client.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lap_core::error::{Error, ErrorKind, Result};
use lap_http::ModelCatalog;
use serde_json::{Value, json};

use crate::config::Gateway;
use crate::demo_model;

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LARGEST: usize = 4 * 1024 * 1024;
const OPERATION: &str = "ask the gateway";

/// A client for gateways, wherever they are.
pub(crate) type GatewayClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A client that trusts the system's authorities first: gateways inside a company often have a certificate of their own.
///
/// # Errors
/// When TLS cannot be set up.
pub(crate) fn client() -> std::result::Result<GatewayClient, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let tls =
        rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()?;
    let tls = match tls.clone().with_native_roots() {
        Ok(tls) => tls.with_no_client_auth(),
        Err(_) => tls.with_webpki_roots().with_no_client_auth(),
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The lists of the configured gateway, or of the demo model.
#[derive(Debug)]
pub(crate) enum Catalog {
    Demo,
    Gateway {
        client: GatewayClient,
        base: String,
        bearer: HeaderValue,
    },
}

impl Catalog {
    /// # Errors
    /// When TLS cannot be set up, or the key does not fit into a header.
    pub(crate) fn of(gateway: &Gateway) -> std::result::Result<Self, String> {
        let Gateway::Configured { base, key } = gateway else {
            return Ok(Self::Demo);
        };
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| "LITELLM_API_KEY does not fit into a header".to_owned())?;
        bearer.set_sensitive(true);
        let client = client().map_err(|error| error.to_string())?;
        Ok(Self::Gateway {
            client,
            base: base.clone(),
            bearer,
        })
    }

    /// `None` when the gateway has no such route.
    async fn get(
        client: &GatewayClient,
        base: &str,
        bearer: &HeaderValue,
        path: &str,
    ) -> Result<Option<Value>> {
        let request = Request::get(format!("{base}{path}"))
            .header(header::AUTHORIZATION, bearer)
            .body(Empty::new());
        let request =
            request.map_err(|error| unavailable("its address cannot be used").with_source(error))?;
        let asking = async {
            let response = client
                .request(request)
                .await
                .map_err(|error| unavailable("it cannot be reached").with_source(error))?;
            let status = response.status();
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if !status.is_success() {
                return Err(unavailable(format!("it answers {status}")));
            }
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            let body =
                body.map_err(|error| unavailable("its answer broke off or is too large").with_source(error))?;
            let json = serde_json::from_slice(&body.to_bytes());
            json.map(Some)
                .map_err(|error| unavailable("its answer is not JSON").with_source(error))
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(unavailable(format!("no answer within {} s", PATIENCE.as_secs()))))
    }
}

fn unavailable(why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        OPERATION,
        format!("the model gateway: {why}"),
    )
}

#[async_trait]
impl ModelCatalog for Catalog {
    async fn models(&self) -> Result<Value> {
        match self {
            Self::Demo => {
                Ok(json!({ "data": [{ "id": demo_model::MODEL, "object": "model", "owned_by": "lap" }] }))
            }
            Self::Gateway { client, base, bearer } => {
                let models = Self::get(client, base, bearer, "/v1/models").await?;
                models.ok_or_else(|| unavailable("it has no list of models"))
            }
        }
    }

    async fn mcp_servers(&self) -> Result<Value> {
        match self {
            Self::Demo => Ok(json!([])),
            Self::Gateway { client, base, bearer } => {
                let servers = Self::get(client, base, bearer, "/v1/mcp/server").await?;
                Ok(servers.unwrap_or_else(|| json!([])))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use lap_core::secret::Secret;

    use super::*;

    async fn catalog(app: Router) -> Catalog {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Catalog::of(&Gateway::Configured {
            base,
            key: Secret::new("sk-real"),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn lists_are_asked_for_with_the_key() {
        let models = async |headers: HeaderMap| match headers["authorization"].as_bytes() {
            b"Bearer sk-real" => axum::Json(json!({ "data": [{ "id": "m" }] })),
            _ => axum::Json(json!({})),
        };
        let catalog = catalog(Router::new().route("/v1/models", get(models))).await;
        assert_eq!(catalog.models().await.unwrap()["data"][0]["id"], "m");
        assert_eq!(
            catalog.mcp_servers().await.unwrap(),
            json!([]),
            "a gateway without the route has none"
        );
        assert!(!format!("{catalog:?}").contains("sk-real"));
    }

    #[tokio::test]
    async fn what_is_no_list_is_refused_with_a_reason() {
        let large = "x".repeat(LARGEST + 1);
        let app = Router::new()
            .route("/v1/models", get(async move || large.clone()))
            .route("/v1/mcp/server", get(async || (StatusCode::UNAUTHORIZED, "no")));
        let catalog = catalog(app).await;
        assert!(
            catalog
                .models()
                .await
                .unwrap_err()
                .message()
                .contains("too large")
        );
        assert!(catalog.mcp_servers().await.unwrap_err().message().contains("401"));
        let key = Secret::new("sk-real");
        let nobody = Catalog::of(&Gateway::Configured {
            base: "http://127.0.0.1:9".to_owned(),
            key,
        })
        .unwrap();
        assert!(
            nobody
                .models()
                .await
                .unwrap_err()
                .message()
                .contains("cannot be reached")
        );
    }

    #[tokio::test]
    async fn the_demo_model_lists_itself() {
        let catalog = Catalog::of(&Gateway::Demo).unwrap();
        assert_eq!(
            catalog.models().await.unwrap()["data"][0]["id"],
            demo_model::MODEL
        );
    }
}
