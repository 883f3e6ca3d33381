//! Bandwidth: token buckets that the transfers of one account, or of one listener, share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A bucket holds what may pass in this time: the largest burst.
const BURST: Duration = Duration::from_millis(250);
/// Bytes moved at once under a limit, at least and at most.
const STEP: (u64, u64) = (2 << 10, 256 << 10);
/// Pieces of a second that one step may fill.
const STEPS_A_SECOND: u64 = 16;

/// So many bytes a second, shared by whoever holds it.
#[derive(Debug)]
pub struct Bucket {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes a second.
    rate: u64,
    /// Bytes that may pass at once; below zero: owed.
    left: f64,
    since: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u64) -> Arc<Self> {
        let state = State { rate: rate.max(1), left: 0.0, since: Instant::now() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Another rate from now on.
    pub fn change(&self, rate: u64) {
        self.state.lock().rate = rate.max(1);
    }

    /// Bytes a transfer should move at once, so that nobody waits long for its turn.
    #[must_use]
    pub fn step(&self) -> u64 {
        (self.state.lock().rate / STEPS_A_SECOND).clamp(STEP.0, STEP.1)
    }

    /// These bytes passed: how long to rest before the next ones.
    fn spend(&self, bytes: u64, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let rate = precise(state.rate);
        let gained = now.saturating_duration_since(state.since).as_secs_f64() * rate;
        state.left = (state.left + gained).min(rate * BURST.as_secs_f64()) - precise(bytes);
        state.since = now;
        if state.left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((-state.left / rate).min(3600.0)) }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate need not be exact to the byte above 2^53")]
fn precise(bytes: u64) -> f64 {
    bytes as f64
}

/// The buckets one transfer draws from; mostly none.
#[derive(Clone, Debug, Default)]
pub struct Rates(pub Vec<Arc<Bucket>>);

impl Rates {
    /// Nothing limits this transfer.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes to move at once; `None`: as many as there are.
    #[must_use]
    pub fn step(&self) -> Option<u64> {
        self.0.iter().map(|bucket| bucket.step()).min()
    }

    /// Rests as long as these bytes cost.
    pub async fn spend(&self, bytes: u64) {
        let now = Instant::now();
        let rest = self.0.iter().map(|bucket| bucket.spend(bytes, now)).max().unwrap_or_default();
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_share_a_bucket_get_its_rate_together() {
        let bucket = Bucket::new(1_000);
        let start = Instant::now();
        let mut now = start;
        // Each in turn spends 100 bytes as soon as it may.
        for _ in 0..50 {
            now += bucket.spend(100, now);
        }
        let took = now.duration_since(start);
        assert!(took >= Duration::from_millis(4_600) && took <= Duration::from_millis(5_100), "{took:?}");
    }

    #[test]
    fn a_rest_saves_up_a_burst_and_no_more() {
        let bucket = Bucket::new(1_000);
        let later = Instant::now() + Duration::from_hours(1);
        assert_eq!(bucket.spend(250, later), Duration::ZERO);
        assert!(bucket.spend(100, later) >= Duration::from_millis(99));
    }

    #[test]
    fn the_step_fits_the_rate_and_the_slowest_counts() {
        assert_eq!(Rates::default().step(), None);
        let rates = Rates(vec![Bucket::new(1 << 30), Bucket::new(1_000)]);
        assert_eq!(rates.step(), Some(STEP.0));
        rates.0[1].change(1 << 20);
        assert_eq!(rates.step(), Some((1 << 20) / STEPS_A_SECOND));
    }
}
