//! The HTTP API over an engine on memory backends, driven as a tower service.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod agents;
mod bad_input;
mod conversation;
mod description;
mod guide;
mod inspection;
mod opencode;
mod requests;
mod sessions;
mod streams;
mod support;
mod wire;
