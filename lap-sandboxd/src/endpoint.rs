//! Where this sandboxd answers, as the runtime reads it.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The content of `endpoint.json` and of the line on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process id.
    pub pid: u32,
    /// When the process started: field 22 of `/proc/<pid>/stat`. With the pid it names the process for ever.
    pub started: String,
    /// Whose sandboxd it is.
    pub sandbox: Uuid,
    /// Random per process.
    pub boot: Uuid,
}

impl Endpoint {
    pub(crate) fn of_this_process(address: SocketAddr, sandbox: Uuid, boot: Uuid) -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self {
            address,
            pid,
            started: crate::processes::started(pid)?,
            sandbox,
            boot,
        })
    }

    /// One line of JSON without a line feed.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}
