//! Moving a file to a socket without copying it through us.
//!
//! A runtime thread serves many links, so it must not wait for a disk: what is in the page cache goes out at once, what is not is
//! first read by a thread that may wait.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{SendAncillaryBuffer, SendFlags, sockopt};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::Stream;

/// Bytes of one turn: large enough to be cheap, small enough to be fair to the links of the same thread, which then have theirs.
const TURN: usize = 2 << 20;
/// A turn while the other links have next to nothing to do: some 15 ms where reader and server are one machine. Elsewhere the socket is
/// full long before.
const LONE_TURN: usize = 64 << 20;
/// Who lets others have their turn and waits no longer than this counts as alone.
const ALONE: Duration = Duration::from_micros(50);
/// Of each stretch of this size it is asked whether it is in memory.
pub(super) const PROBE: usize = 256 << 10;
/// A file of this size goes out by one write.
pub(super) const SMALL: usize = 8 << 10;
/// The kernel keeps a file in memory by pieces no smaller than this.
const PAGE: u64 = 4096;
/// Bytes read at once where the kernel cannot send by itself.
const COPY: usize = 256 << 10;

/// Sends `len` bytes of `file` from `offset`: `sendfile` on plain TCP, a reused buffer under TLS. `on_progress` is called with each
/// amount sent, for stall detection. A file that became shorter is an error.
///
/// # Errors
/// The socket's or the disk's.
pub async fn send_file(
    stream: &mut Stream,
    file: Arc<File>,
    offset: u64,
    len: u64,
    on_progress: &mut (dyn FnMut(u64) + Send),
) -> io::Result<()> {
    match stream {
        Stream::Tcp(tcp) => by_kernel(tcp, &file, offset, len, on_progress).await,
        other => by_copy(other, &file, offset, len, on_progress).await,
    }
}

async fn by_kernel(
    tcp: &mut TcpStream,
    file: &Arc<File>,
    mut offset: u64,
    mut left: u64,
    on_progress: &mut (dyn FnMut(u64) + Send),
) -> io::Result<()> {
    if left <= SMALL as u64 {
        let sent = at_once(tcp, file, offset, left)?;
        if sent > 0 {
            on_progress(sent as u64);
        }
        offset += sent as u64;
        left = left.saturating_sub(sent as u64);
    }
    let _bulk = (left > TURN as u64).then(|| Bulk::new(tcp));
    let mut turn = TURN;
    let mut warm_until = offset;
    while left > 0 {
        if offset >= warm_until {
            warm_until = offset + warm_turn(file, offset, left, turn).await?;
        }
        let whole = usize::try_from(warm_until - offset).unwrap_or(TURN);
        let sent = poll_fn(|cx| poll_send_file(tcp, cx, file, offset, whole)).await?;
        offset += sent as u64;
        left = left.saturating_sub(sent as u64);
        on_progress(sent as u64);
        if left == 0 {
            break;
        }
        // A fast reader never makes the socket full: others must have their turn even so.
        let alone = yielded_to_nobody().await;
        turn = if alone && sent == whole { LONE_TURN.min(turn * 2) } else { TURN };
        // What a slow reader gets much later may no longer be in memory then.
        warm_until = warm_until.min(offset + TURN as u64);
    }
    Ok(())
}

/// How much of a turn is in memory, after a wait for the disk if need be; a wait is for a short turn.
async fn warm_turn(file: &Arc<File>, offset: u64, left: u64, turn: usize) -> io::Result<u64> {
    let long = left.min(turn as u64);
    if long > TURN as u64 && is_warm(file, offset, offset + long - 1) {
        return Ok(long);
    }
    let short = left.min(TURN as u64);
    warm(file, offset, usize::try_from(short).unwrap_or(TURN)).await?;
    Ok(short)
}

/// Lets the other links of the thread have their turn; true when none wanted one, or not for long.
async fn yielded_to_nobody() -> bool {
    let before = Instant::now();
    tokio::task::yield_now().await;
    before.elapsed() < ALONE
}

/// A socket on which much is sent, until this is dropped: by full packets only, for the pieces of a file do not end where packets do, and not
/// paced where the peer is on this machine (a reverse proxy, say).
struct Bulk<'a> {
    tcp: &'a TcpStream,
    /// The congestion control it had.
    paced: Option<String>,
}

impl<'a> Bulk<'a> {
    fn new(tcp: &'a TcpStream) -> Self {
        // Where it cannot be, more packets are sent.
        let _ = sockopt::set_tcp_cork(tcp, true);
        Self { tcp, paced: unpace(tcp) }
    }
}

impl Drop for Bulk<'_> {
    fn drop(&mut self) {
        let _ = sockopt::set_tcp_cork(self.tcp, false);
        if let Some(paced) = &self.paced {
            let _ = sockopt::set_tcp_congestion(self.tcp, paced);
        }
    }
}

/// Between two programs of one machine nothing can be congested. A system that estimates capacity by default and paces what it sends (BBR)
/// spends a few per cent of the processor on that, and where a transfer begins, half of the rate. The congestion control to go back to.
fn unpace(tcp: &TcpStream) -> Option<String> {
    tcp.peer_addr().ok().filter(|peer| peer.ip().to_canonical().is_loopback())?;
    let paced = sockopt::tcp_congestion(tcp).ok()?;
    sockopt::set_tcp_congestion(tcp, "reno").ok().map(|()| paced)
}

/// A small file goes out by one read and one write; how much of it did. 0: it is not in memory, or the socket is full.
fn at_once(tcp: &TcpStream, file: &File, offset: u64, len: u64) -> io::Result<usize> {
    let mut buffer = [0; SMALL];
    let Some(bytes) = in_memory(file, offset, len, &mut buffer) else { return Ok(0) };
    match rustix::net::send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// A stretch of a file that fits the buffer and can be had without waiting.
pub(super) fn in_memory<'a>(file: &File, offset: u64, len: u64, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let target = buffer.get_mut(..usize::try_from(len).ok()?)?;
    let read = match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(target)], offset, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP) if is_memory(file) => file.read_at(target, offset).ok()?,
        read => read.ok()?,
    };
    (read == target.len()).then_some(target)
}

/// One turn of sending a file by the kernel, for drivers that poll: how much of `len` bytes went out.
///
/// # Errors
/// The socket's or the disk's; `UnexpectedEof` when the file became shorter.
pub fn poll_send_file(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    file: &File,
    offset: u64,
    len: usize,
) -> Poll<io::Result<usize>> {
    let sent = ready!(poll_turn(tcp, cx, || {
        let mut from = offset;
        rustix::fs::sendfile(tcp, file, Some(&mut from), len)
    }));
    Poll::Ready(match sent {
        Ok(0) if len > 0 => Err(shortened()),
        sent => sent,
    })
}

/// Writes what a file or the end of the connection is about to follow: the kernel waits for that before it sends a packet that is not full.
///
/// # Errors
/// The socket's.
pub fn poll_write_before(tcp: &TcpStream, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    poll_turn(tcp, cx, || match slices {
        [only] => rustix::net::send(tcp, only, flags),
        _ => rustix::net::sendmsg(tcp, slices, &mut SendAncillaryBuffer::default(), flags),
    })
}

/// Tries until it is done or the socket is full.
pub(super) fn poll_turn(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    mut turn: impl FnMut() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        match tcp.try_io(Interest::WRITABLE, || turn().map_err(io::Error::from)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return Poll::Ready(done),
        }
    }
}

/// Makes sure that a stretch is in memory, by another thread where it is not.
///
/// # Errors
/// The disk's.
pub async fn warm(file: &Arc<File>, offset: u64, len: usize) -> io::Result<()> {
    let last = offset + (len as u64).saturating_sub(1);
    if is_warm(file, offset, last) {
        return Ok(());
    }
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let mut scratch = vec![0; 64 << 10];
        let mut at = offset;
        while at <= last {
            let wanted = usize::try_from(last - at + 1).unwrap_or(scratch.len()).min(scratch.len());
            match file.read_at(scratch.get_mut(..wanted).unwrap_or_default(), at) {
                // Shorter than it was: the send that follows says so.
                Ok(0) => break,
                Ok(read) => at += read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    read.await.map_err(io::Error::other)?
}

/// As far as probes tell, all of a stretch can be had without waiting.
pub(super) fn is_warm(file: &File, first: u64, last: u64) -> bool {
    let probes = (first..=last).step_by(PROBE).chain((last - first >= PAGE).then_some(last));
    for at in probes {
        match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut [0; 1])], at, ReadWriteFlags::NOWAIT) {
            Ok(_) => {}
            Err(Errno::OPNOTSUPP) => return is_memory(file),
            Err(_) => return false,
        }
    }
    true
}

async fn by_copy(
    stream: &mut Stream,
    file: &Arc<File>,
    mut offset: u64,
    mut left: u64,
    on_progress: &mut (dyn FnMut(u64) + Send),
) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(left).unwrap_or(COPY).min(COPY)];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(COPY).min(buffer.len());
        let read;
        (buffer, read) = read_at(file, buffer, wanted, offset).await?;
        if read == 0 {
            return Err(shortened());
        }
        let mut unsent = buffer.get(..read).unwrap_or_default();
        while !unsent.is_empty() {
            let sent = stream.write(unsent).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            on_progress(sent as u64);
            unsent = unsent.get(sent..).unwrap_or_default();
        }
        offset += read as u64;
        left = left.saturating_sub(read as u64);
        tokio::task::yield_now().await;
    }
    stream.flush().await
}

/// Reads at once from memory, or by a thread that may wait; the buffer travels there and back.
async fn read_at(file: &Arc<File>, mut buffer: Vec<u8>, wanted: usize, offset: u64) -> io::Result<(Vec<u8>, usize)> {
    let target = buffer.get_mut(..wanted).unwrap_or_default();
    match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(target)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => return Ok((buffer, read)),
        Err(Errno::OPNOTSUPP) if is_memory(file) => {
            let read = file.read_at(target, offset)?;
            return Ok((buffer, read));
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let file = Arc::clone(file);
    let reading = tokio::task::spawn_blocking(move || {
        let target = buffer.get_mut(..wanted).unwrap_or_default();
        let read = file.read_at(target, offset);
        read.map(|read| (buffer, read))
    });
    reading.await.map_err(io::Error::other)?
}

/// The file system is memory (tmpfs): nobody waits there. Others that do not know the question whether one would (NFS, FUSE) are read by
/// a thread that may wait.
fn is_memory(file: &File) -> bool {
    /// statfs(2)
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == TMPFS)
}

/// True when it was the file that failed, not the peer: it became shorter, or its disk is broken.
#[must_use]
pub fn is_of_file(error: &io::Error) -> bool {
    let disk = [Errno::IO, Errno::STALE].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::UnexpectedEof || disk.contains(&error.raw_os_error())
}

fn shortened() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_system_that_cannot_tell_is_not_waited_for() {
        // procfs knows no answer to the question, as little as a share does
        let file = File::open("/proc/version").expect("procfs");
        assert!(!is_warm(&file, 0, 0));
        assert_eq!(in_memory(&file, 0, 5, &mut [0; 16]), None);
    }

    #[test]
    fn what_is_in_memory_is_had_at_once() {
        let mut file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
        file.write_all(b"hello").expect("room");
        assert!(is_warm(&file, 0, 4));
        assert_eq!(in_memory(&file, 1, 4, &mut [0; 16]), Some(&b"ello"[..]));
        assert_eq!(in_memory(&file, 1, 5, &mut [0; 16]), None, "it ends before");
    }

    #[tokio::test]
    async fn a_long_turn_is_for_what_is_in_memory() {
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
        file.set_len(3 * TURN as u64).expect("room");
        let file = Arc::new(file);
        let long = warm_turn(&file, TURN as u64, 2 * TURN as u64, LONE_TURN).await.expect("read");
        assert_eq!(long, 2 * TURN as u64);
        // Of procfs nobody knows: a thread that may wait reads no more than a short turn.
        let unknown = Arc::new(File::open("/proc/version").expect("procfs"));
        let short = warm_turn(&unknown, 0, 2 * TURN as u64, LONE_TURN).await.expect("read");
        assert_eq!(short, TURN as u64);
    }

    #[tokio::test]
    async fn a_large_file_to_a_peer_on_this_machine_is_not_paced() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("a port")).await.expect("a way");
        let mut ours = Stream::Tcp(listener.accept().await.expect("a peer").0);
        let reader = tokio::spawn(async move { tokio::io::copy(&mut { peer }, &mut tokio::io::sink()).await });
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
        file.set_len(3 * TURN as u64).expect("room");
        let chosen = |tcp: &TcpStream| sockopt::tcp_congestion(tcp).expect("a choice");
        let before = chosen(ours.as_tcp().expect("plain"));
        let during = Bulk::new(ours.as_tcp().expect("plain"));
        assert_eq!(chosen(during.tcp), "reno");
        drop(during);
        send_file(&mut ours, Arc::new(file), 0, 3 * TURN as u64, &mut |_| ()).await.expect("sent");
        assert_eq!(chosen(ours.as_tcp().expect("plain")), before, "the system's choice comes back");
        drop(ours);
        assert_eq!(reader.await.expect("a reader").expect("read"), 3 * TURN as u64);
    }

    #[tokio::test]
    async fn who_let_others_work_was_not_alone() {
        let other = tokio::spawn(async { std::thread::sleep(ALONE * 2) });
        assert!(!yielded_to_nobody().await);
        other.await.expect("the other's turn");
    }
}
