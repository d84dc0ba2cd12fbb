//! The network layer of the model relay: listening, swapping, forwarding, streaming back.

mod body;
mod exchange;
mod gateway;
mod handle;
mod limits;
mod listen;
mod problem;
mod receipts;
mod table;

pub use gateway::Gateway;
pub use limits::Limits;
pub use listen::{Relay, bind};
pub use receipts::{Receipt, Receipts};
pub use table::{Attached, Credential, Tables};
