use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lap_core::id::{Entropy as _, SandboxId, SystemEntropy};
use lap_core::opening::Grant;
use lap_core::secret::Secret;
use lap_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::relay::Receipt;
use crate::service::wire::{
    AttachSandbox, AttachedStubs, GrantValue, Identity, ListedSandbox, ReceiptList, Refusal, SetGateway,
};
use crate::service::{PidFile, Stubs, kind, prove, read, socket_path};

/// A vault that does not answer a call within this time does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST_ANSWER: usize = 16 << 20;

/// Calls to the control socket of a vault.
#[derive(Debug, Clone)]
pub(super) struct ControlClient {
    folder: PathBuf,
    token: Secret,
}

impl ControlClient {
    pub(super) const fn new(folder: PathBuf, token: Secret) -> Self {
        Self { folder, token }
    }

    /// The vault behind the socket, if it proves that it has the token.
    pub(super) async fn identify(&self) -> Result<PidFile> {
        within(self.connect()).await.map(|(_, file)| file)
    }

    /// What the vault of this folder said about itself last.
    pub(super) fn pid_file(&self) -> Result<Option<PidFile>> {
        let bytes = read(&self.folder.join("vault.json"))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(super) async fn set_gateway(&self, base: &str, extra_roots: Option<&str>) -> Result<()> {
        let call = SetGateway {
            base: base.to_owned(),
            extra_roots: extra_roots.map(str::to_owned),
        };
        self.call(Method::PUT, "/v1/gateway", Some(&call))
            .await
            .map(drop_document)
    }

    pub(super) async fn attach(&self, sandbox: SandboxId, names: &BTreeSet<String>) -> Result<Stubs> {
        let call = AttachSandbox { names: names.clone() };
        let path = format!("/v1/sandboxes/{sandbox}");
        let attached: AttachedStubs = self.call(Method::PUT, &path, Some(&call)).await?;
        Ok(Stubs {
            base: attached.base,
            stubs: attached.stubs,
        })
    }

    pub(super) async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()> {
        let value = |grant: &Grant| GrantValue {
            name: grant.name.clone(),
            value: grant.value.expose().to_owned(),
            hosts: grant.hosts.clone(),
        };
        let call: Vec<GrantValue> = grants.iter().map(value).collect();
        let path = format!("/v1/sandboxes/{sandbox}/grants");
        self.call(Method::PUT, &path, Some(&call))
            .await
            .map(drop_document)
    }

    pub(super) async fn detach(&self, sandbox: SandboxId) -> Result<()> {
        let path = format!("/v1/sandboxes/{sandbox}");
        self.call(Method::DELETE, &path, None::<&()>)
            .await
            .map(drop_document)
    }

    pub(super) async fn list(&self) -> Result<BTreeMap<SandboxId, BTreeSet<String>>> {
        let list: Vec<ListedSandbox> = self.call(Method::GET, "/v1/sandboxes", None::<&()>).await?;
        Ok(list
            .into_iter()
            .map(|listed| (SandboxId::from_uuid(listed.sandbox), listed.granted))
            .collect())
    }

    pub(super) async fn receipts(
        &self,
        sandbox: SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Receipt>> {
        let path = format!("/v1/receipts?sandbox={sandbox}&after={after}&limit={limit}");
        let list: ReceiptList = self.call(Method::GET, &path, None::<&()>).await?;
        Ok(list.receipts)
    }

    pub(super) async fn shutdown(&self) -> Result<()> {
        self.call(Method::POST, "/v1/shutdown", None::<&()>)
            .await
            .map(drop_document)
    }

    /// Tells the vault that a server is there, until the returned value is dropped, and tells the server when
    /// the vault is gone.
    pub(super) async fn presence(&self) -> Result<Presence> {
        let request = self.request(Method::GET, "/v1/presence", None::<&()>)?;
        let response = self.send(request).await?;
        Ok(Presence(response.into_body()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        document: Option<&impl Serialize>,
    ) -> Result<T> {
        let request = self.request(method, path, document)?;
        parse(self.send(request).await?).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        document: Option<&impl Serialize>,
    ) -> Result<Request<Full<Bytes>>> {
        let body = match document {
            Some(document) => serde_json::to_vec(document).map_err(|error| {
                Error::new(ErrorKind::Internal, "control vault", "the call has no JSON form")
                    .with_source(error)
            })?,
            None => Vec::new(),
        };
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "vault")
            .header(AUTHORIZATION, format!("Bearer {}", self.token.expose()))
            .body(Full::from(body))
            .map_err(malformed)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        within(async {
            let (mut sender, _) = self.connect().await?;
            sender.send_request(request).await.map_err(unreachable)
        })
        .await
    }

    /// A connection whose other end has proved that it has the token. Nothing secret is sent before that, and
    /// nothing over another connection: whoever can write into the folder could listen there.
    async fn connect(&self) -> Result<(http1::SendRequest<Full<Bytes>>, PidFile)> {
        let (path, _folder) = socket_path(&self.folder)?;
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        tokio::spawn(connection);
        let mut nonce = [0; 24];
        SystemEntropy::new().fill(&mut nonce);
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let request = Request::get(format!("/v1/identity?nonce={nonce}")).header(HOST, "vault");
        let request = request.body(Full::default()).map_err(malformed)?;
        let identity: Identity = parse(sender.send_request(request).await.map_err(unreachable)?).await?;
        if !Secret::new(prove(&self.token, &nonce, &identity.file)).matches(&identity.proof) {
            return Err(Error::new(
                ErrorKind::Forbidden,
                "find vault",
                "what answers is not this server's vault",
            ));
        }
        sender.ready().await.map_err(unreachable)?;
        Ok((sender, identity.file))
    }
}

async fn within<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            "control vault",
            "the vault does not answer",
        )),
    }
}

/// The open answer that is there as long as both sides are.
#[derive(Debug)]
pub(super) struct Presence(Incoming);

impl Presence {
    /// Returns when the vault is gone.
    pub(super) async fn end(mut self) {
        while let Some(Ok(_)) = self.0.frame().await {}
    }
}

async fn parse<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let status = response.status();
    let reading = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
    let body = match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(unreachable(error)),
        Err(_) => {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "control vault",
                "the vault stopped answering",
            ));
        }
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(malformed);
    }
    let refusal: Refusal = serde_json::from_slice(&body).map_err(malformed)?;
    let kind = kind(&refusal.kind);
    Err(match (kind, refusal.field) {
        (ErrorKind::Invalid, Some(field)) => Error::invalid("control vault", field, refusal.message),
        _ => Error::new(kind, "control vault", refusal.message),
    })
}

fn drop_document(_: serde_json::Value) {}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(
        ErrorKind::Internal,
        "control vault",
        "the call and the vault do not match",
    )
    .with_source(error)
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "control vault",
        "the vault cannot be reached",
    )
    .with_source(error)
}
