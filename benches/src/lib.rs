//! Criterion benchmarks of LAP.
