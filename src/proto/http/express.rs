//! The express lane: plain requests for files that are ready to be sent, answered before hyper is asked.
//!
//! It reads what has come, looks at it ([`glance`]), and when a response is in the [`Cache`] and still exact for this asker, sends it.
//! Anything else goes to hyper with the bytes already read. Between requests it holds nothing but the socket, so that an idle
//! connection is cheap.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::hub::{Caller, Hub};
use crate::net::{Stream, pour};
use crate::proto::http::cache::{Audience, Cache, Content, Entry};
use crate::proto::http::glance::{Glance, glance};
use crate::proto::http::pulse::Window;
use crate::proto::http::sendfile::LONGEST;
use crate::proto::http::serve::Connection;
use crate::proto::http::{date, signin};
use crate::telemetry::{Access, metric};

/// Bytes read at once; a head that does not fit is hyper's.
const READ: usize = 8 << 10;

thread_local! {
    /// Where requests are looked at: one for all connections of a thread, for none keeps it while it waits.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
    /// The `Date` line with the head's end, of this second.
    static DATE: RefCell<(i64, Bytes)> = const { RefCell::new((i64::MIN, Bytes::new())) };
}

/// What the lane needs of a site.
pub struct Express {
    /// What is ready to be sent.
    pub cache: Cache,
    /// Who may have it.
    pub hub: Hub,
}

/// How the lane's part of a connection ended.
pub enum Outcome {
    /// For good.
    Closed,
    /// hyper goes on with these bytes of the peer's.
    Over(BytesMut),
}

/// What is to be done next.
enum Step {
    Reply(Reply),
    Over(BytesMut),
    Closed,
}

/// One response to send.
struct Reply {
    entry: Arc<Entry>,
    caller: Option<Caller>,
    head: bool,
    close: bool,
    /// What the peer sent beyond this request.
    rest: BytesMut,
    started: Instant,
}

/// Serves one connection until something unusual is asked or it ends.
pub async fn run(
    express: &Express,
    connection: &Arc<Connection>,
    stream: &mut Stream,
    stop: &CancellationToken,
) -> Outcome {
    let guest = express.hub.guest(connection.origin.clone());
    let asker = Asker { express, connection, guest: &guest };
    let mut stopped = pin!(stop.cancelled());
    let mut over = pin!(over(connection));
    let mut rest = BytesMut::new();
    loop {
        let step = poll_fn(|cx| {
            if let Poll::Ready(step) = asker.poll_step(cx, stream, &mut rest) {
                return Poll::Ready(step);
            }
            if stopped.as_mut().poll(cx).is_ready() {
                // The first request of a connection may be on its way: hyper waits for it, answers it and parts.
                let first = !connection.pulse.has_served();
                return Poll::Ready(if first { Step::Over(BytesMut::new()) } else { Step::Closed });
            }
            match over.as_mut().poll(cx).is_ready() {
                true => Poll::Ready(Step::Closed),
                false => Poll::Pending,
            }
        });
        match step.await {
            Step::Reply(mut reply) => {
                rest = std::mem::take(&mut reply.rest);
                let sent = tokio::select! {
                    biased;
                    sent = reply.send(connection, stream) => sent.is_ok(),
                    () = &mut over => false,
                };
                if sent && reply.close {
                    // Says goodbye under TLS; what a peer that is gone makes of it is no matter.
                    let _ = stream.shutdown().await;
                }
                if !sent || reply.close {
                    return Outcome::Closed;
                }
            }
            Step::Over(bytes) => return Outcome::Over(bytes),
            Step::Closed => return Outcome::Closed,
        }
    }
}

/// Ends when the peer was idle or slow for longer than it may.
async fn over(connection: &Connection) {
    let (pulse, limits) = (&connection.pulse, &connection.limits);
    let mut window = Window::default();
    while !pulse.is_over(limits, &mut window) {
        tokio::time::sleep(pulse.pause(limits)).await;
    }
}

/// Who asks on a connection.
struct Asker<'a> {
    express: &'a Express,
    connection: &'a Arc<Connection>,
    guest: &'a Caller,
}

impl Asker<'_> {
    /// The next step, from what was read before or what the socket has now.
    fn poll_step(&self, cx: &mut Context<'_>, stream: &mut Stream, rest: &mut BytesMut) -> Poll<Step> {
        if !rest.is_empty() {
            let bytes = std::mem::take(rest);
            return Poll::Ready(self.step(&bytes));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(stream).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(self.step(buffer.filled())),
                Poll::Ready(_) => Poll::Ready(Step::Closed),
            }
        })
    }

    fn step(&self, bytes: &[u8]) -> Step {
        let started = Instant::now();
        let Some(seen) = glance(bytes) else { return Step::Over(bytes.into()) };
        match self.ready(&seen) {
            None => Step::Over(bytes.into()),
            Some((entry, caller)) => Step::Reply(Reply {
                entry,
                caller,
                head: seen.head,
                close: seen.close,
                rest: bytes.get(seen.length..).unwrap_or_default().into(),
                started,
            }),
        }
    }

    /// A response that is exact for whoever asks; the caller, unless a guest.
    fn ready(&self, seen: &Glance<'_>) -> Option<(Arc<Entry>, Option<Caller>)> {
        let Express { cache, hub } = self.express;
        let caller = signin::known(hub, self.connection, seen.authorization, seen.cookie)?;
        let audience = if caller.is_some() { Audience::Account } else { Audience::Guest };
        let entry = cache.find(audience, seen.target)?;
        if matches!(entry.content, Content::File(..)) && !self.connection.lent.is_able() {
            return None;
        }
        if !entry.held().is_for(caller.as_ref().unwrap_or(self.guest)) {
            if entry.held().is_past() {
                cache.forget(audience, seen.target, &entry);
            }
            return None;
        }
        if let Some(caller) = &caller {
            self.connection.permit.lock().account(caller.name()).ok()?;
        }
        metric::cache_hit();
        Some((entry, caller))
    }
}

impl Reply {
    async fn send(&self, connection: &Connection, stream: &mut Stream) -> io::Result<()> {
        let _sending = connection.pulse.answer();
        let mut bytes = 0;
        let result = self.write(connection, stream, &mut bytes).await;
        let access = Access {
            origin: &connection.origin,
            account: self.caller.as_ref().map_or("", Caller::name),
            verb: if self.head { "HEAD" } else { "GET" },
            path: &self.entry.path,
            bytes,
            result: "200",
            took: self.started.elapsed(),
        };
        access.note();
        result
    }

    async fn write(&self, connection: &Connection, stream: &mut Stream, bytes: &mut u64) -> io::Result<()> {
        let close: &[u8] = if self.close { b"connection: close\r\n" } else { b"" };
        let end = end_of_head();
        let body = match &self.entry.content {
            Content::Whole(body) if !self.head => body.as_ref(),
            Content::Whole(_) | Content::File(..) => &[],
        };
        let mut slices = [IoSlice::new(&self.entry.head), IoSlice::new(close), IoSlice::new(&end), IoSlice::new(body)];
        let mut left = &mut slices[..];
        let more = !self.head && matches!(self.entry.content, Content::File(..));
        while !left.is_empty() {
            let sent = poll_fn(|cx| match (more, stream.as_tcp()) {
                (true, Some(tcp)) => pour::poll_write_before(tcp, cx, left),
                _ => Pin::new(&mut *stream).poll_write_vectored(cx, left),
            })
            .await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            connection.pulse.said(sent);
            IoSlice::advance_slices(&mut left, sent);
        }
        *bytes = body.len() as u64;
        match &self.entry.content {
            Content::File(file, len) if more => pour_file(connection, stream, file, *len, bytes).await,
            Content::Whole(_) | Content::File(..) => poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await,
        }
    }
}

/// Sends a whole file by the kernel.
async fn pour_file(
    connection: &Connection,
    stream: &Stream,
    file: &Arc<std::fs::File>,
    len: u64,
    sent: &mut u64,
) -> io::Result<()> {
    let tcp = stream.as_tcp().ok_or(io::ErrorKind::Unsupported)?;
    while *sent < len {
        let turn = usize::try_from(len - *sent).unwrap_or(LONGEST).min(LONGEST);
        pour::warm(file, *sent, turn).await?;
        let moved = poll_fn(|cx| pour::poll_send_file(tcp, cx, file, *sent, turn)).await?;
        connection.pulse.said(moved);
        *sent += moved as u64;
        if *sent < len {
            // A fast reader never makes the socket full: others must have their turn even so.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// The `Date` line and the empty one.
fn end_of_head() -> Bytes {
    let now = crate::hub::now();
    let second = date::seconds(now);
    DATE.with_borrow_mut(|(of, line)| {
        if *of != second {
            let text = date::imf(now).unwrap_or_default();
            *line = Bytes::from(format!("date: {text}\r\n\r\n"));
            *of = second;
        }
        line.clone()
    })
}
