//! What `stoa mail import` and `stoa mail export` are told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What to import.
#[derive(Args)]
pub struct ImportArgs {
    /// Whose mailbox.
    pub(super) user: String,
    /// mbox files, Maildirs, folders of .eml files, .eml files; `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    pub(super) sources: Vec<PathBuf>,
    /// Into this folder, written as Maildir++ does (.Archive, .Lists.rust) [default: the inbox; of a Maildir each folder into its own].
    #[arg(long, value_name = "FOLDER")]
    pub(super) folder: Option<String>,
}

/// What to export.
#[derive(Args)]
pub struct ExportArgs {
    /// Whose mailbox.
    pub(super) user: String,
    /// A new file for mbox (`-`: standard output), a folder for the others.
    pub(super) target: PathBuf,
    /// How it is written.
    #[arg(long = "as", value_enum, default_value_t = Format::Mbox, value_name = "FORMAT")]
    pub(super) format: Format,
    /// This folder of it [default: the inbox; as Maildir all folders].
    #[arg(long, value_name = "FOLDER")]
    pub(super) folder: Option<String>,
}

/// How messages are kept outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One file a message, as it was received.
    Eml,
    /// A Maildir, with flags.
    Maildir,
    /// One file for all (mboxrd).
    Mbox,
}
