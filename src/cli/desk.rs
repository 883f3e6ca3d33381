//! The operator's desk: the hub opened for a command, whether the daemon runs or not.
//!
//! No lock on the data folder is taken and nothing is replayed: a command only reads and writes records, and a running
//! daemon notices them within seconds. Volumes stay closed.

use std::path::Path;

use super::Failure;
use crate::config::{self, Config};
use crate::daemon::{data, volumes};
use crate::hub::Hub;
use crate::store::Catalog;

/// The hub for one command.
pub struct Desk {
    /// What it works on.
    pub hub: Hub,
    runtime: tokio::runtime::Runtime,
}

impl Desk {
    /// Opens the catalog the configuration names.
    pub fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let config = config::load(file)?.config;
        Self::with(&config)
    }

    /// The same for a configuration already read.
    pub fn with(config: &Config) -> Result<Self, Failure> {
        data::prepare(&config.data)?;
        same_owner(&config.data)?;
        let node = format!("{}-cli", data::node(&config.data)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::io("starting", &error))?;
        let hub = runtime.block_on(async {
            let catalog = Catalog::open(&config.catalog, &config.data, &node).await?;
            Hub::open_for_admin(config.hub(), catalog, volumes::closed()).await
        })?;
        Ok(Self { hub, runtime })
    }

    /// Waits for one thing.
    pub fn wait<T>(&self, work: impl Future<Output = crate::error::Result<T>>) -> Result<T, Failure> {
        Ok(self.runtime.block_on(work)?)
    }
}

/// Files made by another account could not be opened by the daemon afterwards.
fn same_owner(data: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(data).map_err(|error| Failure::io(data.display(), &error))?.uid();
    let me = rustix::process::geteuid().as_raw();
    match owner == me {
        true => Ok(()),
        false => Err(Failure {
            code: 77,
            words: format!(
                "{} belongs to another account (uid {owner}, you are {me}); run this as its owner: sudo -u '#{owner}' stoa …",
                data.display()
            ),
        }),
    }
}
