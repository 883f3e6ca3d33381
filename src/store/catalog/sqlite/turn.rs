//! Whose turn it is to write: one Stoa process at a time, also between SQLite's transactions.
//!
//! SQLite's own lock ends with a transaction. What was answered ahead of its commit and then undone with a neighbour is applied again before
//! anybody else may write, or guards that held would hold no more.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::connection::BUSY;
use crate::error::{Error, Kind, Result};

/// How often a process that waits looks: a busy daemon leaves a gap of a millisecond between two long transactions.
const LOOK: Duration = Duration::from_micros(400);

/// A lock on a file that holds nothing.
pub(super) struct Turn {
    file: File,
    held: bool,
}

impl Turn {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let file =
            file.map_err(|error| Error::new(Kind::Unavailable, format!("{}: {error}", path.display())).with(error))?;
        Ok(Self { file, held: false })
    }

    /// Waits until nobody else writes, but not for ever.
    pub(super) fn take(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.held {
            match self.file.try_lock() {
                Ok(()) => self.held = true,
                Err(TryLockError::WouldBlock) if start.elapsed() < BUSY => std::thread::sleep(LOOK),
                Err(error) => {
                    return Err(Error::new(Kind::Unavailable, "another process is writing to the catalog").with(error));
                }
            }
        }
        Ok(())
    }

    pub(super) fn give_back(&mut self) {
        // Only a file that is not open could not be unlocked.
        self.held = self.held && self.file.unlock().is_err();
    }
}
