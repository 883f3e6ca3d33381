//! One daemon at a time: a lock of the server that lasts as long as the committing connection.
//!
//! Daemons that share a catalog serve the same homes and mailboxes, and the order of two daemons' changes to one path is not settled anywhere:
//! each would lose what the other stored. So the second one is refused, whatever its node is called. Commands do not take the lock.

use std::time::Duration;

use tokio_postgres::Client;

use super::values::word;
use crate::error::{Error, Kind, Result};

/// Advisory locks hold in one database; the schema tells several catalogs in it apart.
const TAKE: &str = "SELECT pg_try_advisory_lock(hashtext('stoa daemon'), hashtext(current_schema()))";
const SIGN: &str =
    "INSERT INTO meta (key, value) VALUES ('daemon', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const SIGNED: &str = "SELECT value FROM meta WHERE key = 'daemon'";

/// How long a start waits for a daemon that ended just now: the server may not have noticed yet.
const PATIENCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// True when this connection has the lock.
pub(super) async fn take(client: &Client) -> Result<bool> {
    let row = client.query_one(TAKE, &[]).await.map_err(word)?;
    row.try_get(0).map_err(word)
}

/// Takes it, waiting a little.
///
/// # Errors
/// `Unavailable` when another daemon keeps it.
pub(super) async fn wait(client: &Client, node: &str) -> Result<()> {
    for _ in 0..PATIENCE {
        if take(client).await? {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(refusal(client, node).await)
}

/// Says whose it is now.
pub(super) async fn sign(client: &Client, node: &str) -> Result<()> {
    client.execute(SIGN, &[&node]).await.map(drop).map_err(word)
}

/// Why this daemon may not have it.
pub(super) async fn refusal(client: &Client, node: &str) -> Error {
    let signed = client.query_one(SIGNED, &[]).await.ok().and_then(|row| row.try_get::<_, String>(0).ok());
    let text = match signed {
        Some(other) if other == node => format!(
            "another daemon runs under this node's name, {node}, on this catalog: was the data folder copied? \
             Stop it, or give this one its own data folder and catalog"
        ),
        other => format!(
            "another daemon ({}) runs on this catalog, and both would serve the same homes, mailboxes and spaces: each would lose what \
             the other stores. Stop it, or give this one a catalog of its own (another database or schema)",
            other.as_deref().unwrap_or("of unknown name")
        ),
    };
    Error::new(Kind::Unavailable, text)
}
