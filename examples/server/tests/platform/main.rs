//! The real server as a user meets it: the built binary, real sandboxes, a real vault, HTTP from outside.

mod client;
mod crash;
mod main_job;
mod model;
mod refusals;
mod secrets;
mod server;
