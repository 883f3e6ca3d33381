//! Carrying bodies: wire to intake and source to wire, with their pace watched.
//!
//! Nothing here knows a command; [`super::converse`] decides which connection a body travels on and what its end means.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::dialogue::{Event, Framing, Intake, Source};
use super::ending::{End, Tally};
use super::framing::{Frame, Unframe};
use crate::error::{Error, Kind, Result};
use crate::hub::{Soaked, Then};
use crate::net::rate::Rates;
use crate::net::{Limits, Stream, pour};

/// First room for a body: most are small.
const SMALLEST: usize = 16 << 10;
/// Room for a body that is not small.
const FIRST: usize = 64 << 10;
/// A burst of fewer bytes is not worth a thread of its own.
const WORTH: u64 = 256 << 10;
/// Room once a body proved large, and what is handed on or written at once.
const CHUNK: usize = 256 << 10;
/// A room filled with so many reads or fewer belongs to a fast peer.
const FEW_READS: usize = 16;
/// First room for a body on the command connection: most mail is small.
const INLINE: usize = 8 << 10;
/// Bytes of a counted body swallowed at most after an error.
const COUNTED_SWALLOW: u64 = 128 << 20;

/// How long an upload that can be gone on with may still run when the daemon drains.
const DRAINED: Duration = Duration::from_secs(1);

/// What a peer does that ends its message in a way only it understands.
const NEVER_ENDED: &str = "the message ended with LF.LF, which is no end; it must be CRLF.CRLF";

/// How long and how slow a peer may be while bytes flow.
pub(super) struct Pace {
    stall: Duration,
    slowest: u64,
    until: Option<Instant>,
    waited: Duration,
    moved: u64,
    in_all: AtomicU64,
    rates: Rates,
}

impl Pace {
    /// `until`: the end of the connection's total time.
    pub(super) fn new(limits: &Limits, until: Option<Instant>) -> Self {
        let (stall, slowest, rates) = (limits.stall.0, limits.slowest.0, Rates::default());
        Self { stall, slowest, until, waited: Duration::ZERO, moved: 0, in_all: AtomicU64::new(0), rates }
    }

    /// What this body's bytes are drawn from.
    pub(super) fn limit(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// Bytes to move at once under a limit of bandwidth; else all there are.
    fn step(&self) -> usize {
        self.rates.step().map_or(usize::MAX, |step| usize::try_from(step).unwrap_or(usize::MAX))
    }

    /// Bytes since the beginning, also of a body that broke off.
    pub(super) fn moved_in_all(&self) -> u64 {
        self.in_all.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, bytes: u64) {
        self.in_all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One read or write of the peer's connection; time spent elsewhere (our disk) does not count against the peer.
    async fn wait(&mut self, work: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
        let begun = Instant::now();
        let left = self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(begun));
        let bound = if self.stall.is_zero() { left } else { left.min(self.stall) };
        let moved = timeout(bound, work).await.map_err(|_| stalled(bound))??;
        self.moved += moved as u64;
        self.count(moved as u64);
        self.waited += begun.elapsed();
        if !self.stall.is_zero() && self.waited >= self.stall {
            self.judge(self.moved, self.waited)?;
            (self.waited, self.moved) = (Duration::ZERO, 0);
        }
        if !self.rates.is_free() {
            self.rates.spend(moved as u64).await;
        }
        Ok(moved)
    }

    fn judge(&self, moved: u64, over: Duration) -> io::Result<()> {
        if moved < self.slowest.saturating_mul(over.as_secs()) {
            let words = format!("slower than {} bytes a second", self.slowest);
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        Ok(())
    }

    /// Ends when the counter of a transfer that runs by itself does not grow fast enough.
    async fn watch(&self, moved: &AtomicU64) -> io::Error {
        loop {
            let left = self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            let bound = if self.stall.is_zero() { left } else { left.min(self.stall) };
            sleep(bound).await;
            let moved = moved.swap(0, Ordering::Relaxed);
            if moved == 0 || bound == left {
                return stalled(bound);
            }
            if let Err(slow) = self.judge(moved, bound) {
                return slow;
            }
        }
    }

    /// Bytes that came while nobody waited for the peer.
    fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        self.count(bytes);
    }

    /// Writes all, each step watched.
    async fn write(&mut self, stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.get(..self.step()).unwrap_or(bytes);
            let sent = self.wait(stream.write(piece)).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Waits until a drain cuts an upload that its sender can go on with.
pub(super) async fn drained(stop: CancellationToken, resumable: bool) -> Error {
    if !resumable {
        return std::future::pending().await;
    }
    stop.cancelled().await;
    sleep(DRAINED).await;
    Error::new(Kind::Cancelled, "this server is going down: go on with the upload in a moment")
}

fn stalled(bound: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing moved for {} s", bound.as_secs()))
}

/// A body's connection failed: the peer's affair, so `Cancelled`.
pub(super) fn broken(error: io::Error) -> Error {
    let words = match error.kind() {
        io::ErrorKind::TimedOut => format!("transfer cut: {error}"),
        _ => "the connection broke off during the transfer".into(),
    };
    Error::new(Kind::Cancelled, words).with(error)
}

/// Sending a file failed: by the peer, or by our own disk, which is no affair of the peer's.
fn failed(error: io::Error) -> Error {
    match pour::is_of_file(&error) {
        true => Error::new(Kind::Unavailable, "the file could not be read to its end: it changed, or the disk failed")
            .with(error),
        false => broken(error),
    }
}

/// What became of an incoming body.
pub(super) struct Taken {
    /// All came and was taken; else why not.
    pub outcome: Result<()>,
    /// What followed it: the next commands.
    pub rest: BytesMut,
    /// The place where the body ends was not reached: a connection that also carries commands must be closed.
    pub lost: bool,
}

/// Pours what comes into the intake until its framing (or the connection) ends. `early` was read before.
pub(super) async fn take_in(
    stream: &mut Stream,
    early: BytesMut,
    framing: Framing,
    intake: &mut dyn Intake,
    pace: &mut Pace,
) -> Taken {
    match framing {
        Framing::Raw => {
            let outcome = raw_in(stream, early, intake, pace).await;
            Taken { outcome, rest: BytesMut::new(), lost: true }
        }
        Framing::Ascii | Framing::Counted(_) | Framing::Dots { .. } => {
            Framed::new(framing, early, intake).run(stream, pace).await
        }
    }
}

/// A slow or small body: reads land in the buffer that is handed on, and the buffer is used again once the intake let go of it. A fast
/// one: the intake takes it from the socket itself, for as long as it stays fast.
async fn raw_in(stream: &mut Stream, mut buffer: BytesMut, intake: &mut dyn Intake, pace: &mut Pace) -> Result<()> {
    let (mut room, mut reads) = (SMALLEST, 0);
    buffer.reserve(room);
    loop {
        if buffer.len() == buffer.capacity() {
            intake.push(buffer.split().freeze()).await?;
            // Only who fills the room with a few reads gets more of it: a thousand slow cameras stay small.
            let fast = reads <= FEW_READS;
            if fast && room >= FIRST && pace.rates.is_free() && drink(stream, intake, pace).await? {
                return Ok(());
            }
            room = if fast { CHUNK.min(room * 4) } else { FIRST };
            reads = 0;
            buffer.reserve(room);
        }
        reads += 1;
        let step = pace.step();
        let read = pace.wait(stream.read_buf(&mut (&mut buffer).limit(step))).await;
        if matches!(read, Ok(more) if more > 0) {
            continue;
        }
        // What came is handed on in any case: a broken upload may be resumed where it broke.
        if !buffer.is_empty() {
            intake.push(buffer.freeze()).await?;
        }
        // The orderly end of the connection is the sign of STREAM mode (RFC 959 §3.4.1).
        read.map_err(broken)?;
        return Tally::new(None).end(End::Signalled);
    }
}

/// Lets the intake take from the socket while it is worth it; true at the end of the body. Meanwhile the runtime hears nothing of the
/// socket: it would be woken for every packet, and nobody waits for them there.
async fn drink(stream: &mut Stream, intake: &mut dyn Intake, pace: &mut Pace) -> Result<bool> {
    let Some(socket) = stream.detach().map_err(broken)?.map(Arc::new) else { return Ok(false) };
    let outcome = gulp(stream, &socket, intake, pace).await;
    stream.attach(&socket).map_err(broken)?;
    outcome
}

async fn gulp(stream: &mut Stream, socket: &Arc<OwnedFd>, intake: &mut dyn Intake, pace: &mut Pace) -> Result<bool> {
    loop {
        let Some(Soaked { bytes, then }) = intake.soak(socket).await? else { return Ok(false) };
        pace.moved(bytes);
        match then {
            Then::End => return Ok(true),
            Then::Broken(error) => return Err(broken(error)),
            Then::More if bytes == 0 => return Ok(false),
            Then::More => {}
            Then::Dry if bytes < WORTH => return Ok(false),
            Then::Dry => {
                stream.attach(socket).map_err(broken)?;
                pace.wait(async { stream.unread().await.map(|()| 0) }).await.map_err(broken)?;
                stream.detach().map_err(broken)?;
            }
        }
    }
}

/// An incoming body that has to be unframed.
struct Framed<'a> {
    framing: Framing,
    unframe: Unframe,
    input: BytesMut,
    out: BytesMut,
    intake: &'a mut dyn Intake,
    failed: Option<Error>,
    swallowed: u64,
    tally: Tally,
}

impl<'a> Framed<'a> {
    fn new(framing: Framing, input: BytesMut, intake: &'a mut dyn Intake) -> Self {
        let (out, unframe) = (BytesMut::new(), Unframe::new(framing));
        let tally = Tally::new(match framing {
            Framing::Counted(octets) => Some(octets),
            Framing::Ascii | Framing::Dots { .. } | Framing::Raw => None,
        });
        Self { framing, unframe, input, out, intake, failed: None, swallowed: 0, tally }
    }

    async fn run(mut self, stream: &mut Stream, pace: &mut Pace) -> Taken {
        let mut room = INLINE;
        loop {
            if self.step().await {
                return self.end(End::Signalled, false);
            }
            if self.swallowed > self.most_swallowed() {
                return self.end(End::Cut, true);
            }
            self.input.reserve(room);
            let step = pace.step();
            let read = pace.wait(stream.read_buf(&mut (&mut self.input).limit(step))).await;
            if self.input.len() >= room {
                room = FIRST;
            }
            if !matches!(read, Ok(more) if more > 0) {
                return self.cut_off(read).await;
            }
        }
    }

    /// Unframes what was read; true at the end of the body.
    async fn step(&mut self) -> bool {
        self.out.reserve(self.input.len());
        let (used, ended) = match self.unframe.is_done() {
            true => (0, true),
            false => self.unframe.feed(&self.input, &mut self.out),
        };
        self.input.advance(used);
        if self.unframe.refused && self.failed.is_none() {
            self.failed = Some(Error::new(Kind::Invalid, "a line of the content ends with a bare CR or LF"));
        }
        if self.failed.is_some() {
            self.swallowed += used as u64;
            self.out.clear();
        }
        if self.out.len() >= FIRST || ended {
            self.push().await;
        }
        ended
    }

    async fn push(&mut self) {
        if self.out.is_empty() || self.failed.is_some() {
            return;
        }
        let chunk = self.out.split().freeze();
        let counted = self.tally.count(chunk.len() as u64);
        let outcome = match counted {
            Ok(()) => self.intake.push(chunk).await,
            Err(error) => Err(error),
        };
        self.failed = outcome.err();
    }

    fn most_swallowed(&self) -> u64 {
        match self.framing {
            Framing::Ascii | Framing::Raw => 0,
            Framing::Counted(_) => COUNTED_SWALLOW,
            Framing::Dots { swallow, .. } => swallow,
        }
    }

    fn end(self, end: End, lost: bool) -> Taken {
        let outcome = self.failed.map_or_else(|| self.tally.end(end), Err);
        Taken { outcome, rest: self.input, lost }
    }

    /// The connection ended: for FTP's ASCII that is the end of the file, for everything else an accident.
    async fn cut_off(mut self, read: io::Result<usize>) -> Taken {
        self.unframe.end(&mut self.out);
        self.push().await;
        let accident = match read {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && self.unframe.looks_ended() => {
                Some(broken(io::Error::new(io::ErrorKind::TimedOut, NEVER_ENDED)))
            }
            Err(error) => Some(broken(error)),
            Ok(_) if self.framing == Framing::Ascii => None,
            Ok(_) => Some(broken(io::ErrorKind::UnexpectedEof.into())),
        };
        let end = if accident.is_none() { End::Signalled } else { End::Cut };
        self.failed = self.failed.or(accident);
        self.end(end, true)
    }
}

/// Pours a source onto the wire; bytes of content sent.
pub(super) async fn give_out(stream: &mut Stream, source: Source, framing: Framing, pace: &mut Pace) -> Result<u64> {
    let mut frame = Frame::new(framing);
    let mut framed = BytesMut::new();
    let mut sent = 0;
    match source {
        Source::File(download, range) if frame.is_plain() => {
            let length = range.end.saturating_sub(range.start);
            while sent < length {
                let piece = (length - sent).min(pace.rates.step().unwrap_or(u64::MAX));
                let moved = AtomicU64::new(0);
                let mut note = |more: u64| {
                    moved.fetch_add(more, Ordering::Relaxed);
                    pace.count(more);
                };
                let sending = pour::send_file(stream, download.file(), range.start + sent, piece, &mut note);
                tokio::select! {
                    biased;
                    done = sending => done.map_err(failed)?,
                    slow = pace.watch(&moved) => return Err(broken(slow)),
                }
                sent += piece;
                if !pace.rates.is_free() {
                    pace.rates.spend(piece).await;
                }
            }
        }
        Source::File(download, range) => {
            while range.start + sent < range.end {
                let want = usize::try_from(range.end - range.start - sent).map_or(CHUNK, |left| left.min(CHUNK));
                let chunk = download.read_at(range.start + sent, want).await?;
                if chunk.is_empty() {
                    return Err(failed(io::ErrorKind::UnexpectedEof.into()));
                }
                sent += chunk.len() as u64;
                write_framed(stream, &chunk, &mut frame, &mut framed, pace).await?;
            }
        }
        Source::Feed(mut feed) => {
            while let Some(chunk) = feed.next().await? {
                sent += chunk.len() as u64;
                write_framed(stream, &chunk, &mut frame, &mut framed, pace).await?;
            }
        }
    }
    frame.end(&mut framed);
    pace.write(stream, &framed).await.map_err(broken)?;
    pace.wait(async { stream.flush().await.map(|()| 0) }).await.map_err(broken)?;
    Ok(sent)
}

async fn write_framed(
    stream: &mut Stream,
    chunk: &[u8],
    frame: &mut Frame,
    framed: &mut BytesMut,
    pace: &mut Pace,
) -> Result<()> {
    if frame.is_plain() {
        return pace.write(stream, chunk).await.map_err(broken);
    }
    framed.clear();
    frame.feed(chunk, framed);
    pace.write(stream, framed).await.map_err(broken)?;
    framed.clear();
    Ok(())
}

/// What the dialogue hears of a body that was sent.
pub(super) fn given(sent: Result<u64>, pace: &Pace) -> Event {
    match sent {
        Ok(bytes) => Event::Sent(bytes, Ok(())),
        Err(error) => Event::Sent(pace.moved_in_all(), Err(error)),
    }
}
