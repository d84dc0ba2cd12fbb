//! Work kind `bring_up`: from an opened session to one that takes turns. Keyed by session.
//!
//! Idempotent: launch, attach, grant and open repeat without effect, and the one write that makes the session
//! ready loses to whoever holds a newer fence.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::runs::Signals;
use super::work::{Next, start};
use super::{plan, remember};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::harness::{Contact, Readiness};
use crate::id::SandboxId;
use crate::opening::Opening;
use crate::runtime::Endpoint;
use crate::sandbox::{Sandbox, SandboxState};
use crate::session::{Phase, SessionState};
use crate::store::{Advance, Advanced, Replace, Replaced, Step, WorkItem};

/// How often a sandbox that does not work is replaced before the session fails.
const REPLACEMENTS: u32 = 2;
/// A preparation that takes longer is told in phases; a shorter one costs no writes.
const QUIET: Duration = Duration::from_millis(250);
/// How often a longer one is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why one sandbox did not come up.
enum Setback {
    /// This sandbox does not work; another one may.
    Broken(String),
    /// No sandbox would: the repository cannot be cloned, the harness is not installed.
    Hopeless(String),
    /// The store or the vault does not answer, or the hold is lost. The item is repeated.
    Later(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported => Self::Hopeless(error.message().to_owned()),
            _ => Self::Later(error),
        }
    }
}

struct BringUpRun<'a> {
    core: &'a Arc<Core>,
    item: &'a WorkItem,
    opening: Opening,
    deadline: Instant,
    path: &'static str,
    /// The session had a sandbox before and remembers things.
    is_restart: bool,
}

pub(super) async fn run(core: &Arc<Core>, item: &WorkItem, signals: &Signals) -> Result<Next> {
    let session = item.key().parse()?;
    let Some(found) = core.parts.store.bring_up(session).await? else {
        return Ok(Next::Done);
    };
    if found.session.state != SessionState::Creating {
        return Ok(Next::Done);
    }
    let started = Instant::now();
    // The time an earlier process spent counts, so that repetitions do not go on for ever.
    let spent = core.parts.clock.now().since(found.session.state_since);
    let run = BringUpRun {
        core,
        item,
        opening: Opening::unseal(session, &found.opening, &core.parts.sealer)?,
        deadline: started + core.config.bring_up_timeout.saturating_sub(spent),
        path: if found.sandbox.state == SandboxState::Claimed {
            "warm"
        } else {
            "cold"
        },
        is_restart: found.session.attempt > 1,
    };
    let next = tokio::select! {
        biased;
        next = run.bring_up(found.sandbox) => next,
        () = signals.ended.cancelled() => Ok(Next::Done),
    };
    metrics::histogram!("session_spawn_duration_seconds", "path" => run.path).record(started.elapsed());
    next
}

impl BringUpRun<'_> {
    async fn bring_up(&self, mut sandbox: Sandbox) -> Result<Next> {
        for replacement in 0..=REPLACEMENTS {
            let setback = match self.prepare(&sandbox).await {
                Ok((conversation, address)) => return self.ready(conversation, address).await,
                Err(setback) => setback,
            };
            match setback {
                Setback::Later(error)
                    if error.kind() == ErrorKind::Stale || Instant::now() < self.deadline =>
                {
                    return Err(error);
                }
                Setback::Later(error) => return self.fail(chain(&error)).await,
                Setback::Hopeless(reason) => return self.fail(reason).await,
                Setback::Broken(reason) if replacement == REPLACEMENTS || Instant::now() >= self.deadline => {
                    return self.fail(reason).await;
                }
                Setback::Broken(reason) => match self.replace(&sandbox, reason).await? {
                    Some(other) => sandbox = other,
                    None => return Ok(Next::Settled),
                },
            }
        }
        Ok(Next::Done)
    }

    /// The conversation is open in this sandbox; returns its id and the sandbox's address.
    async fn prepare(&self, sandbox: &Sandbox) -> Result<(String, String), Setback> {
        let (core, id) = (self.core, sandbox.id);
        let address = match (&sandbox.state, &sandbox.address) {
            (SandboxState::Claimed, Some(address)) => address.clone(),
            _ => self.launch(id).await?,
        };
        core.parts
            .vault
            .grant(id, &plan::grants(core, &self.opening))
            .await?;
        let warm = sandbox.state == SandboxState::Claimed;
        self.wait_ready(id, &address, warm).await?;
        let contact = core.contact(id, &address);
        let mut open = plan::conversation(self.core, &self.opening, self.item.hold.fence);
        let memory = match self.is_restart {
            true => Some(remember::restore(core, self.item, self.opening.session, &contact).await?),
            false => None,
        };
        if let Some(memory) = &memory {
            open.history.clone_from(&memory.history);
        }
        match core.parts.harness.open(&contact, &open).await {
            Ok(conversation) => {
                if let Some(memory) = &memory {
                    remember::tell(core, self.item, self.opening.session, memory).await?;
                }
                Ok((conversation, address))
            }
            Err(error) => match error.kind() {
                ErrorKind::Stale => Err(Setback::Later(error)),
                ErrorKind::Invalid | ErrorKind::Unsupported => {
                    Err(Setback::Hopeless(error.message().to_owned()))
                }
                _ => Err(Setback::Broken(format!(
                    "the harness did not open the conversation: {}",
                    chain(&error)
                ))),
            },
        }
    }

    async fn launch(&self, id: SandboxId) -> Result<String, Setback> {
        let core = self.core;
        let attachment = core
            .parts
            .vault
            .attach(&plan::attach(id, &self.opening.blueprint))
            .await?;
        core.parts
            .runtime
            .launch(&plan::launch(core, id, &self.opening, attachment)?)
            .await?;
        let mut quiet = true;
        loop {
            match core
                .parts
                .runtime
                .endpoint(id, if quiet { QUIET } else { LOOK })
                .await?
            {
                Endpoint::At(address) => return Ok(address),
                Endpoint::Gone { reason } => {
                    return Err(Setback::Broken(format!(
                        "the sandbox ended while it was starting: {reason}"
                    )));
                }
                Endpoint::Unknown => {}
            }
            if Instant::now() >= self.deadline {
                return Err(Setback::Broken(self.too_late("the sandbox got no address")));
            }
            if quiet {
                self.phase(Phase::PodPending, None).await?;
                quiet = false;
            }
        }
    }

    /// Waits for the harness. What it says about its progress becomes the session's phase.
    async fn wait_ready(&self, id: SandboxId, address: &str, warm: bool) -> Result<(), Setback> {
        let core = self.core;
        let give_up = if warm {
            Instant::now() + core.config.warm_timeout
        } else {
            self.deadline
        };
        let mut told = None;
        let mut quiet = true;
        loop {
            let contact: Contact = core.contact(id, address);
            let wait = if quiet { QUIET } else { LOOK };
            match core.parts.harness.probe(&contact, wait).await {
                Ok(probe) => match probe.readiness {
                    Readiness::Ready => return Ok(()),
                    Readiness::Failed(reason) => return Err(Setback::Hopeless(reason)),
                    Readiness::Preparing => {
                        let phase = (probe.phase.unwrap_or(Phase::WaitingHarness), probe.detail);
                        if told.as_ref() != Some(&phase) {
                            self.phase(phase.0, phase.1.clone()).await?;
                            told = Some(phase);
                        }
                    }
                },
                Err(error) => self.unreachable(id, &error, warm).await?,
            }
            quiet = false;
            if Instant::now() >= give_up {
                return Err(Setback::Broken(self.too_late("the harness did not become ready")));
            }
        }
    }

    /// Nothing answered. Whether that is the end is the runtime's to say.
    async fn unreachable(&self, id: SandboxId, error: &Error, warm: bool) -> Result<(), Setback> {
        if error.kind() == ErrorKind::Stale || (warm && !error.is_retryable()) {
            return Err(Setback::Broken(format!(
                "another sandbox answers at its address: {}",
                chain(error)
            )));
        }
        match self.core.parts.runtime.endpoint(id, Duration::ZERO).await? {
            Endpoint::Gone { reason } => Err(Setback::Broken(format!("the sandbox ended: {reason}"))),
            Endpoint::At(_) | Endpoint::Unknown => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            }
        }
    }

    fn too_late(&self, what: &str) -> String {
        format!("{what} within {} s", self.core.config.bring_up_timeout.as_secs())
    }

    async fn phase(&self, phase: Phase, detail: Option<String>) -> Result<(), Setback> {
        match self.advance(Step::Phase(phase, detail)).await? {
            Some(_) => Ok(()),
            None => Err(Setback::Later(lost_hold())),
        }
    }

    async fn ready(&self, conversation: String, address: String) -> Result<Next> {
        let reap_after = self.core.config.idle_timeout;
        let Some(turn) = self
            .advance(Step::Ready {
                conversation,
                address,
                reap_after,
            })
            .await?
        else {
            return Ok(Next::Settled);
        };
        if let Some((turn, item)) = turn {
            start(self.core, item, Some(turn));
        }
        metrics::counter!("session_spawn_total", "path" => self.path, "result" => "ok").increment(1);
        self.bind_labels();
        Ok(Next::Settled)
    }

    /// Labels are for people: the session does not wait for them.
    fn bind_labels(&self) {
        let (core, session, labels) = (
            Arc::clone(self.core),
            self.opening.session,
            plan::labels(&self.opening),
        );
        self.core.tasks.spawn(async move {
            let Ok(Some(found)) = core.parts.store.session(session).await else {
                return;
            };
            let Some(sandbox) = found.sandbox else { return };
            if let Err(error) = core.parts.runtime.bind(sandbox, &labels).await {
                tracing::debug!(error = %chain(&error), "labels were not bound");
            }
        });
    }

    async fn fail(&self, reason: String) -> Result<Next> {
        tracing::warn!(lap.session.id = %self.opening.session, reason, "a session could not be brought up");
        metrics::counter!("session_spawn_total", "path" => self.path, "result" => "failed").increment(1);
        if self.advance(Step::Failed(reason)).await?.is_some() {
            self.core.work_is_due();
        }
        Ok(Next::Settled)
    }

    async fn replace(&self, broken: &Sandbox, reason: String) -> Result<Option<Sandbox>> {
        let core = self.core;
        tracing::warn!(lap.sandbox.id = %broken.id, reason, "replacing a sandbox that does not work");
        let replace = Replace {
            session: self.opening.session,
            hold: self.item.hold.clone(),
            broken: broken.id,
            reason,
            cold_sandbox: SandboxId::fresh(&*core.parts.entropy, core.parts.clock.now()),
            place: core.worker.place,
            warm: broken.state == SandboxState::Claimed,
        };
        let replaced = core.parts.store.replace_sandbox(replace).await?;
        core.work_is_due();
        Ok(match replaced {
            Replaced::Warm(sandbox) | Replaced::Cold(sandbox) => Some(sandbox),
            Replaced::Stale => None,
        })
    }

    /// `None` when the hold is lost or the session is no longer creating.
    async fn advance(&self, step: Step) -> Result<Option<Option<(crate::turn::Turn, WorkItem)>>> {
        let advance = Advance {
            session: self.opening.session,
            hold: self.item.hold.clone(),
            step,
        };
        match self.core.parts.store.advance(advance).await? {
            Advanced::Done(session, turn) => {
                self.core.changed(session.id);
                Ok(Some(turn))
            }
            Advanced::Stale => Ok(None),
        }
    }
}

fn lost_hold() -> Error {
    Error::new(
        ErrorKind::Stale,
        "bring session up",
        "another process has taken over",
    )
}
