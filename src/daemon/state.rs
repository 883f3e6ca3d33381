//! A running daemon: what it was made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::data;
use crate::config::{Config, Problem, Problems};
use crate::error::Error;
use crate::hub::Hub;
use crate::net::{Gate, Service, Tls, Waiting, Workers};

/// Why the daemon could not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Config(Problems),
    /// Something it names is.
    Other(Error),
}

impl From<Problems> for StartError {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl StartError {
    /// For the log: what is wrong with every cause, one problem a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Config(problems) => problems.0.iter().map(Problem::line).collect(),
            Self::Other(error) => error.detail().lines().map(str::to_owned).collect(),
        }
    }
}

/// A running daemon.
pub(super) struct Daemon {
    pub(super) file: Option<PathBuf>,
    pub(super) config: Config,
    pub(super) hub: Hub,
    pub(super) tls: Arc<Tls>,
    pub(super) gate: Arc<Gate>,
    /// With the place of each one's `[[listen]]` in the configuration.
    pub(super) services: Vec<(usize, Arc<Service>)>,
    pub(super) workers: Workers,
    pub(super) waiting: Waiting,
    pub(super) keepers: JoinSet<std::result::Result<(), JoinError>>,
    pub(super) keeping: CancellationToken,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) _lock: data::Lock,
}
