//! One conversation in a line protocol: it decides, it never touches the wire.
//!
//! A [`Dialogue`] answers each command with a [`Turn`] that says what the wire must do next; the driver in
//! [`super::converse`] does it. So timeouts, line bounds, pipelining, STARTTLS purge, drain and transfers exist once.

use std::borrow::Cow;
use std::future::Future;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::hub::{Download, Receipt, Soaked};
use crate::net::side;
use crate::origin::Origin;

/// How lines end and how long they may be.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// Longest line in bytes without its end; longer ones are skipped and reported as [`Malformed::TooLong`].
    pub longest: usize,
    /// A bare LF ends a line too.
    pub bare_lf: bool,
    /// Telnet IAC sequences and the Synch mark are stripped (FTP).
    pub telnet: bool,
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A line with nothing on it. It counts as no mistake.
    Blank,
    /// A verb this language does not have.
    Unknown,
    /// A verb it has, with arguments it cannot have; the text is safe to show.
    Syntax(Cow<'static, str>),
    /// Longer than [`Lines::longest`].
    TooLong,
    /// More came behind a command whose reply the peer had to wait for (see [`Dialogue::must_wait`]).
    Early,
    /// Another protocol's first line (HTTP verb, TLS hello, PROXY header): log it and close.
    Foreign(&'static str),
}

/// What happens to a dialogue beside commands.
pub enum Event {
    /// The connection is open: say the greeting. The origin is final.
    Opened,
    /// A line that is no command.
    Malformed(Malformed),
    /// TLS is up; whatever was said before must be forgotten as the RFC says.
    Secured,
    /// A [`Turn::Take`] ended: bytes that came, and what was acknowledged (`None`: it is one part of something that goes on), or why not.
    Received(u64, Result<Option<Receipt>>),
    /// A [`Turn::Give`] ended: bytes sent, and why not all of them.
    Sent(u64, Result<()>),
    /// Time to part; the driver closes after the turn.
    Parting(Why),
}

/// Why the driver parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing was said for too long.
    Idle,
    /// Too many malformed commands.
    Errors,
    /// The daemon drains.
    Shutdown,
    /// The account that signed in was disabled, removed, signed out or changed.
    Revoked,
    /// The total time of a connection is over.
    Total,
}

/// A reply that knows its bytes.
pub trait Encode {
    /// Appends the reply with its line ends.
    fn encode(&self, into: &mut BytesMut);
}

/// Longest text on a line of a reply: with its code and line end at most 512 octets (RFC 5321 §4.5.3.1.5, RFC 2449 §4).
const LONGEST_TEXT: usize = 480;

/// Appends a text and its line end. Texts may quote what a peer or a path said: nothing but printable ASCII leaves, so no line end can.
pub(super) fn put_line(into: &mut BytesMut, text: &str) {
    if text.len() <= LONGEST_TEXT && text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        into.extend_from_slice(text.as_bytes());
        return into.extend_from_slice(b"\r\n");
    }
    let shown = text.chars().take(LONGEST_TEXT).map(|letter| u8::try_from(letter).unwrap_or(b'?'));
    into.extend(shown.map(|octet| if matches!(octet, b' '..=b'~') { octet } else { b'?' }));
    into.extend_from_slice(b"\r\n");
}

/// How the bytes of a transfer are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As they are, to the end of the lane.
    Raw,
    /// FTP TYPE A: on the wire CRLF, in the file LF.
    Ascii,
    /// RFC 5321 §4.5.2: ends at CRLF.CRLF only; leading dots doubled. After an error the rest is swallowed, up to the limit, so that sync
    /// is never lost.
    Dots {
        /// Bytes swallowed at most after an error before the connection is closed.
        swallow: u64,
        /// What a CR or LF that stands alone becomes; it is never part of the end.
        bare: Bare,
    },
    /// Exactly this many bytes (BDAT).
    Counted(u64),
}

/// What happens to a CR or LF that stands alone inside content framed by dots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bare {
    /// Stored as it came.
    Keep,
    /// Becomes CRLF.
    #[default]
    Normalize,
    /// The whole content is refused as `Invalid`, after it was swallowed.
    Refuse,
}

/// Marks (as the source of an error) that the second connection never came to be: FTP's 425 instead of 426.
#[derive(Debug)]
pub struct NoLane(pub std::io::Error);

impl std::fmt::Display for NoLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "data connection: {}", self.0)
    }
}

impl std::error::Error for NoLane {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Which connection carries the bytes.
pub enum Lane {
    /// The one the commands use.
    Inline,
    /// A second one.
    Side(side::Lane),
}

/// Where outgoing bytes come from.
pub enum Source {
    /// A file's range, by `sendfile` where that is possible.
    File(Download, Range<u64>),
    /// Generated as the wire takes it (listings).
    Feed(Box<dyn Feed>),
}

impl Source {
    /// So many bytes are sent already; true when nothing is left.
    pub(super) fn skip(&mut self, sent: u64) -> bool {
        let Self::File(_, range) = self else { return false };
        range.start = range.start.saturating_add(sent).min(range.end);
        range.is_empty()
    }
}

/// Bytes generated piece by piece.
#[async_trait]
pub trait Feed: Send {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// Takes incoming bytes, into an upload mostly.
#[async_trait]
pub trait Intake: Send {
    /// The next bytes, already unframed.
    async fn push(&mut self, chunk: Bytes) -> Result<()>;
    /// Takes what a non-blocking descriptor holds; `None`: the bytes must be read and pushed. Every intake says which, lest a wrapper
    /// forgets to pass it on.
    async fn soak(&mut self, from: &Arc<OwnedFd>) -> Result<Option<Soaked>>;
    /// Its sender can go on later with what came: a drain need not wait for it.
    fn is_resumable(&self) -> bool {
        false
    }
    /// Something about the transfer that belongs into the history.
    fn remark(&mut self, _what: &'static str) {}
    /// All came: make it durable; `None` when it is only a part, kept for the next.
    async fn commit(self: Box<Self>) -> Result<Option<Receipt>>;
    /// The transfer broke.
    async fn abandon(self: Box<Self>);
    /// The peer hung up on every connection without waiting for the reply, after `bytes` that ended in good order: is it whole all the same?
    fn stands(&self, _bytes: u64, _left: Left) -> bool {
        false
    }
}

/// When a peer hung up that did not wait for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// While bytes still came: its kernel sent the rest of what a killed program had written, perhaps not all it wanted to.
    Before,
    /// With the last byte or right behind it.
    Behind,
}

/// What the wire must do next.
pub enum Turn<R> {
    /// Wait for the next line.
    Wait,
    /// Send a reply.
    Say(R),
    /// Send a reply, forget buffered plaintext, do TLS; then [`Event::Secured`].
    Secure(R),
    /// Send a last reply and close.
    Close(Option<R>),
    /// Work on one command for longer; others are heard meanwhile. When the peer cuts it, `cut` is the reply; when it leaves, the work stops.
    Work {
        /// The work, and the reply it ends with.
        job: Pin<Box<dyn Future<Output = R> + Send>>,
        /// Said when it was cut.
        cut: R,
    },
    /// Send `prompt`, pour what comes into `intake`, commit; then [`Event::Received`].
    Take {
        /// `354`, `150`; `None`: nothing is said first (BDAT).
        prompt: Option<R>,
        /// Where the bytes go.
        intake: Box<dyn Intake>,
        /// How they are framed.
        framing: Framing,
        /// Which connection carries them.
        lane: Lane,
    },
    /// Send `prompt`, pour `source` out; then [`Event::Sent`].
    Give {
        /// `150`, or `None`.
        prompt: Option<R>,
        /// Where the bytes come from.
        source: Source,
        /// How they are framed.
        framing: Framing,
        /// Which connection carries them.
        lane: Lane,
    },
}

/// One conversation.
pub trait Dialogue: Send {
    /// A parsed command.
    type Command: Send;
    /// A reply of this language.
    type Reply: Encode + Send;
    /// How its lines look.
    const LINES: Lines;

    /// One whole line without its end. Pure; may look at `self` only to know what it expects (a SASL answer).
    ///
    /// # Errors
    /// Why it is no command.
    fn parse(&self, line: &[u8]) -> std::result::Result<Self::Command, Malformed>;

    /// Legal now? Then ask the hub, once. Then say what the wire does next.
    fn answer(&mut self, command: Self::Command) -> impl Future<Output = Turn<Self::Reply>> + Send;

    /// Everything that is not a command.
    fn react(&mut self, event: Event) -> impl Future<Output = Turn<Self::Reply>> + Send;

    /// True while it matters whether the peer reads the reply that is being sent (RFC 1047).
    fn is_unheard(&self) -> bool {
        false
    }

    /// Such a reply goes out. `early`: the peer has said more, or ended its side, without waiting for it.
    fn replying(&mut self, _early: bool) {}

    /// The peer has left behind such a reply. `whole`: it took all that was sent to it.
    fn left(&mut self, _whole: bool) {}

    /// While bytes flow on a side lane: may this command be answered now (STAT, NOOP), does it end the transfer (ABOR), or does it wait?
    fn during_transfer(&self, _command: &Self::Command) -> Meanwhile {
        Meanwhile::Wait
    }

    /// The peer must wait for this command's reply: what came with it in one piece was never meant for us (RFC 2920 §3.1).
    fn must_wait(&self, _command: &Self::Command) -> bool {
        false
    }

    /// How many bytes of a line may be written down; what is behind them is a secret, or may be one. Most of a language's lines have
    /// none, so it says so; by default only the first word is shown.
    fn shown(&self, line: &[u8]) -> usize {
        line.iter().position(|byte| *byte == b' ').unwrap_or(line.len().min(4))
    }

    /// Why the conversation fails so far, in words for whoever looks after the machine at the other end; `None`: it goes well.
    fn trouble(&self) -> Option<&str> {
        None
    }

    /// Who talks, where the dialogue knows better than the connection (XCLIENT).
    fn origin(&self) -> Option<&Origin> {
        None
    }

    /// Who signed in; empty: nobody.
    #[expect(clippy::unnecessary_literal_bound, reason = "those who know a name lend it")]
    fn account(&self) -> &str {
        ""
    }

    /// Cancelled when the sign-in of this conversation ends: it is told so and closed, and a transfer is cut. `None` while nobody is
    /// signed in.
    fn ended(&self) -> Option<&CancellationToken> {
        None
    }

    /// Whom the peer said it came for, before TLS (FTP's HOST): it is shown the certificate of that name.
    fn host(&self) -> Option<&str> {
        None
    }

    /// The origin changed (TLS came up).
    fn renew(&mut self, _origin: &Origin) {}

    /// A good command makes up for the malformed ones before it: whoever signed in may go on for days.
    fn forgives(&self) -> bool {
        false
    }

    /// True once signed in or, where that is not needed, once something sensible was said: the idle limit counts, not the greeting limit.
    fn settled(&self) -> bool;
}

/// What to do with a command that comes while bytes flow on a side lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// Cut the transfer, then answer it.
    Abort,
    /// Answer it at once.
    Answer,
    /// Answer it when the transfer is over.
    Wait,
}
