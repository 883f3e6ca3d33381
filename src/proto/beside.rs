//! Bodies on a connection of their own (FTP's data lanes): opened, carried, and ended as their client expects.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::carry::{self, Pace};
use super::dialogue::{Framing, Intake, NoLane, Source};
use super::waits::LINGER;
use crate::error::{Error, Kind, Result};
use crate::net::stream::End;
use crate::net::{Stream, side};

/// What the history says of an upload under TLS whose end came without close_notify.
const UNSAID: &str = "no close_notify";

/// How a side lane that brought an upload ended.
pub(super) enum Ending {
    /// Its connection ended, as that of a killed program does too.
    Came,
    /// The peer's TLS said so, which a killed program's kernel cannot do.
    Said,
}

pub(super) async fn take_beside(
    mut lane: side::Lane,
    framing: Framing,
    intake: &mut dyn Intake,
    pace: &mut Pace,
    end: Arc<OnceLock<End>>,
    drained: impl Future<Output = Error>,
) -> Result<Ending> {
    pace.limit(std::mem::take(&mut lane.rates));
    let strict = lane.strict;
    let mut stream = lane.open().await.map_err(no_lane)?;
    if let Some(own) = stream.end() {
        let _ = end.set(own);
    }
    let mut ending = if stream.as_tcp().is_some() { Ending::Came } else { Ending::Said };
    let mut taken = tokio::select! {
        biased;
        error = drained => return Err(error),
        taken = carry::take_in(&mut stream, BytesMut::new(), framing, intake, pace) => taken,
    };
    if !strict && taken.outcome.as_ref().is_err_and(|error| ended_unsaid(&stream, error)) {
        intake.remark(UNSAID);
        taken.outcome = Ok(());
        ending = Ending::Came;
    }
    if taken.outcome.is_ok() {
        end_of(&mut stream).await;
    }
    taken.outcome.map(|()| ending)
}

/// The connection ended, and TLS had not said that it would: many devices simply close. A connection that ends inside a record was cut.
fn ended_unsaid(stream: &Stream, error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    stream.as_tcp().is_none()
        && !stream.is_inside_record()
        && source.is_some_and(|source| source.kind() == io::ErrorKind::UnexpectedEof)
}

pub(super) async fn give_beside(
    mut lane: side::Lane,
    source: Source,
    framing: Framing,
    pace: &mut Pace,
) -> Result<u64> {
    pace.limit(std::mem::take(&mut lane.rates));
    let mut stream = lane.open().await.map_err(no_lane)?;
    let sent = carry::give_out(&mut stream, source, framing, pace).await?;
    end_of(&mut stream).await;
    Ok(sent)
}

/// A small file that needs no waiting goes out at once: how much of it was sent.
pub(super) fn give_at_once(lane: &mut side::Lane, source: &Source, framing: Framing) -> u64 {
    match source {
        Source::File(download, range) if framing == Framing::Raw && !range.is_empty() => {
            lane.send_at_once(&download.file(), range.start, range.end - range.start)
        }
        Source::File(..) | Source::Feed(_) => 0,
    }
}

/// TLS says that this is the end, and a peer that does not listen any more has all bytes already. Of a plain connection the end is the end.
async fn end_of(stream: &mut Stream) {
    if stream.as_tcp().is_none() {
        let _ = timeout(LINGER, stream.shutdown()).await;
    }
}

fn no_lane(error: io::Error) -> Error {
    let words = match error.kind() {
        io::ErrorKind::TimedOut => "no data connection came: check the firewall and the passive ports and address",
        io::ErrorKind::ConnectionRefused => "the data connection was refused",
        io::ErrorKind::InvalidData => "the TLS handshake of the data connection failed",
        _ if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<side::NotResumed>) => {
            "the data connection must resume the TLS session of this connection"
        }
        _ => "the data connection could not be opened",
    };
    Error::new(Kind::Unavailable, words).with(NoLane(error))
}
