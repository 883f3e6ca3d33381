//! Bodies: what we send, frame by frame and noted when it ends; what we take in, with a stall deadline and a slowest rate.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{StatusCode, Version};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::origin::Origin;
use crate::proto::ending::{End, Tally};
use crate::proto::http::pulse::{Sending, least};
use crate::proto::http::serve::{Connection, end_of};
use crate::proto::http::unsent::{self, Progress, Unsent};
use crate::telemetry::Access;

/// How long a running upload that can be gone on with may still run when the daemon drains.
const DRAINED: Duration = Duration::from_secs(1);

/// A source of frames, asked again only when the last one has gone out.
#[async_trait]
pub trait Flow: Send {
    /// The next bytes; `None` at the end. An error cuts the connection, so that nobody takes a part for the whole.
    async fn next(&mut self) -> io::Result<Option<Bytes>>;
}

type Pulled = (Box<dyn Flow>, io::Result<Option<Bytes>>);

enum Content {
    /// Nothing, or nothing more.
    Empty,
    /// Asleep until the wire has room.
    Flow(Box<dyn Flow>),
    /// At work on the next frame.
    Pulling(Pin<Box<dyn Future<Output = Pulled> + Send>>),
    /// In one piece.
    Whole(Bytes),
}

/// A response's body.
pub struct Outgoing {
    content: Content,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    note: Option<Box<Note>>,
    /// Its bytes are counted until they are sent.
    unsent: Option<Unsent>,
}

/// Bytes on their way to the wire; with the last of a body goes its note, which is written when they have gone.
pub struct Piece {
    bytes: Bytes,
    note: Option<Box<Note>>,
    _unsent: Option<Unsent>,
    /// The stream of HTTP/2 that it belongs to.
    stream: Option<Arc<Progress>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(stream) = &self.stream {
            stream.took(count);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(note) = &mut self.note {
            note.sent = note.sent.saturating_sub(self.bytes.len() as u64);
        }
    }
}

/// What the access line will say, once the last byte has gone.
pub struct Note {
    pub origin: Origin,
    pub account: String,
    pub verb: &'static str,
    pub path: String,
    pub status: StatusCode,
    pub started: Instant,
    /// Bytes taken in, for an upload.
    pub taken: u64,
    sent: u64,
    _sending: Sending,
}

impl Note {
    /// A line begun with the request.
    pub fn new(connection: &Arc<Connection>, verb: &'static str, path: String, started: Instant) -> Self {
        Self {
            origin: connection.origin.clone(),
            account: String::new(),
            verb,
            path,
            status: StatusCode::OK,
            started,
            taken: 0,
            sent: 0,
            _sending: connection.pulse.send(),
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let access = Access {
            origin: &self.origin,
            account: &self.account,
            verb: self.verb,
            path: &self.path,
            bytes: self.sent.max(self.taken),
            result: self.status.as_str(),
            took: self.started.elapsed(),
        };
        access.note();
    }
}

impl Outgoing {
    /// No body.
    pub fn empty() -> Self {
        Self { content: Content::Empty, left: Some(0), note: None, unsent: None }
    }

    /// A body in one piece.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let left = Some(bytes.len() as u64);
        Self {
            content: if bytes.is_empty() { Content::Empty } else { Content::Whole(bytes) },
            left,
            note: None,
            unsent: None,
        }
    }

    /// The same body, whose bytes are counted until they are sent.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.unsent = self.bytes().map(|bytes| Unsent::new(bytes.len() as u64));
        self
    }

    /// A body made while it is sent; `length` in bytes where it is known.
    pub fn flow(flow: impl Flow + 'static, length: Option<u64>) -> Self {
        Self { content: Content::Flow(Box::new(flow)), left: length, note: None, unsent: None }
    }

    /// The same body, which writes the access line when it ends.
    #[must_use]
    pub fn noted(mut self, note: Note) -> Self {
        self.note = Some(Box::new(note));
        self
    }

    /// All of its bytes, where they are in memory.
    pub fn bytes(&self) -> Option<Bytes> {
        match &self.content {
            Content::Empty => Some(Bytes::new()),
            Content::Whole(bytes) => Some(bytes.clone()),
            Content::Flow(_) | Content::Pulling(_) => None,
        }
    }

    /// Its length, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.left
    }

    fn passed(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let count = bytes.len() as u64;
        self.left = self.left.map(|left| left.saturating_sub(count));
        if let Some(note) = &mut self.note {
            note.sent += count;
        }
        let note = if self.left == Some(0) { self.note.take() } else { None };
        let counted = self.unsent.take().unwrap_or_else(|| Unsent::new(count));
        Poll::Ready(Some(Ok(Frame::data(Piece { bytes, note, _unsent: Some(counted), stream: unsent::stream() }))))
    }

    /// A body in one piece. Where much is unsent, HTTP/2 gets it in small ones, so that its stream lasts, and is watched, until its peer
    /// took it.
    fn whole_or_less(&mut self, mut bytes: Bytes) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let small = usize::try_from(unsent::SMALLEST).unwrap_or(usize::MAX);
        if bytes.len() <= small || unsent::is_little() || unsent::stream().is_none() {
            return self.passed(bytes);
        }
        let all = self.unsent.take().or_else(|| Some(Unsent::new(bytes.len() as u64)));
        let first = bytes.split_to(small);
        self.content = Content::Whole(bytes);
        let passed = self.passed(first);
        self.unsent = all;
        passed
    }
}

impl Body for Outgoing {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.content, Content::Empty) {
                Content::Empty => return Poll::Ready(None),
                Content::Whole(bytes) => return this.whole_or_less(bytes),
                Content::Flow(mut flow) => {
                    this.content = Content::Pulling(Box::pin(async move {
                        let pulled = flow.next().await;
                        (flow, pulled)
                    }));
                }
                Content::Pulling(mut pulling) => match pulling.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.content = Content::Pulling(pulling);
                        return Poll::Pending;
                    }
                    Poll::Ready((flow, Ok(Some(bytes)))) => {
                        this.content = Content::Flow(flow);
                        if !bytes.is_empty() {
                            return this.passed(bytes);
                        }
                    }
                    Poll::Ready((_, Ok(None))) => return Poll::Ready(None),
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// How far a request's body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// More comes.
    Open,
    /// All came, and the protocol said so.
    Complete,
    /// It ended before.
    Broken,
}

/// A request's body, taken in under the limits.
pub struct Intake {
    /// There until the end: a rest that nobody reads is taken out of it then.
    body: Option<Incoming>,
    connection: Arc<Connection>,
    /// Bytes taken so far, and the length that was announced.
    tally: Tally,
    /// Time waited for the peer, and bytes got, since the rate was last judged.
    waited: Duration,
    got: u64,
    state: State,
    /// It came by HTTP/2.
    second: bool,
    /// Most bytes it may have; 0: no limit of its own.
    most: u64,
    /// Cancelled when the sign-in it came by ends.
    sign_in: Option<CancellationToken>,
    /// Its sender can go on later: a drain cuts it.
    resumable: bool,
    /// When the drain cuts it.
    cut: Option<tokio::time::Instant>,
}

impl Intake {
    pub fn new(body: Incoming, version: Version, connection: &Arc<Connection>) -> Self {
        let state = if body.is_end_stream() { State::Complete } else { State::Open };
        let tally = Tally::new(body.size_hint().exact());
        let (connection, second) = (connection.clone(), version == Version::HTTP_2);
        Self {
            body: Some(body),
            connection,
            tally,
            waited: Duration::ZERO,
            got: 0,
            state,
            second,
            most: 0,
            resumable: false,
            cut: None,
            sign_in: None,
        }
    }

    /// Ends with the sign-in it came by.
    #[must_use]
    pub fn within(mut self, sign_in: Option<&CancellationToken>) -> Self {
        self.sign_in = sign_in.cloned();
        self
    }

    /// At most so many bytes; 0: no limit of its own.
    #[must_use]
    pub fn at_most(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// What came is kept and its sender can go on with it later: when the daemon drains it is cut after a moment.
    pub fn is_resumable(&mut self) {
        self.resumable = true;
    }

    /// Waits for the moment in which the drain cuts this body.
    async fn drained(stop: CancellationToken, resumable: bool, cut: &mut Option<tokio::time::Instant>) {
        if !resumable {
            return std::future::pending().await;
        }
        stop.cancelled().await;
        let at = *cut.get_or_insert_with(|| tokio::time::Instant::now() + DRAINED);
        tokio::time::sleep_until(at).await;
    }

    /// The length the peer announced.
    pub fn length(&self) -> Option<u64> {
        self.body.as_ref()?.size_hint().exact()
    }

    /// Its last byte has come.
    fn is_ended(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Bytes taken so far.
    pub fn taken(&self) -> u64 {
        self.tally.came()
    }

    /// The next bytes; `None` when the body is complete.
    ///
    /// # Errors
    /// `Cancelled` when the peer stalls, crawls, or goes away or resets the stream before the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.state == State::Broken {
            return Err(self.tally.end(End::Cut).err().unwrap_or_else(|| Error::internal("a cut body is complete")));
        }
        while self.state == State::Open {
            let stall = self.connection.limits.stall.0;
            let began = tokio::time::Instant::now();
            let drained = Self::drained(self.connection.stop.clone(), self.resumable, &mut self.cut);
            let frame = tokio::select! {
                biased;
                () = end_of(self.sign_in.as_ref()) => {
                    return Err(Error::new(Kind::Unauthenticated, "this sign-in has ended; sign in again"));
                }
                () = drained => return Err(Error::new(Kind::Cancelled, "this server is going down: go on with the upload in a moment")),
                frame = tokio::time::timeout(stall, frame_of(self.body.as_mut())) => frame,
            };
            let frame = frame.map_err(|_| Error::new(Kind::Cancelled, "the upload stood still for too long"))?;
            self.waited += began.elapsed();
            match frame {
                None => self.finish()?,
                Some(Err(error)) => {
                    self.state = State::Broken;
                    self.connection.pulse.leave_unread();
                    return Err(broken(error));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.judge(bytes.len() as u64)?;
                        return Ok(Some(bytes));
                    }
                }
            }
        }
        Ok(None)
    }

    /// hyper gives no more bytes. It ends a body of HTTP/1 by its length or its last chunk only; one of HTTP/2 also after
    /// `RST_STREAM(NO_ERROR)`, which is no end of a request: what counts is `END_STREAM`.
    fn finish(&mut self) -> Result<()> {
        let end = if self.second && !self.is_ended() { End::Cut } else { End::Signalled };
        self.state = State::Broken;
        self.tally.end(end)?;
        self.state = State::Complete;
        Ok(())
    }

    /// Counts bytes against the announced length and the slowest rate; only time spent waiting for the peer is held against it.
    fn judge(&mut self, bytes: u64) -> Result<()> {
        self.tally.count(bytes)?;
        self.got += bytes;
        if self.most > 0 && self.tally.came() > self.most {
            return Err(Error::new(Kind::TooLarge, "the body is larger than this server takes ([http] body_size)"));
        }
        if self.waited >= self.connection.limits.stall.0 {
            if self.got < least(&self.connection.limits) {
                return Err(Error::new(Kind::Cancelled, "the upload is slower than this server allows"));
            }
            self.waited = Duration::ZERO;
            self.got = 0;
        }
        Ok(())
    }

    /// All of a small body.
    ///
    /// # Errors
    /// `TooLarge` beyond `limit` bytes; those of [`Intake::next`].
    pub async fn whole(&mut self, limit: usize) -> Result<Vec<u8>> {
        let too_large = || Error::new(Kind::TooLarge, "the form is too large");
        // Whoever says how large it is and waits to be asked for it (Expect) is not asked.
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// Chunks that are none are the peer's fault, and everything else that ends a body early is an accident.
fn broken(error: hyper::Error) -> Error {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            Error::new(Kind::Invalid, "the chunks of the body cannot be read").with(error)
        }
        _ => Error::new(Kind::Cancelled, "the upload broke off").with(error),
    }
}

/// The next frame of a body.
async fn frame_of(body: Option<&mut Incoming>) -> Option<std::result::Result<Frame<Bytes>, hyper::Error>> {
    body?.frame().await
}

impl Drop for Intake {
    fn drop(&mut self) {
        if self.state != State::Open || self.is_ended() {
            return;
        }
        self.connection.pulse.leave_unread();
        // Whose sign-in has ended is cut off at once.
        let is_cut = self.sign_in.as_ref().is_some_and(CancellationToken::is_cancelled);
        let (Some(rest), true) = (self.body.take(), self.second && !is_cut) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(discard(rest, self.connection.clone()));
        }
    }
}

/// Reads what still comes of a body that nobody wants, within the bounds of `linger`. A body that is dropped resets its stream, and
/// clients that still send (curl before 8) then lose the response that they got already.
async fn discard(mut rest: Incoming, connection: Arc<Connection>) {
    let limits = &connection.limits;
    let read = async {
        let mut left = limits.linger_size.0;
        while left > 0 {
            let frame = tokio::time::timeout(limits.linger_quiet.0, rest.frame()).await;
            let Ok(Some(Ok(frame))) = frame else { break };
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
    };
    tokio::select! {
        () = connection.stop.cancelled() => {}
        _ = tokio::time::timeout(limits.linger.0, read) => {}
    }
}
