//! The fast path: plain requests for files whose answer is kept in the [`Cache`], answered before hyper is asked.
//!
//! It decides nothing by itself: what is judged of every request is in [`admit`], who asks in [`Credentials`], which part is sent in
//! [`FileAnswer`]. Where one of these says no, or does not know without waiting, the request goes the usual way.
//!
//! [`FileAnswer`]: super::file_answer::FileAnswer

use std::cell::RefCell;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::Response;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::hub::{Caller, Hub};
use crate::net::{Stream, pour};
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::cache::{self, Audience, Cache, Content, Entry};
use crate::proto::http::file_answer::Part;
use crate::proto::http::head::Plain;
use crate::proto::http::pulse::Sending;
use crate::proto::http::serve::Connection;
use crate::proto::http::settings::Rules;
use crate::proto::http::signin::{self, Credentials};
use crate::proto::http::{admit, coding, date};
use crate::telemetry::{Access, metric};

/// A body up to this size is copied behind its head: one piece costs the kernel less than two.
const JOINED: usize = 4 << 10;

thread_local! {
    /// Where heads are put together: one for all connections of a thread.
    static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The `Date` line with the head's end, of this second.
    static DATE: RefCell<(i64, Bytes)> = const { RefCell::new((i64::MIN, Bytes::new())) };
}

/// What the fast path needs of a site.
pub struct FastPath {
    /// What is ready to be sent.
    pub cache: Arc<Cache>,
    /// Who may have it.
    pub hub: Hub,
    /// Which site it is of.
    pub rules: Arc<Rules>,
}

/// One response to send.
pub struct Reply {
    entry: Arc<Entry>,
    caller: Option<Caller>,
    head: bool,
    /// The connection ends after it.
    pub close: bool,
    part: Part,
    /// The lines that a 206 adds to those of the 200.
    added: Bytes,
    started: Instant,
}

impl FastPath {
    /// A response that is exact for whoever asks; `files`: also one whose body is in a file.
    pub fn ready(&self, seen: &Plain<'_>, connection: &Connection, guest: &Caller, files: bool) -> Option<Reply> {
        let started = Instant::now();
        let target = self.rules.base.inside(seen.target)?;
        let site = admit::site(&self.rules, &seen.outline(target)).ok()?;
        if admit::must_use_tls(&self.rules, connection.origin.secure, target) {
            return None;
        }
        let cookie = signin::cookie_name(&connection.origin, &self.rules.base);
        let shown = Credentials::read(seen.authorization, seen.cookie.into_iter(), cookie);
        let caller = shown.known(&self.hub, connection, &connection.origin, &self.rules).ok()??;
        let audience = Audience {
            site,
            account: caller.is_some(),
            secure: connection.origin.secure,
            codings: seen.codings.map_or(Some(0), coding::plain)?,
        };
        let entry = self.cache.find(audience, target)?;
        if matches!(entry.content, Content::File(..)) && !files {
            return None;
        }
        let asker = caller.as_ref().unwrap_or(guest);
        if !entry.held().is_for(asker) {
            if entry.held().is_past() {
                self.cache.forget(audience, target, &entry);
            }
            return None;
        }
        // A range is one of the file itself, which the usual way sends without a coding.
        if seen.range.is_some() && !entry.answer.ranges {
            return None;
        }
        let (part, added) = match entry.answer.select(&seen.conditions(), !seen.head).ok()? {
            Part::Ranges(..) => return None,
            Part::Range(range) => (
                Part::Range(range.clone()),
                cache::lines(entry.answer.range_fields(&range).iter().map(|(name, value)| (name, value))),
            ),
            part => (part, Bytes::new()),
        };
        if let Some(caller) = &caller {
            connection.permit.lock().account(caller.name()).ok()?;
        }
        metric::cache_hit();
        Some(Reply { entry, caller, head: seen.head, close: seen.close, part, added, started })
    }
}

impl Reply {
    fn result(&self) -> &'static str {
        match self.part {
            Part::Whole => "200",
            Part::Unmodified => "304",
            Part::Range(..) | Part::Ranges(..) => "206",
        }
    }
}

/// What came of writing a reply at once.
pub enum Sent {
    /// All of it has gone.
    Gone,
    /// The socket took a part.
    Rest(Box<Rest>),
    /// The connection is broken.
    Failed,
}

/// A reply of which something is still to be sent.
pub struct Rest {
    reply: Reply,
    /// The head's end, as it was begun.
    end: Bytes,
    /// Bytes that went, of head and body.
    gone: usize,
    sending: Sending,
}

impl Reply {
    /// Writes what the socket takes at once; with the last byte goes the access line.
    pub fn begin(self, cx: &mut Context<'_>, connection: &Connection, stream: &mut Stream) -> Sent {
        let end = end_of_head();
        let head = self.head_len(&end);
        let mut gone = 0;
        let begun = self.begin_head(&end, cx, stream, &mut gone);
        let begun = begun.and_then(|()| if gone == head { self.begin_file(cx, stream, &mut gone) } else { Ok(()) });
        if begun.is_err() {
            self.note(connection, gone.saturating_sub(head) as u64);
            return Sent::Failed;
        }
        connection.pulse.said(gone);
        let body = self.len();
        if (gone as u64) < head as u64 + body || Pin::new(stream).poll_flush(cx).is_pending() {
            let sending = connection.pulse.answer();
            return Sent::Rest(Box::new(Rest { reply: self, end, gone, sending }));
        }
        connection.pulse.answered();
        self.note(connection, body);
        Sent::Gone
    }

    /// The head, and a body that is in memory.
    fn begin_head(&self, end: &[u8], cx: &mut Context<'_>, stream: &mut Stream, gone: &mut usize) -> io::Result<()> {
        let body = self.body();
        let written = HEAD.with_borrow_mut(|head| {
            let joined = if body.len() <= JOINED { body } else { &[] };
            head.clear();
            for piece in self.head(end).into_iter().chain([joined]) {
                head.extend_from_slice(piece);
            }
            let both = [IoSlice::new(head), IoSlice::new(body)];
            let slices = if body.len() <= JOINED { &both[..1] } else { &both[..] };
            // What follows goes in the same packet: a file, or the connection's end.
            match stream.as_tcp().filter(|_| self.has_file() || self.close) {
                Some(tcp) => pour::poll_write_before(tcp, cx, slices),
                None if slices.len() == 1 => Pin::new(&mut *stream).poll_write(cx, head),
                None => Pin::new(&mut *stream).poll_write_vectored(cx, slices),
            }
        });
        add(written, gone)
    }

    /// A whole file of medium size goes with its head, where it need not be waited for.
    fn begin_file(&self, cx: &mut Context<'_>, stream: &Stream, gone: &mut usize) -> io::Result<()> {
        match (&self.entry.content, stream.as_tcp()) {
            (Content::File(file, len), Some(tcp)) if self.len() == *len => {
                add(self.entry.often.poll_send(tcp, cx, file, *len, self.started), gone)
            }
            _ => Ok(()),
        }
    }

    /// Writes the access line.
    fn note(&self, connection: &Connection, bytes: u64) {
        let access = Access {
            origin: &connection.origin,
            account: self.caller.as_ref().map_or("", Caller::name),
            verb: self.verb(),
            path: &self.entry.answer.path,
            bytes,
            result: self.result(),
            took: self.started.elapsed(),
        };
        access.note();
    }

    fn verb(&self) -> &'static str {
        if self.head { "HEAD" } else { "GET" }
    }

    /// The pieces of the head.
    fn head<'a>(&'a self, end: &'a [u8]) -> [&'a [u8]; 5] {
        let close: &[u8] = if self.close { b"connection: close\r\n" } else { b"" };
        let (status, lines, about): (&[u8], &[u8], &[u8]) = match &self.part {
            Part::Whole => (b"", &self.entry.head, b""),
            Part::Unmodified => (b"", &self.entry.unmodified, b""),
            Part::Range(..) | Part::Ranges(..) => (b"HTTP/1.1 206 Partial Content\r\n", &self.entry.lines, &self.added),
        };
        [status, lines, about, close, end]
    }

    fn head_len(&self, end: &[u8]) -> usize {
        self.head(end).iter().map(|piece| piece.len()).sum()
    }

    /// Bytes of the content that are sent.
    fn range(&self) -> Range<u64> {
        match &self.part {
            Part::Whole if !self.head => 0..self.entry.content.len(),
            Part::Range(range) => range.clone(),
            Part::Whole | Part::Unmodified | Part::Ranges(..) => 0..0,
        }
    }

    fn len(&self) -> u64 {
        let Range { start, end } = self.range();
        end - start
    }

    /// Those of them that are in memory.
    fn body(&self) -> &[u8] {
        match &self.entry.content {
            Content::Whole(body) => within(body, &self.range()),
            Content::File(..) => &[],
        }
    }

    /// Some come from a file.
    fn has_file(&self) -> bool {
        matches!(self.entry.content, Content::File(..)) && !self.range().is_empty()
    }

    /// Writes what is in memory and has not gone.
    async fn write(
        &self,
        end: &[u8],
        gone: &mut usize,
        connection: &Connection,
        stream: &mut Stream,
    ) -> io::Result<()> {
        let [status, lines, about, close, end] = self.head(end);
        let mut slices = [status, lines, about, close, end, self.body()].map(IoSlice::new);
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, *gone);
        while !left.is_empty() {
            let sent = poll_fn(|cx| match stream.as_tcp().filter(|_| self.has_file()) {
                Some(tcp) => pour::poll_write_before(tcp, cx, left),
                None => Pin::new(&mut *stream).poll_write_vectored(cx, left),
            })
            .await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            connection.pulse.said(sent);
            *gone += sent;
            IoSlice::advance_slices(&mut left, sent);
        }
        Ok(())
    }

    /// The same as a response of HTTP/2, which writes the access line when it has gone; `None` where the body is in a file.
    pub fn response(self, connection: &Arc<Connection>) -> Option<Response<Outgoing>> {
        let entry = &self.entry;
        let Content::Whole(content) = &entry.content else { return None };
        let (status, headers) = entry.answer.head(&self.part);
        let mut note = Note::new(connection, self.verb(), entry.answer.path.clone(), self.started);
        note.status = status;
        if let Some(caller) = &self.caller {
            caller.name().clone_into(&mut note.account);
        }
        let mut response = Response::new(Outgoing::whole(content.slice_ref(self.body())).noted(note));
        *response.headers_mut() = headers;
        *response.status_mut() = status;
        Some(response)
    }
}

impl Rest {
    /// Cancelled when the sign-in it was asked for by ends.
    pub fn sign_in(&self) -> Option<CancellationToken> {
        self.reply.caller.as_ref().and_then(Caller::ended).cloned()
    }

    /// The connection ends after it.
    pub fn is_last(&self) -> bool {
        self.reply.close
    }

    /// Sends it and writes the access line.
    ///
    /// # Errors
    /// The socket's or the disk's.
    pub async fn send(self, connection: &Connection, stream: &mut Stream) -> io::Result<()> {
        let Self { reply, end, gone, sending: _sending } = self;
        let mut line = Line { gone, head: reply.head_len(&end), reply: &reply, connection };
        if line.gone < line.head || !reply.body().is_empty() {
            reply.write(&end, &mut line.gone, connection, stream).await?;
        }
        match &reply.entry.content {
            Content::File(file, _) if reply.has_file() => {
                let Range { start, end } = reply.range();
                let from = start + (line.gone - line.head) as u64;
                pour_file(connection, stream, file.clone(), from..end, &mut line.gone).await
            }
            Content::Whole(_) | Content::File(..) => stream.flush().await,
        }
    }
}

/// Writes the access line when it is dropped, also where the connection is cut.
struct Line<'a> {
    reply: &'a Reply,
    connection: &'a Connection,
    /// Bytes of the head, and of all that went.
    head: usize,
    gone: usize,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.reply.note(self.connection, self.gone.saturating_sub(self.head) as u64);
    }
}

/// Counts what went at once; nothing is no error.
fn add(written: Poll<io::Result<usize>>, gone: &mut usize) -> io::Result<()> {
    if let Poll::Ready(written) = written {
        *gone += written?;
    }
    Ok(())
}

fn within<'a>(body: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    body.get(place(range.start)..place(range.end)).unwrap_or_default()
}

/// Sends a stretch of a file.
async fn pour_file(
    connection: &Connection,
    stream: &mut Stream,
    file: Arc<File>,
    range: Range<u64>,
    gone: &mut usize,
) -> io::Result<()> {
    let mut progress = |moved: u64| {
        let moved = usize::try_from(moved).unwrap_or(usize::MAX);
        connection.pulse.said(moved);
        *gone = gone.saturating_add(moved);
    };
    pour::send_file(stream, file, range.start, range.end - range.start, &mut progress).await
}

/// The `Date` line and the empty one.
pub fn end_of_head() -> Bytes {
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
