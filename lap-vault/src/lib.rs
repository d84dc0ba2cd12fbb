//! Model relay that swaps stub keys for real ones outside the sandbox.
