//! The commit: batch → durable → publish, in commit order on each path; and the replay after a crash.

use crate::error::Result;
use crate::hub::Hub;

/// Per-path order of commit and publish.
#[derive(Default)]
pub(crate) struct PathLocks {}

/// Publishes done and not yet synced and cleared.
#[derive(Default)]
pub(crate) struct Pending {}

impl Hub {
    /// Publishes what a crash left behind and sweeps stages nobody owns.
    pub(crate) async fn replay(&self) -> Result<()> {
        Ok(())
    }
}
