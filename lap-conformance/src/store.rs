//! The laws of a store, one public function each, in files by role.
//!
//! A law panics when it is broken. Its first line of documentation is the law.

pub mod claims;
pub mod opens;

crate::__store_laws! { __store_list }
