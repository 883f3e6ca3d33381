//! `stoa mail …`: mail from elsewhere into mailboxes, and out of them, as mbox, Maildir or single files.
//!
//! Works beside a running daemon. A command that broke off is done again: nothing arrives twice.

mod export;
mod import;
mod mbox;
mod status;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::desk::Desk;
use crate::hub::Caller;
use crate::origin::Origin;

/// Messages between two lines that say how far a command is.
const TELL_EVERY: u64 = 1000;

/// Mail in and out.
#[derive(Subcommand)]
pub enum MailCommand {
    /// Put messages from an mbox file, a Maildir or .eml files into a user's mailbox.
    Import(ImportArgs),
    /// Write a user's mailbox to an mbox file, a Maildir or .eml files.
    Export(ExportArgs),
}

/// What to import.
#[derive(Args)]
pub struct ImportArgs {
    /// Whose mailbox.
    user: String,
    /// mbox files, Maildirs, folders of .eml files, .eml files; `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    sources: Vec<PathBuf>,
    /// Into this folder, written as Maildir++ does (.Archive, .Lists.rust) [default: the inbox; of a Maildir each folder into its own].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<String>,
}

/// What to export.
#[derive(Args)]
pub struct ExportArgs {
    /// Whose mailbox.
    user: String,
    /// A new file for mbox (`-`: standard output), a folder for the others.
    target: PathBuf,
    /// How it is written.
    #[arg(long = "as", value_enum, default_value_t = Format::Mbox, value_name = "FORMAT")]
    format: Format,
    /// This folder of it [default: the inbox; as Maildir all folders].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<String>,
}

/// How messages are kept outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One file a message, as it was received.
    Eml,
    /// A Maildir, with flags.
    Maildir,
    /// One file for all (mboxrd).
    Mbox,
}

/// Runs `stoa mail …`.
pub fn run(file: Option<&Path>, command: MailCommand) -> Result<(), Failure> {
    match command {
        MailCommand::Import(args) => import::run(file, &args),
        MailCommand::Export(args) => export::run(file, &args),
    }
}

/// The hub with its files, and the caller whose mailbox it is.
fn open(file: Option<&Path>, user: &str) -> Result<(Desk, Caller), Failure> {
    let desk = Desk::with_files(file)?;
    let caller = desk.hub.on_behalf(user, Origin::inside("cli"))?;
    Ok((desk, caller))
}
