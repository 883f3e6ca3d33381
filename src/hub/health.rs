//! What keeps this server from doing what it promises, for whoever decides whether to send it work.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;

use crate::hub::Hub;
use crate::units::ByteSize;

/// A catalog or disk that does not answer in this time does not serve anybody either.
const PATIENCE: Duration = Duration::from_secs(2);

impl Hub {
    /// Every reason not to be ready, in words; none: ready.
    pub async fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        match timeout(PATIENCE, self.catalog().ask_for_life()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => troubles.push(format!("the catalog cannot be used: {}", error.public())),
            Err(_) => troubles.push(format!("the catalog did not answer within {} s", PATIENCE.as_secs())),
        }
        troubles.extend(self.catalog().trouble());
        let stuck = self.stuck_publishes();
        if stuck > 0 {
            troubles.push(format!("{stuck} changes can be neither put in place nor undone; the log says why"));
        }
        troubles.extend(self.full_disks().await);
        troubles
    }

    /// Changes that the disk refused and that could not be undone either: both are tried again.
    #[must_use]
    pub fn stuck_publishes(&self) -> usize {
        self.inner.pending.stuck_count()
    }

    /// One word for each disk that is full or does not answer.
    async fn full_disks(&self) -> Vec<String> {
        let view = self.view();
        let keep_free = view.settings.storage.keep_free.0;
        let mut seen = HashSet::new();
        let mut troubles = Vec::new();
        // Spaces of our own share the disk of the data folder.
        for space in view.spaces.iter().filter(|space| seen.insert(space.source.clone())) {
            let name = if space.source.is_empty() { "the data folder" } else { space.source.as_str() };
            match timeout(PATIENCE, space.volume.room()).await {
                Ok(Ok(room)) if room.free < keep_free => troubles.push(format!(
                    "the disk of {name} is full: {} are free, storage.keep_free wants {}",
                    ByteSize(room.free),
                    ByteSize(keep_free)
                )),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => troubles.push(format!("{name} cannot be used: {}", error.public())),
                Err(_) => troubles.push(format!("{name} did not answer within {} s", PATIENCE.as_secs())),
            }
        }
        troubles
    }
}
