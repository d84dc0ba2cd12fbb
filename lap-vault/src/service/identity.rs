use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lap_core::secret::Secret;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// Changes whenever the control calls or the files change in a way that an older or newer side would misread.
pub const PROTOCOL: u32 = 1;

/// What the vault writes beside its socket once it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PidFile {
    pub(crate) pid: u32,
    /// When the process started, in the kernel's ticks: with the pid it names one process for ever.
    pub(crate) started: u64,
    /// Fresh at each start.
    pub(crate) boot: String,
    pub(crate) port: u16,
    pub(crate) protocol: u32,
}

/// When a process started, or nothing when there is none with this pid.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything, so count from its end.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A process that has ended and waits to be collected is gone for every purpose.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Shows that the answer to `nonce` comes from a holder of the token, without showing the token.
pub(crate) fn prove(token: &Secret, nonce: &str, file: &PidFile) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes());
    let claim = format!(
        "lap vault identity\0{nonce}\0{}\0{}\0{}\0{}\0{}",
        file.pid, file.started, file.boot, file.port, file.protocol
    );
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, claim.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = started(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(started(std::process::id()), Some(own));
        assert_eq!(started(u32::MAX), None);
    }

    #[test]
    fn a_proof_covers_the_nonce_and_every_claim() {
        let file = PidFile {
            pid: 1,
            started: 2,
            boot: "b".to_owned(),
            port: 3,
            protocol: PROTOCOL,
        };
        let token = Secret::new("token");
        let proof = prove(&token, "n", &file);
        assert_ne!(proof, prove(&token, "m", &file));
        assert_ne!(proof, prove(&Secret::new("other"), "n", &file));
        assert_ne!(proof, prove(&token, "n", &PidFile { port: 4, ..file }));
    }
}
