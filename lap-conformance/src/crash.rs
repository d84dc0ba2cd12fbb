//! Crashing an engine at any call it makes, and what must hold afterwards.
//!
//! All calls of one engine go through one [`Wire`]. It counts them and says what happens to each: it passes, it fails
//! before or after its effect, it is slow, or the engine crashes there. After a crash no call of that engine ever
//! returns and none has an effect, so its tasks hang where they are: for the rest of the world the process is dead,
//! while sandboxes and the store live on. Nothing in the engine takes part in this.
//!
//! [`Stage`] is what engines share: store, world, vault, clock. [`Invariants`] are what must hold on a stage whatever
//! happened.

mod actor;
mod invariants;
pub(crate) mod latch;
mod log;
mod rows;
mod stage;
mod wire;
mod wired;

pub use actor::{Actor, PATIENCE, text};
pub use invariants::{Broken, Invariants, Snapshot};
pub use stage::{GATEWAY_SECRET, Stage};
pub use wire::{Backend, Site, Strike, Wire};
pub use wired::Wired;
