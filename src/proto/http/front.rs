//! The front of an HTTP/1 connection: reads each head, answers what is ready or wrong, and gives the rest to hyper one request at a time.
//!
//! Between requests it holds nothing but the socket, so that an idle connection is cheap.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::hub::Caller;
use crate::net::Stream;
use crate::proto::http::extent::Extent;
use crate::proto::http::fast_path::{FastPath, Reply, Rest, Sent};
use crate::proto::http::head::{self, Head, Look, Wrong};
use crate::proto::http::pulse::Window;
use crate::proto::http::reply;
use crate::proto::http::serve::{Connection, end_of, linger};
use crate::telemetry::Access;

/// Bytes read at once.
const READ: usize = 16 << 10;

thread_local! {
    /// Where requests are looked at: one for all connections of a thread, for none keeps it while it waits.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// What the front does not do itself.
pub enum Outcome {
    /// Nothing: the connection is over.
    Closed,
    /// A request for hyper: what came of it, and how far it goes.
    Odd(BytesMut, Extent),
    /// HTTP/2, with what came.
    Second(BytesMut),
}

/// What is to be done next.
enum Step {
    Reply(Reply),
    /// A reply that the socket did not take at once.
    Rest(Box<Rest>),
    /// The last reply has gone.
    Part,
    Refuse(Wrong),
    Leave(Outcome),
}

/// What came of the next request, and how much of it was looked at already.
#[derive(Default)]
pub struct Begun {
    bytes: BytesMut,
    seen: usize,
}

impl From<BytesMut> for Begun {
    fn from(bytes: BytesMut) -> Self {
        Self { bytes, seen: 0 }
    }
}

/// Serves one connection until something is asked that is not ready, or it ends.
pub async fn run(
    fast_path: Option<&FastPath>,
    connection: &Arc<Connection>,
    stream: &mut Stream,
    begun: &mut Begun,
    stop: &CancellationToken,
) -> Outcome {
    let guest = fast_path.map(|fast_path| fast_path.hub.guest(connection.origin.clone()));
    let front = Front { ready: fast_path.zip(guest.as_ref()), connection };
    let mut stopped = pin!(stop.cancelled());
    let mut parting = false;
    let mut over = pin!(over(connection));
    loop {
        let step = poll_fn(|cx| {
            while let Poll::Ready(step) = front.poll_step(cx, stream, begun) {
                if let Some(step) = front.reply(step, cx, stream, parting) {
                    return Poll::Ready(step);
                }
            }
            if !parting && stopped.as_mut().poll(cx).is_ready() {
                // The first request of a connection may be on its way: it is waited for, answered, and then we part.
                parting = true;
                if connection.pulse.has_served() {
                    return Poll::Ready(Step::Leave(Outcome::Closed));
                }
            }
            match over.as_mut().poll(cx).is_ready() {
                true => Poll::Ready(Step::Leave(Outcome::Closed)),
                false => Poll::Pending,
            }
        });
        // What is seldom is boxed, so that a connection that waits for its next request does not keep the room for it.
        match step.await {
            Step::Rest(rest) => {
                let last = rest.is_last();
                let sign_in = rest.sign_in();
                let sending = Box::pin(rest.send(connection, stream));
                let sent = tokio::select! {
                    biased;
                    sent = sending => sent.is_ok(),
                    () = end_of(sign_in.as_ref()) => false,
                    () = &mut over => false,
                };
                if sent && last {
                    goodbye(stream).await;
                }
                if !sent || last {
                    return Outcome::Closed;
                }
            }
            Step::Reply(_) | Step::Part => {
                goodbye(stream).await;
                return Outcome::Closed;
            }
            Step::Refuse(wrong) => {
                Box::pin(refuse(&wrong, connection, stream)).await;
                return Outcome::Closed;
            }
            Step::Leave(outcome) => return outcome,
        }
    }
}

/// Says goodbye under TLS; what a peer that is gone makes of it is no matter.
async fn goodbye(stream: &mut Stream) {
    let _ = stream.shutdown().await;
}

/// Ends when the peer was idle or slow for longer than it may.
async fn over(connection: &Connection) {
    let (pulse, limits) = (&connection.pulse, &connection.limits);
    let mut window = Window::default();
    while !pulse.is_over(limits, &mut window) {
        tokio::time::sleep(pulse.pause(limits)).await;
    }
}

/// Says what is wrong with a head and ends the connection: nobody knows where the next request would begin.
async fn refuse(wrong: &Wrong, connection: &Arc<Connection>, stream: &mut Stream) {
    let started = Instant::now();
    let sending = connection.pulse.answer();
    let text = reply::refusal(wrong.status, wrong.text);
    let sent = async {
        stream.write_all(&text).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    let sent = tokio::time::timeout(connection.limits.stall.0, sent).await;
    drop(sending);
    let access = Access {
        origin: &connection.origin,
        account: "",
        verb: "OTHER",
        path: "-",
        bytes: text.len() as u64,
        result: wrong.status.as_str(),
        took: started.elapsed(),
    };
    access.note();
    if matches!(sent, Ok(Ok(()))) {
        linger(stream, &connection.limits).await;
    }
}

struct Front<'a> {
    /// What plain requests are answered from, and whom they are answered for when nobody is named.
    ready: Option<(&'a FastPath, &'a Caller)>,
    connection: &'a Arc<Connection>,
}

/// What some bytes come to.
enum Verdict {
    Part,
    /// A response is ready; the request has so many bytes.
    Ready(Reply, usize),
    Odd(Extent),
    Second,
    Wrong(Wrong),
}

impl Front<'_> {
    /// The next step, from what was read before or what the socket has now.
    fn poll_step(&self, cx: &mut Context<'_>, stream: &mut Stream, begun: &mut Begun) -> Poll<Step> {
        if begun.bytes.len() > begun.seen
            && let Some(step) = self.again(begun)
        {
            return Poll::Ready(step);
        }
        loop {
            let step = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                        Poll::Ready(self.came(buffer.filled(), begun))
                    }
                    Poll::Ready(_) => Poll::Ready(Some(Step::Leave(Outcome::Closed))),
                }
            });
            match step {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(step)) => return Poll::Ready(step),
                Poll::Ready(None) => {}
            }
        }
    }

    /// Sends a reply; what is to be done when it did not go at once, or was the last.
    fn reply(&self, step: Step, cx: &mut Context<'_>, stream: &mut Stream, parting: bool) -> Option<Step> {
        let Step::Reply(mut reply) = step else { return Some(step) };
        reply.close |= parting;
        let last = reply.close;
        match reply.begin(cx, self.connection, stream) {
            Sent::Gone if last => Some(Step::Part),
            Sent::Gone => None,
            Sent::Rest(rest) => Some(Step::Rest(rest)),
            Sent::Failed => Some(Step::Leave(Outcome::Closed)),
        }
    }

    /// Bytes came. Only what is not needed for the next step is copied.
    fn came(&self, bytes: &[u8], begun: &mut Begun) -> Option<Step> {
        if !begun.bytes.is_empty() {
            begun.bytes.extend_from_slice(bytes);
            return self.again(begun);
        }
        let verdict = self.judge(bytes, 0);
        self.settle(verdict, begun, |from| bytes.get(from..).unwrap_or_default().into())
    }

    /// Looks at what is there.
    fn again(&self, begun: &mut Begun) -> Option<Step> {
        let Begun { mut bytes, seen } = std::mem::take(begun);
        let verdict = self.judge(&bytes, seen);
        self.settle(verdict, begun, |from| {
            bytes.advance(from);
            bytes
        })
    }

    fn judge(&self, bytes: &[u8], seen: usize) -> Verdict {
        match head::look(bytes, seen, !self.connection.pulse.has_served()) {
            Look::Part => Verdict::Part,
            Look::Second => Verdict::Second,
            Look::Wrong(wrong) => Verdict::Wrong(wrong),
            Look::Whole(head) => match self.ready(&head) {
                Some(reply) => Verdict::Ready(reply, head.length),
                None => match head::proper(head.target) {
                    Ok(()) => Verdict::Odd(Extent::new(head.length, head.framing)),
                    Err(wrong) => Verdict::Wrong(wrong),
                },
            },
        }
    }

    fn ready(&self, head: &Head<'_>) -> Option<Reply> {
        let ((fast_path, guest), plain) = self.ready.zip(head.plain.as_ref())?;
        fast_path.ready(plain, self.connection, guest, true)
    }

    /// From a verdict to the step; `rest` gives the bytes from some place on.
    fn settle(&self, verdict: Verdict, begun: &mut Begun, rest: impl FnOnce(usize) -> BytesMut) -> Option<Step> {
        Some(match verdict {
            Verdict::Part => {
                self.connection.pulse.heard();
                let bytes = rest(0);
                *begun = Begun { seen: bytes.len(), bytes };
                return None;
            }
            Verdict::Ready(reply, length) => {
                *begun = rest(length).into();
                Step::Reply(reply)
            }
            Verdict::Odd(extent) => Step::Leave(Outcome::Odd(rest(0), extent)),
            Verdict::Second => Step::Leave(Outcome::Second(rest(0))),
            Verdict::Wrong(wrong) => Step::Refuse(wrong),
        })
    }
}
