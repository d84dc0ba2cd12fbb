//! Processes: which one is meant, which belong to a sandbox, how they end.

mod identity;
mod kill;
mod members;
mod table;
mod usage;

pub(crate) use identity::{Identity, Process, boot_id, identity_of};
pub(crate) use kill::{kill_all, terminate};
pub(crate) use members::Quarry;
pub(crate) use table::parent_group;
pub(crate) use usage::{Usage, usage_of};

/// By this variable everything that runs in a sandbox is recognised, whoever started it.
pub(crate) const MARKER: &str = "LAP_SANDBOX_ID";
