//! `stoa group …`: groups exist by their members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Subcommand;

use super::Failure;
use super::desk::Desk;
use super::table::{self, listed, plain};
use crate::store::AccountKind;

/// Groups of users.
#[derive(Subcommand)]
pub enum GroupCommand {
    /// List groups with their members.
    List {
        /// One JSON object: group to members.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `stoa group …`.
pub fn run(file: Option<&Path>, command: &GroupCommand) -> Result<(), Failure> {
    let GroupCommand::List { json } = command;
    let desk = Desk::open(file)?;
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for account in desk.hub.accounts() {
        if account.row.kind == AccountKind::Group {
            groups.entry(account.row.name.clone()).or_default();
        }
        for group in account.row.groups {
            groups.entry(group).or_default().insert(account.row.name.clone());
        }
    }
    if *json {
        say!("{}", serde_json::json!(groups));
        return Ok(());
    }
    let members = |names: BTreeSet<String>| listed(&names.into_iter().collect::<Vec<_>>());
    let rows: Vec<_> = groups.into_iter().map(|(name, names)| [plain(&name), members(names)]).collect();
    table::print(["GROUP", "MEMBERS"], &rows);
    Ok(())
}
