//! The files that say what a sandbox is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use lap_core::id::{InstanceId, SandboxId};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::files::{read_small, replace};
use crate::process::Identity;

const RECORD: &str = "sandbox.json";
const ENDPOINT: &str = "endpoint.json";
const LABELS: &str = "labels.json";

/// The sandbox's first process as written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RootRow {
    pid: u32,
    started: String,
    boot_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordRow {
    sandbox: String,
    instance: String,
    created_at: String,
    root: Option<RootRow>,
}

/// Whose a sandbox is and which process it is. Once `root` is there, the process has its whole launch document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) instance: InstanceId,
    pub(crate) created_at: String,
    pub(crate) root: Option<Root>,
}

/// A process of one boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) identity: Identity,
    pub(crate) boot_id: String,
}

impl Record {
    /// The record, or nothing when there is none, when a power failure tore it, or when somebody put something else
    /// in its place.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let content = match read_small(folder, RECORD) {
            Err(error) if is_no_record(&error) => None,
            other => other?,
        };
        Ok(content
            .and_then(|content| serde_json::from_slice(&content).ok())
            .and_then(Self::from_row))
    }

    fn from_row(row: RecordRow) -> Option<Self> {
        let root = match row.root {
            None => None,
            Some(root) => Some(Root {
                identity: Identity {
                    pid: root.pid,
                    started: root.started.parse().ok()?,
                },
                boot_id: root.boot_id,
            }),
        };
        Some(Self {
            instance: row.instance.parse().ok()?,
            created_at: row.created_at,
            root,
        })
    }

    /// Puts the record in place.
    pub(crate) fn write(&self, folder: &Path, sandbox: SandboxId) -> io::Result<()> {
        let root = self.root.as_ref().map(|root| RootRow {
            pid: root.identity.pid,
            started: root.identity.started.to_string(),
            boot_id: root.boot_id.clone(),
        });
        let row = RecordRow {
            sandbox: sandbox.to_string(),
            instance: self.instance.to_string(),
            created_at: self.created_at.clone(),
            root,
        };
        replace(folder, RECORD, &serde_json::to_vec(&row)?)
    }
}

/// Whether reading failed because of what is there, and not because of the moment.
fn is_no_record(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[derive(Debug, Deserialize)]
struct EndpointRow {
    address: SocketAddr,
    pid: u32,
    started: String,
    sandbox: String,
}

/// What sandboxd says about itself. Anything that runs in the sandbox could have written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointFile {
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
}

impl EndpointFile {
    /// The file's content if it is there, well-formed, about this sandbox, and names a port of this machine.
    pub(crate) fn read(folder: &Path, sandbox: SandboxId) -> io::Result<Option<Self>> {
        let content = read_small(folder, ENDPOINT)?;
        let Some(row) = content.and_then(|content| serde_json::from_slice::<EndpointRow>(&content).ok())
        else {
            return Ok(None);
        };
        let Ok(started) = row.started.parse() else {
            return Ok(None);
        };
        let is_ours = row.sandbox.parse().is_ok_and(|named: SandboxId| named == sandbox);
        // A sandbox must not be able to point the server at other machines.
        let is_local = row.address.ip().is_loopback() && row.address.port() != 0;
        let file = Self {
            address: row.address,
            identity: Identity {
                pid: row.pid,
                started,
            },
        };
        Ok((is_ours && is_local).then_some(file))
    }
}

/// Adds labels to those that are there.
pub(crate) fn merge_labels(folder: &Path, labels: &BTreeMap<String, String>) -> io::Result<()> {
    let content = read_small(folder, LABELS)?.unwrap_or_default();
    // What cannot be read is replaced: labels are for people and nothing depends on them.
    let mut all: BTreeMap<String, String> = serde_json::from_slice(&content).unwrap_or_default();
    all.extend(labels.clone());
    replace(folder, LABELS, &serde_json::to_vec_pretty(&all)?)
}
