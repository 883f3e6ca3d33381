//! Bringing the schema forward, also when several daemons start at once.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::values::{dialect, word};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::migrations;

/// Another daemon that takes the same step at the same moment makes ours fail; then it is looked at again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

const HAS_META: &str =
    "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'meta'";

/// Takes every missing step, each in a transaction of its own.
pub(super) async fn migrate(client: &Client) -> Result<()> {
    for _ in 0..TRIES {
        if steps(client).await?.is_ok() {
            return Ok(());
        }
        client.batch_execute("ROLLBACK").await.map_err(word)?;
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::new(Kind::Unavailable, "another daemon keeps changing the schema of the catalog; try again later"))
}

/// The inner error is one that another daemon's step explains.
async fn steps(client: &Client) -> Result<Result<(), tokio_postgres::Error>> {
    let format = format(client).await?;
    for (number, step) in migrations::missing(format.as_deref(), "in PostgreSQL")? {
        if let Err(error) = take(client, number, step.postgres).await {
            if is_race(&error) {
                return Ok(Err(error));
            }
            let text = "the tables of the catalog cannot be made: grant the user CREATE on the schema";
            return Err(Error::new(Kind::Unavailable, text).with(word(error).detail()));
        }
    }
    Ok(Ok(()))
}

async fn take(client: &Client, number: usize, sql: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    client.batch_execute(sql).await?;
    client.execute(&dialect(migrations::SET_FORMAT), &[&number.to_string()]).await?;
    client.batch_execute("COMMIT").await
}

async fn format(client: &Client) -> Result<Option<String>> {
    let made: i64 = client.query_one(HAS_META, &[]).await.and_then(|row| row.try_get(0)).map_err(word)?;
    if made == 0 {
        return Ok(None);
    }
    let row = client.query_opt(migrations::FORMAT, &[]).await.map_err(word)?;
    row.map(|row| row.try_get(0)).transpose().map_err(word)
}

fn is_race(error: &tokio_postgres::Error) -> bool {
    let races = [
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_COLUMN,
        SqlState::UNIQUE_VIOLATION,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    error.code().is_some_and(|code| races.contains(code))
}
