use async_trait::async_trait;
use lap_core::error::Result;
use lap_core::id::{SandboxId, SessionId};
use lap_core::store::{Append, Appended, EventPage, Events};
use uuid::Uuid;

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Events for Broken {
    async fn append(&self, mut appends: Vec<Append>) -> Result<Vec<Appended>> {
        for append in &mut appends {
            self.distort(append).await?;
        }
        let mut answers = self.store.append(appends).await?;
        let is_refused = answers.iter().any(|answer| !matches!(answer, Appended::Done(_)));
        if is_refused && self.is(Defect::RefusesWholeBatches) {
            answers.fill(Appended::Stale);
        }
        Ok(answers)
    }

    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>> {
        let after = if self.is(Defect::ListsFromTheStart) {
            0
        } else {
            after
        };
        let mut page = self.store.events(session, after, limit).await?;
        if let Some(page) = page.as_mut().filter(|_| self.is(Defect::EventIdsHaveGaps)) {
            page.events.iter_mut().for_each(|event| event.id *= 2);
        }
        Ok(page)
    }

    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64> {
        self.store.cursor(session, self.source(source)).await
    }
}

impl Broken {
    fn source(&self, source: SandboxId) -> SandboxId {
        if self.is(Defect::OneCursorPerSession) {
            SandboxId::from_uuid(Uuid::nil())
        } else {
            source
        }
    }

    async fn distort(&self, append: &mut Append) -> Result<()> {
        append.hold = append.hold.as_ref().map(|hold| self.hold(hold));
        match self.defect {
            Defect::AppendsWithoutHold => append.hold = None,
            Defect::ForgetsRunning => append.running = None,
            Defect::LosesOrigins => append.events.iter_mut().for_each(|event| event.origin = None),
            _ => {}
        }
        if let Some(ingest) = &mut append.ingest {
            ingest.source = self.source(ingest.source);
            if self.is(Defect::IgnoresCursors) {
                ingest.expected = self.store.cursor(append.session, ingest.source).await?;
            }
        }
        Ok(())
    }
}
