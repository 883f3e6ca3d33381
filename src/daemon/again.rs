//! Starts that fail one after the other. Clients that wait at systemd's sockets have it start us again as soon as we have ended. So the first start with
//! a wrong configuration ends after a moment, for whoever typed `systemctl restart`; those that follow wait longer for it to be mended.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the first start reads a wrong configuration again.
pub(super) const FIRST: Duration = Duration::from_secs(2);
/// How long those that follow do.
const LATER: Duration = Duration::from_secs(30);

/// The last start ended with an error.
const FAILED: &str = "failed";
/// A start waits. Where this is found nobody waits any more: an operator stopped it.
const WAITING: &str = "waiting";

/// What is known of the start before this one, in a file that systemd keeps until the machine ends.
pub(super) struct Again {
    note: Option<PathBuf>,
}

impl Again {
    /// With systemd's own folder for us, where there is one.
    pub(super) fn at(folders: Option<OsString>) -> Self {
        let first = folders.and_then(|all| all.to_str()?.split(':').next().map(PathBuf::from));
        Self { note: first.map(|folder| folder.join("start")) }
    }

    /// How long this start may wait.
    pub(super) fn patience(&self) -> Duration {
        let last = self.note.as_deref().and_then(|note| std::fs::read_to_string(note).ok()).unwrap_or_default();
        if last != FAILED {
            return FIRST;
        }
        self.write(WAITING);
        LATER
    }

    /// It ends with an error.
    pub(super) fn failed(&self) {
        self.write(FAILED);
    }

    /// It serves.
    pub(super) fn started(&self) {
        if let Some(note) = &self.note {
            let _ = std::fs::remove_file(note);
        }
    }

    fn write(&self, word: &str) {
        if let Some(note) = &self.note {
            Self::put(note, word);
        }
    }

    /// Nothing depends on it but how soon the next start ends.
    fn put(note: &Path, word: &str) {
        if let Err(error) = std::fs::write(note, word) {
            tracing::debug!(%error, "the end of this start is not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_that_follow_a_failure_by_themselves_wait_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = || Again::at(Some(folder.path().as_os_str().to_owned()));
        assert_eq!(start().patience(), FIRST);
        start().failed();
        assert_eq!(start().patience(), LATER);
        // Nobody noted its end: it was stopped.
        assert_eq!(start().patience(), FIRST);
        start().failed();
        start().started();
        assert_eq!(start().patience(), FIRST);
        assert_eq!(Again::at(None).patience(), FIRST);
        Again::at(None).failed();
    }
}
