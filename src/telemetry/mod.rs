//! What operators see: log files that rotate, one access line per operation, a bounded set of metrics.

pub mod access;
pub mod conversation;
mod ledger;
mod line;
pub mod log;
pub mod metric;
mod record;
pub mod roll;
pub mod seldom;
mod settings;

pub use access::Access;
pub use conversation::Record;
pub use log::Guard;
pub use seldom::Seldom;
pub use settings::{LogSettings, Rotate};
