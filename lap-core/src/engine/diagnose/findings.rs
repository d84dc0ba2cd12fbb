//! From what is known to what is wrong.

use super::Diagnosis;
use crate::capability::{Egress, Isolation};
use crate::harness::Readiness;
use crate::runtime::Endpoint;
use crate::session::SessionState;

/// A bring-up that takes longer is conspicuous.
const LONG_BRING_UP_MS: i64 = 180_000;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The session does not work.
    High,
    /// It may not work.
    Medium,
    /// It works; this is worth knowing.
    Info,
}

impl Severity {
    /// The word shown to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Info => "info",
        }
    }
}

/// Something that is wrong with a session, or worth knowing about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable word for programs.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// In words, with what to do about it.
    pub message: String,
}

fn finding(severity: Severity, code: &'static str, message: impl Into<String>) -> Finding {
    Finding {
        code,
        severity,
        message: message.into(),
    }
}

pub(super) fn of(diagnosis: &Diagnosis) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(of_session(diagnosis));
    findings.extend(of_sandbox(diagnosis));
    findings.extend(of_harness(diagnosis));
    findings.extend(of_runtime(diagnosis));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn of_session(diagnosis: &Diagnosis) -> Vec<Finding> {
    let session = &diagnosis.session;
    let why = session.failure.as_deref().unwrap_or("no reason is recorded");
    let mut findings = Vec::new();
    if session.state == SessionState::Failed {
        findings.push(finding(
            Severity::High,
            "bring_up_failed",
            format!("the session could not be brought up: {why}"),
        ));
    }
    let in_state = diagnosis.at.unix_millis() - session.state_since.unix_millis();
    if session.state == SessionState::Creating && in_state > LONG_BRING_UP_MS {
        let phase = session.phase.map_or("none", |phase| phase.as_str());
        let message = format!(
            "the bring-up has taken {} s; its phase is {phase}",
            in_state / 1000
        );
        findings.push(finding(Severity::Medium, "pod_not_ready_old", message));
    }
    if matches!(diagnosis.agent, Ok(None)) && session.state.is_active() {
        findings.push(finding(
            Severity::Medium,
            "agent_deleted",
            "the agent of this session does not exist any more",
        ));
    }
    findings
}

fn of_sandbox(diagnosis: &Diagnosis) -> Option<Finding> {
    if !diagnosis.session.state.is_active() {
        return None;
    }
    match (&diagnosis.endpoint, &diagnosis.sandbox) {
        (Some(Ok(Endpoint::Gone { reason })), _) if diagnosis.session.state == SessionState::Ready => {
            let message = format!("the sandbox does not exist any more: {reason}; restart the session");
            Some(finding(Severity::High, "harness_container_terminated", message))
        }
        (_, Ok(Some(sandbox))) if !sandbox.state.is_live() => {
            let reason = sandbox.reason.as_deref().unwrap_or("no reason is recorded");
            Some(finding(
                Severity::High,
                "sandbox_lost",
                format!("the sandbox has ended: {reason}"),
            ))
        }
        (Some(Err(error)), _) => {
            let message = format!(
                "the runtime cannot be asked about the sandbox: {}",
                error.message()
            );
            Some(finding(Severity::Medium, "runtime_unreachable", message))
        }
        _ => None,
    }
}

fn of_harness(diagnosis: &Diagnosis) -> Option<Finding> {
    match diagnosis.probe.as_ref()? {
        Err(error) if diagnosis.session.state == SessionState::Ready => {
            let message = format!("the harness does not answer: {}", error.message());
            Some(finding(Severity::High, "harness_unreachable", message))
        }
        Ok(probe) => match &probe.readiness {
            Readiness::Failed(reason) => Some(finding(
                Severity::High,
                "harness_failed",
                format!("the harness gave up: {reason}"),
            )),
            _ if probe.session.is_some_and(|bound| bound != diagnosis.session.id) => {
                let message = "the sandbox at this address serves another session";
                Some(finding(Severity::High, "sandbox_of_another_session", message))
            }
            Readiness::Ready | Readiness::Preparing => None,
        },
        Err(_) => None,
    }
}

fn of_runtime(diagnosis: &Diagnosis) -> Vec<Finding> {
    let mut findings = Vec::new();
    if diagnosis.capabilities.isolation == Isolation::None {
        let message =
            "sandboxes of this runtime are not isolated: the agent can read what the server can read";
        findings.push(finding(Severity::Info, "not_isolated", message));
    }
    if diagnosis.capabilities.egress == Egress::Advisory {
        let message =
            "programs in the sandbox that ignore their proxy settings can reach the network around the vault";
        findings.push(finding(Severity::Info, "egress_advisory", message));
    }
    findings
}
