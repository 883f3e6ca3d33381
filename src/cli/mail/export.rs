//! `stoa mail export`: writes a mailbox out, message by message; what is there already is not written again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::args::{ExportArgs, Format};
use super::mbox::Writer;
use super::open::{TELL_EVERY, open};
use crate::cli::Failure;
use crate::cli::desk::Desk;
use crate::hub::mail::{Mailbox, Message};
use crate::hub::{Caller, Download};

/// Bytes of a message read at once.
const PIECE: usize = 256 << 10;
/// Bytes in which the sender is looked for.
const HEAD: usize = 4096;

/// Runs it.
pub fn run(file: Option<&Path>, args: &ExportArgs) -> Result<(), Failure> {
    let (desk, caller) = open(file, &args.user)?;
    let mut work = Work { desk: &desk, written: 0, there: 0 };
    let folder = args.folder.clone().unwrap_or_default();
    match args.format {
        Format::Mbox => work.mbox(&caller, &folder, &args.target)?,
        Format::Eml => work.folder(&caller, &folder, &args.target, Format::Eml)?,
        Format::Maildir if args.folder.is_some() => work.folder(&caller, &folder, &args.target, Format::Maildir)?,
        Format::Maildir => {
            for name in desk.wait(caller.mail_folders())? {
                work.folder(&caller, &name, &args.target.join(&name), Format::Maildir)?;
            }
        }
    }
    tell!("{} messages written, {} there already", work.written, work.there);
    Ok(())
}

struct Work<'a> {
    desk: &'a Desk,
    written: u64,
    there: u64,
}

impl Work<'_> {
    fn mbox(&mut self, caller: &Caller, folder: &str, target: &Path) -> Result<(), Failure> {
        let mut mailbox = self.desk.wait(caller.open_mailbox(folder))?;
        if target == Path::new("-") {
            return self.messages_to(&mut mailbox, target, std::io::stdout().lock()).map(drop);
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
        let made = made.map_err(|error| Failure::cannot_create(format!("{}: {error}", target.display())))?;
        let file = self.messages_to(&mut mailbox, target, made)?;
        file.sync_all().map_err(|error| Failure::io(target.display(), &error))
    }

    fn messages_to<W: Write>(&mut self, mailbox: &mut Mailbox, target: &Path, output: W) -> Result<W, Failure> {
        let failed = |error: std::io::Error| Failure::io(target.display(), &error);
        let mut writer = Writer::new(BufWriter::new(output));
        for message in mailbox.messages().to_vec() {
            let download = self.desk.wait(mailbox.open(message.uid)).map_err(|failure| about(&failure, &message))?;
            let head = self.piece(&download, 0, HEAD)?;
            writer.begin(sender(&head), message.arrived / 1_000_000).map_err(failed)?;
            self.pieces(&download, |piece| writer.text(piece).map_err(failed))?;
            writer.end().map_err(failed)?;
            self.note(true);
        }
        writer.into_inner().into_inner().map_err(|error| failed(error.into_error()))
    }

    /// One file a message.
    fn folder(&mut self, caller: &Caller, folder: &str, target: &Path, format: Format) -> Result<(), Failure> {
        let mut mailbox = self.desk.wait(caller.open_mailbox(folder))?;
        make(target)?;
        for part in ["cur", "new", "tmp"].iter().filter(|_| format == Format::Maildir) {
            make(&target.join(part))?;
        }
        for message in mailbox.messages().to_vec() {
            let name = match format {
                Format::Maildir => PathBuf::from(message.place()),
                Format::Eml | Format::Mbox => {
                    let unique: String = message.unique().chars().take(12).collect();
                    PathBuf::from(format!("{:06}-{unique}.eml", message.uid))
                }
            };
            let path = target.join(name);
            let there = std::fs::metadata(&path).is_ok_and(|there| there.len() == message.size);
            if !there {
                let download =
                    self.desk.wait(mailbox.open(message.uid)).map_err(|failure| about(&failure, &message))?;
                self.write(&download, &path, message.arrived)?;
            }
            self.note(!there);
        }
        Ok(())
    }

    /// Written aside and renamed: a file that is there is whole.
    fn write(&self, download: &Download, path: &Path, arrived: i64) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io(path.display(), &error);
        let aside = path.with_extension("part");
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside);
        let mut file = made.map_err(|error| Failure::cannot_create(format!("{}: {error}", aside.display())))?;
        self.pieces(download, |piece| file.write_all(piece).map_err(failed))?;
        set_time(&file, arrived);
        file.sync_all().and_then(|()| std::fs::rename(&aside, path)).map_err(failed)
    }

    fn pieces(&self, download: &Download, mut take: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let (mut at, size) = (0, download.node().size);
        while at < size {
            let piece = self.piece(download, at, PIECE)?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            take(&piece)?;
        }
        Ok(())
    }

    fn piece(&self, download: &Download, at: u64, len: usize) -> Result<bytes::Bytes, Failure> {
        self.desk.wait(download.read_at(at, len))
    }

    fn note(&mut self, written: bool) {
        match written {
            true => self.written += 1,
            false => self.there += 1,
        }
        if (self.written + self.there).is_multiple_of(TELL_EVERY) {
            tell!("{} messages written, {} there already …", self.written, self.there);
        }
    }
}

fn make(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Failure::cannot_create(format!("{}: {error}", folder.display())))
}

fn about(failure: &Failure, message: &Message) -> Failure {
    Failure {
        words: format!("message {} (UID {}): {}", message.unique(), message.uid, failure.words),
        code: failure.code,
    }
}

/// The envelope's sender, from the line our own delivery put first.
fn sender(head: &[u8]) -> &str {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = std::str::from_utf8(line).unwrap_or_default().trim_end();
    let path = text.strip_prefix("Return-Path: <").and_then(|rest| rest.strip_suffix('>'));
    path.filter(|path| !path.contains(' ')).unwrap_or_default()
}

/// When it came is when its file was changed; a file system that cannot keep that loses nothing else.
fn set_time(file: &File, arrived: i64) {
    let since = std::time::Duration::from_micros(u64::try_from(arrived).unwrap_or_default());
    let _ = file.set_modified(std::time::UNIX_EPOCH + since);
}
