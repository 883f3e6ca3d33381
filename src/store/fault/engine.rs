//! A catalog engine that fails or stops at the n-th call.
//!
//! It wraps a real engine. A countdown shared with the test arms it: at 1 the next call that counts is hit, at 0 none
//! is. `Moment::After` is the nasty one: the transaction is durable and its caller is told that it failed, as when
//! the power goes between the disk and the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::store::catalog::{Engine, Row, Statement, Transaction};

/// Which calls count down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Commits only.
    Commits,
    /// Reads only.
    Reads,
    /// Both.
    Every,
}

/// What happens to the call that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this kind; the next call works again.
    Fail(Kind),
    /// It and every later call fail with `Unavailable`, as if the process or the database had died.
    Stop,
}

/// Whether the engine does its work first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The call never reaches the engine.
    Before,
    /// The engine does it; only the answer is lost.
    After,
}

/// An engine that breaks when told to.
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    countdown: Arc<AtomicU64>,
    calls: Calls,
    fault: Fault,
    moment: Moment,
    stopped: AtomicBool,
}

impl FaultyEngine {
    /// Wraps `inner`; storing n in `countdown` makes the n-th call from then on the one that is hit.
    #[must_use]
    pub fn new(inner: Arc<dyn Engine>, countdown: Arc<AtomicU64>, calls: Calls, fault: Fault, moment: Moment) -> Self {
        Self { inner, countdown, calls, fault, moment, stopped: AtomicBool::new(false) }
    }

    /// True from the moment a [`Fault::Stop`] was hit.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Counts a call; `Some` when it is the one to be hit.
    fn hit(&self, counts: bool) -> Result<Option<Error>> {
        if self.is_stopped() {
            return Err(stopped());
        }
        if !counts {
            return Ok(None);
        }
        let counted = self.countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if counted != Ok(1) {
            return Ok(None);
        }
        Ok(Some(match self.fault {
            Fault::Fail(kind) => Error::new(kind, "a fault was injected into the catalog"),
            Fault::Stop => {
                self.stopped.store(true, Ordering::SeqCst);
                stopped()
            }
        }))
    }
}

impl FaultyEngine {
    /// Each transaction counts for itself.
    async fn commit_one(&self, transaction: Transaction) -> Result<()> {
        let fault = self.hit(self.calls != Calls::Reads)?;
        if fault.is_none() || self.moment == Moment::After {
            self.inner.commit(vec![transaction]).await.into_iter().collect::<Result<()>>()?;
        }
        fault.map_or(Ok(()), Err)
    }
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the catalog was stopped by an injected fault")
}

#[async_trait]
impl Engine for FaultyEngine {
    fn node(&self) -> &str {
        self.inner.node()
    }

    async fn read(&self, statement: Statement) -> Result<Vec<Row>> {
        match self.hit(self.calls != Calls::Commits)? {
            Some(error) => Err(error),
            None => self.inner.read(statement).await,
        }
    }

    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            outcomes.push(self.commit_one(transaction).await);
        }
        outcomes
    }

    async fn show_bodies(&self) -> Result<()> {
        self.inner.show_bodies().await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn version(&self) -> Result<i64> {
        self.hit(false)?;
        self.inner.version().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what reaches it.
    #[derive(Default)]
    struct Counting(AtomicU64);

    #[async_trait]
    impl Engine for Counting {
        fn node(&self) -> &'static str {
            "one"
        }

        async fn read(&self, _: Statement) -> Result<Vec<Row>> {
            Ok(Vec::new())
        }

        async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<()>> {
            self.0.fetch_add(transactions.len() as u64, Ordering::SeqCst);
            transactions.iter().map(|_| Ok(())).collect()
        }

        async fn version(&self) -> Result<i64> {
            Ok(0)
        }
    }

    async fn outcomes(fault: Fault, moment: Moment) -> (Vec<Option<Kind>>, u64) {
        let inner = Arc::new(Counting::default());
        let countdown = Arc::new(AtomicU64::new(2));
        let engine = FaultyEngine::new(inner.clone(), countdown, Calls::Commits, fault, moment);
        let read = Statement { sql: "SELECT 1", params: Vec::new(), must: None };
        engine.read(read).await.expect("reads do not count here");
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            let outcome = engine.commit(vec![Transaction::default()]).await.remove(0);
            outcomes.push(outcome.err().map(|error| error.kind()));
        }
        (outcomes, inner.0.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn the_second_commit_is_hit_before_or_after_it_is_done() {
        let fail = Fault::Fail(Kind::Conflict);
        let hit = vec![None, Some(Kind::Conflict), None];
        assert_eq!(outcomes(fail, Moment::Before).await, (hit.clone(), 2));
        assert_eq!(outcomes(fail, Moment::After).await, (hit, 3));
        let stopped = vec![None, Some(Kind::Unavailable), Some(Kind::Unavailable)];
        assert_eq!(outcomes(Fault::Stop, Moment::Before).await, (stopped.clone(), 1));
        assert_eq!(outcomes(Fault::Stop, Moment::After).await, (stopped, 2));
    }
}
