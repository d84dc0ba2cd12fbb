//! Project tasks: the test command, the architecture test.

fn main() {}
