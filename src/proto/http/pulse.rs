//! Is the peer alive? Counts what a connection does, and says when it stands still for too long.
//!
//! hyper has no timeout for a body and none before the first byte; this one watches the whole connection, so that a slow
//! head, a stalled reader and an idle keep-alive all end by `[limits]`, while work of our own is never cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::net::Limits;

/// What a connection is doing.
pub struct Pulse {
    born: Instant,
    /// Requests whose handler is at work.
    thinking: AtomicUsize,
    /// Responses whose body is not all sent.
    sending: AtomicUsize,
    /// Milliseconds after `born` at which the last request ended.
    last: AtomicU64,
    /// Milliseconds after `born` (and one) at which an unfinished request head began; 0: none.
    head: AtomicU64,
    written: AtomicU64,
    served: AtomicBool,
    second: AtomicBool,
    unread: AtomicBool,
}

/// A request being handled; dropped when its response is ready, or when the peer went away.
pub struct Thinking(Arc<Pulse>);

/// A response being sent.
pub struct Sending(Arc<Pulse>);

/// The window over which a slow reader is measured.
#[derive(Default)]
pub struct Window(Option<(Duration, u64)>);

/// Timers never fire more often than this.
const SHORTEST: Duration = Duration::from_millis(10);

impl Pulse {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            thinking: AtomicUsize::new(0),
            sending: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            head: AtomicU64::new(0),
            written: AtomicU64::new(0),
            served: AtomicBool::new(false),
            second: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        })
    }

    fn age(&self) -> Duration {
        self.born.elapsed()
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes came in.
    pub fn heard(&self) {
        if self.is_quiet() && self.head.load(Relaxed) == 0 {
            self.head.store(self.millis() + 1, Relaxed);
        }
    }

    /// Bytes went out.
    pub fn said(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
    }

    /// A request's head is complete.
    pub fn think(self: &Arc<Self>, second: bool) -> Thinking {
        self.head.store(0, Relaxed);
        self.served.store(true, Relaxed);
        self.second.store(second, Relaxed);
        self.thinking.fetch_add(1, Relaxed);
        Thinking(self.clone())
    }

    /// Has a request come on this connection?
    pub fn has_served(&self) -> bool {
        self.served.load(Relaxed)
    }

    /// A response begins.
    pub fn send(self: &Arc<Self>) -> Sending {
        self.sending.fetch_add(1, Relaxed);
        Sending(self.clone())
    }

    /// A request that needs no thinking is answered.
    pub fn answer(self: &Arc<Self>) -> Sending {
        self.head.store(0, Relaxed);
        self.served.store(true, Relaxed);
        self.send()
    }

    /// The same, and the response has gone already.
    pub fn answered(&self) {
        self.head.store(0, Relaxed);
        self.served.store(true, Relaxed);
        self.last.store(self.millis(), Relaxed);
    }

    /// A request's body was left unread: the connection must not be closed under the peer's reply.
    pub fn leave_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// Was a body left unread?
    pub fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// No request is being handled, no response being sent.
    pub fn is_quiet(&self) -> bool {
        self.thinking.load(Relaxed) == 0 && self.sending.load(Relaxed) == 0
    }

    /// How long to wait until asking [`Pulse::is_over`] again.
    pub fn pause(&self, limits: &Limits) -> Duration {
        let longest = limits.stall.0.min(limits.greeting.0).min(limits.idle.0);
        let quiet = self.age().saturating_sub(Duration::from_millis(self.last.load(Relaxed)));
        let mut pause = self.patience(limits).saturating_sub(quiet).min(longest);
        if !limits.total.0.is_zero() {
            pause = pause.min(limits.total.0.saturating_sub(self.age()));
        }
        pause.max(SHORTEST)
    }

    /// How long the peer may be silent between requests.
    fn patience(&self, limits: &Limits) -> Duration {
        if self.served.load(Relaxed) { limits.idle.0 } else { limits.greeting.0 }
    }

    /// True when the connection has stood still, or lived, for longer than it may.
    pub fn is_over(&self, limits: &Limits, window: &mut Window) -> bool {
        let age = self.age();
        if !limits.total.0.is_zero() && age >= limits.total.0 {
            return true;
        }
        if self.thinking.load(Relaxed) > 0 {
            window.0 = None;
            return false;
        }
        if self.sending.load(Relaxed) > 0 {
            return self.is_stalled(limits, window, age);
        }
        window.0 = None;
        let head = self.head.load(Relaxed);
        let slow_head = head > 0
            && !self.second.load(Relaxed)
            && age.saturating_sub(Duration::from_millis(head - 1)) >= limits.greeting.0;
        let quiet = age.saturating_sub(Duration::from_millis(self.last.load(Relaxed)));
        slow_head || quiet >= self.patience(limits)
    }

    /// A reader that took less than the slowest allowed rate over a whole window.
    fn is_stalled(&self, limits: &Limits, window: &mut Window, age: Duration) -> bool {
        let written = self.written.load(Relaxed);
        match window.0 {
            None => window.0 = Some((age, written)),
            Some((since, before)) if age.saturating_sub(since) >= limits.stall.0 => {
                if written.saturating_sub(before) < least(limits) {
                    return true;
                }
                window.0 = Some((age, written));
            }
            Some(_) => {}
        }
        false
    }
}

/// Fewest bytes that must move in one `stall`.
pub fn least(limits: &Limits) -> u64 {
    limits.slowest.0.saturating_mul(limits.stall.0.as_secs()).max(1)
}

impl Drop for Thinking {
    fn drop(&mut self) {
        self.0.thinking.fetch_sub(1, Relaxed);
        self.0.last.store(self.0.millis(), Relaxed);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Relaxed);
        self.0.last.store(self.0.millis(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    fn limits() -> Limits {
        let second = |n| Span(Duration::from_secs(n));
        Limits { greeting: second(10), idle: second(50), stall: second(20), ..Limits::default() }
    }

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_and_a_slow_head_are_over_after_the_greeting() {
        let (pulse, mut window) = (Pulse::new(), Window::default());
        after(9).await;
        assert!(!pulse.is_over(&limits(), &mut window));
        after(1).await;
        assert!(pulse.is_over(&limits(), &mut window));

        let pulse = Pulse::new();
        drop(pulse.think(false));
        after(30).await;
        pulse.heard();
        after(9).await;
        assert!(!pulse.is_over(&limits(), &mut window));
        after(1).await;
        assert!(pulse.is_over(&limits(), &mut window), "one byte does not buy the idle time");
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_work_is_never_cut_and_an_idle_peer_is() {
        let (pulse, mut window) = (Pulse::new(), Window::default());
        let thinking = pulse.think(false);
        after(1_000).await;
        assert!(!pulse.is_over(&limits(), &mut window));
        drop(thinking);
        after(49).await;
        assert!(!pulse.is_over(&limits(), &mut window));
        after(1).await;
        assert!(pulse.is_over(&limits(), &mut window));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_must_keep_the_slowest_rate() {
        let (pulse, mut window) = (Pulse::new(), Window::default());
        drop(pulse.think(false));
        let _sending = pulse.send();
        assert!(!pulse.is_over(&limits(), &mut window));
        for _ in 0..5 {
            after(20).await;
            pulse.said(2_000);
            assert!(!pulse.is_over(&limits(), &mut window));
        }
        after(20).await;
        pulse.said(1_999);
        assert!(pulse.is_over(&limits(), &mut window));
    }
}
