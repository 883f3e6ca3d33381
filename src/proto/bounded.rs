//! Our own work, bounded in time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio_util::sync::CancellationToken;

use crate::net::Limits;

/// What is ready at once.
pub(super) async fn once<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Our own work took too long, or the drain is nearly over: nothing was said yet that this command's reply could be mixed with.
#[derive(Debug)]
pub(super) struct Overdue;

impl std::fmt::Display for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("our own work took too long")
    }
}

impl std::error::Error for Overdue {}

impl Overdue {
    /// Is this what went wrong?
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// Our own work on a command, bounded. It comes boxed: it must not make every idle connection as large as the largest command. What is done
/// at once, as most is, needs no timer. When the daemon drains, the work gets most of `drain`, so that the peer can still be told.
pub(super) async fn bounded<T>(
    mut work: Pin<Box<impl Future<Output = T> + Send + ?Sized>>,
    stop: &CancellationToken,
    limits: &Limits,
) -> io::Result<T> {
    if let Some(done) = once(work.as_mut()).await {
        return Ok(done);
    }
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(limits.drain.0 / 10 * 9).await;
    };
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        () = tokio::time::sleep(limits.work.0) => {
            tracing::error!(seconds = limits.work.0.as_secs(), "a command took too long; its connection is closed");
        }
        () = drained => tracing::warn!("a command was not done when the drain ended; its connection is closed"),
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, Overdue))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::units::Span;

    #[tokio::test(start_paused = true)]
    async fn work_ends_in_time_to_say_so() {
        let limits =
            Limits { work: Span(Duration::from_mins(3)), drain: Span(Duration::from_secs(10)), ..Limits::default() };
        let stop = CancellationToken::new();
        let begun = tokio::time::Instant::now();
        let never = || Box::pin(std::future::pending::<()>());
        assert!(Overdue::is(&bounded(never(), &stop, &limits).await.expect_err("overdue")));
        assert_eq!(begun.elapsed(), limits.work.0);
        stop.cancel();
        let begun = tokio::time::Instant::now();
        assert!(Overdue::is(&bounded(never(), &stop, &limits).await.expect_err("overdue")));
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        assert_eq!(bounded(Box::pin(async { 7 }), &stop, &limits).await.expect("done"), 7);
    }
}
