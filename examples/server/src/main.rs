//! The reference LAP server.

fn main() {}
