//! LAP's [`SandboxRuntime`](lap_core::runtime::SandboxRuntime) as supervised local processes (Linux 5.6 or newer).
//!
//! ```text
//! <data>/host-id                     this machine, as the stores know it
//! <data>/sandboxes/<sandbox id>/     one sandbox, mode 0700
//!     sandbox.json                   whose it is and which process it is (written by this crate)
//!     endpoint.json                  where it answers (written by sandboxd)
//!     labels.json                    for people
//!     workspace/ home/ state/ log/
//! <data>/trash/                      folders on their way out; swept at the start
//! ```
//!
//! The folder is the truth: a server that was killed finds every sandbox again from it, and a process is believed
//! to be the recorded one only when its number, its start time and the marker in its environment agree. Signals go
//! through process file descriptors, so that a reused number never gets one.

#[cfg(not(target_os = "linux"))]
compile_error!("lap-local supervises processes through Linux interfaces");

mod cgroup;
mod config;
mod failure;
mod files;
mod folder;
mod host;
pub mod isolation;
mod launch;
mod life;
mod log;
mod measure;
mod process;
mod record;
mod registry;
mod removal;
mod runtime;
mod session;
mod spawn;
mod stop;
mod trash;
mod watch;

pub use config::{LocalConfig, ResourceLimits, StartLimits};
pub use runtime::LocalRuntime;
pub use session::leave_terminal;
