//! The harness protocol: types and client.
