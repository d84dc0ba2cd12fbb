//! The laws of a store, one public function each, in files by role.
//!
//! A law panics when it is broken. Its first line of documentation is the law.

pub mod aborts;
pub mod agent_lists;
pub mod agents;
pub mod bring_up;
pub mod claims;
pub mod endings;
pub mod events;
pub mod installation;
pub mod opens;
pub mod outcomes;
pub mod reach;
pub mod records;
pub mod repetition;
pub mod replacements;
pub mod revivals;
pub mod sandboxes;
pub mod turns;
pub mod work;
pub mod workers;

crate::__store_laws! { __store_list }
