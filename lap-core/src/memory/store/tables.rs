//! The tables, and the questions and small writes that several roles share.

use std::collections::BTreeMap;

use crate::agent::Agent;
use crate::blueprint::{BlueprintHash, PlatformHash};
use crate::event::{Event, NewEvent};
use crate::id::{AgentId, RecordId, SandboxId, SessionId, TurnId, WorkerId};
use crate::sandbox::{Place, Sandbox, SandboxState};
use crate::seal::Sealed;
use crate::session::Session;
use crate::store::{Hold, IDEMPOTENCY_TTL, Idempotency, Instance, NewWork, Record, WorkItem, WorkKind};
use crate::time::Timestamp;
use crate::turn::{Turn, TurnState};

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) agents: BTreeMap<AgentId, AgentRow>,
    pub(super) sessions: BTreeMap<SessionId, SessionRow>,
    pub(super) sandboxes: BTreeMap<SandboxId, SandboxRow>,
    /// By session and number, so a session's turns are one range.
    pub(super) turns: BTreeMap<(SessionId, u64), Turn>,
    /// Where a turn is in `turns`.
    pub(super) turn_numbers: BTreeMap<TurnId, (SessionId, u64)>,
    /// The event with id n is the n-th; nothing is ever removed.
    pub(super) events: BTreeMap<SessionId, Vec<Event>>,
    pub(super) cursors: BTreeMap<(SessionId, SandboxId), u64>,
    pub(super) work: BTreeMap<(WorkKind, String), WorkRow>,
    /// When each worker was heard last.
    pub(super) workers: BTreeMap<WorkerId, Timestamp>,
    pub(super) records: BTreeMap<RecordId, Record>,
    pub(super) instance: Option<Instance>,
    requests: BTreeMap<(String, &'static str, String, String), Remembered>,
    fence: u64,
}

#[derive(Debug)]
pub(super) struct AgentRow {
    pub(super) agent: Agent,
    pub(super) is_deleted: bool,
}

#[derive(Debug)]
pub(super) struct SessionRow {
    pub(super) session: Session,
    pub(super) opening: Sealed,
}

#[derive(Debug)]
pub(super) struct SandboxRow {
    pub(super) sandbox: Sandbox,
    pub(super) warm_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct WorkRow {
    /// [`Timestamp::NEVER`] while held, unless it was enqueued meanwhile.
    pub(super) due: Timestamp,
    pub(super) generation: u64,
    pub(super) attempts: u32,
    /// The last fence drawn for it; it counts only together with an owner.
    pub(super) fence: u64,
    pub(super) owner: Option<WorkerId>,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
struct Remembered {
    body_hash: String,
    result: uuid::Uuid,
    expires_at: Timestamp,
}

/// What is remembered about a request.
pub(super) enum Request {
    New,
    /// It was made before and its result has this id.
    Repeated(uuid::Uuid),
    /// The key was used with another body.
    KeyReused,
}

impl Tables {
    pub(super) fn request(&self, idempotency: Option<&Idempotency>, now: Timestamp) -> Request {
        let remembered =
            idempotency.and_then(|request| self.requests.get(&request_key(request)).zip(Some(request)));
        match remembered {
            Some((row, _)) if row.expires_at <= now => Request::New,
            Some((row, request)) if row.body_hash == request.body_hash => Request::Repeated(row.result),
            Some(_) => Request::KeyReused,
            None => Request::New,
        }
    }

    pub(super) fn remember(&mut self, idempotency: Option<&Idempotency>, result: uuid::Uuid, now: Timestamp) {
        if let Some(request) = idempotency {
            let body_hash = request.body_hash.clone();
            let row = Remembered {
                body_hash,
                result,
                expires_at: now + IDEMPOTENCY_TTL,
            };
            self.requests.insert(request_key(request), row);
        }
    }

    pub(super) fn append_event(&mut self, session: SessionId, new: NewEvent, now: Timestamp) -> Event {
        let log = self.events.entry(session).or_default();
        let id = log.len() as u64 + 1;
        let NewEvent {
            kind,
            turn,
            body,
            origin,
        } = new;
        let event = Event {
            session,
            id,
            kind,
            turn,
            body,
            origin,
            at: now,
        };
        log.push(event.clone());
        event
    }

    pub(super) fn turns_of(&self, session: SessionId) -> impl Iterator<Item = &Turn> {
        self.turns
            .range((session, 0)..=(session, u64::MAX))
            .map(|(_, turn)| turn)
    }

    pub(super) fn turn(&self, id: TurnId) -> Option<&Turn> {
        self.turn_numbers.get(&id).and_then(|key| self.turns.get(key))
    }

    pub(super) fn turn_mut(&mut self, id: TurnId) -> Option<&mut Turn> {
        self.turn_numbers.get(&id).and_then(|key| self.turns.get_mut(key))
    }

    pub(super) fn open_turn(&self, session: SessionId) -> Option<&Turn> {
        self.turns_of(session).find(|turn| turn.state.is_open())
    }

    pub(super) fn first_queued(&self, session: SessionId) -> Option<TurnId> {
        self.turns_of(session)
            .find(|turn| turn.state == TurnState::Queued)
            .map(|turn| turn.id)
    }

    /// The sandbox of the key that has been warm longest.
    pub(super) fn oldest_warm(
        &self,
        blueprint: &BlueprintHash,
        platform: &PlatformHash,
    ) -> Option<SandboxId> {
        self.sandboxes
            .values()
            .filter(|row| row.sandbox.state == SandboxState::Warm)
            .filter(|row| row.sandbox.blueprint_hash == *blueprint && row.sandbox.platform_hash == *platform)
            .min_by_key(|row| (row.warm_at, row.sandbox.id))
            .map(|row| row.sandbox.id)
    }

    /// Whether the item is still held under this fence.
    pub(super) fn is_held(&self, hold: &Hold) -> bool {
        self.work
            .get(&(hold.kind, hold.key.clone()))
            .is_some_and(|row| row.owner == Some(hold.worker) && row.fence == hold.fence)
    }

    /// Whether `hold` is a valid hold on the session's item of this kind.
    pub(super) fn holds(&self, hold: &Hold, kind: WorkKind, session: SessionId) -> bool {
        hold.kind == kind && hold.key == session.to_string() && self.is_held(hold)
    }

    pub(super) fn enqueue(&mut self, new: NewWork, now: Timestamp) {
        let due = now + new.after;
        let row = self.work.entry((new.kind, new.key)).or_insert(WorkRow {
            due: Timestamp::NEVER,
            generation: 0,
            attempts: 0,
            fence: 0,
            owner: None,
            place: None,
        });
        row.due = row.due.min(due);
        row.generation += 1;
        row.place = new.place;
    }

    /// Enqueues an item and takes it for `worker` in the same commit. `None` when somebody holds it already: its
    /// end re-arms it.
    pub(super) fn enqueue_held(
        &mut self,
        new: NewWork,
        worker: WorkerId,
        now: Timestamp,
    ) -> Option<WorkItem> {
        let key = (new.kind, new.key.clone());
        self.enqueue(new, now);
        let is_free = self.work.get(&key).is_some_and(|row| row.owner.is_none());
        if is_free {
            self.take_one(&key, worker)
        } else {
            None
        }
    }

    /// Gives a free item to `worker` under a new fence.
    pub(super) fn take_one(&mut self, key: &(WorkKind, String), worker: WorkerId) -> Option<WorkItem> {
        let row = self.work.get_mut(key)?;
        self.fence += 1;
        row.owner = Some(worker);
        row.fence = self.fence;
        row.attempts += 1;
        row.due = Timestamp::NEVER;
        Some(item(key, row, worker))
    }
}

/// The item as its holder sees it.
pub(super) fn item(key: &(WorkKind, String), row: &WorkRow, worker: WorkerId) -> WorkItem {
    let hold = Hold {
        kind: key.0,
        key: key.1.clone(),
        worker,
        fence: row.fence,
    };
    WorkItem {
        hold,
        generation: row.generation,
        attempts: row.attempts,
        place: row.place,
    }
}

fn request_key(request: &Idempotency) -> (String, &'static str, String, String) {
    (
        request.principal.clone(),
        request.operation,
        request.parent.clone(),
        request.key.clone(),
    )
}
