//! The laws every LAP backend obeys, with fault injectors.
