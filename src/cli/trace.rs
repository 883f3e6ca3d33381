//! `stoa trace`: what became of a message, or of the newest ones from or to an address.

use std::path::Path;

use clap::Args;

use super::Failure;
use super::desk::Desk;
use super::table::{self, plain, time};
use crate::config;
use crate::error::Error;
use crate::store::DeliveryRow;
use crate::telemetry::conversation;

/// What to follow.
#[derive(Args)]
pub struct TraceArgs {
    /// The id of a message, as in `250 2.0.0 Ok: queued as ID`, or an address; with --conversations, an IP address or an account.
    #[arg(required_unless_present = "conversations", default_value = "")]
    of: String,
    /// The last conversations that failed with a machine or account (nobody named: with everybody), and why.
    #[arg(long, conflicts_with = "json")]
    conversations: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs `stoa trace`.
pub fn run(file: Option<&Path>, args: &TraceArgs) -> Result<(), Failure> {
    if args.conversations {
        return conversations(file, &args.of);
    }
    let desk = Desk::open(file)?;
    let mut rows = desk.wait(desk.hub.trace(&args.of))?;
    if rows.is_empty() {
        tell!("nothing is known of {}; what is too long ago is forgotten ([mail] keep_traces)", plain(&args.of));
    }
    rows.sort_by(|a, b| (&a.message, a.place).cmp(&(&b.message, b.place)));
    if args.json {
        for row in &rows {
            say!("{}", json(row));
        }
        return Ok(());
    }
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                time(row.at),
                plain(&row.message),
                format!("<{}>", plain(&row.sender)),
                plain(&row.recipient),
                row.bytes.to_string(),
                plain(&row.target),
                way(row),
            ]
        })
        .collect();
    table::print(["TIME", "MESSAGE", "FROM", "TO", "BYTES", "TARGET", "STATE"], &lines);
    Ok(())
}

/// What the daemon wrote down; lines of peers are escaped already.
fn conversations(file: Option<&Path>, who: &str) -> Result<(), Failure> {
    let loaded = config::load(file)?;
    let found = conversation::read(loaded.data(), who).map_err(Error::from)?;
    if found.is_empty() {
        tell!("no conversation has failed; one that goes well is not kept");
    }
    for entry in &found {
        say!("{entry}\n");
    }
    Ok(())
}

/// How far it came: accepted and stored are one moment, fetched is another.
fn way(row: &DeliveryRow) -> String {
    let state = row.state.as_str();
    match row.state {
        crate::store::DeliveryState::Fetched => format!("stored, {state} {}", time(row.changed)),
        crate::store::DeliveryState::Refused => format!("{state}: {}", plain(&row.detail)),
        _ if row.detail.is_empty() => state.to_owned(),
        _ => format!("{state}, {}", plain(&row.detail)),
    }
}

fn json(row: &DeliveryRow) -> serde_json::Value {
    serde_json::json!({
        "time": time(row.at), "message": row.message, "from": row.sender, "to": row.recipient, "bytes": row.bytes,
        "target": row.target, "state": row.state.as_str(), "since": time(row.changed), "detail": row.detail,
    })
}
