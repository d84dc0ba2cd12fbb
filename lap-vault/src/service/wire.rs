//! The JSON of the control calls. Both sides live in this crate and speak the same [`super::PROTOCOL`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::PidFile;
use crate::relay::Receipt;

/// `GET /v1/identity?nonce=`: needs no token, shows that the vault has it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Identity {
    #[serde(flatten)]
    pub(crate) file: PidFile,
    pub(crate) proof: String,
}

/// `PUT /v1/gateway`.
#[derive(Serialize, Deserialize)]
pub(crate) struct SetGateway {
    pub(crate) base: String,
    #[serde(default)]
    pub(crate) extra_roots: Option<String>,
}

/// `PUT /v1/sandboxes/{id}`.
#[derive(Serialize, Deserialize)]
pub(crate) struct AttachSandbox {
    pub(crate) names: BTreeSet<String>,
}

/// Answer to [`AttachSandbox`].
#[derive(Serialize, Deserialize)]
pub(crate) struct AttachedStubs {
    pub(crate) base: String,
    pub(crate) stubs: BTreeMap<String, String>,
}

/// One of `PUT /v1/sandboxes/{id}/grants`.
#[derive(Serialize, Deserialize)]
pub(crate) struct GrantValue {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) hosts: Vec<String>,
}

/// One of `GET /v1/sandboxes`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedSandbox {
    pub(crate) sandbox: Uuid,
    pub(crate) names: BTreeSet<String>,
    pub(crate) granted: BTreeSet<String>,
}

/// `GET /v1/receipts?sandbox=&after=&limit=`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReceiptList {
    pub(crate) receipts: Vec<Receipt>,
}

/// A refusal. The kind is the word of [`word`].
#[derive(Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) kind: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) field: Option<String>,
}
