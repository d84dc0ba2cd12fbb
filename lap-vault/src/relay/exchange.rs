use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use lap_core::time::{Clock, Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::table::Caller;
use super::{Receipt, Receipts};
use crate::redeem::{Position, Reason};

/// What clients see of a status when they left before there was one.
const CLIENT_LEFT: u16 = 499;
/// Longer paths are cut in receipts.
const LONGEST_PATH: usize = 512;

/// What the two bodies of an exchange report.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Why a body ended early.
    pub(super) fault: OnceLock<Reason>,
}

/// One exchange from its first byte to its last. When it is dropped, however that comes, it files a receipt.
#[derive(Debug)]
pub(super) struct Exchange {
    receipts: Arc<Receipts>,
    at: Timestamp,
    started: Instant,
    method: Method,
    path: String,
    host: String,
    position: Option<Position>,
    caller: Option<Caller>,
    slot: Option<OwnedSemaphorePermit>,
    swapped: bool,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    finished: bool,
    pub(super) meter: Arc<Meter>,
}

impl Exchange {
    pub(super) fn begin(receipts: Arc<Receipts>, clock: &dyn Clock, method: &Method, target: &str) -> Self {
        Self {
            receipts,
            at: clock.now(),
            started: Instant::now(),
            method: method.clone(),
            path: without_query_values(target),
            host: String::new(),
            position: None,
            caller: None,
            slot: None,
            swapped: false,
            status: None,
            reason: None,
            finished: false,
            meter: Arc::default(),
        }
    }

    /// Whose exchange it is.
    pub(super) fn is_of(&mut self, caller: &Caller, position: Position) {
        self.caller = Some(caller.clone());
        self.position = Some(position);
    }

    /// Holds the sandbox's slot until the exchange ends.
    pub(super) fn hold(&mut self, slot: OwnedSemaphorePermit) {
        self.slot = Some(slot);
    }

    /// The host it goes to.
    pub(super) fn goes_to(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// The secret is about to leave.
    pub(super) const fn swapped(&mut self) {
        self.swapped = true;
    }

    /// The relay answers this itself, and that is the end of it.
    pub(super) const fn refused(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.status = Some(reason.status());
        self.finished = true;
    }

    /// The gateway answers with this status; the body follows.
    pub(super) const fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The answer is complete.
    pub(super) const fn finish(&mut self) {
        self.finished = true;
    }

    /// The sandbox has ended.
    pub(super) fn is_detached(&self) -> bool {
        self.caller
            .as_ref()
            .is_some_and(|caller| caller.life.is_cancelled())
    }

    fn reason_code(&self) -> Option<&'static str> {
        if self.finished {
            return self.reason.map(Reason::code);
        }
        let reason = if self.is_detached() {
            Some(Reason::Detached)
        } else {
            self.meter.fault.get().copied()
        };
        Some(reason.map_or("client_left", Reason::code))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let receipt = Receipt {
            number: 0,
            at: self.at.unix_millis(),
            sandbox: self.caller.as_ref().map(|caller| caller.stub.sandbox.as_uuid()),
            method: self.method.to_string(),
            path: std::mem::take(&mut self.path),
            host: std::mem::take(&mut self.host),
            verdict: if self.swapped { "swapped" } else { "refused" }.to_owned(),
            reason: self.reason_code().map(str::to_owned),
            credentials: self
                .caller
                .iter()
                .map(|caller| caller.stub.name.to_string())
                .collect(),
            position: self.position.map(|position| position.name().to_owned()),
            status: self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            bytes_in: self.meter.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.meter.bytes_out.load(Ordering::Relaxed),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        tracing::debug!(
            sandbox = receipt.sandbox.map(tracing::field::display), method = %receipt.method, path = %receipt.path,
            verdict = %receipt.verdict, reason = receipt.reason.as_deref(), status = receipt.status,
            duration_ms = receipt.duration_ms, "model relay"
        );
        self.receipts.file(receipt);
    }
}

/// The names of a query are part of what was asked; its values may be anybody's secrets.
fn without_query_values(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let names: Vec<&str> = query
        .split('&')
        .filter_map(|pair| pair.split_once('=').map(|(name, _)| name))
        .collect();
    let shown = if names.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", names.join("&"))
    };
    shown.chars().take(LONGEST_PATH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_stay_out_of_receipts() {
        assert_eq!(
            without_query_values("/v1/messages?beta=true&key=sk-canary"),
            "/v1/messages?beta&key"
        );
        assert_eq!(without_query_values("/v1/messages?sk-canary"), "/v1/messages");
        assert_eq!(without_query_values("/v1/messages"), "/v1/messages");
    }
}
