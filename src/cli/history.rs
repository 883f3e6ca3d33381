//! `stoa history`: who did what, when, from where, by which door; and whether the chain still holds.

use std::path::Path;

use clap::Args;

use super::desk::Desk;
use super::table::{self, plain, time};
use super::{Failure, failure};
use crate::store::{HistoryFilter, HistoryLine};

/// What to read.
#[derive(Args)]
pub struct HistoryArgs {
    /// Only below this path.
    #[arg(long)]
    path: Option<String>,
    /// Only by this account.
    #[arg(long)]
    account: Option<String>,
    /// Only through this door: http, ftp, smtp, cli, outside.
    #[arg(long)]
    door: Option<String>,
    /// The newest so many lines.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Walk the hash chains instead and say whether every line is what was written.
    #[arg(long)]
    verify: bool,
}

/// Runs `stoa history`.
pub fn run(file: Option<&Path>, args: &HistoryArgs) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    if args.verify {
        return verify(&desk);
    }
    let filter = HistoryFilter {
        path: args.path.clone(),
        account: args.account.clone(),
        door: args.door.clone(),
        limit: usize::try_from(args.limit).unwrap_or(usize::MAX),
    };
    let lines = desk.wait(desk.hub.history(&filter))?;
    if args.json {
        for line in &lines {
            say!("{}", json(line));
        }
        return Ok(());
    }
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            [
                time(line.at),
                plain(&line.door),
                plain(&line.account),
                plain(&line.address),
                plain(&line.verb),
                plain(&line.path),
                line.bytes.to_string(),
                plain(&line.result),
                plain(&line.detail),
            ]
        })
        .collect();
    table::print(["TIME", "DOOR", "ACCOUNT", "ADDRESS", "VERB", "PATH", "BYTES", "RESULT", "DETAIL"], &rows);
    Ok(())
}

fn verify(desk: &Desk) -> Result<(), Failure> {
    let verified = desk.wait(desk.hub.verify_history())?;
    if verified.broken.is_empty() {
        say!("{} lines, every one as it was written", verified.lines);
        return Ok(());
    }
    let broken: Vec<_> = verified.broken.iter().map(|(node, seq)| format!("{node} at line {seq}")).collect();
    Err(Failure {
        code: failure::DATA,
        words: format!(
            "the history was changed after it was written: {} (of {} lines); compare with a backup",
            broken.join(", "),
            verified.lines
        ),
    })
}

fn json(line: &HistoryLine) -> serde_json::Value {
    serde_json::json!({
        "node": line.node, "seq": line.seq, "time": time(line.at), "door": line.door, "account": line.account,
        "address": line.address, "verb": line.verb, "path": line.path, "bytes": line.bytes, "result": line.result,
        "detail": line.detail,
    })
}
