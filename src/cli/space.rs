//! `stoa space …`: spaces made by command live in the catalog, beside the declared ones.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::desk::Desk;
use super::fate::Fate;
use super::table::{self, plain};
use crate::hub::Verbs;
use crate::hub::admin::SpaceView;
use crate::store::{GrantRow, SpaceRow};
use crate::units::ByteSize;

/// Subtrees with their own rules.
#[derive(Subcommand)]
pub enum SpaceCommand {
    /// Make a space, or change one made by command.
    Add(SpaceArgs),
    /// List spaces with what they hold.
    List {
        /// One JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Remove a space. Its files stay for administrators alone until they are handed over or deleted, which this command
    /// also does for a path that was left behind earlier.
    Remove {
        /// Its path in the tree.
        path: String,
        #[command(flatten)]
        fate: Fate,
    },
}

/// A space.
#[derive(Args)]
pub struct SpaceArgs {
    /// Where it is in the tree, such as /scans.
    path: String,
    /// An existing directory served in place [default: a folder below the data folder].
    #[arg(long, value_name = "DIRECTORY")]
    source: Option<std::path::PathBuf>,
    /// Most bytes it may hold, such as "50 GiB" [default: no limit].
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
    /// Most files it may hold [default: no limit].
    #[arg(long, value_name = "NUMBER")]
    quota_files: Option<u64>,
    /// What happens when an upload meets an existing name.
    #[arg(long, value_enum, default_value_t = Overwrite::Replace)]
    overwrite: Overwrite,
    /// Drop address: attachments sent to NAME@domain are filed here.
    #[arg(long, value_name = "NAME")]
    address: Option<String>,
    /// Acknowledge uploads before they would survive a power cut: for ring buffers and caches.
    #[arg(long)]
    not_durable: bool,
    /// Who may do what: `group:staff=edit`, `everyone=view`, `device:camera-3=drop`; may be given again.
    #[arg(long = "grant", value_name = "WHO=WHAT", value_parser = grant)]
    grants: Vec<GrantRow>,
}

/// The words of the configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Overwrite {
    Replace,
    KeepBoth,
    Refuse,
}

/// Runs `stoa space …`.
pub fn run(file: Option<&Path>, command: SpaceCommand) -> Result<(), Failure> {
    if let SpaceCommand::Remove { path, fate } = command {
        return remove(file, &path, &fate);
    }
    let desk = Desk::open(file)?;
    match command {
        SpaceCommand::Add(args) => {
            let path = args.path.clone();
            let row = row(args)?;
            desk.wait(desk.hub.put_space(row))?;
            tell!("space {path} is there; a running daemon takes it up within seconds");
        }
        SpaceCommand::List { json } => list(&desk.wait(desk.hub.spaces())?, json),
        SpaceCommand::Remove { .. } => {}
    }
    Ok(())
}

fn remove(file: Option<&Path>, path: &str, fate: &Fate) -> Result<(), Failure> {
    let desk = fate.desk(file)?;
    fate.check(&desk)?;
    if desk.hub.is_left_behind(path) && fate.is_decided() {
        return fate.decide(&desk, &[path.to_owned()]);
    }
    let left = desk.wait(desk.hub.remove_space(path))?;
    tell!("space {path} was removed");
    match left {
        true => fate.decide(&desk, &[path.to_owned()]),
        false => Ok(()),
    }
}

fn row(args: SpaceArgs) -> Result<SpaceRow, Failure> {
    // The daemon may run in another folder: only a full path means the same to both.
    let source = match args.source {
        None => String::new(),
        Some(source) => {
            let full = std::fs::canonicalize(&source).map_err(|error| Failure::io(source.display(), &error))?;
            full.into_os_string()
                .into_string()
                .map_err(|_| Failure::usage("--source is not UTF-8; rename the directory"))?
        }
    };
    let overwrite = match args.overwrite {
        Overwrite::KeepBoth => "keep-both",
        Overwrite::Refuse => "refuse",
        Overwrite::Replace => "replace",
    };
    Ok(SpaceRow {
        path: args.path,
        source,
        max_bytes: args.quota.map(|quota| quota.0).filter(|bytes| *bytes > 0),
        max_files: args.quota_files.filter(|files| *files > 0),
        overwrite: overwrite.to_owned(),
        address: args.address.unwrap_or_default(),
        durable: !args.not_durable,
        grants: args.grants,
    })
}

fn grant(text: &str) -> Result<GrantRow, String> {
    // `users:edit` can mean nothing else than `users=edit`.
    let by_colon =
        || text.rsplit_once(':').filter(|(_, allow)| Verbs::parse(allow).is_ok_and(|verbs| !verbs.is_empty()));
    match text.split_once('=').or_else(by_colon) {
        Some((to, allow)) if !to.is_empty() && !allow.is_empty() => {
            Ok(GrantRow { to: to.to_owned(), allow: allow.to_owned() })
        }
        _ => Err("write WHO=WHAT, such as group:staff=edit".to_owned()),
    }
}

fn list(spaces: &[SpaceView], json: bool) {
    let grants = |space: &SpaceView| {
        let each: Vec<_> = space.row.grants.iter().map(|grant| format!("{}={}", grant.to, grant.allow)).collect();
        each.join("; ")
    };
    if json {
        let list: Vec<_> = spaces
            .iter()
            .map(|space| {
                serde_json::json!({
                    "path": space.row.path, "source": space.row.source, "declared": space.declared, "left_behind": space.left,
                    "bytes": space.usage.bytes, "files": space.usage.files,
                    "quota": space.row.max_bytes, "quota_files": space.row.max_files,
                    "overwrite": space.row.overwrite, "address": space.row.address, "durable": space.row.durable,
                    "grants": space.row.grants.iter().map(|grant| serde_json::json!({ "to": grant.to, "allow": grant.allow })).collect::<Vec<_>>(),
                })
            })
            .collect();
        say!("{}", serde_json::Value::from(list));
        return;
    }
    let limit = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string());
    let rows: Vec<_> = spaces
        .iter()
        .map(|space| {
            [
                plain(&space.row.path),
                match (space.left, space.declared) {
                    (true, _) => "left behind",
                    (false, true) => "configuration",
                    (false, false) => "catalog",
                }
                .to_owned(),
                ByteSize(space.usage.bytes).to_string(),
                limit(space.row.max_bytes),
                space.usage.files.to_string(),
                space.row.address.clone(),
                grants(space),
            ]
        })
        .collect();
    table::print(["PATH", "FROM", "HOLDS", "QUOTA", "FILES", "ADDRESS", "GRANTS"], &rows);
}
