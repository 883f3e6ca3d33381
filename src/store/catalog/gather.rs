//! Transactions of several callers put together for one group, and their outcomes given back to each.

use super::engine::Transaction;
use crate::error::Result;

/// What is left of transactions sent to an engine's thread, with the way to say what became of each.
pub(super) type Sent = (Vec<Transaction>, Reply);

/// Takes the outcomes.
pub(super) type Reply = Box<dyn FnOnce(Vec<Result<()>>) + Send>;

/// Several senders' transactions put together for one group, and taken apart again for the answers.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) transactions: Vec<Transaction>,
    waiting: Vec<(usize, Reply)>,
}

impl Gathered {
    pub(super) fn add(&mut self, (transactions, reply): Sent) {
        self.waiting.push((transactions.len(), reply));
        self.transactions.extend(transactions);
    }

    /// Tells each sender the outcomes of its own. Whoever stopped waiting still has durable transactions; that is
    /// theirs to find out.
    pub(super) fn answer(self, outcomes: Vec<Result<()>>) {
        let mut outcomes = outcomes.into_iter();
        for (count, reply) in self.waiting {
            reply(outcomes.by_ref().take(count).collect());
        }
    }
}
