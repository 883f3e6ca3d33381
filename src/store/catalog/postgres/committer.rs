//! The one committer of this node: takes every waiting transaction and makes them durable together.
//!
//! First the whole group goes out at once as one transaction, two round trips however many there are. Only when a guard
//! in it fails is it run again with a savepoint each, and only when another node's transaction crosses it, each alone.

use tokio::sync::{mpsc, oneshot};

use super::address::Address;
use super::link::{Failure, Link, Step};
use super::{lease, schema};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::chain::{HEAD, Head};
use crate::store::catalog::engine::copy;
use crate::store::catalog::gather::{Gathered, Sent};
use crate::store::catalog::{Statement, Transaction, Value};

/// Counts this node's commits, so that the other nodes notice them.
const COUNT: &str = "INSERT INTO nodes (node, commits) VALUES (?1, 1) \
     ON CONFLICT (node) DO UPDATE SET commits = nodes.commits + 1";
const COUNTED: &str = "SELECT CAST(COALESCE(SUM(commits), 0) AS BIGINT) FROM nodes";

/// How often one transaction is tried alone before its caller hears of the conflict.
const TRIES: u32 = 3;

/// The read-committed guards of ours need no more, and a stricter default would only make them fail more often.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// What the committer is asked for.
pub(super) enum Job {
    Commit(Sent),
    Version(oneshot::Sender<Result<i64>>),
}

/// The connection, the head of this node's history and the number of commits made here.
pub(super) struct Committer {
    address: Address,
    node: String,
    link: Option<Link>,
    head: Option<Head>,
    own: i64,
    /// Holds the catalog against other daemons, by its connection.
    alone: bool,
}

impl Committer {
    pub(super) fn new(address: Address, node: &str, alone: bool) -> Self {
        Self { address, node: node.to_owned(), link: None, head: None, own: 0, alone }
    }

    /// Connects for the first time and brings the schema forward.
    pub(super) async fn prepare_schema(&mut self) -> Result<()> {
        let link = Link::open(&self.address).await?;
        if self.alone {
            lease::wait(link.client(), &self.node).await?;
        }
        schema::migrate(link.client()).await?;
        if self.alone {
            lease::sign(link.client(), &self.node).await?;
        }
        self.link = Some(link);
        Ok(())
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, largest: usize) {
        while let Some(job) = jobs.recv().await {
            let mut gathered = Gathered::default();
            let mut askers = Vec::new();
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    Job::Commit(sent) => gathered.add(sent),
                    Job::Version(reply) => askers.push(reply),
                }
                next = if gathered.transactions.len() + askers.len() < largest { jobs.try_recv().ok() } else { None };
            }
            if !gathered.transactions.is_empty() {
                let outcomes = self.together(&gathered.transactions).await;
                gathered.answer(outcomes);
            }
            for reply in askers {
                let _ = reply.send(self.version().await);
            }
        }
    }

    /// One outcome a transaction; those that are `Ok` are durable.
    async fn together(&mut self, transactions: &[Transaction]) -> Vec<Result<()>> {
        for _ in 0..2 {
            match self.at_once(transactions).await {
                Ok(()) => return transactions.iter().map(|_| Ok(())).collect(),
                Err(Failure::Stale) => {}
                Err(Failure::Refused(error)) if transactions.len() == 1 => return vec![Err(error)],
                Err(Failure::Refused(_)) => break,
                Err(Failure::Clash) => return self.alone(transactions).await,
                Err(Failure::Lost(error)) => return transactions.iter().map(|_| Err(copy(&error))).collect(),
            }
        }
        match self.with_savepoints(transactions).await {
            Ok(outcomes) => outcomes,
            Err(Failure::Lost(error)) => transactions.iter().map(|_| Err(copy(&error))).collect(),
            Err(_) => self.alone(transactions).await,
        }
    }

    /// All or nothing of it, in two round trips.
    async fn at_once(&mut self, transactions: &[Transaction]) -> Result<(), Failure> {
        let chained = transactions.iter().any(|transaction| !transaction.history.is_empty());
        let mut head = if chained { self.head().await? } else { Head::default() };
        let mut steps = vec![Step::Words(BEGIN)];
        for transaction in transactions {
            self.chain(&mut steps, &mut head, transaction);
        }
        let count = self.count();
        steps.push(Step::Run(&count));
        let outcome = self.link().await?.pipeline(&steps).await;
        self.finish(outcome, chained.then_some(head)).await
    }

    /// The statements and lines of one transaction, chained after `head`.
    fn chain<'a>(&self, steps: &mut Vec<Step<'a>>, head: &mut Head, transaction: &'a Transaction) {
        steps.extend(transaction.statements.iter().map(Step::Run));
        steps.extend(transaction.history.iter().map(|line| Step::Chain(head.append(&self.node, line))));
    }

    /// Each in a savepoint, one commit for those that held.
    async fn with_savepoints(&mut self, transactions: &[Transaction]) -> Result<Vec<Result<()>>, Failure> {
        let mut outcomes = Vec::with_capacity(transactions.len());
        let chained = transactions.iter().any(|transaction| !transaction.history.is_empty());
        let head = if chained { Some(self.head().await?) } else { None };
        let begun = self.link().await?.words(BEGIN).await;
        let whole = match begun {
            Ok(()) => self.each(transactions, head, &mut outcomes).await,
            Err(failure) => Err(failure),
        };
        match whole {
            Ok(head) => self.finish(Ok(()), head).await?,
            Err(failure) => self.finish(Err(failure), None).await?,
        }
        Ok(outcomes)
    }

    async fn each(
        &mut self,
        transactions: &[Transaction],
        start: Option<Head>,
        outcomes: &mut Vec<Result<()>>,
    ) -> Result<Option<Head>, Failure> {
        let mut head = start.unwrap_or_default();
        // What ends a savepoint travels with what begins the next one.
        let mut ending = "SAVEPOINT one";
        for transaction in transactions {
            let mut after = head;
            let mut steps = vec![Step::Words(ending)];
            self.chain(&mut steps, &mut after, transaction);
            match self.begun()?.pipeline(&steps).await {
                Ok(()) => {
                    head = after;
                    outcomes.push(Ok(()));
                    ending = "RELEASE one; SAVEPOINT one";
                }
                Err(Failure::Refused(error)) => {
                    outcomes.push(Err(error));
                    ending = "ROLLBACK TO one; RELEASE one; SAVEPOINT one";
                }
                Err(failure) => return Err(failure),
            }
        }
        let count = self.count();
        self.begun()?.pipeline(&[Step::Words(ending), Step::Run(&count)]).await?;
        Ok(start.map(|_| head))
    }

    /// Each in a transaction of its own, a few times when others cross it.
    async fn alone(&mut self, transactions: &[Transaction]) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(transactions.len());
        let mut lost = None;
        for transaction in transactions {
            let outcome = match &lost {
                Some(error) => Err(copy(error)),
                None => self.one(transaction, &mut lost).await,
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn one(&mut self, transaction: &Transaction, lost: &mut Option<Error>) -> Result<()> {
        for _ in 0..TRIES {
            match self.at_once(std::slice::from_ref(transaction)).await {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Lost(error)) => {
                    *lost = Some(copy(&error));
                    return Err(error);
                }
                Err(Failure::Clash | Failure::Stale) => {}
            }
        }
        Err(Error::new(Kind::Conflict, "somebody else changed the same records at the same time"))
    }

    /// Commits what held and undoes what did not. A connection that fails here is not used again.
    async fn finish(&mut self, outcome: Result<(), Failure>, head: Option<Head>) -> Result<(), Failure> {
        let Some(link) = self.link.as_mut() else { return outcome };
        let outcome = match outcome {
            Ok(()) => link.words("COMMIT").await,
            failed => failed,
        };
        match &outcome {
            Ok(()) => {
                self.own = self.own.saturating_add(1);
                self.head = head.or(self.head);
            }
            Err(Failure::Lost(_)) => self.forget(),
            Err(failure) => {
                if matches!(failure, Failure::Stale) {
                    self.head = None;
                }
                if link.words("ROLLBACK").await.is_err() {
                    self.forget();
                }
            }
        }
        outcome
    }

    fn forget(&mut self) {
        self.link = None;
        self.head = None;
    }

    /// The connection, made anew when the last one broke.
    async fn link(&mut self) -> Result<&mut Link, Failure> {
        let usable = self.link.take().filter(|link| !link.is_closed());
        let link = if let Some(link) = usable {
            link
        } else {
            self.head = None;
            let link = Link::open(&self.address).await.map_err(Failure::Lost)?;
            if self.alone && !lease::take(link.client()).await.map_err(Failure::Lost)? {
                return Err(Failure::Lost(lease::refusal(link.client(), &self.node).await));
            }
            link
        };
        Ok(self.link.insert(link))
    }

    /// The connection that holds the open transaction: a new one would know nothing of it.
    fn begun(&mut self) -> Result<&mut Link, Failure> {
        let lost = || Failure::Lost(Error::new(Kind::Unavailable, "the connection to the catalog was lost"));
        self.link.as_mut().ok_or_else(lost)
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        // A connection that broke in the meantime takes the remembered head with it.
        self.link().await?;
        if let Some(head) = self.head {
            return Ok(head);
        }
        let statement = Statement { sql: HEAD, params: vec![Value::text(&self.node)], must: None };
        let rows = match self.link().await?.rows(&statement).await {
            Ok(rows) => rows,
            Err(Failure::Lost(error)) => {
                self.forget();
                return Err(Failure::Lost(error));
            }
            Err(failure) => return Err(failure),
        };
        Head::from_rows(&rows).map_err(Failure::Refused)
    }

    fn count(&self) -> Statement {
        Statement { sql: COUNT, params: vec![Value::text(&self.node)], must: None }
    }

    /// What everybody committed less what was committed here: changes only when somebody else commits.
    async fn version(&mut self) -> Result<i64> {
        let statement = Statement { sql: COUNTED, params: Vec::new(), must: None };
        let rows = match self.link().await {
            Ok(link) => link.rows(&statement).await,
            Err(failure) => Err(failure),
        };
        match rows {
            Ok(rows) => match rows.first().map(Vec::as_slice) {
                Some([Value::Int(all)]) => Ok(all.saturating_sub(self.own)),
                _ => Err(Error::new(Kind::Corrupt, "the commits of the nodes cannot be counted")),
            },
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Lost(error)) => {
                self.forget();
                Err(error)
            }
            Err(Failure::Clash | Failure::Stale) => {
                Err(Error::new(Kind::Conflict, "the commits of the nodes cannot be counted for now"))
            }
        }
    }
}
