//! Adoption: what other programs changed in a space is noticed and taken into usage and history.

use crate::hub::Hub;
use tokio_util::sync::CancellationToken;

/// Follows every space's watcher and rescans now and then until `stop`.
pub(super) async fn run(_hub: Hub, stop: CancellationToken) {
    stop.cancelled().await;
}
