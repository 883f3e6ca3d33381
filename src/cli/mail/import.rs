//! `stoa mail import`: reads messages piece by piece from files of any size.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::args::ImportArgs;
use super::mbox::{Part, Reader};
use super::open::{self, TELL_EVERY};
use super::status::Status;
use crate::cli::Failure;
use crate::cli::desk::Desk;
use crate::error::Result as Outcome;
use crate::hub::Caller;
use crate::hub::mail::{About, Import, Letter};

/// Bytes of a file read at once.
const PIECE: usize = 128 << 10;
/// What a message of its own begins with never looks like this.
const MBOX: &[u8] = b"From ";

/// Files to read and the mail folder they go to.
struct Batch {
    folder: String,
    files: Vec<Source>,
}

/// One file to read.
enum Source {
    /// A message of its own, or an mbox: its beginning tells.
    File(PathBuf),
    /// A message in a Maildir, with its flags; noticed when it is in `cur`.
    Kept { path: PathBuf, noticed: bool },
    /// Standard input.
    Stdin,
}

/// How far it is.
#[derive(Default)]
struct Count {
    taken: u64,
    there: u64,
    bytes: u64,
    /// Left out: their mail program had deleted them.
    deleted: u64,
}

/// Runs it.
pub fn run(file: Option<&Path>, args: &ImportArgs) -> Result<(), Failure> {
    let batches =
        args.sources.iter().map(|path| batches(path, args.folder.as_deref())).collect::<Result<Vec<_>, _>>()?;
    let (desk, caller) = open::open(file, &args.user)?;
    let mut work = Work { desk: &desk, count: Count::default() };
    for batch in batches.into_iter().flatten() {
        if let Err(failure) = work.take(&caller, batch) {
            // What went in stays in.
            desk.wait(desk.hub.settle_all())?;
            let words =
                format!("{}\nwhat was before it is in the mailbox; run this again when it is mended", failure.words);
            return Err(Failure { words, ..failure });
        }
    }
    desk.wait(desk.hub.settle_all())?;
    let Count { taken, there, bytes, deleted } = work.count;
    let left_out = if deleted == 0 { String::new() } else { format!(", {deleted} left out that were deleted") };
    say!("{taken} messages taken ({}), {there} there already{left_out}", crate::units::ByteSize(bytes));
    Ok(())
}

/// What a path on the command line stands for.
fn batches(path: &Path, folder: Option<&str>) -> Result<Vec<Batch>, Failure> {
    let into = |folder: Option<&str>| folder.unwrap_or_default().to_owned();
    if path == Path::new("-") {
        return Ok(vec![Batch { folder: into(folder), files: vec![Source::Stdin] }]);
    }
    let kind = std::fs::metadata(path).map_err(|error| Failure::io(path.display(), &error))?;
    if kind.is_file() {
        return Ok(vec![Batch { folder: into(folder), files: vec![Source::File(path.to_owned())] }]);
    }
    if !is_maildir(path) {
        let files = listed(path)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "eml"));
        let files: Vec<Source> = files.map(Source::File).collect();
        if files.is_empty() {
            return Err(Failure::usage(format!("{}: neither a Maildir nor a folder of .eml files", path.display())));
        }
        return Ok(vec![Batch { folder: into(folder), files }]);
    }
    let mut found = vec![Batch { folder: into(folder), files: kept(path)? }];
    for sub in listed(path)?.into_iter().filter(|sub| is_maildir(sub)) {
        let name = sub.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            found.push(Batch { folder: folder.map_or(name, str::to_owned), files: kept(&sub)? });
        }
    }
    Ok(found)
}

fn is_maildir(path: &Path) -> bool {
    path.join("cur").is_dir() && path.join("new").is_dir()
}

/// What is in a folder, by name.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::io(folder.display(), &error);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn kept(maildir: &Path) -> Result<Vec<Source>, Failure> {
    let mut files = Vec::new();
    for (part, noticed) in [("cur", true), ("new", false)] {
        let paths = listed(&maildir.join(part))?.into_iter().filter(|path| path.is_file());
        files.extend(paths.map(|path| Source::Kept { path, noticed }));
    }
    Ok(files)
}

struct Work<'a> {
    desk: &'a Desk,
    count: Count,
}

impl Work<'_> {
    fn take(&mut self, caller: &Caller, batch: Batch) -> Result<(), Failure> {
        let mut import = self.desk.wait(Import::begin(caller, &batch.folder))?;
        for source in batch.files {
            match source {
                Source::Stdin => self.read(&mut import, Path::new("-"), std::io::stdin().lock(), &About::default())?,
                Source::File(path) => {
                    let about = About { arrived: modified(&path), ..About::default() };
                    self.read(&mut import, &path, open(&path)?, &about)?;
                }
                Source::Kept { path, noticed } => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let flags = name.split_once(":2,").map(|(_, flags)| flags.to_owned()).unwrap_or_default();
                    let about = About { flags, noticed, arrived: modified(&path), ..About::default() };
                    self.message(&mut import, &path, open(&path)?, &about)?;
                }
            }
        }
        self.desk.wait(import.commit())
    }

    /// A file that is a message or an mbox.
    fn read(
        &mut self,
        import: &mut Import,
        path: &Path,
        mut input: impl BufRead,
        about: &About,
    ) -> Result<(), Failure> {
        let beginning = input.fill_buf().map_err(|error| Failure::io(path.display(), &error))?;
        match beginning.starts_with(MBOX) {
            // A mailbox with nothing in it, as an mbox is.
            _ if beginning.is_empty() => Ok(()),
            true => self.mbox(import, path, input),
            false => self.message(import, path, input, about),
        }
    }

    fn message(
        &mut self,
        import: &mut Import,
        path: &Path,
        mut input: impl Read,
        about: &About,
    ) -> Result<(), Failure> {
        let mut letter = import.letter();
        let mut buffer = vec![0; PIECE];
        let mut bytes = 0;
        loop {
            let read = input.read(&mut buffer).map_err(|error| Failure::io(path.display(), &error))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            let piece = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
            let pushed = self.desk.wait(self.pushed(import, &mut letter, piece));
            pushed.map_err(|failure| at(&failure, &format!("{} at byte {bytes}", path.display())))?;
        }
        let from = format!("from {}", path.display());
        self.add(import, letter, &About { from, ..about.clone() }, bytes)
    }

    fn mbox(&mut self, import: &mut Import, path: &Path, input: impl BufRead) -> Result<(), Failure> {
        let mut reader = Reader::new(input);
        let mut open: Option<(Letter, About)> = None;
        let mut status = Status::default();
        let (mut number, mut begun, mut bytes) = (0_u64, 0, 0_u64);
        loop {
            let place = || format!("{}: message {number}, at byte {begun}", path.display());
            let part = reader.next().map_err(|error| Failure::io(place(), &error))?;
            match part {
                None => return Ok(()),
                Some(Part::Begin { offset, arrived }) => {
                    (number, begun, bytes) = (number + 1, offset, 0);
                    let arrived = arrived.map(|seconds| seconds.saturating_mul(1_000_000));
                    let from = format!("from {} message {number} at byte {offset}", path.display());
                    open = Some((import.letter(), About { arrived, from, ..About::default() }));
                    status = Status::default();
                }
                Some(Part::Text(text)) => {
                    bytes += text.len() as u64;
                    status.push(&text);
                    if let Some((letter, _)) = &mut open {
                        let pushed = self.desk.wait(self.pushed(import, letter, text.into()));
                        pushed.map_err(|failure| at(&failure, &place()))?;
                    }
                }
                Some(Part::End) => {
                    let Some((letter, about)) = open.take() else { continue };
                    if let Some((flags, noticed)) = status.read() {
                        self.add(import, letter, &About { flags, noticed, ..about }, bytes)?;
                    } else {
                        self.desk.wait(self.abandoned(import, letter))?;
                        self.count.deleted += 1;
                    }
                }
            }
        }
    }

    async fn pushed(&self, import: &Import, letter: &mut Letter, piece: Bytes) -> Outcome<()> {
        import.push(letter, piece).await
    }

    async fn abandoned(&self, import: &Import, letter: Letter) -> Outcome<()> {
        import.abandon(letter).await;
        Ok(())
    }

    fn add(&mut self, import: &mut Import, letter: Letter, about: &About, bytes: u64) -> Result<(), Failure> {
        match self.desk.wait(import.add(letter, about))? {
            true => {
                self.count.taken += 1;
                self.count.bytes += bytes;
            }
            false => self.count.there += 1,
        }
        let Count { taken, there, bytes, .. } = self.count;
        if (taken + there).is_multiple_of(TELL_EVERY) {
            // What was said is on the disk.
            self.desk.wait(import.commit())?;
            self.desk.wait(self.desk.hub.settle_all())?;
            tell!("{taken} messages taken ({}), {there} there already …", crate::units::ByteSize(bytes));
        }
        Ok(())
    }
}

/// The same failure, and where it happened.
fn at(failure: &Failure, place: &str) -> Failure {
    Failure { words: format!("{place}: {}", failure.words), code: failure.code }
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    let file = File::open(path).map_err(|error| Failure::io(path.display(), &error))?;
    Ok(BufReader::with_capacity(PIECE, file))
}

fn modified(path: &Path) -> Option<i64> {
    let time = std::fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}
