//! The reserve: room on the disk of the data folder that is set aside for a start.
//!
//! `SQLite` writes before it can read what a killed daemon left, and cannot do so on a disk that is full to its last byte. So the file
//! `reserve` in the data folder holds some room. A start on a nearly full disk removes it first, and makes it again when everything is open.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAME: &str = "reserve";

/// How often a reserve that is not whole is looked after.
const AGAIN: Duration = Duration::from_mins(1);

/// Room left beside it for what a start writes when the catalog is open.
const SLACK: u64 = 256 << 10;

/// The reserve of one data folder.
#[derive(Clone)]
pub(super) struct Reserve {
    folder: PathBuf,
    /// Bytes it is to have.
    size: u64,
}

impl Reserve {
    /// The reserve of a start that begins; gives it its room if the disk has less than that.
    pub(super) fn at_start(data: &Path, size: u64) -> Self {
        let reserve = Self { folder: data.to_owned(), size };
        reserve.release_if_full();
        reserve
    }

    fn release_if_full(&self) {
        let held = self.held();
        if held == 0 || self.free().is_none_or(|free| free >= self.size) {
            return;
        }
        match std::fs::remove_file(self.file()) {
            Ok(()) => tracing::warn!(
                reserve = %self.file().display(),
                "the disk is full: the reserve was removed, so that the server can start; make room on the disk"
            ),
            Err(error) => {
                tracing::warn!(reserve = %self.file().display(), "the disk is full, and the reserve cannot be removed: {error}");
            }
        }
    }

    /// Makes it, or as much of it as there is room for.
    fn make(&self) {
        let (held, free) = (self.held(), self.free().unwrap_or_default());
        let wanted = self.size.min(held.saturating_add(free.saturating_sub(SLACK)));
        if wanted == held {
            return;
        }
        match self.set(held, wanted) {
            Ok(()) => {}
            // It is only a precaution, which some file systems do not offer.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => tracing::debug!("this file system cannot reserve room"),
            Err(error) => {
                tracing::warn!(reserve = %self.file().display(), "cannot be made: {error}; should the disk be full when the server is killed, it may not start again before there is room");
            }
        }
    }

    /// Makes it, now that everything is open, and looks after it until `stop`: there may be room again.
    pub(super) fn keep(self, stop: CancellationToken) -> JoinHandle<()> {
        self.make();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => return,
                }
                let this = self.clone();
                let _ = tokio::task::spawn_blocking(move || this.make()).await;
            }
        })
    }

    fn set(&self, held: u64, wanted: u64) -> rustix::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(wanted > 0).truncate(false).mode(0o600);
        let file = options.open(self.file()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if wanted < held {
            return rustix::fs::ftruncate(&file, wanted);
        }
        let made = rustix::fs::fallocate(&file, FallocateFlags::empty(), held, wanted - held);
        if made.is_err() {
            // A part that was laid out is no reserve one could count on.
            let _ = rustix::fs::ftruncate(&file, held);
        }
        made
    }

    fn file(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn held(&self) -> u64 {
        std::fs::metadata(self.file()).map_or(0, |found| found.len())
    }

    fn free(&self) -> Option<u64> {
        let room = rustix::fs::statvfs(&self.folder).ok()?;
        Some(room.f_bavail.saturating_mul(room.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_shrinks_with_its_size() {
        let folder = tempfile::tempdir().expect("a folder");
        for size in [100_000, 300_000, 50_000, 0] {
            let reserve = Reserve { folder: folder.path().to_owned(), size };
            reserve.make();
            assert_eq!(reserve.held(), size);
            reserve.release_if_full();
            assert_eq!(reserve.held(), size, "this disk is not full");
        }
    }

    #[test]
    fn it_is_given_to_a_start_on_a_full_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        Reserve { folder: folder.path().to_owned(), size: 100_000 }.make();
        // Measured by so large a reserve every disk is full.
        Reserve::at_start(folder.path(), u64::MAX);
        assert!(!folder.path().join(NAME).exists());
    }
}
