//! Seldom: a line that a flood of events may write only now and then, saying how many it stands for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one event through in each period and counts the rest.
pub struct Seldom {
    every: Duration,
    last: Mutex<Option<Instant>>,
    held_back: AtomicU64,
}

impl Seldom {
    /// At most one each `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None), held_back: AtomicU64::new(0) }
    }

    /// `Some(n)`: speak now, for `n` events since the last time (this one included). `None`: keep silent.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        let held_back = self.held_back.fetch_add(1, Ordering::Relaxed) + 1;
        // Somebody else is deciding at this moment: their line stands for this event or the next one will.
        let mut last = self.last.try_lock()?;
        if last.is_some_and(|last| last.elapsed() < self.every) {
            return None;
        }
        *last = Some(Instant::now());
        self.held_back.fetch_sub(held_back, Ordering::Relaxed);
        Some(held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_count() {
        let hourly = Seldom::new(Duration::from_hours(1));
        assert_eq!(hourly.now(), Some(1));
        assert!((0..100).all(|_| hourly.now().is_none()));
        let always = Seldom::new(Duration::ZERO);
        assert_eq!((always.now(), always.now()), (Some(1), Some(1)));
    }
}
