//! The real server as a user meets it: the built binary, real sandboxes, a real vault, HTTP from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod crash;
mod hostile;
mod hostile_repository;
mod isolation;
mod lab;
mod main_job;
mod model;
mod opencode;
mod refusals;
mod replicas;
mod restart;
mod secrets;
mod server;
mod surface;
