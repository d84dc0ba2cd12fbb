//! LAP's Store in one SQLite file.
