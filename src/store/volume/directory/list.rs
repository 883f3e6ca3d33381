//! Listing folders of any size, a page at a time, in byte order, with bounded memory.
//!
//! All names of a folder are read once into one compact, sorted block, which later pages reuse for as long as the
//! folder has not changed. A folder whose names would pass [`NAMES_BYTES`] is never held whole: only the names the
//! page needs are kept, and the folder is read again for the next page.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::entries::{each_name, is_hidden};
use super::errors::refused;
use super::lookup::Root;
use super::stat::{Seen, Stamp};
use super::variant::Variants;
use crate::error::Result;
use crate::store::volume::name;
use crate::store::{Node, RelPath};

/// Most bytes of names held while one folder is read.
const NAMES_BYTES: usize = 16 << 20;

/// Most bytes of names kept for later pages, over all folders of a volume.
const KEPT_BYTES: usize = 32 << 20;

/// Folders whose names are kept at once.
const KEPT_FOLDERS: usize = 64;

/// Names that no page asked for this long are forgotten.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// Names in one block, sorted by the text they are shown with.
#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    spans: Vec<Span>,
}

/// One name: its text, and behind that its bytes on the disk where the text does not tell them.
#[derive(Clone, Copy)]
struct Span {
    at: u32,
    shown: u16,
    disk: u16,
}

impl Span {
    fn shown(self, text: &[u8]) -> &[u8] {
        let at = self.at as usize;
        text.get(at..at + usize::from(self.shown)).unwrap_or_default()
    }

    fn disk(self, text: &[u8]) -> &[u8] {
        let at = self.at as usize + usize::from(self.shown);
        text.get(at..at + usize::from(self.disk)).unwrap_or_default()
    }
}

impl Names {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.spans.len() * size_of::<Span>()
    }

    /// Adds a name; `disk` is empty where the text tells it.
    fn push(&mut self, shown: &[u8], disk: &[u8]) {
        let span = (u32::try_from(self.text.len()), u16::try_from(shown.len()), u16::try_from(disk.len()));
        if let (Ok(at), Ok(shown_len), Ok(disk_len)) = span {
            self.text.extend_from_slice(shown);
            self.text.extend_from_slice(disk);
            self.spans.push(Span { at, shown: shown_len, disk: disk_len });
        }
    }

    /// The text of a name.
    fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|span| span.shown(&self.text))
    }

    /// The text of a name, and its bytes on the disk.
    fn entry(&self, index: usize) -> Option<(&str, Cow<'_, [u8]>)> {
        let span = self.spans.get(index)?;
        let shown = std::str::from_utf8(span.shown(&self.text)).ok()?;
        let disk = match span.disk(&self.text) {
            [] => name::bytes(shown),
            disk => disk.into(),
        };
        Some((shown, disk))
    }

    fn sort(&mut self) {
        let Self { text, spans } = self;
        spans.sort_unstable_by(|a, b| a.shown(text).cmp(b.shown(text)));
        spans.dedup_by(|a, b| a.shown(text) == b.shown(text));
    }

    /// Index of the first name behind `after`.
    fn behind(&self, after: Option<&[u8]>) -> usize {
        after.map_or(0, |after| self.spans.partition_point(|span| span.shown(&self.text) <= after))
    }

    /// Keeps the `keep` smallest names behind `after`.
    fn prune(&mut self, after: Option<&[u8]>, keep: usize) {
        self.sort();
        let first = self.behind(after);
        let mut kept = Self::default();
        for span in self.spans.iter().skip(first).take(keep) {
            kept.push(span.shown(&self.text), span.disk(&self.text));
        }
        *self = kept;
    }
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
            let read = read_names(&fd, page.after(), limit, NAMES_BYTES).map_err(refused)?;
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
        kept.retain(|one| one.stamp.inode() != stamp.inode() && one.used.elapsed() < KEPT_FOR);
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

    /// Adds nodes until the page is full or the names end. What has vanished meanwhile is passed over.
    fn fill(&mut self, folder: &OwnedFd, names: &Names) -> Result<()> {
        self.next = names.behind(self.after());
        while self.nodes.len() < self.limit {
            let Some((shown, disk)) = names.entry(self.next) else { break };
            self.next += 1;
            match Seen::at(folder, &*disk) {
                Ok(seen) => self.nodes.push(seen.node(shown)),
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
fn read_names(fd: &OwnedFd, after: Option<&[u8]>, limit: usize, bound: usize) -> rustix::io::Result<Read> {
    rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0))?;
    let mut reading = Reading { names: Names::default(), whole: true, most: bound, after, limit, bound };
    let (mut variants, mut in_other_forms) = (Variants::default(), Vec::new());
    each_name(fd, |disk, _| {
        match disk {
            disk if is_hidden(disk) => {}
            disk if variants.note(disk) => in_other_forms.push(disk.to_vec()),
            disk => reading.add(name::text(disk).as_bytes(), &[]),
        }
        true
    })?;
    for disk in &in_other_forms {
        reading.add(variants.shown(fd, disk)?.as_bytes(), disk);
    }
    Ok(reading.done())
}

/// The names of a folder as they are read.
struct Reading<'a> {
    names: Names,
    whole: bool,
    /// Bytes at which names are let go of.
    most: usize,
    after: Option<&'a [u8]>,
    limit: usize,
    bound: usize,
}

impl Reading<'_> {
    fn add(&mut self, shown: &[u8], disk: &[u8]) {
        if self.names.bytes() > self.most {
            self.names.prune(self.after, self.limit);
            self.whole = false;
            self.most = self.bound.max(self.names.bytes().saturating_mul(2));
        }
        if self.whole || self.after.is_none_or(|after| shown > after) {
            self.names.push(shown, disk);
        }
    }

    fn done(mut self) -> Read {
        match self.whole {
            true => self.names.sort(),
            false => self.names.prune(self.after, self.limit),
        }
        Read { names: self.names, whole: self.whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruned_names_are_the_smallest_behind_the_mark() {
        let mut names = Names::default();
        for name in ["d", "a", "c", "b", "e", "a"] {
            names.push(name.as_bytes(), &[]);
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
            let read = read_names(&fd, after.as_deref(), 40, 200).unwrap();
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
