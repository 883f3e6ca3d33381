//! Access lines on their way to their file: gathered by each thread, written in blocks by one.
//!
//! An operation pays for making its line and for nothing else: no queue, no other thread is woken but for the first line in a while.
//! What a kill takes with it is what was said in the last [`TURN`]. Lines of one thread keep their order.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use super::access::Access;
use super::line::word;
use super::roll::Roller;

/// How long lines wait for others.
const TURN: Duration = Duration::from_millis(100);
/// A thread's block that is taken before its turn.
const FULL: usize = 64 << 10;
/// Bytes that may wait for a slow disk; further lines are lost and counted.
const MOST: usize = 32 << 20;

/// The daemon's, once its log is set up.
static GLOBAL: ArcSwapOption<Ledger> = ArcSwapOption::const_empty();

thread_local! {
    /// Another one, for a test that looks at its lines.
    static LOCAL: RefCell<Option<Arc<Ledger>>> = const { RefCell::new(None) };
    /// How lines of this second begin.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    /// The block of this thread, with the number of the ledger it belongs to.
    static OWN: RefCell<Option<(u64, Arc<Block>)>> = const { RefCell::new(None) };
}

type Block = Mutex<Vec<u8>>;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The lines of one file.
pub(super) struct Ledger {
    number: u64,
    json: bool,
    /// Access lines are wanted; sign-ins always are.
    on: AtomicBool,
    blocks: Mutex<Vec<Arc<Block>>>,
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// Something was said since the writer last looked.
    said: AtomicBool,
    bell: Mutex<Bell>,
    rung: Condvar,
}

#[derive(Default)]
struct Bell {
    /// Take what is there now.
    now: bool,
    /// … and end.
    end: bool,
}

/// The thread that writes; dropping it writes what is left.
pub(super) struct Writer {
    ledger: Arc<Ledger>,
    thread: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Starts the writer of a file.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(json: bool, on: bool, mut roller: Roller) -> std::io::Result<Writer> {
        let ledger = Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            json,
            on: AtomicBool::new(on),
            blocks: Mutex::default(),
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            said: AtomicBool::new(false),
            bell: Mutex::default(),
            rung: Condvar::new(),
        });
        let writing = ledger.clone();
        let thread = std::thread::Builder::new()
            .name("log-access.log".into())
            .spawn(move || while writing.turn(&mut roller) {})?;
        Ok(Writer { ledger, thread: Some(thread) })
    }

    /// Lines lost because the disk was too slow.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Access lines are wanted, or not, from now on.
    pub(super) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Takes a line made by `make`, which ends it.
    fn take(&self, make: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.load(Ordering::Relaxed) >= MOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let block = self.own_block();
        let mut lines = block.lock();
        let before = lines.len();
        make(&mut lines);
        let (len, more) = (lines.len(), lines.len().saturating_sub(before));
        drop(lines);
        self.waiting.fetch_add(more, Ordering::Relaxed);
        if len >= FULL && before < FULL {
            self.bell.lock().now = true;
            self.rung.notify_one();
        } else if !self.said.swap(true, Ordering::AcqRel) {
            // The lock makes sure that the writer either sees the word or is asleep already.
            drop(self.bell.lock());
            self.rung.notify_one();
        }
    }

    fn own_block(&self) -> Arc<Block> {
        let me = self.number;
        OWN.with_borrow_mut(|own| match own {
            Some((of, block)) if *of == me => block.clone(),
            _ => {
                let block = Arc::new(Mutex::new(Vec::with_capacity(4 << 10)));
                self.blocks.lock().push(block.clone());
                *own = Some((me, block.clone()));
                block
            }
        })
    }

    /// One turn of the writer; false when it was the last.
    fn turn(&self, roller: &mut Roller) -> bool {
        let mut bell = self.bell.lock();
        while !bell.end && !bell.now && !self.said.load(Ordering::Acquire) {
            self.rung.wait(&mut bell);
        }
        if !bell.end && !bell.now {
            // Others will have something to say too.
            self.rung.wait_while_for(&mut bell, |bell| !bell.end && !bell.now, TURN);
        }
        bell.now = false;
        let end = bell.end;
        drop(bell);
        self.said.store(false, Ordering::Release);
        self.write(roller);
        !end
    }

    fn write(&self, roller: &mut Roller) {
        let blocks = self.blocks.lock().clone();
        for block in &blocks {
            let lines = std::mem::take(&mut *block.lock());
            if lines.is_empty() {
                continue;
            }
            // A roller takes everything, and counts what the disk did not.
            let _ = roller.write_all(&lines);
            self.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
            let mut back = block.lock();
            if back.is_empty() && lines.capacity() <= 2 * FULL {
                *back = lines;
                back.clear();
            }
        }
        let _ = roller.flush();
        drop(blocks);
        // Blocks of threads that ended are held here only.
        self.blocks.lock().retain(|block| Arc::strong_count(block) > 1 || !block.lock().is_empty());
    }
}

impl Writer {
    /// The ledger it writes.
    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ledger.bell.lock().end = true;
        self.ledger.rung.notify_one();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Makes a ledger the process's.
pub(super) fn install(ledger: &Arc<Ledger>) {
    GLOBAL.store(Some(ledger.clone()));
}

/// Makes a ledger this thread's while `work` runs.
pub(super) fn within<T>(ledger: Option<Arc<Ledger>>, work: impl FnOnce() -> T) -> T {
    let before = LOCAL.replace(ledger);
    let result = work();
    LOCAL.replace(before);
    result
}

/// Writes an access line; false when no file takes them.
pub(super) fn write(access: &Access<'_>) -> bool {
    if let Some(ledger) = LOCAL.with_borrow(Clone::clone) {
        ledger.access(access);
        return true;
    }
    let global = GLOBAL.load();
    let Some(ledger) = global.as_ref() else { return false };
    ledger.access(access);
    true
}

impl Ledger {
    fn access(&self, access: &Access<'_>) {
        if self.on.load(Ordering::Relaxed) {
            self.take(|lines| if self.json { as_json(lines, access) } else { as_pairs(lines, access) });
        }
    }
}

/// The same pairs that every other line has.
fn as_pairs(lines: &mut Vec<u8>, access: &Access<'_>) {
    // Writing to memory does not fail.
    let _ = pairs(&mut Text(lines), access);
}

/// Piece by piece: templates were two thirds of what a line cost, and there is one for each operation.
fn pairs(text: &mut Text<'_>, access: &Access<'_>) -> std::fmt::Result {
    let origin = access.origin;
    time(text, Timestamp::now())?;
    text.write_str(" level=info target=access door=")?;
    text.write_str(origin.door)?;
    text.write_str(" peer=")?;
    text.address(origin.peer)?;
    text.write_str(" link=")?;
    text.number(origin.link)?;
    for (key, value) in [(" account=", access.account), (" verb=", access.verb), (" path=", access.path)] {
        text.write_str(key)?;
        word(text, value)?;
    }
    text.write_str(" bytes=")?;
    text.number(access.bytes)?;
    text.write_str(" result=")?;
    word(text, access.result)?;
    text.write_str(" micros=")?;
    text.number(micros(access))?;
    text.write_char('\n')
}

/// `time=2026-11-22T20:52:11.123Z`; all but the milliseconds is the same for a second.
fn time(text: &mut Text<'_>, now: Timestamp) -> std::fmt::Result {
    SECOND.with_borrow_mut(|(of, begin)| {
        if *of != now.as_second() || begin.is_empty() {
            let whole = format!("time={now:.0}");
            whole.trim_end_matches('Z').clone_into(begin);
            *of = now.as_second();
        }
        text.write_str(begin)
    })?;
    // A thousand more, so that its zeros are written; and the dot in its place.
    let at = text.0.len();
    text.number(1_000 + u64::from(now.subsec_millisecond().unsigned_abs()))?;
    if let Some(dot) = text.0.get_mut(at) {
        *dot = b'.';
    }
    text.write_char('Z')
}

fn as_json(lines: &mut Vec<u8>, access: &Access<'_>) {
    let line = Line {
        timestamp: Timestamp::now().to_string(),
        level: "INFO",
        target: super::settings::ACCESS,
        door: access.origin.door,
        peer: access.origin.peer,
        link: access.origin.link,
        account: access.account,
        verb: access.verb,
        path: access.path,
        bytes: access.bytes,
        result: access.result,
        micros: micros(access),
    };
    if serde_json::to_writer(&mut *lines, &line).is_ok() {
        lines.push(b'\n');
    }
}

fn micros(access: &Access<'_>) -> u64 {
    u64::try_from(access.took.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    target: &'static str,
    door: &'a str,
    peer: SocketAddr,
    link: u64,
    account: &'a str,
    verb: &'a str,
    path: &'a str,
    bytes: u64,
    result: &'a str,
    micros: u64,
}

/// Bytes that text is written to.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Text<'_> {
    fn number(&mut self, number: u64) -> std::fmt::Result {
        self.write_str(itoa::Buffer::new().format(number))
    }

    fn address(&mut self, address: SocketAddr) -> std::fmt::Result {
        let SocketAddr::V4(four) = address else { return write!(self, "{address}") };
        for (octet, after) in four.ip().octets().into_iter().zip(['.', '.', '.', ':']) {
            self.number(octet.into())?;
            self.write_char(after)?;
        }
        self.number(four.port().into())
    }
}

/// Takes other lines (sign-ins) into the same file.
#[derive(Clone)]
pub(super) struct Others(pub(super) Arc<Ledger>);

impl Write for Others {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.take(|lines| lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Others {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Rotate;
    use crate::telemetry::roll::{Plan, Signals};

    #[test]
    fn a_lines_time_is_that_of_its_own_moment() {
        for millis in [1_794_000_000_000, 1_794_000_000_007, 1_794_000_001_999, 1_794_000_000_500] {
            let (now, mut line) = (Timestamp::from_millisecond(millis).unwrap(), Vec::new());
            time(&mut Text(&mut line), now).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), format!("time={now:.3}"));
        }
    }

    #[test]
    fn addresses_and_numbers_are_written_as_everywhere() {
        for address in ["127.0.0.1:80", "192.0.2.255:65535", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:9"] {
            let mut line = Vec::new();
            Text(&mut line).address(address.parse().unwrap()).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), address);
        }
        let mut line = Vec::new();
        let mut text = Text(&mut line);
        text.number(0).and_then(|()| text.number(u64::MAX)).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), format!("0{}", u64::MAX));
    }

    #[test]
    fn lines_of_many_threads_all_arrive_in_the_order_of_each() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { rotate: Rotate::Size, size: 0, keep: 3 };
        let roller = Roller::open(folder.path(), "access.log", plan, Arc::new(Signals::default())).unwrap();
        let writer = Ledger::start(false, true, roller).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let mut others = Others(writer.ledger().clone());
                scope.spawn(move || {
                    for line in 0..5_000 {
                        others.write_all(format!("{thread} {line:05} {}\n", "x".repeat(40)).as_bytes()).unwrap();
                    }
                });
            }
        });
        let ledger = writer.ledger().clone();
        drop(writer);
        assert_eq!((ledger.lost(), ledger.waiting.load(Ordering::Relaxed)), (0, 0));
        let text = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
        let mut next = [0; 8];
        for line in text.lines() {
            let mut words = line.split(' ');
            let thread: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next().unwrap().parse::<usize>().unwrap(), next[thread]);
            next[thread] += 1;
        }
        assert_eq!(next, [5_000; 8]);
    }
}
