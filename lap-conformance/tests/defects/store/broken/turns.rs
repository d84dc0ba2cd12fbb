use async_trait::async_trait;
use lap_core::error::Result;
use lap_core::event::NewEvent;
use lap_core::id::{SessionId, TurnId};
use lap_core::sandbox::Place;
use lap_core::store::{
    Aborting, Accept, Accepted, Append, Events, Finish, Finished, Hold, NewTurn, Sandboxes, Sessions,
    TurnQuery, Turns, Work,
};
use lap_core::time::Clock;
use lap_core::turn::{Turn, TurnState, Usage};

use super::Broken;
use crate::store::defect::Defect;

#[async_trait]
impl Turns for Broken {
    async fn accept(&self, mut accept: Accept) -> Result<Accepted> {
        if let Some(request) = &mut accept.idempotency {
            self.request(request);
        }
        match self.defect {
            Defect::IgnoresQueueLimits => accept.queue_limit = u32::MAX,
            Defect::ForgetsTurnKeys => accept.idempotency = None,
            Defect::AcceptsTwice if self.store.turn(accept.turn.id).await?.is_some() => {
                accept.turn.id = TurnId::fresh(&self.entropy, self.clock.now());
                accept.idempotency = None;
            }
            Defect::TakesFarTurns => {
                let session = self.store.session(accept.session).await?;
                if let Some(sandbox) = session.and_then(|session| session.sandbox) {
                    accept.place = self.store.sandbox(sandbox).await?.unwrap().place;
                }
            }
            _ => {}
        }
        let (session, turn) = (accept.session, accept.turn.clone());
        Ok(match (self.store.accept(accept).await?, self.defect) {
            (Accepted::Started(turn, _), Defect::QueuesEverything) => Accepted::Queued(turn),
            (Accepted::Started(turn, Some(item)), Defect::IgnoresTheCluster)
                if item.place == Some(Place::Cluster) =>
            {
                self.store.again(&item, std::time::Duration::ZERO).await?;
                Accepted::Started(turn, None)
            }
            (Accepted::Queued(turn), Defect::StartsEverything) => Accepted::Started(turn, None),
            (Accepted::Ended(_), Defect::AcceptsAfterTheEnd) => {
                Accepted::Queued(self.invented(session, turn))
            }
            (Accepted::Started(turn, item), _) => Accepted::Started(turn, item.map(|item| self.given(item))),
            (answer, _) => answer,
        })
    }

    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        let begun = self.store.begin(session, &self.turn_hold(hold, session)).await?;
        if begun.is_some() && self.is(Defect::SkipsTheOpenTurn) {
            let turns = self
                .store
                .list_turns(TurnQuery {
                    session,
                    after: 0,
                    limit: 1000,
                })
                .await?;
            return Ok(turns.into_iter().find(|turn| turn.state == TurnState::Queued));
        }
        Ok(begun)
    }

    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        if self.is(Defect::ConcludesInHalves) {
            self.store.append(vec![last]).await?;
            return self.store.finish(finish).await;
        }
        self.store.conclude(last, finish).await
    }

    async fn finish(&self, mut finish: Finish) -> Result<Finished> {
        let stored = self.store.turn(finish.turn).await?;
        if let Some(turn) = &stored {
            finish.hold = self.turn_hold(&finish.hold, turn.session);
        }
        match self.defect {
            Defect::LosesReplies => finish.outcome.reply = None,
            Defect::TakesAnyOutcome if !finish.outcome.state.is_terminal() => return Ok(Finished::Stale),
            _ => {}
        }
        Ok(match (self.store.finish(finish).await?, self.defect, stored) {
            (Finished::Stale, Defect::FinishesTwice, Some(turn)) => Finished::Done(turn, None),
            (Finished::Done(turn, _), Defect::StopsAfterATurn, _) => Finished::Done(turn, None),
            (answer, ..) => answer,
        })
    }

    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        let turn = turn.filter(|_| !self.is(Defect::AbortsEverything));
        let aborting = self.store.abort(session, turn).await?;
        if let Some(turn) = aborting
            .open
            .as_ref()
            .filter(|_| self.is(Defect::AsksToAbortAgain))
        {
            let events = vec![NewEvent::turn_abort_requested(turn.id)];
            self.store
                .append(vec![Append {
                    session,
                    hold: None,
                    ingest: None,
                    running: None,
                    events,
                }])
                .await?;
        }
        Ok(aborting)
    }

    async fn turn(&self, id: TurnId) -> Result<Option<Turn>> {
        self.store.turn(id).await
    }

    async fn list_turns(&self, mut query: TurnQuery) -> Result<Vec<Turn>> {
        if self.is(Defect::ListsFromTheStart) {
            query.after = 0;
        }
        if self.is(Defect::ReadsLate) && self.notes().read.insert(query.session) {
            return Ok(Vec::new());
        }
        let mut turns = self.store.list_turns(query).await?;
        if self.is(Defect::NumbersHaveGaps) {
            turns.iter_mut().for_each(|turn| turn.number *= 2);
        }
        Ok(turns)
    }
}

impl Broken {
    fn invented(&self, session: SessionId, new: NewTurn) -> Turn {
        Turn {
            id: new.id,
            session,
            number: 1,
            state: TurnState::Queued,
            parts: new.parts,
            model: new.model,
            abort_requested: false,
            failure: None,
            reply: None,
            usage: Usage::default(),
            created_by: new.created_by,
            created_at: self.clock.now(),
            started_at: None,
            finished_at: None,
        }
    }
}
