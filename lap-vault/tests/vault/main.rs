//! The vault against real upstreams, clients and processes. One binary, so that its parts compile once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot prepare its world has failed"
)]

mod framing;
mod laws;
mod life;
mod process;
mod relay;
mod streams;
mod support;
mod tls;
