//! The operator's desk: the hub opened for a command, whether the daemon runs or not.
//!
//! No lock on the data folder is taken and nothing is replayed: a command only reads and writes records, and a running
//! daemon notices them within seconds. Volumes stay closed, but for the commands that move mail: those are a node of their own on
//! the same catalog and tree, one at a time.

use std::path::Path;
use std::sync::Arc;

use super::Failure;
use crate::config::{self, Loaded};
use crate::daemon::{data, volumes};
use crate::hub::{Hub, Volumes};
use crate::store::Catalog;

/// The hub for one command.
pub struct Desk {
    /// What it works on.
    pub hub: Hub,
    runtime: tokio::runtime::Runtime,
    turn: Option<data::Lock>,
}

impl Desk {
    /// Opens the catalog the configuration names.
    pub fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let loaded = config::load(file)?;
        Self::with(&loaded)
    }

    /// The same with its files; only one such command runs at a time.
    pub fn with_files(file: Option<&Path>) -> Result<Self, Failure> {
        let loaded = config::load(file)?;
        let config = &loaded.config;
        data::prepare(&config.data)?;
        same_owner(&config.data)?;
        data::lay(&config.data)?;
        let turn = data::turn(&config.data)?;
        let mut desk = Self::open_as(&loaded, "mail", volumes::Directories::new(config.data.clone(), &config.storage))?;
        desk.turn = Some(turn);
        desk.wait(desk.hub.resume_publishing())?;
        Ok(desk)
    }

    /// The same for a configuration already read.
    pub fn with(loaded: &Loaded) -> Result<Self, Failure> {
        data::prepare(loaded.data())?;
        same_owner(loaded.data())?;
        Self::open_as(loaded, "cli", volumes::closed())
    }

    /// With its files, as the daemon's own node: nobody else may be at work when it changes something.
    pub fn for_verify(loaded: &Loaded, alone: bool) -> Result<Self, Failure> {
        let config = &loaded.config;
        data::prepare(&config.data)?;
        same_owner(&config.data)?;
        let node = match alone {
            // What is left of a store is what this is for.
            true => data::node(&config.data)?,
            false => data::open_node(&config.data, config.catalog.engine)?,
        };
        data::lay(&config.data)?;
        let volumes = volumes::Directories::new(config.data.clone(), &config.storage);
        Self::assemble(async {
            let catalog = match alone {
                true => Catalog::open_damaged(&config.catalog, &config.data, &node).await?,
                false => Catalog::open(&config.catalog, &config.data, &node).await?,
            };
            Hub::open_for_admin(loaded.hub(), catalog, volumes).await
        })
    }

    fn open_as(loaded: &Loaded, role: &str, volumes: Arc<dyn Volumes>) -> Result<Self, Failure> {
        let config = &loaded.config;
        let node = format!("{}-{role}", data::open_node(&config.data, config.catalog.engine)?);
        Self::assemble(async {
            let catalog = Catalog::open(&config.catalog, &config.data, &node).await?;
            Hub::open_for_admin(loaded.hub(), catalog, volumes).await
        })
    }

    fn assemble(opening: impl Future<Output = crate::error::Result<Hub>>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::io("starting", &error))?;
        let hub = runtime.block_on(opening)?;
        Ok(Self { hub, runtime, turn: None })
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
