//! Engines and volumes that fail or stop at the n-th call: how the promises are tested by breaking them.

pub mod engine;
pub mod volume;
