//! Every law can fail: each is shown to fail on a backend with a defect that it forbids.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod runtime;
mod store;
mod trial;
mod vault;
