//! The committer's connection: prepared statements, and many of them under way at once.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio_postgres::{Client, Statement as Prepared};

use super::address::Address;
use super::values::{dialect, is_clash, row, word};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::{Row, Statement};

/// Why a group did not go through.
pub(super) enum Failure {
    /// Somebody else's transaction stood in the way.
    Clash,
    /// The connection is gone; nothing is durable unless COMMIT was already on its way.
    Lost(Error),
    /// A guard or a statement failed: whose it was is not said here.
    Refused(Error),
    /// Another process wrote history under this node's name.
    Stale,
}

/// One step of a pipeline.
pub(super) enum Step<'a> {
    /// Words without parameters: BEGIN, SAVEPOINT, …
    Words(&'static str),
    /// A statement whose guard is checked.
    Run(&'a Statement),
    /// A line of history: no row touched means that its number was taken.
    Chain(Statement),
}

/// A connection with its prepared statements.
pub(super) struct Link {
    client: Client,
    prepared: HashMap<&'static str, Prepared>,
    /// One round trip takes no longer.
    longest: Duration,
}

impl Link {
    pub(super) async fn open(address: &Address) -> Result<Self> {
        let client = address.connect().await?;
        durable(&client).await?;
        Ok(Self { client, prepared: HashMap::new(), longest: address.answer })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends every step before the first answer is awaited, then judges the answers in order; the first failure counts.
    pub(super) async fn pipeline(&mut self, steps: &[Step<'_>]) -> Result<(), Failure> {
        for step in steps {
            match step {
                Step::Words(_) => {}
                Step::Run(statement) => self.prepare(statement.sql).await?,
                Step::Chain(statement) => self.prepare(statement.sql).await?,
            }
        }
        let link = &*self;
        let mut running: Vec<_> = steps.iter().map(|step| Box::pin(link.send(step))).collect();
        let whole = async {
            let mut answers = start(&mut running).await;
            let mut outcome = Ok(());
            for ((step, answer), running) in steps.iter().zip(&mut answers).zip(&mut running) {
                let answer = match answer.take() {
                    Some(answer) => answer,
                    None => running.await,
                };
                // The later answers are awaited too: what comes next must find the connection quiet.
                let judged = judge(step, answer);
                if outcome.is_ok() {
                    outcome = judged;
                }
            }
            outcome
        };
        match tokio::time::timeout(self.longest, whole).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Lost(Error::new(Kind::Unavailable, "the catalog did not answer in time"))),
        }
    }

    /// Words alone.
    pub(super) async fn words(&mut self, words: &'static str) -> Result<(), Failure> {
        self.pipeline(&[Step::Words(words)]).await
    }

    /// Rows of a reading statement.
    pub(super) async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>, Failure> {
        self.prepare(statement.sql).await?;
        let Some(prepared) = self.prepared.get(statement.sql) else { return Ok(Vec::new()) };
        let params = statement.params.iter().map(|value| value as &(dyn tokio_postgres::types::ToSql + Sync));
        let params: Vec<_> = params.collect();
        match tokio::time::timeout(self.longest, self.client.query(prepared, &params)).await {
            Ok(Ok(rows)) => rows.iter().map(row).collect::<Result<_>>().map_err(Failure::Refused),
            Ok(Err(error)) => Err(failure(error)),
            Err(_) => Err(Failure::Lost(Error::new(Kind::Unavailable, "the catalog did not answer in time"))),
        }
    }

    async fn prepare(&mut self, sql: &'static str) -> Result<(), Failure> {
        if !self.prepared.contains_key(sql) {
            let prepared = tokio::time::timeout(self.longest, self.client.prepare(&dialect(sql))).await;
            let prepared = prepared
                .map_err(|_| Failure::Lost(Error::new(Kind::Unavailable, "the catalog did not answer in time")))?;
            self.prepared.insert(sql, prepared.map_err(failure)?);
        }
        Ok(())
    }

    /// Sends when first polled, as the driver does; ends with the number of rows touched.
    async fn send(&self, step: &Step<'_>) -> Result<u64, tokio_postgres::Error> {
        let statement = match step {
            Step::Words(words) => return self.client.batch_execute(words).await.map(|()| 1),
            Step::Run(statement) => statement,
            Step::Chain(statement) => statement,
        };
        match self.prepared.get(statement.sql) {
            Some(prepared) => self.client.execute_raw(prepared, &statement.params).await,
            None => self.client.execute_raw(&dialect(statement.sql), &statement.params).await,
        }
    }
}

/// Polls each once, in order: that puts all of them on the wire.
async fn start<F: Future>(running: &mut [Pin<Box<F>>]) -> Vec<Option<F::Output>> {
    poll_fn(|context| {
        let answers = running.iter_mut().map(|running| match running.as_mut().poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        });
        Poll::Ready(answers.collect())
    })
    .await
}

fn judge(step: &Step<'_>, answer: Result<u64, tokio_postgres::Error>) -> Result<(), Failure> {
    let touched = answer.map_err(failure)?;
    match step {
        Step::Chain(_) if touched != 1 => Err(Failure::Stale),
        Step::Run(Statement { must: Some(must), .. }) if touched != 1 => {
            Err(Failure::Refused(Error::new(must.kind, must.public)))
        }
        _ => Ok(()),
    }
}

fn failure(error: tokio_postgres::Error) -> Failure {
    if is_clash(&error) {
        return Failure::Clash;
    }
    let error = word(error);
    match error.kind() {
        Kind::Unavailable => Failure::Lost(error),
        _ => Failure::Refused(error),
    }
}

/// A server told not to wait for its disk is told to wait for ours: acknowledged means durable.
async fn durable(client: &Client) -> Result<()> {
    let row = client.query_one("SHOW synchronous_commit", &[]).await.map_err(word)?;
    let mode: String = row.try_get(0).map_err(word)?;
    if mode == "off" {
        client.batch_execute("SET synchronous_commit TO on").await.map_err(word)?;
    }
    Ok(())
}
