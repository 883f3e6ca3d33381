//! Replays `tests/transcripts/<door>/*.txt` through the real doors, with the bytes cut at 1, 2, 3, 7 and 1000.
//!
//! ```text
//! # why this conversation matters; the rule or the story behind it
//! @ file /pub/a.txt hello\n      a file that is there before       @ folder /pub/new       @ file "/a b" x
//! @ set active = true            a key of the door's own section   @ limit errors = 3
//! @ peer 192.0.2.9:1000          where the client comes from       @ secure   @ tls
//! C: USER alice                  the client says a line (CRLF is added)
//! C> a\r\nb\x00                  the client says exactly these bytes
//! S: 331 password …              the server says a line; … stands for anything
//! S.                             the server closes
//! C.                             the client stops talking
//! D+                             connects to the port last announced by 227 or 229 (or accepts, after D@)
//! D@                             listens; {port} and {p1,p2} in later C: lines are its port
//! D> hello\n                     sends bytes on the data connection
//! D-                             ends the data connection
//! D< drwx… pub                   a line from the data connection, CRLF
//! D= hello\n                     all that comes from the data connection to its end
//! F= /pub/a.txt hello\n          what is on the disk now
//! F! /pub/b.txt                  is not there
//! F# /mail/alice/new 2           so many files are in this folder
//! F~ /mail/alice/new X-A: b\r\n   a file in this folder holds these bytes
//! F^ /mail/alice/new X-A: b\r\n   none does
//! ```
//! `STOA_TRANSCRIPT=part-of-a-name` runs only those.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stoa::net::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::world::{World, pipe};

const CUTS: [usize; 5] = [1, 2, 3, 7, 1000];
/// Replays that run side by side.
const AT_ONCE: usize = 8;
/// No single step takes this long unless something is stuck.
const STEP: Duration = Duration::from_secs(20);

#[tokio::test]
async fn ftp_transcripts_hold_at_every_cut() {
    replay("ftp").await;
}

#[tokio::test]
async fn smtp_transcripts_hold_at_every_cut() {
    replay("smtp").await;
}

#[tokio::test]
async fn pop3_transcripts_hold_at_every_cut() {
    replay("pop3").await;
}

async fn replay(door: &'static str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(door);
    let wanted = std::env::var("STOA_TRANSCRIPT").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.map(|entry| entry.expect("an entry").path()).collect())
        .unwrap_or_default();
    files.sort();
    let mut running = JoinSet::new();
    let mut wrong = Vec::new();
    for file in files.into_iter().filter(|file| file.to_string_lossy().contains(&wanted)) {
        let text: Arc<str> = std::fs::read_to_string(&file).expect("a transcript").into();
        for cut in CUTS {
            if running.len() >= AT_ONCE {
                wrong.extend(running.join_next().await.and_then(|outcome| outcome.expect("a replay")));
            }
            let (file, text) = (file.clone(), text.clone());
            running.spawn(async move {
                let outcome = Replay::run(door, &text, cut).await;
                outcome.err().map(|problem| format!("{} cut at {cut}: {problem}", file.display()))
            });
        }
    }
    wrong.extend(running.join_all().await.into_iter().flatten());
    wrong.sort();
    assert!(wrong.is_empty(), "{} transcripts fail:\n{}", wrong.len(), wrong.join("\n"));
}

struct Replay {
    world: World,
    write: Option<WriteHalf<DuplexStream>>,
    read: ReadHalf<DuplexStream>,
    heard: VecDeque<u8>,
    serving: JoinHandle<std::io::Result<()>>,
    port: u16,
    listener: Option<TcpListener>,
    data: Option<TcpStream>,
}

impl Replay {
    async fn run(door: &'static str, text: &str, cut: usize) -> Result<(), String> {
        let world = World::light().await;
        let (mut link, theirs) = pipe(door, cut);
        let (mut values, mut limits) = (toml::Table::new(), toml::Table::try_from(Limits::default()).expect("limits"));
        for line in text.lines().filter_map(|line| line.strip_prefix("@ ")) {
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            match verb {
                "file" => {
                    let (path, content) = named(rest);
                    world.put(path, &unescape(content)?);
                }
                "folder" => std::fs::create_dir_all(world.disk(rest)).map_err(|error| error.to_string())?,
                "limit" => limits.extend(table(rest)?),
                "peer" => link.origin.peer = rest.parse().map_err(|_| format!("no address: {rest}"))?,
                "secure" => link.origin.secure = true,
                "set" => values.extend(table(rest)?),
                "tls" => link.tls = Some(world.tls()),
                _ => return Err(format!("unknown setup: {line}")),
            }
        }
        link.limits = Arc::new(limits.try_into().map_err(|error| format!("{error}"))?);
        let handler = world.door(door, &values);
        let serving = tokio::spawn(async move { handler.serve(link).await });
        let (read, write) = tokio::io::split(theirs);
        let mut replay = Self {
            world,
            write: Some(write),
            read,
            heard: VecDeque::new(),
            serving,
            port: 0,
            listener: None,
            data: None,
        };
        for (number, line) in text.lines().enumerate() {
            let step = timeout(STEP, replay.step(line)).await.unwrap_or_else(|_| Err("nothing happens".into()));
            step.map_err(|problem| format!("line {}: {line}\n    {problem}", number + 1))?;
        }
        timeout(STEP, replay.end()).await.unwrap_or_else(|_| Err("the server does not end".into()))
    }

    async fn step(&mut self, line: &str) -> Result<(), String> {
        let (mark, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match mark {
            "F!" if self.world.disk(rest).exists() => Err("it is there".into()),
            "" | "# " | "#" | "@ " | "F!" => Ok(()),
            "C:" => {
                let said = self.fill(rest).into_bytes();
                self.say(&[&said[..], b"\r\n"].concat()).await
            }
            "C>" => self.say(&unescape(rest)?).await,
            "C." => {
                let mut write = self.write.take().ok_or("the client stopped talking already")?;
                write.shutdown().await.map_err(|error| error.to_string())
            }
            "S:" => self.expect(rest).await,
            "S." => match self.line().await? {
                None => Ok(()),
                Some(line) => Err(format!("still open; the server says: {line}")),
            },
            "D@" => {
                let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
                self.port = listener.local_addr().map_err(|error| error.to_string())?.port();
                self.listener = Some(listener);
                Ok(())
            }
            "D+" => self.open().await,
            "D>" => {
                let bytes = unescape(rest)?;
                self.lane()?.write_all(&bytes).await.map_err(|error| error.to_string())
            }
            "D-" => {
                let mut lane = self.data.take().ok_or("no data connection")?;
                lane.shutdown().await.map_err(|error| error.to_string())
            }
            "D<" => {
                let line = data_line(self.lane()?).await?;
                check(rest, &line)
            }
            "D=" => {
                let mut all = Vec::new();
                self.lane()?.read_to_end(&mut all).await.map_err(|error| error.to_string())?;
                self.data = None;
                let wanted = unescape(rest)?;
                if all == wanted { Ok(()) } else { Err(format!("came: {:?}", String::from_utf8_lossy(&all))) }
            }
            "F=" => {
                let (path, content) = named(rest);
                let there = std::fs::read(self.world.disk(path)).map_err(|error| error.to_string())?;
                if there == unescape(content)? {
                    return Ok(());
                }
                Err(format!("there is: {:?}", String::from_utf8_lossy(&there)))
            }
            "F#" => {
                let (path, count) = rest.rsplit_once(' ').ok_or("a folder and a number")?;
                let there = std::fs::read_dir(self.world.disk(path)).map_or(0, Iterator::count);
                if there.to_string() == count { Ok(()) } else { Err(format!("there are {there}")) }
            }
            "F~" | "F^" => {
                let (path, needle) = rest.split_once(' ').ok_or("a folder and bytes")?;
                let needle = unescape(needle)?;
                let files = std::fs::read_dir(self.world.disk(path)).map_err(|error| error.to_string())?;
                let files: Vec<_> = files.filter_map(|file| std::fs::read(file.ok()?.path()).ok()).collect();
                let found = files.iter().any(|file| file.windows(needle.len()).any(|part| part == needle));
                match found == (mark == "F~") {
                    true => Ok(()),
                    false => Err(format!("there is: {:?}", files.first().map(|file| String::from_utf8_lossy(file)))),
                }
            }
            _ => Err("unknown step".into()),
        }
    }

    fn fill(&self, text: &str) -> String {
        let [high, low] = self.port.to_be_bytes();
        text.replace("{port}", &self.port.to_string()).replace("{p1,p2}", &format!("{high},{low}"))
    }

    /// Writes while the server may have to write too: replies are collected meanwhile.
    async fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = self.write.as_mut().ok_or("the client stopped talking")?;
        let mut writing = Box::pin(write.write_all(bytes));
        let mut piece = [0; 4096];
        loop {
            tokio::select! {
                biased;
                done = &mut writing => return done.map_err(|error| format!("the server does not listen: {error}")),
                read = self.read.read(&mut piece) => match read {
                    Ok(count) if count > 0 => self.heard.extend(&piece[..count]),
                    // It will read no more; whether it should have closed, the next step says.
                    _ => return Ok(()),
                },
            }
        }
    }

    /// The server's next line; `None` when it closed.
    async fn line(&mut self) -> Result<Option<String>, String> {
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                return match line.strip_suffix("\r\n") {
                    Some(line) => Ok(Some(line.to_owned())),
                    None => Err(format!("a line without CR: {line:?}")),
                };
            }
            match self.read.read(&mut piece).await {
                Ok(count) if count > 0 => self.heard.extend(&piece[..count]),
                _ if self.heard.is_empty() => return Ok(None),
                _ => return Err(format!("closed inside a line: {:?}", self.heard)),
            }
        }
    }

    async fn expect(&mut self, wanted: &str) -> Result<(), String> {
        let line = self.line().await?.ok_or("the server closed")?;
        check(wanted, &line)?;
        let numbers = |text: &str| -> Vec<u16> {
            text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
        };
        if let Some(rest) = line.strip_prefix("229 ") {
            self.port = numbers(rest).last().copied().ok_or("no port in the 229")?;
        } else if let Some(rest) = line.strip_prefix("227 ")
            && let [.., high, low] = numbers(rest)[..]
        {
            self.port = high * 256 + low;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), String> {
        let opened = match self.listener.take() {
            Some(listener) => listener.accept().await.map(|(stream, _)| stream),
            None => TcpStream::connect(("127.0.0.1", self.port)).await,
        };
        self.data = Some(opened.map_err(|error| format!("data connection: {error}"))?);
        Ok(())
    }

    fn lane(&mut self) -> Result<&mut TcpStream, String> {
        self.data.as_mut().ok_or_else(|| "no data connection".into())
    }

    /// The client goes; the server must have nothing left to say, and end without a fault.
    async fn end(mut self) -> Result<(), String> {
        if let Some(mut write) = self.write.take() {
            let _ = write.shutdown().await;
        }
        self.data = None;
        drop(self.listener.take());
        if let Some(line) = self.line().await? {
            return Err(format!("at the end the server still says: {line}"));
        }
        drop(self.read);
        match self.serving.await {
            Ok(_) => Ok(()),
            Err(panic) => Err(format!("the server died: {panic}")),
        }
    }
}

async fn data_line(lane: &mut TcpStream) -> Result<String, String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(lane.read_u8().await.map_err(|error| format!("data connection: {error}"))?);
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| format!("a line without CR: {line:?}"))
}

/// `…` stands for anything.
pub fn check(wanted: &str, line: &str) -> Result<(), String> {
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let mut rest = line.strip_prefix(first);
    let mut parts = parts.peekable();
    let open = parts.peek().is_some();
    while let (Some(part), Some(text)) = (parts.next(), rest) {
        rest = match parts.peek() {
            Some(_) => text.find(part).map(|at| &text[at + part.len()..]),
            None => text.ends_with(part).then_some(""),
        };
    }
    match rest {
        Some("") => Ok(()),
        Some(_) if open && wanted.ends_with('…') => Ok(()),
        _ => Err(format!("the server says: {line}")),
    }
}

/// `\r \n \t \0 \\ \xNN`.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match letters.next() {
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('x') => {
                let digits: String = letters.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("no byte: \\x{digits}"))?
            }
            other => return Err(format!("unknown escape: {other:?}")),
        });
    }
    Ok(bytes)
}

/// A path, in quotes when it has blanks, and what follows it.
fn named(text: &str) -> (&str, &str) {
    match text.strip_prefix('"').and_then(|text| text.split_once('"')) {
        Some((path, rest)) => (path, rest.strip_prefix(' ').unwrap_or(rest)),
        None => text.split_once(' ').unwrap_or((text, "")),
    }
}

fn table(text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|error| format!("{error}"))
}
