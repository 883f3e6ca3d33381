//! Transactions that were applied and answered, and that SQLite has not committed yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::catalog::engine::{Transaction, Value};

/// The first one waits no longer for its commit.
const LONGEST: Duration = Duration::from_millis(100);

/// More do not wait, nor do more bytes of parameters.
const MOST: usize = 1024;
const HEAVIEST: usize = 8 << 20;

/// What was answered and is not committed yet.
pub(super) struct Uncommitted {
    /// Kept to be applied again, should somebody else's failure undo them.
    pub(super) transactions: Vec<Transaction>,
    /// Bytes of their parameters, about.
    weight: usize,
    /// When they are to be committed at the latest.
    pub(super) until: Option<Instant>,
    /// Tells readers that there is something they cannot see.
    ahead: Arc<AtomicBool>,
}

impl Uncommitted {
    pub(super) fn new(ahead: Arc<AtomicBool>) -> Self {
        Self { transactions: Vec::new(), weight: 0, until: None, ahead }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    pub(super) fn is_long(&self) -> bool {
        self.transactions.len() >= MOST || self.weight >= HEAVIEST
    }

    pub(super) fn push(&mut self, transaction: Transaction) {
        self.weight += weight(&transaction);
        self.transactions.push(transaction);
        self.until.get_or_insert_with(|| Instant::now() + LONGEST);
        self.ahead.store(true, Ordering::Release);
    }

    /// They are committed, or taken back.
    pub(super) fn keep(&mut self, count: usize) {
        self.transactions.truncate(count);
        self.weight = self.transactions.iter().map(weight).sum();
        if self.is_empty() {
            self.until = None;
            self.ahead.store(false, Ordering::Release);
        }
    }

    pub(super) fn due(&mut self, when: Instant) {
        self.until = Some(when);
    }
}

fn weight(transaction: &Transaction) -> usize {
    let values = transaction.statements.iter().flat_map(|statement| &statement.params);
    values.map(|value| if let Value::Blob(bytes) = value { bytes.len() } else { 0 }).sum()
}
