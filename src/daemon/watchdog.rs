//! The watchdog: systemd hears that we are alive only when a read went all the way through the runtime to the store.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::notify;
use crate::store::Catalog;

/// Pings every `period` until `stop`; a catalog that does not answer in that time keeps us silent.
pub(super) async fn run(catalog: Catalog, period: Duration, stop: CancellationToken) {
    loop {
        match tokio::time::timeout(period, catalog.version()).await {
            Ok(Ok(_)) => notify::alive(),
            // The store said no, and in time: the daemon lives, and its doors say the same to their clients.
            Ok(Err(error)) => {
                tracing::error!(error = error.detail(), "the catalog cannot be asked");
                notify::alive();
            }
            Err(_) => tracing::error!("the catalog does not answer; the watchdog is not told that we are alive"),
        }
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = stop.cancelled() => return,
        }
    }
}
