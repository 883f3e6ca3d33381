//! What a conversation waits for beside its own work: bytes of its peer, and the end of its sign-in.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::line::{IAC, LineBuffer};
use crate::error::{Error, Kind};
use crate::net::Stream;

/// How long a closing connection is read (and forgotten), so that the last reply is not lost to a reset.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// How far a deadline of "never" lies ahead.
pub(super) const NEVER: Duration = Duration::from_hours(24 * 365);

/// What becomes of work beside the conversation when the peer has left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    GoOn,
    Stop,
}

/// Waits for the end of a sign-in; forever, where nobody signed in.
pub(super) async fn end_of(sign_in: Option<&CancellationToken>) {
    match sign_in {
        Some(sign_in) => sign_in.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Told of a transfer that was cut by it.
pub(super) fn sign_in_ended() -> Error {
    Error::new(Kind::Cancelled, "your sign-in has ended; the transfer was cut")
}

/// A plain connection that is idle holds no buffer: there is one when there are bytes to put into it.
pub(super) async fn read_some(stream: &mut Stream, lines: &mut LineBuffer, telnet: bool) -> io::Result<usize> {
    if lines.is_empty()
        && let Some(tcp) = stream.as_tcp()
    {
        lines.release();
        tcp.readable().await?;
    }
    let room = lines.room();
    let before = room.len();
    let read = stream.read_buf(room).await?;
    // Either the Synch of Telnet, or a line whose end was sent as urgent data (Python's ABOR).
    let cut = |new: &[u8]| new.contains(&IAC) || new.last().is_some_and(|last| *last != b'\n');
    if telnet && room.get(before..).is_some_and(cut) {
        stream.read_behind_mark(room);
    }
    lines.noted();
    Ok(read)
}

/// The deadline that lies `span` behind `start`; a span of zero is none.
pub(super) fn after(start: Instant, span: Duration) -> Instant {
    start + if span.is_zero() { NEVER } else { span }
}
