//! Noticing what other programs do in the tree, through the kernel's inotify.
//!
//! All volumes of a process share one inotify instance and one thread, for the kernel grants few of them. Folders are
//! watched through descriptors opened beneath the root, so no link is followed; opens and reads cause no event, so
//! serving files costs nothing here. A folder is watched before its names are read, so nothing falls in between.

use std::collections::{BTreeMap, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::entries::each_name;
use super::inner::Inner;
use super::tell::{QUEUE, Step, Teller};
use crate::store::volume::name;
use crate::store::{RelPath, Touched};

/// Bytes of events read at once.
const EVENTS: usize = 64 << 10;

/// Events of this long are read together: a thousand files a second need not wake us each.
const GATHER: Duration = Duration::from_millis(5);

/// The one watcher of this process; `None` inside when the kernel gives us none.
static SHARED: OnceLock<Option<Arc<Shared>>> = OnceLock::new();

/// Starts watching a tree; `None`, with a line in the log, where that is not possible. Reads every folder once.
pub(super) fn start(inner: &Arc<Inner>) -> Option<mpsc::Receiver<Touched>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let shared = SHARED.get_or_init(Shared::open).as_ref()?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let closing = sender.clone();
    let volume = shared.enter(inner, sender);
    if let Err(error) = shared.watch_tree(volume, inner, RelPath::root()) {
        explain(error);
        shared.leave(volume);
        return None;
    }
    shared.begin(volume);
    runtime.spawn(async move {
        closing.closed().await;
        // Taking a large tree's watches down is work for the pool.
        let _ = tokio::task::spawn_blocking(move || shared.leave(volume)).await;
    });
    Some(receiver)
}

/// True when everything that happened in watched folders before this call has been taken in. The kernel queues an event before
/// the call that caused it returns, so whoever saw that call end finds it counted.
pub(super) fn is_settled() -> bool {
    SHARED.get().and_then(Option::as_ref).is_some_and(|shared| shared.is_settled())
}

struct Shared {
    fd: OwnedFd,
    /// The thread holds events that it took out of the queue.
    busy: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    volumes: HashMap<u64, Watched>,
    /// Where each watched folder is; in two places when one volume lies inside another.
    spots: HashMap<i32, Vec<Spot>>,
}

/// One volume that is watched.
struct Watched {
    inner: Arc<Inner>,
    /// The whole tree is watched, so its stamps count.
    begun: bool,
    teller: Teller,
    /// The watch of each folder, by its path.
    folders: BTreeMap<String, i32>,
}

struct Spot {
    volume: u64,
    path: RelPath,
}

/// What is told of a watched folder. Opening and reading files is not.
fn wanted() -> WatchFlags {
    WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::EXCL_UNLINK
        | WatchFlags::MODIFY
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::ONLYDIR
}

impl Shared {
    fn open() -> Option<Arc<Self>> {
        let fd = inotify::init(CreateFlags::CLOEXEC).map_err(explain).ok()?;
        let shared = Arc::new(Self { fd, busy: AtomicBool::new(true), state: Mutex::default() });
        let reading = shared.clone();
        let thread = std::thread::Builder::new().name("stoa-watch".into()).spawn(move || reading.read());
        thread.inspect_err(|error| tracing::warn!(%error, "no thread for the watcher")).ok()?;
        Some(shared)
    }

    /// The queue first: what is no longer in it was taken out by a thread that said before that it is busy.
    fn is_settled(&self) -> bool {
        rustix::io::ioctl_fionread(&self.fd) == Ok(0) && !self.busy.load(Ordering::SeqCst)
    }

    fn enter(&self, inner: &Arc<Inner>, sender: mpsc::Sender<Touched>) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let volume = state.next;
        let teller = Teller::new(sender);
        let watched = Watched { inner: inner.clone(), begun: false, teller, folders: BTreeMap::new() };
        state.volumes.insert(volume, watched);
        volume
    }

    fn begin(&self, volume: u64) {
        if let Some(watched) = self.state.lock().volumes.get_mut(&volume) {
            watched.begun = true;
            watched.inner.stamps.begin();
        }
    }

    fn leave(&self, volume: u64) {
        let mut state = self.state.lock();
        let Some(watched) = state.volumes.remove(&volume) else { return };
        if watched.begun {
            watched.inner.stamps.end();
        }
        for (path, watch) in watched.folders {
            self.forget(&mut state, volume, &path, watch);
        }
    }

    /// Watches a folder and all below it. What vanishes meanwhile needs no watch.
    fn watch_tree(&self, volume: u64, inner: &Inner, top: RelPath) -> rustix::io::Result<()> {
        let mut folders = vec![top];
        while let Some(folder) = folders.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
            let fd = match inner.root.open(&folder, flags) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(_) => {
                    // There, and not to be watched: files in it may still be open to us.
                    inner.stamps.give_up();
                    continue;
                }
            };
            if !self.watch_one(volume, &folder, &fd)? {
                return Ok(());
            }
            let listed = each_name(&fd, |name, kind| {
                if matches!(kind, FileType::Directory | FileType::Unknown) {
                    folders.extend(inner.root.shown(&fd, name).ok().and_then(|name| folder.join(&name).ok()));
                }
                true
            });
            if let Err(error) = listed {
                tracing::debug!(folder = %folder, %error, "a folder could not be read for watching");
            }
        }
        Ok(())
    }

    /// False when the volume is no longer watched.
    fn watch_one(&self, volume: u64, folder: &RelPath, fd: &OwnedFd) -> rustix::io::Result<bool> {
        let mut state = self.state.lock();
        if !state.volumes.contains_key(&volume) {
            return Ok(false);
        }
        let watch = inotify::add_watch(&self.fd, format!("/proc/self/fd/{}", fd.as_raw_fd()), wanted())?;
        let spots = state.spots.entry(watch).or_default();
        if !spots.iter().any(|spot| spot.volume == volume && spot.path == *folder) {
            spots.push(Spot { volume, path: folder.clone() });
        }
        let watched = state.volumes.get_mut(&volume);
        let old = watched.and_then(|watched| watched.folders.insert(folder.as_str().to_owned(), watch));
        if let Some(old) = old.filter(|old| *old != watch) {
            self.forget(&mut state, volume, folder.as_str(), old);
        }
        Ok(true)
    }

    /// A folder of a volume is gone from its place; without any place its watch goes too.
    fn forget(&self, state: &mut State, volume: u64, path: &str, watch: i32) {
        let Some(spots) = state.spots.get_mut(&watch) else { return };
        spots.retain(|spot| spot.volume != volume || spot.path.as_str() != path);
        if spots.is_empty() {
            state.spots.remove(&watch);
            // Fails when the kernel dropped the watch with its folder.
            let _ = inotify::remove_watch(&self.fd, watch);
        }
    }

    fn forget_tree(&self, state: &mut State, volume: u64, top: &RelPath) {
        let Some(watched) = state.volumes.get_mut(&volume) else { return };
        let below = format!("{top}/")..format!("{top}0");
        let mut gone: Vec<(String, i32)> =
            watched.folders.range(below).map(|(path, watch)| (path.clone(), *watch)).collect();
        gone.extend(watched.folders.get(top.as_str()).map(|watch| (top.as_str().to_owned(), *watch)));
        for (path, _) in &gone {
            watched.folders.remove(path);
        }
        for (path, watch) in gone {
            self.forget(state, volume, &path, watch);
        }
    }

    /// The thread's work, for as long as the process lives.
    fn read(&self) {
        let mut buffer = vec![MaybeUninit::uninit(); EVENTS];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        loop {
            if reader.is_buffer_empty() {
                self.rest();
            }
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    self.take(event.wd(), event.events(), name);
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the watcher ends: changes by other programs are found by comparison only");
                    // Busy for ever: nothing may be believed unchanged.
                    return;
                }
            }
        }
    }

    /// Waits for events without taking them.
    fn rest(&self) {
        self.busy.store(false, Ordering::SeqCst);
        // An error here shows again in the read that follows.
        let _ = rustix::event::poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], None);
        std::thread::sleep(GATHER);
        self.busy.store(true, Ordering::SeqCst);
    }

    fn take(&self, watch: i32, what: ReadFlags, name: Option<&[u8]>) {
        let mut state = self.state.lock();
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return state.volumes.values_mut().for_each(|watched| {
                watched.inner.stamps.touch_all();
                watched.teller.tell(Touched::Everything);
            });
        }
        if what.contains(ReadFlags::IGNORED) {
            return state.dropped(watch);
        }
        let places = state.places(watch, name);
        let folder = what.contains(ReadFlags::ISDIR);
        if folder && what.intersects(ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
            for (volume, path) in &places {
                self.forget_tree(&mut state, *volume, path);
            }
        }
        if folder && what.intersects(ReadFlags::MOVED_TO | ReadFlags::CREATE) {
            drop(state);
            for (volume, path) in &places {
                self.follow(*volume, path);
            }
            state = self.state.lock();
        }
        for (volume, path) in &places {
            if let Some(watched) = state.volumes.get(volume) {
                // Whatever lies below a folder changed its place with it.
                if folder { watched.inner.stamps.touch_all() } else { watched.inner.stamps.touch(path) }
            }
        }
        let Some(step) = Step::of(what) else { return };
        for (volume, path) in places {
            if let Some(watched) = state.volumes.get_mut(&volume) {
                if watched.inner.own.take(&path) && what == ReadFlags::CREATE {
                    continue;
                }
                watched.teller.take(&path, step);
            }
        }
    }

    /// Watches a folder that has just appeared, before anyone is told of it.
    fn follow(&self, volume: u64, path: &RelPath) {
        let Some(inner) = self.state.lock().volumes.get(&volume).map(|watched| watched.inner.clone()) else { return };
        if let Err(error) = self.watch_tree(volume, &inner, path.clone()) {
            inner.stamps.give_up();
            explain(error);
        }
    }
}

impl State {
    /// The paths an event is about. Events of a folder about itself are told by the folder above. A name in another normal form may be,
    /// or have been, shown in two ways: both are told.
    fn places(&self, watch: i32, disk: Option<&[u8]>) -> Vec<(u64, RelPath)> {
        let Some(disk) = disk else { return Vec::new() };
        let spots = self.spots.get(&watch).map(Vec::as_slice).unwrap_or_default();
        let named = |text: &str| -> Vec<(u64, RelPath)> {
            spots.iter().filter_map(|spot| Some((spot.volume, spot.path.join(text).ok()?))).collect()
        };
        let mut places = named(&name::text(disk));
        places.extend(name::equivalent(disk).iter().flat_map(|text| named(text)));
        places
    }

    /// The kernel dropped a watch together with its folder.
    fn dropped(&mut self, watch: i32) {
        for spot in self.spots.remove(&watch).unwrap_or_default() {
            let Some(watched) = self.volumes.get_mut(&spot.volume) else { continue };
            if watched.folders.get(spot.path.as_str()) == Some(&watch) {
                watched.folders.remove(spot.path.as_str());
            }
        }
    }
}

/// Says once what the operator can do.
fn explain(error: Errno) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let remedy = match error {
            Errno::NOSPC => "the kernel's limit of watches is reached: raise the sysctl fs.inotify.max_user_watches",
            Errno::MFILE => "the kernel's limit of watchers is reached: raise the sysctl fs.inotify.max_user_instances",
            Errno::NOENT => "watching needs /proc to be mounted",
            _ => "see the error",
        };
        tracing::warn!(%error, remedy, "changes by other programs are noticed by the regular comparison only");
    });
}
