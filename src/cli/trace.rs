//! `stoa trace`: what became of a message, or of the newest ones from or to an address.

use std::path::Path;

use clap::Args;

use super::Failure;
use super::desk::Desk;
use super::table::{self, plain, time};
use crate::store::DeliveryRow;

/// What to follow.
#[derive(Args)]
pub struct TraceArgs {
    /// The id of a message, as in `250 2.0.0 Ok: queued as ID`, or an address.
    of: String,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs `stoa trace`.
pub fn run(file: Option<&Path>, args: &TraceArgs) -> Result<(), Failure> {
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

/// How far it came: accepted and stored are one moment, fetched is another.
fn way(row: &DeliveryRow) -> String {
    let state = row.state.as_str();
    match row.state {
        crate::store::DeliveryState::Fetched => format!("stored, {state} {}", time(row.changed)),
        crate::store::DeliveryState::Refused => format!("{state}: {}", plain(&row.detail)),
        _ => state.to_owned(),
    }
}

fn json(row: &DeliveryRow) -> serde_json::Value {
    serde_json::json!({
        "time": time(row.at), "message": row.message, "from": row.sender, "to": row.recipient, "bytes": row.bytes,
        "target": row.target, "state": row.state.as_str(), "since": time(row.changed), "detail": row.detail,
    })
}
