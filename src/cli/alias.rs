//! `stoa alias …`: addresses that stand for others; those made by command live in the catalog.

use std::path::Path;

use clap::{Args, Subcommand};

use super::Failure;
use super::desk::Desk;
use super::table::{self, listed, plain};
use crate::hub::settings::Post;
use crate::store::AliasRow;

/// Addresses that stand for others.
#[derive(Subcommand)]
pub enum AliasCommand {
    /// Make an alias, or replace one made by command.
    Set(AliasArgs),
    /// List aliases with what they lead to.
    List {
        /// One JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Remove an alias made by command.
    Remove {
        /// Its address.
        address: String,
    },
}

/// An alias.
#[derive(Args)]
pub struct AliasArgs {
    /// office, office@example.org, scan-*@example.org or *@example.org.
    address: String,
    /// What it leads to: users, group:NAME, drop addresses, other aliases.
    #[arg(required = true)]
    to: Vec<String>,
    /// Who may write to it: anyone, users (signed in) or members (signed in, and it leads to them).
    #[arg(long, default_value = "anyone", value_parser = post)]
    post: Post,
}

/// Runs `stoa alias …`.
pub fn run(file: Option<&Path>, command: AliasCommand) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    match command {
        AliasCommand::Set(args) => {
            let AliasArgs { address, to, post } = args;
            let row = AliasRow { address: address.clone(), targets: to, post: post.as_str().to_owned() };
            desk.wait(desk.hub.put_alias(row))?;
            tell!("alias {address} is there; a running daemon takes it up within seconds");
        }
        AliasCommand::List { json } => list(&desk, json),
        AliasCommand::Remove { address } => {
            desk.wait(desk.hub.remove_alias(&address))?;
            tell!("alias {address} was removed");
        }
    }
    Ok(())
}

fn post(text: &str) -> Result<Post, String> {
    Post::parse(text).ok_or_else(|| "write anyone, users or members".to_owned())
}

fn list(desk: &Desk, json: bool) {
    let aliases = desk.hub.aliases();
    if json {
        let list: Vec<_> = aliases
            .iter()
            .map(|alias| {
                serde_json::json!({
                    "address": alias.row.address, "to": alias.row.targets, "post": alias.row.post,
                    "declared": alias.declared,
                })
            })
            .collect();
        say!("{}", serde_json::Value::from(list));
        return;
    }
    let rows: Vec<_> = aliases
        .iter()
        .map(|alias| {
            let from = if alias.declared { "configuration" } else { "catalog" };
            [plain(&alias.row.address), from.to_owned(), alias.row.post.clone(), listed(&alias.row.targets)]
        })
        .collect();
    table::print(["ADDRESS", "FROM", "POST", "LEADS TO"], &rows);
}
