//! The keepers: clear synced intents, adopt outside changes, expire, follow other processes.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, adopt};

pub(super) fn start(hub: &Hub, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    vec![tokio::spawn(adopt::run(hub.clone(), stop.clone()))]
}
