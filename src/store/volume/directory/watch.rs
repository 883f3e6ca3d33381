//! Noticing what other programs do in the tree, through the kernel's inotify.
//!
//! The queue is bounded: when the reader falls behind, its last place takes [`Touched::Everything`] and what follows is
//! dropped until there is room again, so nothing is ever missed silently.

use std::path::{Path, PathBuf};
use std::sync::Once;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::store::{RelPath, Touched};

/// Touched paths that may wait for the reader.
const QUEUE: usize = 4096;

/// Starts watching a tree; `None`, with a line in the log, where that is not possible.
pub(super) fn start(root: &Path) -> Option<mpsc::Receiver<Touched>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let closing = sender.clone();
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let watcher = match watch(root, Teller { root: root.to_owned(), sender, behind: false }) {
        Ok(watcher) => watcher,
        Err(error) => {
            explain(root, &error);
            return None;
        }
    };
    runtime.spawn(async move {
        closing.closed().await;
        // Taking a large tree's watches down is work for the pool.
        let _ = tokio::task::spawn_blocking(move || drop(watcher)).await;
    });
    Some(receiver)
}

fn watch(root: &Path, mut teller: Teller) -> notify::Result<RecommendedWatcher> {
    let config = Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(move |event| teller.take(event), config)?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Turns events into touched paths.
struct Teller {
    root: PathBuf,
    sender: mpsc::Sender<Touched>,
    /// `Everything` has taken the last place in the queue.
    behind: bool,
}

impl Teller {
    fn take(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.tell(Touched::Everything),
            Ok(event) if is_change(event.kind) => {
                for path in &event.paths {
                    if let Some(path) = self.below(path) {
                        self.tell(Touched::Path(path));
                    }
                }
            }
            Ok(_) => {}
            Err(error) => explain(&self.root, &error),
        }
    }

    /// The path inside the volume; `None` for what no door shows.
    fn below(&self, path: &Path) -> Option<RelPath> {
        RelPath::new(path.strip_prefix(&self.root).ok()?.to_str()?).ok()
    }

    /// Only this thread sends, so a place seen free stays free.
    fn tell(&mut self, touched: Touched) {
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

/// A write is told when the writer closes the file: its single steps would only be noise.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

/// Says once what the operator can do.
fn explain(root: &Path, error: &notify::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let remedy = match &error.kind {
            ErrorKind::MaxFilesWatch => {
                "the kernel's limit of watches is reached: raise the sysctl fs.inotify.max_user_watches"
            }
            ErrorKind::Io(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                "the kernel's limit of watchers is reached: raise the sysctl fs.inotify.max_user_instances"
            }
            _ => "see the error",
        };
        tracing::warn!(root = %root.display(), %error, remedy,
            "changes by other programs are noticed by the regular comparison only");
    });
}
