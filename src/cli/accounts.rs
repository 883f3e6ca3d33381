//! `stoa user …` and `stoa device …`: accounts made by command live in the catalog, beside the declared ones.

use std::path::Path;

use clap::{Args, Subcommand};

use super::desk::Desk;
use super::fate::Fate;
use super::password::PasswordArgs;
use super::table::{self, listed, plain};
use super::{Failure, failure};
use crate::config;
use crate::daemon::first;
use crate::hub::account::ADMIN_GROUP;
use crate::hub::admin::AccountView;
use crate::hub::login::hash_password;
use crate::store::{AccountKind, AccountRow};

/// People.
#[derive(Subcommand)]
pub enum UserCommand {
    /// Make a user; the password comes from standard input, a file or a prompt.
    Add(UserArgs),
    /// Change a user's password.
    Passwd(PasswdArgs),
    /// List users, declared ones included.
    List(ListArgs),
    /// Remove a user. The files stay for administrators alone until they are handed over or deleted.
    Remove(RemoveArgs),
    /// End all sessions of a user, on every door.
    SignOut(NameArgs),
    /// Refuse every sign-in of a user.
    Disable(NameArgs),
    /// Allow a disabled user to sign in again.
    Enable(NameArgs),
    /// Print the hash of a password, for `password_hash` in the configuration.
    Hash(PasswordArgs),
}

/// Machines.
#[derive(Subcommand)]
pub enum DeviceCommand {
    /// Make a device; the password comes from standard input, a file or a prompt.
    Add(DeviceArgs),
    /// Change a device's password.
    Passwd(PasswdArgs),
    /// List devices, declared ones included.
    List(ListArgs),
    /// Remove a device. The files stay for administrators alone until they are handed over or deleted.
    Remove(RemoveArgs),
    /// End all sessions of a device, on every door.
    SignOut(NameArgs),
    /// Refuse every sign-in of a device.
    Disable(NameArgs),
    /// Allow a disabled device to sign in again.
    Enable(NameArgs),
}

/// A new user.
#[derive(Args)]
pub struct UserArgs {
    /// Sign-in name: lower case letters, digits, `.`, `_`, `-`.
    name: String,
    #[command(flatten)]
    password: PasswordArgs,
    /// Make up a password and print it once.
    #[arg(long, conflicts_with = "password_file")]
    generate: bool,
    /// Groups the user is in, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    groups: Vec<String>,
    /// Folder the user is confined to.
    #[arg(long, default_value = "/", value_name = "PATH")]
    root: String,
    /// Networks the user may sign in from, separated by commas [default: any].
    #[arg(long, value_delimiter = ',', value_name = "NETWORK")]
    networks: Vec<String>,
    /// Doors the user may use, separated by commas [default: any].
    #[arg(long, value_delimiter = ',', value_name = "PROTOCOL")]
    protocols: Vec<String>,
    /// May administer: the same as being in the group `admin`.
    #[arg(long)]
    admin: bool,
}

/// A new device.
#[derive(Args)]
pub struct DeviceArgs {
    /// Sign-in name: lower case letters, digits, `.`, `_`, `-`.
    name: String,
    #[command(flatten)]
    password: PasswordArgs,
    /// Make up a password and print it once.
    #[arg(long, conflicts_with = "password_file")]
    generate: bool,
    /// Networks the device may come from, separated by commas [default: any].
    #[arg(long, value_delimiter = ',', value_name = "NETWORK")]
    networks: Vec<String>,
    /// Doors the device may use, separated by commas [default: any].
    #[arg(long, value_delimiter = ',', value_name = "PROTOCOL")]
    protocols: Vec<String>,
    /// Where the device lands and may always list, create and append.
    #[arg(long, value_name = "PATH")]
    folder: Option<String>,
    /// What FTP shows it as `/`, and what it is confined to [default: FTP shows its folder].
    #[arg(long, default_value = "", value_name = "PATH")]
    root: String,
}

/// An account to give another password.
#[derive(Args)]
pub struct PasswdArgs {
    /// Sign-in name.
    name: String,
    #[command(flatten)]
    password: PasswordArgs,
    /// Make up a password and print it once.
    #[arg(long, conflicts_with = "password_file")]
    generate: bool,
}

/// An account.
#[derive(Args)]
pub struct NameArgs {
    /// Sign-in name.
    name: String,
}

/// An account to remove.
#[derive(Args)]
pub struct RemoveArgs {
    /// Sign-in name.
    name: String,
    #[command(flatten)]
    fate: Fate,
}

/// How to list.
#[derive(Args)]
pub struct ListArgs {
    /// One JSON list.
    #[arg(long)]
    json: bool,
}

/// Runs `stoa user …`.
pub fn user(file: Option<&Path>, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add_user(file, args),
        UserCommand::Passwd(args) => passwd(file, AccountKind::User, &args),
        UserCommand::List(args) => list(file, AccountKind::User, &args),
        UserCommand::Remove(args) => remove(file, AccountKind::User, &args),
        UserCommand::SignOut(args) => sign_out(file, AccountKind::User, &args.name),
        UserCommand::Disable(args) => switch(file, AccountKind::User, &args.name, true),
        UserCommand::Enable(args) => switch(file, AccountKind::User, &args.name, false),
        UserCommand::Hash(args) => hash(file, &args),
    }
}

/// Runs `stoa device …`.
pub fn device(file: Option<&Path>, command: DeviceCommand) -> Result<(), Failure> {
    match command {
        DeviceCommand::Add(args) => add_device(file, args),
        DeviceCommand::Passwd(args) => passwd(file, AccountKind::Device, &args),
        DeviceCommand::List(args) => list(file, AccountKind::Device, &args),
        DeviceCommand::Remove(args) => remove(file, AccountKind::Device, &args),
        DeviceCommand::SignOut(args) => sign_out(file, AccountKind::Device, &args.name),
        DeviceCommand::Disable(args) => switch(file, AccountKind::Device, &args.name, true),
        DeviceCommand::Enable(args) => switch(file, AccountKind::Device, &args.name, false),
    }
}

fn add_user(file: Option<&Path>, args: UserArgs) -> Result<(), Failure> {
    let mut groups = args.groups;
    if args.admin && !groups.iter().any(|group| group == ADMIN_GROUP) {
        groups.push(ADMIN_GROUP.to_owned());
    }
    let row = AccountRow {
        name: args.name,
        kind: AccountKind::User,
        groups,
        root: args.root,
        networks: args.networks,
        protocols: args.protocols,
        ..AccountRow::default()
    };
    add(file, row, &args.password, args.generate)
}

fn add_device(file: Option<&Path>, args: DeviceArgs) -> Result<(), Failure> {
    let row = AccountRow {
        name: args.name,
        kind: AccountKind::Device,
        root: args.root,
        networks: args.networks,
        protocols: args.protocols,
        folder: args.folder.unwrap_or_default(),
        ..AccountRow::default()
    };
    add(file, row, &args.password, args.generate)
}

fn add(file: Option<&Path>, row: AccountRow, password: &PasswordArgs, generate: bool) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    let (name, word) = (row.name.clone(), word(row.kind));
    with_password(password, generate, &format!("{word} {name} was made"), |password| {
        desk.wait(desk.hub.put_account(row, Some(password), true))
    })?;
    for path in desk.hub.left_by(&name) {
        tell!(
            "warning: {path} holds files of an earlier account of this name. The new account does not get them and cannot use {path} \
             until you hand it over (`stoa space remove {path} --hand-over NAME`) or delete it (`stoa space remove {path} --delete`)"
        );
    }
    Ok(())
}

/// Reads or makes up the password, does the work, and only then prints what was made up.
fn with_password(
    args: &PasswordArgs,
    generate: bool,
    done: &str,
    work: impl FnOnce(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if generate {
        let password = first::made_up()?;
        work(password.as_bytes())?;
        say!("{password}");
    } else {
        work(&args.read()?)?;
    }
    tell!("{done}");
    Ok(())
}

fn passwd(file: Option<&Path>, kind: AccountKind, args: &PasswdArgs) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    let row = find(&desk, kind, &args.name)?.row;
    let done = format!("{} {} has another password; its sessions have ended", word(kind), args.name);
    with_password(&args.password, args.generate, &done, |password| {
        desk.wait(desk.hub.put_account(row, Some(password), false))
    })
}

fn switch(file: Option<&Path>, kind: AccountKind, name: &str, disabled: bool) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    let row = AccountRow { disabled, ..find(&desk, kind, name)?.row };
    desk.wait(desk.hub.put_account(row, None, false))?;
    tell!("{} {name} {}", word(kind), if disabled { "can no longer sign in" } else { "can sign in again" });
    Ok(())
}

fn remove(file: Option<&Path>, kind: AccountKind, args: &RemoveArgs) -> Result<(), Failure> {
    let desk = args.fate.desk(file)?;
    find(&desk, kind, &args.name)?;
    args.fate.check(&desk)?;
    let left = desk.wait(desk.hub.remove_account(&args.name))?;
    tell!("{} {} was removed; its sessions have ended", word(kind), args.name);
    args.fate.decide(&desk, &left)
}

fn sign_out(file: Option<&Path>, kind: AccountKind, name: &str) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    find(&desk, kind, name)?;
    desk.wait(desk.hub.sign_out(name))?;
    tell!("{} {name} is signed out everywhere; a running daemon ends open sessions within 2 s", word(kind));
    Ok(())
}

fn find(desk: &Desk, kind: AccountKind, name: &str) -> Result<AccountView, Failure> {
    let found = desk.hub.accounts().into_iter().find(|one| one.row.kind == kind && one.row.name == name);
    found.ok_or_else(|| Failure {
        code: failure::NO_SUCH,
        words: format!("there is no {kind} `{name}`; `stoa {kind} list` shows them", kind = word(kind)),
    })
}

fn list(file: Option<&Path>, kind: AccountKind, args: &ListArgs) -> Result<(), Failure> {
    let desk = Desk::open(file)?;
    let accounts: Vec<_> = desk.hub.accounts().into_iter().filter(|one| one.row.kind == kind).collect();
    if args.json {
        let list: Vec<_> = accounts.iter().map(json).collect();
        say!("{}", serde_json::Value::from(list));
        return Ok(());
    }
    let state = |one: &AccountView| if one.row.disabled { "disabled" } else { "active" };
    let from = |one: &AccountView| if one.declared { "configuration" } else { "catalog" };
    let rows: Vec<_> = accounts
        .iter()
        .map(|one| {
            let place = if one.row.folder.is_empty() { &one.row.root } else { &one.row.folder };
            [
                plain(&one.row.name),
                state(one).to_owned(),
                from(one).to_owned(),
                listed(&one.row.groups),
                plain(place),
                listed(&one.row.networks),
                listed(&one.row.protocols),
            ]
        })
        .collect();
    table::print(["NAME", "STATE", "FROM", "GROUPS", "FOLDER", "NETWORKS", "PROTOCOLS"], &rows);
    Ok(())
}

fn json(one: &AccountView) -> serde_json::Value {
    serde_json::json!({
        "name": one.row.name,
        "disabled": one.row.disabled,
        "declared": one.declared,
        "groups": one.row.groups,
        "root": one.row.root,
        "folder": one.row.folder,
        "networks": one.row.networks,
        "protocols": one.row.protocols,
    })
}

fn hash(file: Option<&Path>, args: &PasswordArgs) -> Result<(), Failure> {
    let settings = config::load(file)?.config.login;
    say!("{}", hash_password(&args.read()?, &settings)?);
    Ok(())
}

fn word(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::Device => "device",
        AccountKind::Group => "group",
        AccountKind::User => "user",
    }
}
