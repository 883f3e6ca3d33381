//! Bytes of bodies that HTTP/2 streams have not taken yet: one number for the daemon, and how each stream gets on.
//!
//! hyper reads one piece of a body ahead of the peer's window. A peer that opens none on thousands of streams would so decide how much memory
//! the daemon takes.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};

use crate::net::Limits;
use crate::proto::http::pulse::least;

/// What is read for a stream before its peer took anything, and for each once much is unsent.
pub const SMALLEST: u64 = 2 << 10;
/// Bytes that may be unsent in all before bodies are read in the smallest pieces only.
const MANY: u64 = 16 << 20;

static UNSENT: AtomicU64 = AtomicU64::new(0);

/// Is there room for pieces of the usual size?
pub fn is_little() -> bool {
    UNSENT.load(Relaxed) < MANY
}

/// Counts bytes until they are sent, or given up.
pub struct Unsent(u64);

impl Unsent {
    pub fn new(bytes: u64) -> Self {
        UNSENT.fetch_add(bytes, Relaxed);
        Self(bytes)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        UNSENT.fetch_sub(self.0, Relaxed);
    }
}

/// How one stream gets on.
#[derive(Default)]
pub struct Progress {
    /// Its response has begun.
    sending: AtomicBool,
    /// Bytes of its body that went out.
    bytes: AtomicU64,
}

impl Progress {
    /// Bytes of its body have gone out: the peer's window had room for them.
    pub fn took(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

thread_local! {
    /// The stream that is at work on this thread.
    static CURRENT: RefCell<Option<Arc<Progress>>> = const { RefCell::new(None) };
}

/// The stream at work; none by HTTP/1.
pub fn stream() -> Option<Arc<Progress>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The stream at work has its response: from now on its peer must take it.
pub fn answered() {
    if let Some(progress) = stream() {
        progress.sending.store(true, Relaxed);
    }
}

/// A stream that ends when its peer does not take its body, whatever it does on others.
pub struct Watched<F> {
    stream: Pin<Box<F>>,
    progress: Arc<Progress>,
    limits: Arc<Limits>,
    /// When it is judged next, and what it had taken before.
    window: Option<(Pin<Box<Sleep>>, u64)>,
}

impl<F> Watched<F> {
    pub fn new(stream: F, limits: Arc<Limits>) -> Self {
        Self { stream: Box::pin(stream), progress: Arc::default(), limits, window: None }
    }
}

impl<F: Future<Output = ()>> Watched<F> {
    /// True when it took less than the slowest rate over a whole window.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let stall = self.limits.stall.0;
        if stall.is_zero() || !self.progress.sending.load(Relaxed) {
            return false;
        }
        loop {
            let taken = self.progress.bytes.load(Relaxed);
            let (timer, before) = self.window.get_or_insert_with(|| (Box::pin(sleep(stall)), taken));
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if taken.saturating_sub(*before) < least(&self.limits) {
                return true;
            }
            self.window = None;
        }
    }

    /// One turn of the stream.
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        CURRENT.set(Some(self.progress.clone()));
        let polled = self.stream.as_mut().poll(cx);
        CURRENT.set(None);
        polled
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.turn(cx).is_ready() {
            return Poll::Ready(());
        }
        if this.is_stalled(cx) {
            // Dropped, it is reset.
            tracing::debug!("a stream was cut: its peer does not take it");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::units::Span;

    #[tokio::test(start_paused = true)]
    async fn a_stream_must_take_its_body_at_the_slowest_rate() {
        let limits = Arc::new(Limits { stall: Span(Duration::from_secs(20)), ..Limits::default() });
        let enough = least(&limits);
        // Thinking for however long is fine; then it takes enough twice, and then one byte too few.
        let work = async move {
            sleep(Duration::from_secs(500)).await;
            answered();
            for bytes in [enough, enough, enough - 1, enough] {
                sleep(Duration::from_secs(10)).await;
                stream().expect("a stream").took(usize::try_from(bytes).expect("a few"));
                sleep(Duration::from_secs(10)).await;
            }
            std::future::pending::<()>().await;
        };
        let begun = tokio::time::Instant::now();
        Watched::new(work, limits).await;
        assert_eq!(begun.elapsed().as_secs(), 560);
    }

    #[test]
    fn what_is_unsent_is_counted_until_it_is_gone() {
        let much = Unsent::new(MANY);
        assert!(!is_little());
        drop(much);
        assert!(is_little());
    }
}
