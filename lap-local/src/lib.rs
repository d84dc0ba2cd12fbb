//! LAP's SandboxRuntime as local processes.
