//! The command line: `serve` and the commands around it.
//!
//! Each command says what went wrong, why and what to do, and ends with a code of sysexits(3). Passwords come from standard
//! input, a file or a prompt, never from the arguments, where every user of the machine could read them.

#[macro_use]
mod out;
mod accounts;
mod alias;
mod check;
mod desk;
mod failure;
mod fate;
mod groups;
mod history;
mod init;
mod mail;
mod password;
mod space;
mod table;
mod trace;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use failure::Failure;

use crate::config;
use crate::daemon;
use crate::error::Kind;

/// One store, many doors: files and mail for browsers, FTP and SMTP clients out of one tree.
#[derive(Parser)]
#[command(name = "stoa", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    place: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// The configuration file [default: /etc/stoa/stoa.toml when it is there].
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM. SIGHUP reloads the configuration, SIGUSR1 opens the log files again.
    Serve,
    /// Have the running daemon read its configuration again; says what it refused.
    Reload,
    /// Print the effective configuration with each value's origin, and try what it names.
    Check(check::CheckArgs),
    /// Make configuration, data folder, certificate and a first administrator.
    Init(init::InitArgs),
    /// People: add, passwd, list, remove, disable, enable, hash.
    #[command(subcommand)]
    User(accounts::UserCommand),
    /// Machines: add, list, remove, passwd.
    #[command(subcommand)]
    Device(accounts::DeviceCommand),
    /// Groups of users.
    #[command(subcommand)]
    Group(groups::GroupCommand),
    /// Subtrees with their own rules: add, list, remove.
    #[command(subcommand)]
    Space(space::SpaceCommand),
    /// Addresses that stand for others: set, list, remove.
    #[command(subcommand)]
    Alias(alias::AliasCommand),
    /// What became of a message, by its id or an address.
    Trace(trace::TraceArgs),
    /// Mail in and out of mailboxes: import, export.
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Compare tree, records, usage, history and mail numbering; repair what differs.
    Verify(verify::VerifyArgs),
    /// Who did what, when, by which door.
    History(history::HistoryArgs),
    /// Print the version.
    Version,
}

/// Runs the command line; the exit code is the process's.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { failure::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell!("stoa: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let file = arguments.place.config.as_deref();
    match arguments.command {
        Command::Serve => daemon::run(file).map_err(Failure::from),
        Command::Reload => reload(file),
        Command::Check(args) => check::run(file, &args),
        Command::Init(args) => init::run(file, &args),
        Command::User(command) => accounts::user(file, command),
        Command::Device(command) => accounts::device(file, command),
        Command::Group(command) => groups::run(file, &command),
        Command::Space(command) => space::run(file, command),
        Command::Alias(command) => alias::run(file, command),
        Command::Trace(args) => trace::run(file, &args),
        Command::Mail(command) => mail::run(file, command),
        Command::Verify(args) => verify::run(file, &args),
        Command::History(args) => history::run(file, &args),
        Command::Version => {
            say!("stoa {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// Waits for the daemon's own answer: what it refuses changes nothing.
fn reload(file: Option<&Path>) -> Result<(), Failure> {
    let loaded = config::load(file)?;
    daemon::reload::ask(loaded.data()).map_err(|error| match error.kind() {
        Kind::Invalid => Failure::config(error.public()),
        _ => error.into(),
    })?;
    tell!("the configuration was reloaded");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
