//! Listing folders of any size, a page at a time, in byte order, with bounded memory.
//!
//! All names of a folder are read once into one compact, sorted block, which later pages reuse for as long as the
//! folder has not changed. A folder whose names would pass [`NAMES_BYTES`] is never held whole: only the names the
//! page needs are kept, and the folder is read again for the next page.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, RawDir};
use rustix::io::Errno;

use super::lookup::{Root, Seen, refused};
use crate::error::Result;
use crate::store::volume::path::RESERVED;
use crate::store::{Node, RelPath};

/// Most bytes of names held while one folder is read.
const NAMES_BYTES: usize = 16 << 20;

/// Most bytes of names kept for later pages, over all folders of a volume.
const KEPT_BYTES: usize = 32 << 20;

/// Folders whose names are kept at once.
const KEPT_FOLDERS: usize = 64;

/// Names that no page asked for this long are forgotten.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// A change this shortly before reading may not have moved the folder's time: such names are not kept.
const UNSETTLED: Duration = Duration::from_millis(50);

/// The same on file systems that keep whole seconds.
const UNSETTLED_COARSE: Duration = Duration::from_secs(3);

/// Bytes of directory entries asked of the kernel at once.
const ENTRIES: usize = 64 << 10;

/// Sorted names in one block.
#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    spans: Vec<(u32, u8)>,
}

impl Names {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.spans.len() * size_of::<(u32, u8)>()
    }

    fn push(&mut self, name: &[u8]) {
        if let (Ok(at), Ok(len)) = (u32::try_from(self.text.len()), u8::try_from(name.len())) {
            self.text.extend_from_slice(name);
            self.spans.push((at, len));
        }
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|span| slice(&self.text, *span))
    }

    fn sort(&mut self) {
        let Self { text, spans } = self;
        spans.sort_unstable_by(|a, b| slice(text, *a).cmp(slice(text, *b)));
        spans.dedup_by(|a, b| slice(text, *a) == slice(text, *b));
    }

    /// Index of the first name behind `after`.
    fn behind(&self, after: Option<&[u8]>) -> usize {
        after.map_or(0, |after| self.spans.partition_point(|span| slice(&self.text, *span) <= after))
    }

    /// Keeps the `keep` smallest names behind `after`.
    fn prune(&mut self, after: Option<&[u8]>, keep: usize) {
        self.sort();
        let first = self.behind(after);
        let mut kept = Self::default();
        for index in first..self.len().min(first.saturating_add(keep)) {
            kept.push(self.get(index).unwrap_or_default());
        }
        *self = kept;
    }
}

fn slice(text: &[u8], (at, len): (u32, u8)) -> &[u8] {
    let at = at as usize;
    text.get(at..at + usize::from(len)).unwrap_or_default()
}

/// What was read of a folder.
struct Read {
    names: Names,
    /// Holds every name, not only those near the page.
    whole: bool,
}

/// Names kept between the pages of a listing.
#[derive(Default)]
pub(super) struct Listings {
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    stamp: Stamp,
    names: Arc<Names>,
    used: Instant,
}

/// Identifies one state of one folder.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    fn of(folder: &OwnedFd) -> rustix::io::Result<Self> {
        let seen = Seen::of(folder)?;
        Ok(Self { inode: seen.inode, modified: seen.modified, changed: seen.changed })
    }

    /// True when the folder's clock has moved on since its last change, so that the next change will show.
    fn settled(&self) -> bool {
        let (seconds, nanos) = self.changed.max(self.modified);
        let Ok(seconds) = u64::try_from(seconds) else { return false };
        let wait = if nanos == 0 { UNSETTLED_COARSE } else { UNSETTLED };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now > Duration::new(seconds, nanos) + wait
    }
}

impl Listings {
    /// A page of a folder.
    pub(super) fn page(&self, root: &Root, folder: &RelPath, after: Option<&str>, limit: usize) -> Result<Vec<Node>> {
        let fd = root.open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK).map_err(refused)?;
        let stamp = Stamp::of(&fd).map_err(refused)?;
        if let Some(names) = after.and_then(|_| self.find(&stamp)) {
            let mut page = Page::new(after, limit);
            page.fill(&fd, &names)?;
            return Ok(self.finish(page, stamp, names, true));
        }
        let settled = stamp.settled();
        let mut page = Page::new(after, limit);
        loop {
            let read = read_names(&fd, folder, page.after(), limit, NAMES_BYTES).map_err(refused)?;
            page.fill(&fd, &read.names)?;
            if read.whole {
                return Ok(self.finish(page, stamp, Arc::new(read.names), settled));
            }
            if page.nodes.len() >= limit || read.names.len() == 0 {
                return Ok(page.nodes);
            }
        }
    }

    fn find(&self, stamp: &Stamp) -> Option<Arc<Names>> {
        let mut kept = self.kept.lock();
        let one = kept.iter_mut().find(|one| one.stamp == *stamp)?;
        one.used = Instant::now();
        Some(one.names.clone())
    }

    /// Hands a page out; keeps the names when there are more pages to come, forgets them after the last.
    fn finish(&self, page: Page<'_>, stamp: Stamp, names: Arc<Names>, keep: bool) -> Vec<Node> {
        let more = page.next < names.len();
        let mut kept = self.kept.lock();
        kept.retain(|one| one.stamp.inode != stamp.inode && one.used.elapsed() < KEPT_FOR);
        if more && keep && names.bytes() <= KEPT_BYTES {
            kept.push_back(Kept { stamp, names, used: Instant::now() });
        }
        while kept.len() > KEPT_FOLDERS || kept.iter().map(|one| one.names.bytes()).sum::<usize>() > KEPT_BYTES {
            kept.pop_front();
        }
        page.nodes
    }
}

/// A page as it fills.
struct Page<'a> {
    start: Option<&'a str>,
    last: Option<Vec<u8>>,
    limit: usize,
    nodes: Vec<Node>,
    /// Index behind the last name looked at.
    next: usize,
}

impl<'a> Page<'a> {
    fn new(start: Option<&'a str>, limit: usize) -> Self {
        Self { start, last: None, limit, nodes: Vec::new(), next: 0 }
    }

    /// The name behind which to go on.
    fn after(&self) -> Option<&[u8]> {
        self.last.as_deref().or(self.start.map(str::as_bytes))
    }

    /// Adds nodes until the page is full or the names end. What has vanished meanwhile, or is neither file nor folder,
    /// is passed over.
    fn fill(&mut self, folder: &OwnedFd, names: &Names) -> Result<()> {
        self.next = names.behind(self.after());
        while self.nodes.len() < self.limit {
            let Some(name) = names.get(self.next) else { break };
            self.next += 1;
            match Seen::at(folder, name) {
                Ok(seen) => self.nodes.extend(std::str::from_utf8(name).ok().and_then(|name| seen.node(name))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        self.last =
            self.next.checked_sub(1).and_then(|index| names.get(index)).map(<[u8]>::to_vec).or(self.last.take());
        Ok(())
    }
}

/// Reads a folder's names. Past `bound` bytes only the `limit` smallest behind `after` are kept.
fn read_names(
    fd: &OwnedFd,
    folder: &RelPath,
    after: Option<&[u8]>,
    limit: usize,
    bound: usize,
) -> rustix::io::Result<Read> {
    rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0))?;
    let mut names = Names::default();
    let mut whole = true;
    let mut most = bound;
    let mut foreign = 0_u64;
    each_name(fd, |name, kind| {
        if !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Unknown) || is_hidden(name) {
            return true;
        }
        if std::str::from_utf8(name).is_err() {
            foreign += 1;
            return true;
        }
        if names.bytes() > most {
            names.prune(after, limit);
            whole = false;
            most = bound.max(names.bytes().saturating_mul(2));
        }
        if whole || after.is_none_or(|after| name > after) {
            names.push(name);
        }
        true
    })?;
    match whole {
        true => names.sort(),
        false => names.prune(after, limit),
    }
    if foreign > 0 {
        tracing::debug!(folder = %folder, count = foreign, "names that are not UTF-8 are not shown");
    }
    Ok(Read { names, whole })
}

/// Calls `with` for each entry of an open folder, `.` and `..` left out, until it says no.
pub(super) fn each_name(fd: impl AsFd, mut with: impl FnMut(&[u8], FileType) -> bool) -> rustix::io::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if !with(name, entry.file_type()) => break,
            _ => {}
        }
    }
    Ok(())
}

fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(RESERVED.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruned_names_are_the_smallest_behind_the_mark() {
        let mut names = Names::default();
        for name in ["d", "a", "c", "b", "e", "a"] {
            names.push(name.as_bytes());
        }
        names.prune(Some(b"a"), 2);
        assert_eq!((names.len(), names.get(0), names.get(1)), (2, Some(&b"b"[..]), Some(&b"c"[..])));
        assert_eq!(names.behind(Some(b"b")), 1);
        assert_eq!(names.behind(None), 0);
    }

    #[test]
    fn a_folder_past_the_bound_is_read_page_by_page_without_holding_all_names() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..500 {
            std::fs::write(folder.path().join(format!("{:03}", number * 7 % 500)), "").unwrap();
        }
        let fd = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let mut seen = Vec::new();
        loop {
            let after = seen.last().cloned();
            let read = read_names(&fd, &RelPath::root(), after.as_deref(), 40, 200).unwrap();
            assert!(!read.whole && read.names.bytes() < 1000, "{} bytes", read.names.bytes());
            let before = seen.len();
            seen.extend((0..read.names.len()).filter_map(|index| read.names.get(index)).map(<[u8]>::to_vec));
            if seen.len() == before {
                break;
            }
        }
        let wanted: Vec<Vec<u8>> = (0..500).map(|number| format!("{number:03}").into_bytes()).collect();
        assert_eq!(seen, wanted);
    }
}
