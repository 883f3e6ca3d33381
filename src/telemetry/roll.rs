//! A log file that rolls over: by size, by day or hour, or when told that somebody moved it.
//!
//! The current file always has its plain name; one set aside gets the time it ended (`stoa.log.2026-11-22-205211`). Nothing here
//! blocks a request or fails a caller: a disk that refuses a line costs that line, and it is counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::settings::Rotate;

/// Bytes kept back so that many lines cost one write; the writer thread flushes whenever its queue is empty.
const BUFFER: usize = 64 << 10;
/// How often the name is looked at: somebody may have moved or removed the file.
const LOOK: Duration = Duration::from_secs(1);

/// When a file is set aside and how many of them stay.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By the clock.
    pub rotate: Rotate,
    /// By size, in bytes; 0: never.
    pub size: u64,
    /// Files kept beside the current one.
    pub keep: usize,
}

/// What the daemon may ask and tell a roller that lives on its writer thread.
#[derive(Default)]
pub struct Signals {
    reopen: AtomicU64,
    dropped: AtomicU64,
}

impl Signals {
    /// Opens the file again before the next line.
    pub fn reopen(&self) {
        self.reopen.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines lost because the disk refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The open file.
struct Current {
    file: File,
    /// Device and inode, to see that the name still means it.
    identity: (u64, u64),
    /// Bytes in it, with those still pending.
    size: u64,
    /// When it was last written.
    written: Timestamp,
}

impl Current {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let meta = file.metadata()?;
        let written = if meta.len() == 0 { SystemTime::now() } else { meta.modified()? };
        let written = Timestamp::try_from(written).unwrap_or_else(|_| Timestamp::now());
        Ok(Self { identity: (meta.dev(), meta.ino()), size: meta.len(), written, file })
    }
}

/// The file and its successors.
pub struct Roller {
    path: PathBuf,
    plan: Plan,
    signals: Arc<Signals>,
    seen_reopen: u64,
    current: Current,
    period: i64,
    looked: Instant,
    pending: Vec<u8>,
    /// Time and number of the last file set aside.
    last: (String, u32),
    /// The last write stopped within a line.
    torn: bool,
}

impl Roller {
    /// Opens `folder/name` for appending, making both where missing.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn open(folder: &Path, name: &str, plan: Plan, signals: Arc<Signals>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(name);
        let current = Current::open(&path)?;
        let period = period(plan.rotate, current.written);
        Ok(Self {
            path,
            plan,
            seen_reopen: signals.reopen.load(Ordering::Relaxed),
            signals,
            current,
            period,
            looked: Instant::now(),
            pending: Vec::with_capacity(BUFFER),
            last: (String::new(), 0),
            torn: false,
        })
    }

    /// Everything that may have to happen before a line of `len` bytes is taken.
    fn prepare(&mut self, len: u64) {
        let asked = self.signals.reopen.load(Ordering::Relaxed);
        let moved = self.looked.elapsed() >= LOOK && {
            self.looked = Instant::now();
            fs::metadata(&self.path).map_or(true, |meta| (meta.dev(), meta.ino()) != self.current.identity)
        };
        if asked != self.seen_reopen || moved {
            self.seen_reopen = asked;
            self.drain();
            self.renew();
        }
        let full =
            self.plan.size > 0 && self.current.size > 0 && self.current.size.saturating_add(len) > self.plan.size;
        if full || period(self.plan.rotate, Timestamp::now()) != self.period {
            self.roll();
        }
    }

    /// Sets the current file aside and begins a new one. When that fails the old one goes on.
    fn roll(&mut self) {
        self.drain();
        self.period = period(self.plan.rotate, Timestamp::now());
        if self.current.size == 0 {
            return;
        }
        let aside = self.aside();
        if fs::rename(&self.path, aside).is_ok() {
            self.renew();
            self.prune();
        }
    }

    /// Opens the name anew; the old file stays in use when that fails.
    fn renew(&mut self) {
        if let Ok(current) = Current::open(&self.path) {
            self.period = period(self.plan.rotate, current.written);
            self.current = current;
        }
    }

    /// A free name that sorts by time; within one second a number never comes twice, or the newest would look the oldest.
    fn aside(&mut self) -> PathBuf {
        let stamp = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d-%H%M%S").to_string();
        let mut number = if self.last.0 == stamp { self.last.1 + 1 } else { 0 };
        let named = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{stamp}"));
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        let mut path = named(number);
        while path.exists() {
            number += 1;
            path = named(number);
        }
        self.last = (stamp, number);
        path
    }

    /// Removes the oldest files set aside by us; no other name is touched.
    fn prune(&self) {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut aside: Vec<(String, u32, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let held = entry.file_name();
                let (stamp, number) = ended(held.to_str()?.strip_prefix(name)?)?;
                Some((stamp.to_owned(), number, entry.path()))
            })
            .collect();
        aside.sort();
        let extra = aside.len().saturating_sub(self.plan.keep);
        for (_, _, path) in aside.into_iter().take(extra) {
            let _ = fs::remove_file(path);
        }
    }

    /// Writes what is pending, or loses and counts it.
    fn drain(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut done = 0;
        while let Some(rest) = self.pending.get(done..).filter(|rest| !rest.is_empty()) {
            match self.current.file.write(rest) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let lost = self.pending.get(done..).unwrap_or_default();
        if !lost.is_empty() {
            let lines = memchr::memchr_iter(b'\n', lost).count() as u64;
            self.signals.dropped.fetch_add(lines, Ordering::Relaxed);
            let whole = self.pending.get(..done).is_none_or(|written| written.is_empty() || written.ends_with(b"\n"));
            self.torn |= !whole;
        }
        self.pending.clear();
    }
}

/// Number of the day or hour; a file of another one is set aside.
fn period(rotate: Rotate, at: Timestamp) -> i64 {
    match rotate {
        Rotate::Daily => at.as_second().div_euclid(86_400),
        Rotate::Hourly => at.as_second().div_euclid(3_600),
        Rotate::Size => 0,
    }
}

/// The time and number in `.2026-11-22-205211` or `.2026-11-22-205211.3`.
fn ended(suffix: &str) -> Option<(&str, u32)> {
    let suffix = suffix.strip_prefix('.')?;
    let (stamp, number) = match suffix.split_once('.') {
        Some((stamp, number)) => (stamp, number.parse().ok()?),
        None => (suffix, 0),
    };
    let shape = "dddd-dd-dd-dddddd";
    let fits = stamp.len() == shape.len()
        && stamp.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    fits.then_some((stamp, number))
}

impl Write for Roller {
    /// Takes one record, always.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.prepare(record.len() as u64);
        if std::mem::take(&mut self.torn) {
            self.pending.push(b'\n');
        }
        self.pending.extend_from_slice(record);
        self.current.size = self.current.size.saturating_add(record.len() as u64);
        if self.pending.len() >= BUFFER {
            self.drain();
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain();
        Ok(())
    }
}

impl Drop for Roller {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roller(folder: &Path, size: u64, keep: usize) -> (Roller, Arc<Signals>) {
        let signals = Arc::new(Signals::default());
        let plan = Plan { rotate: Rotate::Size, size, keep };
        (Roller::open(folder, "stoa.log", plan, Arc::clone(&signals)).unwrap(), signals)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_hundred_rotations_lose_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let (mut roller, signals) = roller(folder.path(), 100, 1000);
        for number in 0..1200 {
            roller.write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        drop(roller);
        let mut lines: Vec<String> = Vec::new();
        for name in names(folder.path()) {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.len() <= 100 && text.ends_with('\n'));
            lines.extend(text.lines().map(String::from));
        }
        lines.sort();
        assert_eq!(lines, (0..1200).map(|number| format!("line {number:04}")).collect::<Vec<_>>());
        assert!(names(folder.path()).len() > 100);
        assert_eq!(signals.dropped(), 0);
    }

    #[test]
    fn only_files_set_aside_by_us_are_pruned_and_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["stoa.log.bak", "stoa.log.2001-01-01-000000", "stoa.logic", "stoa.log.2001-01-01-000000.x"] {
            fs::write(folder.path().join(name), "mine").unwrap();
        }
        let (mut roller, _) = roller(folder.path(), 10, 2);
        for number in 0..20 {
            roller.write_all(format!("number {number:02}\n").as_bytes()).unwrap();
        }
        drop(roller);
        let names = names(folder.path());
        let read = |name: &String| fs::read_to_string(folder.path().join(name)).unwrap();
        let mut kept: Vec<_> = names.iter().map(read).filter(|text| text.starts_with("number")).collect();
        kept.sort();
        assert_eq!(kept, ["number 17\n", "number 18\n", "number 19\n"]);
        assert_eq!(names.len(), 6, "{names:?}");
        for kept in ["stoa.log", "stoa.log.bak", "stoa.logic", "stoa.log.2001-01-01-000000.x"] {
            assert!(names.iter().any(|name| name == kept), "{names:?}");
        }
    }

    #[test]
    fn a_file_moved_by_logrotate_is_left_alone_after_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let (mut roller, signals) = roller(folder.path(), 0, 2);
        roller.write_all(b"before\n").unwrap();
        fs::rename(folder.path().join("stoa.log"), folder.path().join("stoa.log.1")).unwrap();
        roller.write_all(b"between\n").unwrap();
        signals.reopen();
        roller.write_all(b"after\n").unwrap();
        roller.flush().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("stoa.log.1").as_str(), read("stoa.log").as_str()), ("before\nbetween\n", "after\n"));
        let mode = fs::metadata(folder.path().join("stoa.log")).unwrap().mode();
        assert_eq!(mode & 0o777 & !0o640, 0);
    }

    #[test]
    fn a_file_of_yesterday_is_set_aside_at_the_first_line_of_today() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stoa.log");
        fs::write(&path, "old\n").unwrap();
        let yesterday = SystemTime::now() - Duration::from_hours(24);
        File::options().write(true).open(&path).unwrap().set_modified(yesterday).unwrap();
        let plan = Plan { rotate: Rotate::Daily, size: 0, keep: 3 };
        let mut roller = Roller::open(folder.path(), "stoa.log", plan, Arc::default()).unwrap();
        roller.write_all(b"new\n").unwrap();
        roller.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (mut roller, signals) = roller(folder.path(), 0, 2);
        roller.current.file = File::options().write(true).open("/dev/full").unwrap();
        roller.write_all(b"one\ntwo\n").unwrap();
        roller.flush().unwrap();
        assert_eq!(signals.dropped(), 2);
    }
}
