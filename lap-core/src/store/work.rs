use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::blueprint::PlatformHash;
use crate::error::Result;
use crate::id::WorkerId;
use crate::sandbox::Place;

/// Kinds of work. There is no other timer or lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkKind {
    /// Bring a session up. Keyed by session.
    BringUp,
    /// Run the turns of a session. Keyed by session.
    Turn,
    /// Plan replacements for the pool. Keyed by platform hash.
    Fill,
    /// Make one warm sandbox. Keyed by sandbox.
    Provision,
    /// Look whether a session is idle. Keyed by session.
    Reap,
    /// Deliver an outgoing message. Keyed by message.
    Deliver,
    /// Fire an automation. Keyed by automation.
    Automation,
    /// Remove what is left of a sandbox. Keyed by sandbox.
    Cleanup,
}

impl WorkKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::BringUp,
        Self::Turn,
        Self::Fill,
        Self::Provision,
        Self::Reap,
        Self::Deliver,
        Self::Automation,
        Self::Cleanup,
    ];

    /// The stored name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BringUp => "bring_up",
            Self::Turn => "turn",
            Self::Fill => "fill",
            Self::Provision => "provision",
            Self::Reap => "reap",
            Self::Deliver => "deliver",
            Self::Automation => "automation",
            Self::Cleanup => "cleanup",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The proof that a worker holds an item: it is held by this worker under this fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Kind of the item.
    pub kind: WorkKind,
    /// Key of the item.
    pub key: String,
    /// The holder.
    pub worker: WorkerId,
    /// The value drawn when it was taken; monotone per installation.
    pub fence: u64,
}

/// An item that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkItem {
    /// The proof of holding it.
    pub hold: Hold,
    /// Grows with each enqueue.
    pub generation: u64,
    /// How often it was taken without an end, this time included.
    pub attempts: u32,
    /// Who can do it; `None`: anybody.
    pub place: Option<Place>,
}

impl WorkItem {
    /// The key.
    pub fn key(&self) -> &str {
        &self.hold.key
    }
}

/// An item to enqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWork {
    /// Kind.
    pub kind: WorkKind,
    /// Key; (kind, key) is unique.
    pub key: String,
    /// Who can do it; `None`: anybody.
    pub place: Option<Place>,
    /// Due after this long.
    pub after: Duration,
}

/// Which items to take.
#[derive(Debug, Clone)]
pub struct Take {
    /// For whom.
    pub worker: WorkerId,
    /// Of these kinds.
    pub kinds: Vec<WorkKind>,
    /// Without a place, or at one of these.
    pub places: Vec<Place>,
    /// At most this many, longest due first.
    pub limit: u32,
}

/// A process that takes work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its id, new at each start.
    pub id: WorkerId,
    /// What it reaches besides the cluster.
    pub place: Place,
    /// The settings it runs with.
    pub platform_hash: PlatformHash,
}

/// Everything that happens later or again.
///
/// Being early is always allowed: a handler rechecks and says [`Work::again`].
#[async_trait]
pub trait Work {
    /// The items are due at the latest after their delay: an earlier due wins, the generation grows, the newest place
    /// counts. An item that is held stays held; its end re-arms it.
    async fn enqueue(&self, items: Vec<NewWork>) -> Result<()>;

    /// Takes items that are due and held by nobody. Each gets a new fence.
    async fn take(&self, take: Take) -> Result<Vec<WorkItem>>;

    /// The item is finished: gone, or free and due as it was enqueued meanwhile (its generation is not the taken
    /// one), with its attempts forgotten. `false` when the hold is lost.
    async fn done(&self, item: &WorkItem) -> Result<bool>;

    /// The item was early or wants to run later: due after this long (earlier when it was enqueued meanwhile),
    /// with its attempts forgotten. `false` when the hold is lost.
    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool>;

    /// The attempt failed: due after this long (earlier when it was enqueued meanwhile), with its attempts kept.
    /// `false` when the hold is lost.
    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool>;

    /// Every item this worker holds, at its present generation. After a lost reply a process finds here what it was
    /// given without learning so.
    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>>;

    /// The process is alive. Items of workers that were silent for [`super::WORKER_LAPSE`] or have no row are freed
    /// and due at once, with their attempts kept. Returns how many were freed.
    async fn beat(&self, worker: &Worker) -> Result<u64>;

    /// The process ends: its row is gone, its items are free and due at once, with their attempts kept.
    async fn retire(&self, worker: WorkerId) -> Result<()>;
}
