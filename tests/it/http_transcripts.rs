//! Replays `tests/transcripts/http/*.txt` through the real door: the bytes cut at 1, 2, 3, 7 and 1000, with and without the fast path;
//! and each case parted in two at every place.
//!
//! ```text
//! # why this matters; the rule or the story behind it
//! @ file /pub/a.txt hello\n         a file that is there before
//! @ folder /pub/d                   a folder
//! @ set cache = 0                   a key of the door's own section
//! @ limit stall = "1s"
//!
//! = the name of a case, on a connection of its own
//! C: GET /pub/a.txt HTTP/1.1        the client says a line (CRLF is added)
//! C> 5\r\nhello                     the client says exactly these bytes; {x*900} is x 900 times, in both
//! C.                                the client stops talking
//! S 206                             the next response has this status
//! S 200 head                        the same, to HEAD: no body follows whatever it says
//! H content-range: bytes 0-…        it has this header; … stands for anything
//! H! etag                           it has no such header
//! B hello\n                         its body is exactly this
//! B~ hel                            its body holds this
//! S.                                the server closes; without it, the connection must have been good for another request
//! F /pub/b.txt hello\n              what is on the disk now
//! F! /pub/b.txt                     is not there
//! ```
//! `{alice}` is her Authorization header, `{etag}` and `{modified}` are those of the connection's last response that had them, `{boundary}`
//! that of its last multipart body. Of every response it is checked that it is well-formed, dated, hardened and framed in one way only.
//! `STOA_TRANSCRIPT=part-of-a-name` runs only those files.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stoa::net::{Handler, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::transcripts::{check, unescape};
use crate::world::{World, pipe};

/// Bytes at once, and whether what may be kept is asked for beforehand.
const WAYS: [(usize, bool); 6] = [(1, false), (2, false), (3, false), (7, false), (1000, false), (1000, true)];
/// Replays that run side by side.
const AT_ONCE: usize = 8;
/// No single step takes this long unless something is stuck.
const STEP: Duration = Duration::from_secs(20);
/// `alice:wonder`
const ALICE: &str = "Authorization: Basic YWxpY2U6d29uZGVy";
/// An acceptance of the project: the cases are at least so many.
const CASES: usize = 150;
/// What a client says up to here is parted at every byte; what is longer at every byte of its beginning and end, and here and there between.
const EVERY: usize = 400;
/// The pipe when the parting alone decides what is read at once.
const WIDE: usize = 256 << 10;
/// Turns that others get to read the first part.
const TURNS: usize = 16;

#[tokio::test]
async fn http_transcripts_hold_at_every_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/http");
    let wanted = std::env::var("STOA_TRANSCRIPT").unwrap_or_default();
    let entries = std::fs::read_dir(&folder).expect("the transcripts");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let (mut running, mut wrong, mut cases) = (JoinSet::new(), Vec::new(), 0);
    for file in files.into_iter().filter(|file| file.to_string_lossy().contains(&wanted)) {
        let text: Arc<str> = std::fs::read_to_string(&file).expect("a transcript").into();
        cases += text.lines().filter(|line| line.starts_with("= ")).count();
        for (cut, lane) in WAYS {
            if running.len() >= AT_ONCE {
                wrong.extend(running.join_next().await.expect("a replay").expect("no panic"));
            }
            let (name, text) = (file.file_name().unwrap_or_default().to_string_lossy().into_owned(), text.clone());
            running.spawn(async move {
                let problems = replay(&text, cut, lane).await;
                problems.into_iter().map(|problem| format!("{name} cut at {cut}: {problem}")).collect::<Vec<_>>()
            });
        }
    }
    wrong.extend(running.join_all().await.into_iter().flatten());
    wrong.sort();
    wrong.dedup();
    let shown = wrong.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} cases fail:\n{shown}", wrong.len());
    assert!(cases >= CASES || !wanted.is_empty(), "only {cases} cases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_transcripts_hold_wherever_they_are_parted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/http");
    let wanted = std::env::var("STOA_TRANSCRIPT").unwrap_or_default();
    let files = std::fs::read_dir(&folder).expect("the transcripts").map(|entry| entry.expect("an entry").path());
    let (mut running, mut wrong, mut partings) = (JoinSet::new(), Vec::new(), 0);
    for file in files.filter(|file| file.to_string_lossy().contains(&wanted)) {
        running.spawn(async move {
            let text = std::fs::read_to_string(&file).expect("a transcript");
            let (count, problems) = part(&text).await;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (count, problems.into_iter().map(|problem| format!("{name}: {problem}")).collect::<Vec<_>>())
        });
    }
    for (count, problems) in running.join_all().await {
        partings += count;
        wrong.extend(problems);
    }
    wrong.sort();
    let shown = wrong.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {partings} partings fail:\n{shown}", wrong.len());
    assert!(partings > 50 * CASES || !wanted.is_empty(), "only {partings} partings");
}

type Case<'a> = (String, Vec<(usize, &'a str)>);

/// One file in a world: its door, and its cases.
struct Stage<'a> {
    world: World,
    handler: Arc<dyn Handler>,
    limits: Arc<Limits>,
    kept: Vec<String>,
    cases: Vec<Case<'a>>,
    problems: Vec<String>,
}

impl<'a> Stage<'a> {
    async fn new(text: &'a str) -> Self {
        let world = World::light().await;
        let (mut values, mut limits) = (toml::Table::new(), toml::Table::try_from(Limits::default()).expect("limits"));
        let (mut kept, mut problems) = (Vec::new(), Vec::new());
        let mut case: Option<Case<'_>> = None;
        let mut cases = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = line.strip_prefix("= ") {
                cases.extend(case.replace((name.to_owned(), Vec::new())));
            } else if let Some((_, steps)) = &mut case {
                steps.push((number + 1, line));
            } else if let Err(problem) = prepare(&world, line, &mut values, &mut limits, &mut kept) {
                problems.push(format!("line {}: {problem}", number + 1));
            }
        }
        cases.extend(case);
        let limits: Arc<Limits> = Arc::new(limits.try_into().expect("limits"));
        let handler = world.door("http", &values);
        Self { world, handler, limits, kept, cases, problems }
    }

    /// Plays one case; bytes its client said, or what is wrong.
    async fn play(&mut self, steps: &[(usize, &str)], cut: usize, parting: usize) -> Result<usize, String> {
        let Self { world, handler, limits, kept, .. } = self;
        let outcome = timeout(4 * STEP, converse(world, handler, limits, cut, parting, steps, kept)).await;
        outcome.unwrap_or_else(|_| Err("it does not end".into()))
    }
}

/// One file: all its cases in one world. What is wrong with each.
async fn replay(text: &str, cut: usize, lane: bool) -> Vec<String> {
    let mut stage = Stage::new(text).await;
    for (name, steps) in std::mem::take(&mut stage.cases) {
        if lane {
            for path in &stage.kept {
                warm(&stage.handler, path).await;
            }
        }
        if let Err(problem) = stage.play(&steps, cut, usize::MAX).await {
            stage.problems.push(format!("{}{name}\n    {problem}", if lane { "(lane) " } else { "" }));
        }
    }
    stage.problems
}

/// One file: its cases one after the other, all parted at their first byte, then all at their second, and so on; what is on the disk is each
/// time as the file says. Partings, and what is wrong with the first that fails.
async fn part(text: &str) -> (usize, Vec<String>) {
    let mut stage = Stage::new(text).await;
    let cases = std::mem::take(&mut stage.cases);
    let mut lengths = Vec::new();
    for (name, steps) in &cases {
        let length = stage.play(steps, WIDE, 0).await;
        lengths.push(length.unwrap_or_else(|problem| panic!("{name}: {problem}")));
    }
    let all: BTreeSet<usize> = lengths.iter().flat_map(|length| places(*length)).collect();
    let mut count = 0;
    for parting in all {
        afresh(&stage.world, text);
        // A case may need what those before it left on the disk, so all of them are played.
        for ((name, steps), length) in cases.iter().zip(&lengths) {
            count += usize::from(parting < *length);
            if let Err(problem) = stage.play(steps, WIDE, parting).await {
                stage.problems.push(format!("{name}, parted at {parting}\n    {problem}"));
            }
        }
        if !stage.problems.is_empty() {
            break;
        }
    }
    (count, stage.problems)
}

/// Where something of this length is parted.
fn places(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 16).max(1);
    (1..length).filter(move |at| length <= EVERY || *at <= EVERY / 2 || length - at <= EVERY / 4 || at % step == 0)
}

/// Everything as it was at the beginning of a file.
fn afresh(world: &World, text: &str) {
    for space in ["/pub", "/scans", "/vault", "/inbox", "/small", "/once", "/both"] {
        for entry in std::fs::read_dir(world.disk(space)).into_iter().flatten().flatten() {
            let path = entry.path();
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.expect("removed");
        }
    }
    let (mut values, mut limits) = (toml::Table::new(), toml::Table::new());
    for line in text.lines().take_while(|line| !line.starts_with("= ")) {
        prepare(world, line, &mut values, &mut limits, &mut Vec::new()).expect("prepared");
    }
}

/// Lines before the first case, and files of a case.
fn prepare(
    world: &World,
    line: &str,
    values: &mut toml::Table,
    limits: &mut toml::Table,
    kept: &mut Vec<String>,
) -> Result<(), String> {
    let Some(line) = line.strip_prefix("@ ") else {
        return if line.is_empty() || line.starts_with('#') { Ok(()) } else { Err(format!("unknown: {line}")) };
    };
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let table = |text: &str| text.parse::<toml::Table>().map_err(|error| error.to_string());
    match verb {
        "file" => {
            let (path, content) = rest.split_once(' ').unwrap_or((rest, ""));
            world.put(path, &unescape(&repeated(content))?);
            if path.starts_with("/pub/") && !kept.iter().any(|one| one == path) {
                kept.push(path.to_owned());
            }
        }
        "folder" => std::fs::create_dir_all(world.disk(rest)).map_err(|error| error.to_string())?,
        "limit" => limits.extend(table(rest)?),
        "set" => values.extend(table(rest)?),
        _ => return Err(format!("unknown setup: {line}")),
    }
    Ok(())
}

/// Asks for a file, so that its response may be kept.
async fn warm(handler: &Arc<dyn Handler>, path: &str) {
    let (link, mut theirs) = pipe("http", 64 << 10);
    let serving = tokio::spawn({
        let handler = handler.clone();
        async move { handler.serve(link).await }
    });
    let request = format!("GET {path} HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n\r\n");
    theirs.write_all(request.as_bytes()).await.expect("written");
    let _ = theirs.read_to_end(&mut Vec::new()).await;
    let _ = serving.await;
}

async fn converse(
    world: &World,
    handler: &Arc<dyn Handler>,
    limits: &Arc<Limits>,
    cut: usize,
    parting: usize,
    steps: &[(usize, &str)],
    kept: &mut Vec<String>,
) -> Result<usize, String> {
    let (mut link, theirs) = pipe("http", cut);
    link.limits = limits.clone();
    let handler = handler.clone();
    let serving = tokio::spawn(async move { handler.serve(link).await });
    let (read, write) = tokio::io::split(theirs);
    let (heard, reply, known) = (Vec::new(), Reply::default(), HashMap::new());
    let mut client = Client { write: Some(write), read, heard, reply, known, serving, said: 0, parting };
    for (number, line) in steps {
        let step = async {
            match line.strip_prefix("@ ") {
                Some(_) => prepare(world, line, &mut toml::Table::new(), &mut toml::Table::new(), kept),
                None => client.step(world, line).await,
            }
        };
        let step = timeout(STEP, step).await.unwrap_or_else(|_| Err("nothing happens".into()));
        step.map_err(|problem| format!("line {number}: {line}\n    {problem}"))?;
    }
    let said = client.said;
    timeout(STEP, client.end()).await.unwrap_or_else(|_| Err("the server does not end".into()))?;
    Ok(said)
}

#[derive(Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

struct Client {
    write: Option<WriteHalf<DuplexStream>>,
    read: ReadHalf<DuplexStream>,
    heard: Vec<u8>,
    reply: Reply,
    known: HashMap<&'static str, String>,
    serving: JoinHandle<std::io::Result<()>>,
    /// Bytes until now.
    said: usize,
    /// The byte before which the server gets time to read those before it.
    parting: usize,
}

impl Client {
    async fn step(&mut self, world: &World, line: &str) -> Result<(), String> {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" => Ok(()),
            "C:" => {
                let said = self.fill(rest).into_bytes();
                self.say(&[&said[..], b"\r\n"].concat()).await
            }
            "C>" => {
                let said = unescape(&self.fill(rest))?;
                self.say(&said).await
            }
            "C." => {
                let mut write = self.write.take().ok_or("the client stopped talking already")?;
                write.shutdown().await.map_err(|error| error.to_string())
            }
            "S" => {
                let (status, head) = rest.split_once(' ').unwrap_or((rest, ""));
                self.hear(head == "head").await?;
                if self.reply.status.to_string() == status {
                    return Ok(());
                }
                Err(format!("the server says {} {:?}", self.reply.status, text(&self.reply.body)))
            }
            "S." => match self.more().await? {
                0 if self.heard.is_empty() => Ok(()),
                _ => Err(format!("still open; the server says: {}", text(&self.heard))),
            },
            "H" => {
                let (name, wanted) = rest.split_once(':').ok_or("a name and a value")?;
                let wanted = self.fill(wanted.trim());
                let found: Vec<&str> = self.reply.all(name).collect();
                match found.iter().any(|value| check(&wanted, value).is_ok()) {
                    true => Ok(()),
                    false => Err(format!("it has {found:?}")),
                }
            }
            "H!" => self.reply.one(rest).map_or(Ok(()), |value| Err(format!("it has {value}"))),
            "B" => same(&self.reply.body, &unescape(&self.fill(rest))?),
            "B~" => {
                let part = unescape(&self.fill(rest))?;
                let found = self.reply.body.windows(part.len()).any(|window| window == part);
                if found { Ok(()) } else { Err(format!("the body is {:?}", text(&self.reply.body))) }
            }
            "F" => {
                let (path, content) = rest.split_once(' ').unwrap_or((rest, ""));
                let there = std::fs::read(world.disk(path)).map_err(|error| error.to_string())?;
                same(&there, &unescape(&repeated(content))?)
            }
            "F!" => match world.disk(rest).exists() {
                true => Err("it is there".into()),
                false => Ok(()),
            },
            _ => Err("unknown step".into()),
        }
    }

    fn fill(&self, line: &str) -> String {
        let mut line = repeated(line).replace("{alice}", ALICE);
        for (name, value) in &self.known {
            line = line.replace(&format!("{{{name}}}"), value);
        }
        line
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        let first = self.parting.checked_sub(self.said).filter(|first| self.parting > 0 && *first < bytes.len());
        self.said += bytes.len();
        let Some((first, rest)) = first.and_then(|first| bytes.split_at_checked(first)) else {
            return self.say_at_once(bytes).await;
        };
        self.say_at_once(first).await?;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        self.say_at_once(rest).await
    }

    /// Writes while the server may have to write too: what it says is collected meanwhile.
    async fn say_at_once(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = self.write.as_mut().ok_or("the client stopped talking")?;
        let mut writing = Box::pin(write.write_all(bytes));
        let mut piece = [0; 4096];
        loop {
            tokio::select! {
                biased;
                // A server that refuses what it hears may be gone before it heard all of it.
                _ = &mut writing => return Ok(()),
                read = self.read.read(&mut piece) => match read {
                    Ok(count) if count > 0 => self.heard.extend(&piece[..count]),
                    _ => return Ok(()),
                },
            }
        }
    }

    /// Reads on; how many bytes came.
    async fn more(&mut self) -> Result<usize, String> {
        let mut piece = [0; 4096];
        let count = self.read.read(&mut piece).await.map_err(|error| error.to_string())?;
        self.heard.extend(&piece[..count]);
        Ok(count)
    }

    /// The next response.
    async fn hear(&mut self, head: bool) -> Result<(), String> {
        let end = loop {
            match self.heard.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.more().await? == 0 => {
                    return Err(format!("the server closed; it had said: {:?}", text(&self.heard)));
                }
                None => {}
            }
        };
        let lines = String::from_utf8(self.heard.drain(..end).collect()).map_err(|error| error.to_string())?;
        self.reply = parse(&lines)?;
        let bare = head || self.reply.status < 200 || matches!(self.reply.status, 204 | 304);
        sound(&self.reply, bare)?;
        if !bare {
            self.reply.body = match self.reply.one("content-length") {
                Some(length) => self.counted(length.parse().map_err(|_| format!("length {length:?}"))?).await?,
                None => self.chunked().await?,
            };
        }
        let boundary = self.reply.one("content-type").and_then(|kind| kind.split_once("boundary="));
        let boundary = boundary.map(|(_, boundary)| boundary.to_owned());
        let (etag, modified) = (self.reply.one("etag"), self.reply.one("last-modified"));
        for (name, value) in [("etag", etag), ("modified", modified), ("boundary", boundary.as_deref())] {
            if let Some(value) = value {
                self.known.insert(name, value.to_owned());
            }
        }
        Ok(())
    }

    async fn counted(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.heard.len() < length {
            if self.more().await? == 0 {
                return Err(format!("the body ends after {} of {length} bytes", self.heard.len()));
            }
        }
        Ok(self.heard.drain(..length).collect())
    }

    async fn chunked(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.heard.windows(2).position(|two| two == b"\r\n") {
                    Some(at) => break at,
                    None if self.more().await? == 0 => return Err("the chunks end early".into()),
                    None => {}
                }
            };
            let size = text(&self.heard[..end]);
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("a chunk of {size:?}"))?;
            self.heard.drain(..end + 2);
            let chunk = self.counted(size + 2).await?;
            body.extend(chunk.strip_suffix(b"\r\n").ok_or("a chunk without its end")?);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// The client goes; the server must have nothing left to say, and end without a fault.
    async fn end(mut self) -> Result<(), String> {
        if let Some(mut write) = self.write.take() {
            let _ = write.shutdown().await;
        }
        while self.more().await? > 0 {}
        if !self.heard.is_empty() {
            return Err(format!("at the end the server still says: {:?}", text(&self.heard)));
        }
        drop(self.read);
        match self.serving.await {
            Ok(_) => Ok(()),
            Err(panic) => Err(format!("the server died: {panic}")),
        }
    }
}

fn parse(head: &str) -> Result<Reply, String> {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or(format!("no status line: {first:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(format!("no header: {line:?}"))?;
        let token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !token || value.contains(['\r', '\n', '\0']) {
            return Err(format!("no header: {line:?}"));
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Reply { status, headers, body: Vec::new() })
}

/// What must be true of every response.
fn sound(reply: &Reply, bare: bool) -> Result<(), String> {
    let once = |name: &str| reply.all(name).count();
    let (lengths, codings) = (once("content-length"), once("transfer-encoding"));
    match reply.status {
        100 => return if reply.headers.is_empty() { Ok(()) } else { Err("a 100 with headers".into()) },
        204 if lengths + codings > 0 => return Err("a 204 with a body".into()),
        304 if codings > 0 => return Err("a 304 with a body".into()),
        _ if !bare && lengths + codings != 1 => return Err("the body is framed in no way, or in two".into()),
        405 if once("allow") != 1 => return Err("a 405 without Allow".into()),
        401 if once("www-authenticate") == 0 => return Err("a 401 without WWW-Authenticate".into()),
        _ => {}
    }
    if once("date") != 1 || !reply.one("date").is_some_and(|date| date.len() == 29 && date.ends_with(" GMT")) {
        return Err(format!("dates: {:?}", reply.all("date").collect::<Vec<_>>()));
    }
    if reply.one("x-content-type-options") != Some("nosniff") {
        return Err("it is not hardened".into());
    }
    Ok(())
}

fn same(found: &[u8], wanted: &[u8]) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("there is: {:?}", text(found))) }
}

/// The beginning of some bytes, for people.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect()
}

/// `{x*900}`: x 900 times.
fn repeated(text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let times = after.split_once('}').and_then(|(inside, behind)| {
            let (what, count) = inside.rsplit_once('*')?;
            Some((what.repeat(count.parse().ok()?), behind))
        });
        whole.push_str(before);
        if let Some((repeated, behind)) = times {
            whole.push_str(&repeated);
            rest = behind;
        } else {
            whole.push('{');
            rest = after;
        }
    }
    whole + rest
}
