//! Embed LAP in your own axum application with your own authentication.

fn main() {}
