//! What the generated code of the test target stands on, written by hand.
pub mod generated;
pub mod runtime;
