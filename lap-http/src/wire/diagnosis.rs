//! A diagnosis on the wire. The original asked a cluster; its sections are kept, and say that they do not exist
//! where the runtime has no such thing.

use lap_core::engine::{Diagnosis, Finding};
use lap_core::harness::{Probe, Readiness};
use lap_core::runtime::Endpoint;
use lap_core::sandbox::{Place, Sandbox};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// What the platform can find out about a session. A section that could not be asked holds `error`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Diagnosis)]
pub(crate) struct ApiDiagnosis {
    #[schema(value_type = Object)]
    session: Value,
    #[schema(value_type = Object)]
    agent: Value,
    /// The row of the sandbox, and what the runtime says about it.
    #[schema(value_type = Object)]
    sandbox: Value,
    /// What the runtime can do.
    #[schema(value_type = Object)]
    runtime: Value,
    #[schema(value_type = Object)]
    pod: Value,
    #[schema(value_type = Object)]
    sandbox_cr: Value,
    #[schema(value_type = Object)]
    service: Value,
    #[schema(value_type = Object)]
    node: Value,
    #[schema(value_type = Object)]
    image_cache: Value,
    #[schema(value_type = Object)]
    warm_pool: Value,
    #[schema(value_type = Object)]
    pod_logs_tail: Value,
    #[schema(value_type = Object)]
    harness_probe: Value,
    detected_issues: Vec<DetectedIssue>,
    notes: Vec<String>,
}

/// Something that is wrong, or worth knowing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetectedIssue {
    /// A stable word for programs.
    code: String,
    /// `high`, `medium` or `info`.
    severity: String,
    message: String,
}

impl ApiDiagnosis {
    /// `session` and `agent` are as the API shows them.
    pub(crate) fn new(diagnosis: &Diagnosis, session: Value, agent: Value) -> Self {
        let absent = || json!({ "exists": false });
        let findings = diagnosis.findings();
        let capabilities = diagnosis.capabilities;
        Self {
            session,
            agent,
            sandbox: sandbox(diagnosis),
            runtime: json!({
                "place": match capabilities.place {
                    Place::Cluster => "cluster",
                    Place::Host(_) => "host",
                },
                "isolation": capabilities.isolation.as_str(),
                "egress": format!("{:?}", capabilities.egress).to_lowercase(),
                "exec": capabilities.exec,
                "suspend": capabilities.suspend,
            }),
            pod: absent(),
            sandbox_cr: absent(),
            service: absent(),
            node: absent(),
            image_cache: absent(),
            warm_pool: absent(),
            pod_logs_tail: log(diagnosis.log.as_ref()),
            harness_probe: probe(diagnosis.probe.as_ref()),
            notes: notes(&findings),
            detected_issues: findings.into_iter().map(DetectedIssue::from).collect(),
        }
    }
}

impl From<Finding> for DetectedIssue {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code.to_owned(),
            severity: finding.severity.as_str().to_owned(),
            message: finding.message,
        }
    }
}

fn failed(error: &lap_core::Error) -> Value {
    json!({ "exists": false, "error": error.message() })
}

fn sandbox(diagnosis: &Diagnosis) -> Value {
    let mut shown = match &diagnosis.sandbox {
        Ok(Some(sandbox)) => row(sandbox),
        Ok(None) => json!({ "exists": false }),
        Err(error) => failed(error),
    };
    shown["endpoint"] = match &diagnosis.endpoint {
        None => Value::Null,
        Some(Ok(Endpoint::At(address))) => json!({ "known": true, "address": address }),
        Some(Ok(Endpoint::Gone { reason })) => json!({ "known": true, "gone": reason }),
        Some(Ok(Endpoint::Unknown)) => json!({ "known": false }),
        Some(Err(error)) => json!({ "known": false, "error": error.message() }),
    };
    shown
}

fn row(sandbox: &Sandbox) -> Value {
    json!({
        "exists": true,
        "id": sandbox.id.to_string(),
        "state": sandbox.state.as_str(),
        "state_since": sandbox.state_since.to_iso8601(),
        "address": sandbox.address,
        "reason": sandbox.reason,
        "created_at": sandbox.created_at.to_iso8601(),
    })
}

fn log(log: Option<&lap_core::Result<String>>) -> Value {
    match log {
        None => json!({ "available": false, "text": null, "error": null }),
        Some(Ok(text)) => json!({ "available": true, "text": text, "error": null }),
        Some(Err(error)) => json!({ "available": false, "text": null, "error": error.message() }),
    }
}

fn probe(probe: Option<&lap_core::Result<Probe>>) -> Value {
    match probe {
        None => json!({ "attempted": false }),
        Some(Err(error)) => json!({ "attempted": true, "ok": false, "error": error.message() }),
        Some(Ok(probe)) => {
            let (state, reason) = match &probe.readiness {
                Readiness::Preparing => ("preparing", None),
                Readiness::Ready => ("ready", None),
                Readiness::Failed(reason) => ("failed", Some(reason)),
            };
            json!({
                "attempted": true,
                "ok": state == "ready",
                "state": state,
                "reason": reason,
                "phase": probe.phase.map(|phase| phase.as_str()),
                "detail": probe.detail,
            })
        }
    }
}

fn notes(findings: &[Finding]) -> Vec<String> {
    let mut notes =
        vec!["pod, sandbox_cr, service, node and image_cache are sections of a cluster".to_owned()];
    if findings.is_empty() {
        notes.push("nothing conspicuous was found".to_owned());
    }
    notes
}
