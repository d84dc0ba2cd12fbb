//! What runs inside every LAP sandbox.
