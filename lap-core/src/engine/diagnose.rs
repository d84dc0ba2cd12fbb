//! The verb that tells what is wrong with a session.

mod findings;

use std::time::Duration;

use super::Engine;
use super::core::Core;
use crate::agent::Agent;
use crate::capability::Capabilities;
use crate::error::{Error, ErrorKind, Result};
use crate::harness::Probe;
use crate::id::{SandboxId, SessionId};
use crate::runtime::Endpoint;
use crate::sandbox::Sandbox;
use crate::session::Session;
use crate::time::Timestamp;

pub use findings::{Finding, Severity};

/// How long the harness may take to answer.
const PROBE: Duration = Duration::from_secs(2);
/// How long every other part may take.
const PART: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 200;

/// What is known about a session. A part that could not be asked says why and spoils no other.
#[derive(Debug)]
#[non_exhaustive]
pub struct Diagnosis {
    /// When.
    pub at: Timestamp,
    /// The session.
    pub session: Session,
    /// Its agent; `None` when that was deleted.
    pub agent: Result<Option<Agent>>,
    /// The row of its sandbox.
    pub sandbox: Result<Option<Sandbox>>,
    /// What the runtime says about the sandbox; `None` when the session has none.
    pub endpoint: Option<Result<Endpoint>>,
    /// What the harness answers; `None` when there is nothing to ask.
    pub probe: Option<Result<Probe>>,
    /// The last 200 lines that the sandbox printed; `None` when the session has none. Untrusted text.
    pub log: Option<Result<String>>,
    /// What the runtime can do.
    pub capabilities: Capabilities,
}

impl Diagnosis {
    /// What is wrong or worth knowing, the worst first.
    pub fn findings(&self) -> Vec<Finding> {
        findings::of(self)
    }
}

impl Engine {
    /// Everything the platform can find out about the session within a few seconds. Changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when the session itself cannot be read.
    pub async fn diagnose(&self, id: SessionId) -> Result<Diagnosis> {
        let core = &self.core;
        let session = core.session(id).await?;
        let sandbox = async {
            match session.sandbox {
                Some(sandbox) => core.parts.store.sandbox(sandbox).await,
                None => Ok(None),
            }
        };
        let (agent, sandbox, endpoint, probe, log) = tokio::join!(
            within(PART, core.parts.store.agent(session.agent)),
            within(PART, sandbox),
            each(session.sandbox, |sandbox| within(
                PART,
                core.parts.runtime.endpoint(sandbox, Duration::ZERO)
            )),
            probe(core, &session),
            each(session.sandbox, |sandbox| within(
                PART,
                core.parts.runtime.logs(sandbox, LOG_LINES)
            )),
        );
        Ok(Diagnosis {
            at: core.parts.clock.now(),
            session,
            agent,
            sandbox,
            endpoint,
            probe,
            log,
            capabilities: core.parts.runtime.capabilities(),
        })
    }
}

async fn probe(core: &Core, session: &Session) -> Option<Result<Probe>> {
    let contact = core.contact(session.sandbox?, session.address.as_deref()?);
    Some(within(PROBE, core.parts.harness.probe(&contact, Duration::ZERO)).await)
}

async fn each<T, F: Future<Output = T>>(
    sandbox: Option<SandboxId>,
    ask: impl FnOnce(SandboxId) -> F,
) -> Option<T> {
    match sandbox {
        Some(sandbox) => Some(ask(sandbox).await),
        None => None,
    }
}

async fn within<T>(limit: Duration, part: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || {
        Error::new(
            ErrorKind::TimedOut,
            "diagnose session",
            format!("no answer within {} s", limit.as_secs()),
        )
    };
    tokio::time::timeout(limit, part)
        .await
        .unwrap_or_else(|_| Err(late()))
}
