//! Reference backends that keep everything in memory.
//!
//! [`MemoryStore`] is the executable specification of [`Store`](crate::store::Store): read it to learn the
//! contract. All of them are real backends without a disk: doctests, examples, the engine's tests and
//! simulations run on them.

mod store;

pub use store::MemoryStore;
