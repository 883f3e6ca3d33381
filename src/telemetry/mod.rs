//! What operators see: log files that rotate, one access line per operation, a bounded set of metrics.

pub mod access;
pub mod log;
pub mod metric;

pub use access::Access;
pub use log::{Guard, LogSettings};
