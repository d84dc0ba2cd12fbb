use async_trait::async_trait;
use lap_core::blueprint::PlatformHash;
use lap_core::error::Result;
use lap_core::event::NewEvent;
use lap_core::id::{SandboxId, SessionId};
use lap_core::sandbox::Place;
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::store::{
    Advance, Advanced, Agents, Append, BringUp, End, Ended, Events, Open, Opened, OpenedSession, Revive,
    Revived, Sandboxes, SessionQuery, Sessions, Step, Take, Turns, Work, WorkKind,
};
use lap_core::time::Clock;
use std::time::Duration;

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Sessions for Broken {
    async fn open(&self, mut open: Open) -> Result<Opened> {
        self.notes().places.insert(open.place);
        self.request(&mut open.idempotency);
        match self.defect {
            Defect::IgnoresPlatforms => open.platform_hash = PlatformHash::from_text("any"),
            Defect::LosesTitles => open.title = None,
            Defect::LosesPrompts => open.first_turn = None,
            Defect::ForgetsOpenKeys => open.idempotency.key = open.session.to_string(),
            Defect::OpensTwice if self.store.session(open.session).await?.is_some() => {
                open.session = SessionId::fresh(&self.entropy, self.clock.now());
                open.cold_sandbox = SandboxId::fresh(&self.entropy, self.clock.now());
                open.idempotency.key = open.session.to_string();
                open.first_turn = None;
            }
            Defect::IgnoresAgentVersions => {
                let stored = self.store.agent(open.agent).await?;
                open.agent_version = stored.map_or(open.agent_version, |agent| agent.version);
            }
            _ => {}
        }
        let worker = open.worker;
        match self.store.open(open).await? {
            Opened::Warm(opened) => Ok(self.opened(opened, true, worker).await),
            Opened::Cold(opened) => Ok(self.opened(opened, false, worker).await),
            other => Ok(other),
        }
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        self.store.session(id).await
    }

    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>> {
        self.store.bring_up(id).await
    }

    async fn list_sessions(&self, mut query: SessionQuery) -> Result<Vec<Session>> {
        if self.is(Defect::IgnoresStates) {
            query.states = Vec::new();
        }
        self.store.list_sessions(query).await
    }

    async fn advance(&self, mut advance: Advance) -> Result<Advanced> {
        let (session, step) = (advance.session, advance.step.clone());
        advance.hold = self.hold(&advance.hold);
        if let Step::Ready { reap_after, .. } = &mut advance.step
            && self.is(Defect::NeverReaps)
        {
            *reap_after = Duration::from_secs(1_000_000);
        }
        if matches!(step, Step::Failed(_)) && self.is(Defect::AbortsTurnsOfFailedSessions) {
            self.store.abort(session, None).await?;
        }
        let answer = self.store.advance(advance).await?;
        self.lose_cleanups().await;
        self.advanced(session, step, answer).await
    }

    async fn end(&self, mut end: End) -> Result<Ended> {
        if self.is(Defect::EndsBusySessions) {
            end.only_if_idle_for = None;
        }
        let session = end.session;
        let answer = self.store.end(end).await?;
        self.lose_cleanups().await;
        match (answer, self.defect) {
            (Ended::Done(ended), Defect::WritesAfterTheEnd) => {
                self.write(session).await?;
                Ok(Ended::Done(ended))
            }
            (Ended::Already(ended), Defect::EndsAgain) => Ok(Ended::Done(ended)),
            (answer, _) => Ok(answer),
        }
    }

    async fn revive(&self, mut revive: Revive) -> Result<Revived> {
        let stored = self.store.session(revive.session).await?;
        match (self.defect, &stored) {
            (Defect::RevivesColdOnly, _) => revive.platform_hash = PlatformHash::from_text("none"),
            (Defect::RevivesOverTurns, Some(session)) if session.state == SessionState::Ready => {
                self.store
                    .lose_sandbox(session.sandbox.unwrap(), "restarted")
                    .await?;
            }
            (Defect::RevivesTwice, Some(session)) if session.state == SessionState::Creating => {
                let by = EndedBy::User;
                self.store
                    .end(End {
                        session: session.id,
                        by,
                        reason: None,
                        only_if_idle_for: None,
                    })
                    .await?;
                revive.cold_sandbox = SandboxId::fresh(&self.entropy, self.clock.now());
            }
            _ => {}
        }
        Ok(match (self.store.revive(revive).await?, self.defect) {
            (Revived::Cold(mut opened), Defect::RevivesInPlace) => {
                opened.session.attempt -= 1;
                Revived::Cold(opened)
            }
            (Revived::Cold(mut opened), Defect::RevivesForOthers) => {
                self.store
                    .again(&opened.work.take().unwrap(), Duration::ZERO)
                    .await?;
                Revived::Cold(opened)
            }
            (Revived::AgentGone, Defect::RevivesTheDeleted) => Revived::Creating(stored.unwrap()),
            (answer, _) => answer,
        })
    }

    async fn touch(&self, sessions: &[SessionId]) -> Result<()> {
        if self.is(Defect::IgnoresTouches) {
            Ok(())
        } else {
            self.store.touch(sessions).await
        }
    }
}

impl Broken {
    /// An event that nobody asked for.
    pub(super) async fn write(&self, session: SessionId) -> Result<()> {
        let events = vec![NewEvent::session_ready()];
        self.store
            .append(vec![Append {
                session,
                hold: None,
                ingest: None,
                running: None,
                events,
            }])
            .await?;
        Ok(())
    }

    async fn opened(
        &self,
        mut opened: OpenedSession,
        is_warm: bool,
        worker: lap_core::id::WorkerId,
    ) -> Opened {
        opened.work = opened.work.take().map(|item| self.given(item));
        match (self.defect, opened.work.take()) {
            (Defect::LeavesBringUpsDue, Some(item)) => {
                self.store.again(&item, Duration::ZERO).await.unwrap();
            }
            (Defect::TakesFarBringUps, None) => {
                let places: Vec<Place> = vec![opened.sandbox.place];
                let take = Take {
                    worker,
                    kinds: vec![WorkKind::BringUp],
                    places,
                    limit: 1,
                };
                opened.work = self.store.take(take).await.unwrap().pop();
            }
            (_, item) => opened.work = item,
        }
        if self.is(Defect::SharesWarmSandboxes) {
            let mut notes = self.notes();
            if is_warm {
                notes.shared_sandbox.get_or_insert_with(|| opened.sandbox.clone());
            }
            if let Some(shared) = &notes.shared_sandbox {
                opened.sandbox = shared.clone();
                return Opened::Warm(opened);
            }
        }
        if is_warm {
            Opened::Warm(opened)
        } else {
            Opened::Cold(opened)
        }
    }

    async fn advanced(&self, session: SessionId, step: Step, answer: Advanced) -> Result<Advanced> {
        Ok(match (answer, self.defect, step) {
            (Advanced::Done(mut session, started), Defect::PhasesGoBack, Step::Phase(phase, detail)) => {
                session.phase = Some(phase);
                session.phase_detail = detail;
                Advanced::Done(session, started)
            }
            (Advanced::Done(session, Some(_)), Defect::ForgetsTheQueueWhenReady, _) => {
                Advanced::Done(session, None)
            }
            (Advanced::Done(session, started), ..) => {
                Advanced::Done(session, started.map(|(turn, item)| (turn, self.given(item))))
            }
            (Advanced::Stale, Defect::TakesLateSteps, _) => match self.store.session(session).await? {
                Some(session) => Advanced::Done(session, None),
                None => Advanced::Stale,
            },
            (Advanced::Stale, ..) => Advanced::Stale,
        })
    }
}
