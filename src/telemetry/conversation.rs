//! Conversations that failed: what was said, and why it went wrong in plain words, kept for whoever looks after the machine at the
//! other end.
//!
//! One small file for each peer below `data/conversations`, the newest last. Everything is bounded: files, their size, and how often
//! one is written; a flood of failures costs a few lines, not a disk.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::origin::Origin;

/// Peers remembered; the one that failed longest ago makes room.
const MOST_PEERS: usize = 256;
/// Bytes kept for one peer.
const LARGEST_FILE: usize = 32 << 10;
/// Conversations that wait to be written; more are forgotten.
const WAITING: usize = 64;
/// Bytes of one conversation, from its end.
const LARGEST_RECORD: usize = 4 << 10;
/// Bytes of one line.
const LONGEST_LINE: usize = 200;
/// Begins each conversation in a file; no recorded line can.
const BEGINS: &str = "== ";
/// The folder below `data`.
const FOLDER: &str = "conversations";

static BOOK: OnceLock<SyncSender<Failed>> = OnceLock::new();

/// What goes into the book.
struct Failed {
    address: IpAddr,
    text: String,
}

/// What was said so far, from the end backwards; secrets are left out by whoever calls. Cheap: most conversations go well, and then
/// nobody ever reads it.
#[derive(Default)]
pub struct Record {
    began: Option<Instant>,
    /// Milliseconds since the beginning, when the peer was last heard.
    at: u32,
    /// Of each line: who spoke, when, how many bytes, the bytes.
    lines: Vec<u8>,
}

/// Bytes in front of each line in a record.
const MARK: usize = 6;
/// Who spoke; the second one said more than is shown.
const PEER: u8 = b'C';
const PEER_HIDDEN: u8 = b'*';
const SERVER: u8 = b'S';

impl Record {
    /// The peer said this at this moment; `hidden`: and more that nobody may read.
    pub fn heard(&mut self, line: &[u8], hidden: bool, now: Instant) {
        let began = *self.began.get_or_insert(now);
        self.at = u32::try_from(now.saturating_duration_since(began).as_millis()).unwrap_or(u32::MAX);
        self.line(if hidden { PEER_HIDDEN } else { PEER }, line);
    }

    /// We said this, one line or several.
    pub fn said(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.line(SERVER, line.strip_suffix(b"\r").unwrap_or(line));
        }
    }

    fn line(&mut self, who: u8, line: &[u8]) {
        let line = line.get(..line.len().min(LONGEST_LINE)).unwrap_or_default();
        if self.lines.len() + MARK + line.len() > LARGEST_RECORD {
            self.forget_half();
        }
        self.lines.push(who);
        self.lines.extend_from_slice(&self.at.to_be_bytes());
        self.lines.push(u8::try_from(line.len()).unwrap_or(u8::MAX));
        self.lines.extend_from_slice(line);
    }

    /// A conversation that says much is only remembered from its end.
    fn forget_half(&mut self) {
        let mut rest = self.lines.as_slice();
        while rest.len() > LARGEST_RECORD / 2 {
            let Some((_, _, after)) = next(rest) else { break };
            rest = after;
        }
        let kept = rest.len();
        self.lines.drain(..self.lines.len() - kept);
    }

    fn text(&self) -> String {
        let (mut text, mut rest) = (String::new(), self.lines.as_slice());
        while let Some(((who, millis), line, after)) = next(rest) {
            let (speaker, more) = match who {
                PEER => ("C:", ""),
                PEER_HIDDEN => ("C:", "***"),
                _ => ("S:", ""),
            };
            let (seconds, millis) = (millis / 1000, millis % 1000);
            let _ = writeln!(text, "  {seconds:>5}.{millis:03} {speaker} {}{more}", line.escape_ascii());
            rest = after;
        }
        text
    }

    /// Puts the conversation into the book.
    pub fn file(&self, origin: &Origin, account: &str, why: &str) {
        let Some(book) = BOOK.get() else { return };
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
        let account = if account.is_empty() { "-" } else { account };
        let why: String = why.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let text = format!(
            "{BEGINS}{now} {} from {} account {}\n{why}\n{}",
            origin.listener,
            origin.peer,
            account.escape_default(),
            self.text()
        );
        let _ = book.try_send(Failed { address: origin.peer.ip(), text });
    }
}

/// Who spoke and when, what, and all that follows.
type Line<'a> = ((u8, u32), &'a [u8], &'a [u8]);

fn next(lines: &[u8]) -> Option<Line<'_>> {
    let (&who, rest) = lines.split_first()?;
    let (at, rest) = rest.split_first_chunk::<4>()?;
    let (&length, rest) = rest.split_first()?;
    let (line, rest) = rest.split_at_checked(usize::from(length))?;
    Some(((who, u32::from_be_bytes(*at)), line, rest))
}

/// Keeps the book in this data folder from now on.
///
/// # Errors
/// The folder cannot be made, or no thread.
pub fn keep(data: &Path) -> io::Result<()> {
    let folder = data.join(FOLDER);
    // They hold what strangers and accounts said: nobody else of this machine reads them.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
    let (sender, receiver) = sync_channel(WAITING);
    if BOOK.set(sender).is_ok() {
        std::thread::Builder::new().name("conversations".into()).spawn(move || write_all(&folder, &receiver))?;
    }
    Ok(())
}

fn write_all(folder: &Path, receiver: &Receiver<Failed>) {
    /// Between two writes; what fails meanwhile waits or is forgotten.
    const PAUSE: Duration = Duration::from_millis(100);
    while let Ok(failed) = receiver.recv() {
        if let Err(error) = write(folder, &failed) {
            tracing::warn!("a failed conversation could not be noted below {}: {error}", folder.display());
        }
        std::thread::sleep(PAUSE);
    }
}

fn write(folder: &Path, failed: &Failed) -> io::Result<()> {
    let file = folder.join(file_name(failed.address));
    let mut text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_room(folder)?;
            String::new()
        }
        Err(error) => return Err(error),
    };
    text.push_str(&failed.text);
    while text.len() > LARGEST_FILE {
        let Some(next) = text.get(1..).and_then(|rest| rest.find(&format!("\n{BEGINS}"))) else { break };
        text.drain(..next + 2);
    }
    let aside = folder.join(".new");
    std::fs::write(&aside, text)?;
    std::fs::rename(aside, file)
}

/// The peers that failed longest ago go.
fn make_room(folder: &Path) -> io::Result<()> {
    let mut files = files(folder)?;
    while files.len() >= MOST_PEERS {
        let (_, oldest) = files.remove(0);
        std::fs::remove_file(oldest)?;
    }
    Ok(())
}

/// All of them, the oldest first.
fn files(folder: &Path) -> io::Result<Vec<(std::time::SystemTime, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "txt") {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

fn file_name(address: IpAddr) -> String {
    format!("{}.txt", address.to_canonical().to_string().replace(':', "-"))
}

/// The conversations of an address, or of an account from anywhere, the newest last; with an empty name, everybody's.
///
/// # Errors
/// What the disk says; a folder that is not there is empty.
pub fn read(data: &Path, who: &str) -> io::Result<Vec<String>> {
    let files = match files(&data.join(FOLDER)) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let only = who.parse().ok().map(file_name);
    let mut found = Vec::new();
    for (_, file) in files {
        if only.as_ref().is_some_and(|only| !file.ends_with(only)) {
            continue;
        }
        let text = std::fs::read_to_string(file)?;
        let account = format!(" account {}", who.escape_default());
        let wanted = |entry: &&str| {
            only.is_some() || who.is_empty() || entry.lines().next().is_some_and(|line| line.ends_with(&account))
        };
        found.extend(entries(&text).filter(wanted).map(|entry| entry.trim_end().to_owned()));
    }
    Ok(found)
}

/// The conversations of one file.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.get(1..)?.find(&format!("\n{BEGINS}")).map_or(rest.len(), |at| at + 2);
        let (entry, after) = rest.split_at(end);
        rest = after;
        Some(entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(address: &str, account: &str, number: usize) -> Failed {
        let text = format!(
            "{BEGINS}2026 smtp@x from {address}:1 account {account}\nit failed {number}\n      0.000 C: EHLO\n"
        );
        Failed { address: address.parse().unwrap(), text }
    }

    #[test]
    fn the_newest_of_a_peer_are_kept_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join(FOLDER);
        std::fs::create_dir(&inside).unwrap();
        for number in 0..1000 {
            write(&inside, &failed("2001:db8::1", "copier", number)).unwrap();
        }
        write(&inside, &failed("192.0.2.1", "-", 7)).unwrap();
        let all = read(folder.path(), "2001:db8::1").unwrap();
        assert!(all.len() > 100 && all.iter().map(String::len).sum::<usize>() <= LARGEST_FILE);
        assert!(all[0].starts_with(BEGINS) && all.last().unwrap().contains("it failed 999\n"));
        assert_eq!(read(folder.path(), "copier").unwrap().len(), all.len());
        assert_eq!(read(folder.path(), "cop").unwrap().len(), 0);
        assert_eq!(read(folder.path(), "").unwrap().len(), all.len() + 1);
        assert_eq!(read(folder.path(), "192.0.2.1").unwrap().len(), 1);
    }

    #[test]
    fn peers_make_room_for_others() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MOST_PEERS + 10 {
            write(folder.path(), &failed(&format!("10.0.{}.{}", number / 256, number % 256), "-", number)).unwrap();
        }
        assert_eq!(files(folder.path()).unwrap().len(), MOST_PEERS);
    }

    #[test]
    fn a_record_is_bounded_and_no_line_of_it_can_begin_another() {
        let (mut record, now) = (Record::default(), Instant::now());
        for _ in 0..1000 {
            record.heard(b"== forged\r\n== more", false, now);
            record.said(b"250-a\r\n250 b\r\n");
        }
        record.heard(b"AUTH PLAIN ", true, now + Duration::from_millis(1234));
        record.heard(&[b'x'; 5000], false, now);
        assert!(record.lines.len() <= LARGEST_RECORD);
        let text = record.text();
        assert!(text.lines().all(|line| line.starts_with("  ")), "{text}");
        assert!(text.contains("      1.234 C: AUTH PLAIN ***\n"), "{text}");
    }
}
