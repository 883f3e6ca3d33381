//! One volume's end of the watcher: a bounded queue that never loses a change silently.
//!
//! When the reader falls behind, the last place in the queue takes [`Touched::Everything`] and what follows is dropped
//! until there is room again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::fs::inotify::ReadFlags;
use tokio::sync::mpsc;

use crate::store::{RelPath, Touched};

/// Touched paths that may wait for the reader.
pub(super) const QUEUE: usize = 4096;

/// Writes to a file that stays open are told this often; closing it is always told.
const WRITES_EVERY: Duration = Duration::from_secs(1);

/// Files being written whose last telling is remembered.
const WRITES_KEPT: usize = 1024;

/// How much an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something is finished: made, closed, moved, removed.
    Done,
    /// One of many writes.
    Write,
}

impl Step {
    /// `None` for what changes nothing that is counted, such as the permissions of a folder.
    pub(super) fn of(what: ReadFlags) -> Option<Self> {
        let made = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        if what.intersects(made) {
            return Some(Self::Done);
        }
        if what.contains(ReadFlags::ISDIR) {
            return None;
        }
        match what.contains(ReadFlags::MODIFY) {
            true => Some(Self::Write),
            false => what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB).then_some(Self::Done),
        }
    }
}

/// Sends touched paths to the reader.
pub(super) struct Teller {
    sender: mpsc::Sender<Touched>,
    /// `Everything` has taken the last place in the queue.
    behind: bool,
    /// When files that are being written were last told.
    writes: HashMap<RelPath, Instant>,
}

impl Teller {
    pub(super) fn new(sender: mpsc::Sender<Touched>) -> Self {
        Self { sender, behind: false, writes: HashMap::new() }
    }

    pub(super) fn take(&mut self, path: &RelPath, step: Step) {
        if step == Step::Write {
            let now = Instant::now();
            if self.writes.get(path).is_some_and(|told| now.duration_since(*told) < WRITES_EVERY) {
                return;
            }
            if self.writes.len() >= WRITES_KEPT {
                self.writes.clear();
            }
            self.writes.insert(path.clone(), now);
        } else {
            self.writes.remove(path);
        }
        self.tell(Touched::Path(path.clone()));
    }

    /// Only one thread sends at a time, so a place seen free stays free.
    pub(super) fn tell(&mut self, touched: Touched) {
        match self.sender.capacity() {
            0 => self.behind = true,
            1 if !self.behind => self.behind = self.sender.try_send(Touched::Everything).is_ok(),
            1 => {}
            _ => {
                self.behind = false;
                let _ = self.sender.try_send(touched);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_ends_in_everything_and_takes_paths_again_once_there_is_room() {
        let (sender, mut receiver) = mpsc::channel(3);
        let mut teller = Teller::new(sender);
        let path = |name: &str| RelPath::new(name).unwrap();
        for name in ["a", "b", "c", "d"] {
            teller.take(&path(name), Step::Done);
        }
        let mut told = Vec::new();
        while let Ok(one) = receiver.try_recv() {
            told.push(one);
        }
        assert_eq!(told, [Touched::Path(path("a")), Touched::Path(path("b")), Touched::Everything]);
        teller.take(&path("e"), Step::Done);
        assert_eq!(receiver.try_recv(), Ok(Touched::Path(path("e"))));
    }

    #[test]
    fn many_writes_to_one_open_file_are_told_once_and_its_closing_always() {
        let (sender, mut receiver) = mpsc::channel(8);
        let mut teller = Teller::new(sender);
        let path = RelPath::new("log").unwrap();
        for step in [Step::Write, Step::Write, Step::Write, Step::Done] {
            teller.take(&path, step);
        }
        assert!(receiver.try_recv().is_ok() && receiver.try_recv().is_ok());
        assert!(receiver.try_recv().is_err());
    }
}
