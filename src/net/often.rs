//! Files of medium size that are sent often.
//!
//! What `sendfile` costs there is mostly that the kernel looks up each page of the file anew. A file that was sent a few times has its
//! pages held by a pipe, from where tee(2) and splice(2) pass them on to a socket without looking for them: a tenth less for an answer
//! of 100 KiB. They are the same pages, not a copy; what the pipes hold cannot be taken away when memory is short, so it is not much.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice, tee};
use tokio::net::TcpStream;

use super::pour::{self, PROBE};

/// A larger file takes several turns, between which others have theirs.
const LARGEST: usize = PROBE;
/// Times a file is sent before its pages are held.
const OFTEN: u32 = 8;
/// Bytes that all files together may have held: a quarter of what the kernel lets the pipes of one user have by default
/// (`fs.pipe-user-pages-soft`), or half where it rounds the size of each up.
const MOST_HELD: usize = 16 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The way from held pages to a socket; empty between two turns. `None`: this system has none.
    static LANE: RefCell<Option<Lane>> = RefCell::new(Lane::open().ok());
}

/// What is known of a file that is sent again and again.
pub struct Often {
    known: Instant,
    /// When all of it was last found in memory, in nanoseconds since then; 0: never.
    found: AtomicU64,
    sent: AtomicU32,
    pages: OnceLock<Option<Pages>>,
}

impl Default for Often {
    fn default() -> Self {
        let (found, sent, pages) = (AtomicU64::new(0), AtomicU32::new(0), OnceLock::new());
        Self { known: Instant::now(), found, sent, pages }
    }
}

impl Often {
    /// What was found in memory is believed to be there for so long: under pressure memory gives up first what nobody asked for lately.
    const BELIEVED: Duration = Duration::from_millis(250);

    /// Sends the file of `len` bytes, always the same one, as far as the socket takes it at once; 0 where it must be waited for, or is large.
    ///
    /// # Errors
    /// The socket's or the disk's; `UnexpectedEof` when the file became shorter.
    pub fn poll_send(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
        file: &File,
        len: u64,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let Some(whole) = usize::try_from(len).ok().filter(|whole| (1..=LARGEST).contains(whole)) else {
            return Poll::Ready(Ok(0));
        };
        if let Some(pages) = self.pages(file, whole, now) {
            return pour::poll_turn(tcp, cx, || match by_lane(pages, tcp) {
                Some(sent) => sent,
                None => rustix::fs::sendfile(tcp, file, Some(&mut 0), whole),
            });
        }
        match self.is_warm(file, len, now) {
            true => pour::poll_send_file(tcp, cx, file, 0, whole),
            false => Poll::Ready(Ok(0)),
        }
    }

    /// Its pages, held from the time it has been sent often.
    fn pages(&self, file: &File, len: usize, now: Instant) -> Option<&Pages> {
        if let Some(pages) = self.pages.get() {
            return pages.as_ref();
        }
        if self.sent.fetch_add(1, Ordering::Relaxed) < OFTEN || !self.is_warm(file, len as u64, now) {
            return None;
        }
        self.pages.get_or_init(|| Pages::hold(file, len)).as_ref()
    }

    /// All of a file of `len` bytes can be had without waiting, or could a moment ago.
    fn is_warm(&self, file: &File, len: u64, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.known);
        let found = Duration::from_nanos(self.found.load(Ordering::Relaxed));
        if !found.is_zero() && age.saturating_sub(found) < Self::BELIEVED {
            return true;
        }
        let warm = pour::is_warm(file, 0, len.saturating_sub(1));
        if warm {
            self.found.store(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        }
        warm
    }
}

/// The pages of a whole file, in a pipe that is never read from.
struct Pages {
    pipe: OwnedFd,
    len: usize,
    _share: Share,
}

impl Pages {
    /// `None` where there is no room, or the file is shorter than it was.
    fn hold(file: &File, len: usize) -> Option<Self> {
        let share = Share::take(len)?;
        let (pipe, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        if fcntl_getpipe_size(&into).ok()? < len {
            fcntl_setpipe_size(&into, len).ok()?;
        }
        let mut offset = 0;
        while let Some(left) = len.checked_sub(usize::try_from(offset).ok()?).filter(|left| *left > 0) {
            splice(file, Some(&mut offset), &into, None, left, SpliceFlags::NONBLOCK)
                .ok()
                .filter(|moved| *moved > 0)?;
        }
        Some(Self { pipe, len, _share: share })
    }
}

/// Part of what may be held.
struct Share(usize);

impl Share {
    fn take(bytes: usize) -> Option<Self> {
        let with = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= MOST_HELD);
        HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).ok().map(|_| Self(bytes))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Sends what the socket takes; `None` where this way cannot be gone, and nothing has.
fn by_lane(pages: &Pages, tcp: &TcpStream) -> Option<rustix::io::Result<usize>> {
    LANE.with_borrow_mut(|lane| {
        let open = lane.as_ref()?;
        let laid = tee(&pages.pipe, &open.into, pages.len, SpliceFlags::NONBLOCK).unwrap_or_default();
        let whole = laid == pages.len;
        let sent = whole.then(|| splice(&open.out, None, tcp, None, laid, SpliceFlags::NONBLOCK));
        let moved = sent.and_then(rustix::io::Result::ok).unwrap_or_default();
        if !whole || !open.clear(laid - moved) {
            // What is left in it must not go to another socket.
            *lane = None;
        }
        sent
    })
}

struct Lane {
    out: OwnedFd,
    into: OwnedFd,
    /// Takes what a socket did not.
    sink: File,
}

impl Lane {
    fn open() -> io::Result<Self> {
        let sink = File::options().write(true).open("/dev/null")?;
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&into, LARGEST)?;
        Ok(Self { out, into, sink })
    }

    fn clear(&self, mut left: usize) -> bool {
        while left > 0 {
            match splice(&self.out, None, &self.sink, None, left, SpliceFlags::NONBLOCK) {
                Ok(moved) if moved > 0 => left = left.saturating_sub(moved),
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::fs::FileExt;

    use tokio::io::AsyncReadExt;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let reader = TcpStream::connect(listener.local_addr().expect("a port")).await.expect("a way");
        (listener.accept().await.expect("a peer").0, reader)
    }

    fn file(fill: u8, len: usize) -> (File, Vec<u8>) {
        // No two pages are alike.
        let bytes: Vec<u8> = (0..=255_u8).cycle().flat_map(|at| [fill.wrapping_add(at); 7]).take(len).collect();
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
        file.write_all_at(&bytes, 0).expect("room");
        (file, bytes)
    }

    /// Asks to have it sent once.
    async fn send(often: &Often, tcp: &TcpStream, file: &File, len: usize) -> io::Result<usize> {
        poll_fn(|cx| often.poll_send(tcp, cx, file, len as u64, Instant::now())).await
    }

    #[tokio::test]
    async fn held_pages_are_the_file_byte_for_byte() {
        for len in [1, 4096, 4097, 102_400, LARGEST - 1, LARGEST] {
            let ((tcp, mut reader), (file, bytes), often) = (pair().await, file(3, len), Often::default());
            for time in 0..2 * OFTEN {
                assert_eq!(often.pages.get().is_some_and(Option::is_some), time > OFTEN, "{time}");
                let sent = send(&often, &tcp, &file, len).await.expect("a peer");
                let mut got = vec![0; sent];
                reader.read_exact(&mut got).await.expect("bytes");
                assert!(sent > 0 && bytes.starts_with(&got), "{sent} of {len}");
            }
        }
    }

    #[tokio::test]
    async fn what_one_socket_did_not_take_goes_to_no_other() {
        let ((full, _late), (other, mut reader)) = (pair().await, pair().await);
        let (one, two) = (file(1, LARGEST), file(100, LARGEST));
        let (first, second) = (Often::default(), Often::default());
        let mut short = 0;
        // Nobody reads: sooner or later it takes a part and then nothing.
        for _ in 0..200 {
            let sending = poll_fn(|cx| Poll::Ready(first.poll_send(&full, cx, &one.0, LARGEST as u64, Instant::now())));
            match sending.await {
                Poll::Ready(sent) => short += usize::from(sent.expect("a peer") < LARGEST),
                Poll::Pending => break,
            }
        }
        assert!(short > 0 && first.pages.get().is_some_and(Option::is_some));
        for _ in 0..2 * OFTEN {
            let sent = send(&second, &other, &two.0, LARGEST).await.expect("a peer");
            let mut got = vec![0; sent];
            reader.read_exact(&mut got).await.expect("bytes");
            assert!(two.1.starts_with(&got), "bytes of another file");
        }
        assert!(LANE.with_borrow(Option::is_some));
    }

    #[tokio::test]
    async fn what_went_is_said_even_where_the_rest_cannot_be_cleared_away() {
        let ((full, mut late), (file, bytes), often) = (pair().await, file(7, LARGEST), Often::default());
        let unwritable = File::open("/dev/null").expect("a device");
        LANE.with_borrow_mut(|lane| lane.as_mut().expect("a lane").sink = unwritable);
        let mut expected = Vec::new();
        while LANE.with_borrow(Option::is_some) {
            let sending = poll_fn(|cx| Poll::Ready(often.poll_send(&full, cx, &file, LARGEST as u64, Instant::now())));
            if let Poll::Ready(sent) = sending.await {
                expected.extend_from_slice(bytes.get(..sent.expect("a peer")).expect("no more than there is"));
            }
        }
        drop(full);
        let mut got = Vec::new();
        late.read_to_end(&mut got).await.expect("bytes");
        assert!(got == expected, "{} of {}", got.len(), expected.len());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_and_leaves_nothing_behind() {
        let (file, bytes) = file(9, 50_000);
        let often = Often::default();
        for _ in 0..3 {
            let (tcp, reader) = pair().await;
            reader.set_zero_linger().expect("a socket");
            drop(reader);
            let mut outcome = Ok(0);
            for _ in 0..2 * OFTEN {
                outcome = send(&often, &tcp, &file, bytes.len()).await;
            }
            assert!(outcome.is_err());
            let (tcp, mut reader) = pair().await;
            let sent = send(&often, &tcp, &file, bytes.len()).await.expect("a peer");
            let mut got = vec![0; sent];
            reader.read_exact(&mut got).await.expect("bytes");
            assert!(bytes.starts_with(&got));
        }
    }

    #[test]
    fn no_more_is_held_than_may_be_and_what_is_not_goes_on_without() {
        let (file, bytes) = file(5, LARGEST);
        let mut all: Vec<_> = std::iter::from_fn(|| Pages::hold(&file, bytes.len())).take(1000).collect();
        assert!(all.len() <= MOST_HELD / LARGEST, "{}", all.len());
        assert!(HELD.load(Ordering::Relaxed) > MOST_HELD - LARGEST);
        all.pop();
        assert!(Pages::hold(&file, bytes.len()).is_some(), "there is room again");
        drop(all);
        assert!(Pages::hold(&file, bytes.len() + 1).is_none(), "it is shorter than that");
    }

    #[test]
    fn what_was_found_in_memory_is_not_asked_for_again_at_once() {
        let (file, _) = file(0, 5);
        // Of this one nobody ever knows.
        let other = File::open("/proc/version").expect("procfs");
        let (often, now) = (Often::default(), Instant::now());
        assert!(!often.is_warm(&other, 5, now));
        assert!(often.is_warm(&file, 5, now));
        assert!(often.is_warm(&other, 5, now + Often::BELIEVED / 2), "it is believed");
        assert!(!often.is_warm(&other, 5, now + Often::BELIEVED * 2), "and then asked for again");
    }
}
