//! The express lane: plain requests for files that are ready to be sent, answered before hyper is asked.
//!
//! When a response is in the [`Cache`] and still exact for this asker, it is sent: whole, a stretch of it, or the word that the asker's
//! copy is still good. Everything else is for the site.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::hub::{Caller, Hub};
use crate::net::{Stream, pour};
use crate::proto::http::cache::{Audience, Cache, Content, Entry};
use crate::proto::http::head::Plain;
use crate::proto::http::range::{self, Asked};
use crate::proto::http::sendfile::LONGEST;
use crate::proto::http::serve::Connection;
use crate::proto::http::settings::Rules;
use crate::proto::http::{coding, condition, date, signin};
use crate::telemetry::{Access, metric};

thread_local! {
    /// The `Date` line with the head's end, of this second.
    static DATE: RefCell<(i64, Bytes)> = const { RefCell::new((i64::MIN, Bytes::new())) };
}

/// What the lane needs of a site.
pub struct Express {
    /// What is ready to be sent.
    pub cache: Cache,
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
    started: Instant,
}

/// How much of an entry is sent.
enum Part {
    Whole,
    /// 304.
    Nothing,
    /// 206: these bytes; the head's lines about them.
    Some(Range<u64>, Bytes),
}

impl Express {
    /// A response that is exact for whoever asks.
    pub fn ready(&self, seen: &Plain<'_>, connection: &Connection, guest: &Caller) -> Option<Reply> {
        let started = Instant::now();
        let target = self.rules.base.inside(seen.target)?;
        let caller = signin::known(&self.hub, connection, seen.authorization, seen.cookie, &self.rules.base)?;
        let audience = Audience {
            site: self.rules.sites.number(seen.host)?,
            account: caller.is_some(),
            secure: connection.origin.secure,
            codings: seen.codings.map_or(Some(0), coding::plain)?,
        };
        let entry = self.cache.find(audience, target)?;
        if matches!(entry.content, Content::File(..)) && !connection.lent.is_able() {
            return None;
        }
        if !entry.held().is_for(caller.as_ref().unwrap_or(guest)) {
            if entry.held().is_past() {
                self.cache.forget(audience, target, &entry);
            }
            return None;
        }
        let part = Part::of(seen, &entry)?;
        if let Some(caller) = &caller {
            connection.permit.lock().account(caller.name()).ok()?;
        }
        metric::cache_hit();
        Some(Reply { entry, caller, head: seen.head, close: seen.close, part, started })
    }
}

impl Part {
    /// What the request's conditions and range leave of an entry; `None` where more must be asked than is known here.
    fn of(seen: &Plain<'_>, entry: &Entry) -> Option<Self> {
        if let Some(tags) = seen.none_match {
            if condition::names(std::str::from_utf8(tags).ok()?, &entry.tag, false) {
                return Some(Self::Nothing);
            }
        } else if let Some(since) = seen.modified_since {
            let since = date::parse(std::str::from_utf8(since).ok()?)?;
            if entry.modified <= since {
                return Some(Self::Nothing);
            }
        }
        // What was compressed by us has no bytes that a part could be of.
        if seen.range.is_some() && entry.tag.starts_with("W/") {
            return None;
        }
        let Some(range) = seen.range.filter(|_| !seen.head) else { return Some(Self::Whole) };
        let size = entry.content.len();
        match range::read(std::str::from_utf8(range).ok()?, size) {
            Asked::Whole => Some(Self::Whole),
            Asked::Parts(parts) => {
                let [only] = parts.as_slice() else { return None };
                let (range, length) = (range::content_range(only, size), only.end - only.start);
                let lines = format!("content-range: {range}\r\ncontent-length: {length}\r\n");
                Some(Self::Some(only.clone(), lines.into()))
            }
            Asked::Nothing => None,
        }
    }

    fn result(&self) -> &'static str {
        match self {
            Self::Whole => "200",
            Self::Nothing => "304",
            Self::Some(..) => "206",
        }
    }
}

impl Reply {
    /// Sends it and writes the access line.
    ///
    /// # Errors
    /// The socket's or the disk's.
    pub async fn send(&self, connection: &Arc<Connection>, stream: &mut Stream) -> io::Result<()> {
        let _sending = connection.pulse.answer();
        let mut bytes = 0;
        let result = self.write(connection, stream, &mut bytes).await;
        let access = Access {
            origin: &connection.origin,
            account: self.caller.as_ref().map_or("", Caller::name),
            verb: if self.head { "HEAD" } else { "GET" },
            path: &self.entry.path,
            bytes,
            result: self.part.result(),
            took: self.started.elapsed(),
        };
        access.note();
        result
    }

    /// The head's beginning and end, and the bytes of the body.
    fn lines(&self) -> (&'static [u8], &[u8], &[u8], Range<u64>) {
        match &self.part {
            Part::Whole => (b"", &self.entry.head, b"", 0..self.entry.content.len()),
            Part::Nothing => (b"", &self.entry.unmodified, b"", 0..0),
            Part::Some(range, lines) => (b"HTTP/1.1 206 Partial Content\r\n", &self.entry.lines, lines, range.clone()),
        }
    }

    async fn write(&self, connection: &Connection, stream: &mut Stream, bytes: &mut u64) -> io::Result<()> {
        let close: &[u8] = if self.close { b"connection: close\r\n" } else { b"" };
        let end = end_of_head();
        let (status, head, about, range) = self.lines();
        let range = if self.head { 0..0 } else { range };
        let body = match &self.entry.content {
            Content::Whole(body) => within(body, &range),
            Content::File(..) => &[],
        };
        let mut slices = [status, head, about, close, &end, body].map(IoSlice::new);
        let mut left = &mut slices[..];
        let more = !range.is_empty() && matches!(self.entry.content, Content::File(..));
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
            Content::File(file, _) if more => pour_file(connection, stream, file, range, bytes).await,
            Content::Whole(_) | Content::File(..) => poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await,
        }
    }
}

fn within<'a>(body: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    body.get(place(range.start)..place(range.end)).unwrap_or_default()
}

/// Sends a stretch of a file by the kernel.
async fn pour_file(
    connection: &Connection,
    stream: &Stream,
    file: &Arc<std::fs::File>,
    range: Range<u64>,
    sent: &mut u64,
) -> io::Result<()> {
    let tcp = stream.as_tcp().ok_or(io::ErrorKind::Unsupported)?;
    let mut at = range.start;
    while at < range.end {
        let turn = usize::try_from(range.end - at).unwrap_or(LONGEST).min(LONGEST);
        pour::warm(file, at, turn).await?;
        let moved = poll_fn(|cx| pour::poll_send_file(tcp, cx, file, at, turn)).await? as u64;
        connection.pulse.said(usize::try_from(moved).unwrap_or(usize::MAX));
        *sent += moved;
        at += moved;
        if at < range.end {
            // A fast reader never makes the socket full: others must have their turn even so.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
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
