//! LAP's HTTP API as a tower service.
