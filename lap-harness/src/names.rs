//! The harnesses that `lap-sandboxd` knows by name.

/// The one that needs nothing installed.
pub const BUILTIN: &str = "builtin";

/// Every name an agent may use. Whether a harness is installed is known only inside the sandbox.
pub const HARNESSES: &[&str] = &[
    BUILTIN,
    "opencode",
    "claude-code",
    "claude-agent-sdk",
    "codex",
    "gemini",
    "hermes",
];
