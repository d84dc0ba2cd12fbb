//! The pure core: who presents what, whether it may be swapped, what leaves and what comes back.
//!
//! Nothing here does input or output, reads a clock or waits, so every rule can be tested as a function.

mod base;
mod binding;
mod decision;
mod forms;
mod headers;
mod placement;
mod reason;
mod route;
mod scrub;
mod stub;

pub use base::GatewayBase;
pub use binding::{Binding, HostRule};
pub use decision::{Identity, Verdict, decide};
pub use forms::SecretForms;
pub use headers::{clean_request, clean_response};
pub use placement::{Position, Presented, present};
pub use reason::Reason;
pub use route::{Route, route};
pub use scrub::{Scrubber, mask_header};
pub use stub::{STUB_MARKER, StubIndex, StubKey, StubRef, is_credential_name};
