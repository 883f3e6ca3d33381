//! Mail under load while the daemon is killed, while its disk is full, and while each part below it fails: what was
//! answered with 250 is in the mailbox, once and whole.
//!
//! `STOA_KILLS` sets how often the daemon is killed (40).

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoa::error::{Kind, Result};
use stoa::hub::settings::UserSettings;
use stoa::hub::{Hub, Settings, TreePath, Volumes};
use stoa::proto::{Protocol, Section, Tools, smtp};
use stoa::store::catalog::sqlite::Sqlite;
use stoa::store::fault::engine::{Calls, Fault, FaultyEngine, Moment};
use stoa::store::fault::volume::{FaultyVolume, VolumeBreak, VolumeFault, VolumePoint};
use stoa::store::{Catalog, CatalogSettings, Directory, Engine, Volume};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, Place, until};
use crate::volume::Mounted;
use crate::world::pipe;

/// Connections that send at the same time.
const CLIENTS: usize = 8;

const PASSWORD: &str = "wonder-land";

/// What stands on the last line of every message.
const LAST: &str = "this is the whole message";

/// The tokens of messages that were answered with 250.
#[derive(Default)]
struct Record {
    taken: Mutex<Vec<String>>,
    number: AtomicU64,
}

impl Record {
    fn token(&self) -> String {
        format!("token-{}-end", self.number.fetch_add(1, Ordering::Relaxed))
    }

    fn took(&self, token: String) {
        self.taken.lock().unwrap().push(token);
    }

    /// Every message that was taken is in the mailbox once; nothing is there twice or in part. How many were taken.
    fn check(&self, mailbox: &Path, story: &str) -> usize {
        let there = mailbox_of(mailbox);
        for (token, count) in &there {
            assert_eq!(*count, 1, "{story}: {token} is there {count} times");
        }
        let taken = self.taken.lock().unwrap();
        for token in taken.iter() {
            assert!(there.contains_key(token), "{story}: {token} was answered with 250 and is lost");
        }
        taken.len()
    }
}

/// Tokens in a Maildir, with how often each is there.
fn mailbox_of(mailbox: &Path) -> HashMap<String, u32> {
    let mut there: HashMap<String, u32> = HashMap::new();
    for folder in ["new", "cur"] {
        let Ok(entries) = fs::read_dir(mailbox.join(folder)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.trim_end().ends_with(LAST), "{} is there in part: {} bytes", path.display(), text.len());
            let token = text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject");
            *there.entry(token.to_owned()).or_default() += 1;
        }
    }
    there
}

/// A message of about 4 KiB; every seventh is too large to ride in the commit.
fn message(token: &str, number: usize) -> String {
    let lines = if number.is_multiple_of(7) { 1200 } else { 50 };
    let line = "a line of the message that is about as long as lines of messages are, or so\r\n";
    format!("Subject: {token}\r\n\r\n{}{LAST}\r\n.\r\n", line.repeat(lines))
}

/// One connection over which messages go one after the other.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply()?;
        client.ask("HELO storm")?;
        Ok(client)
    }

    /// The code of the next reply.
    fn reply(&mut self) -> std::io::Result<u16> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(|| std::io::Error::other(line.clone()))
    }

    fn ask(&mut self, line: &str) -> std::io::Result<u16> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// The reply that decided about a message.
    fn send(&mut self, token: &str, number: usize) -> std::io::Result<u16> {
        for (line, wanted) in [("MAIL FROM:<a@b.test>", 250), ("RCPT TO:<alice@example.org>", 250), ("DATA", 354)] {
            let code = self.ask(line)?;
            if code != wanted {
                self.ask("RSET")?;
                return Ok(code);
            }
        }
        self.stream.get_mut().write_all(message(token, number).as_bytes())?;
        self.reply()
    }
}

fn user(folder: &Path) -> String {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    format!("[[user]]\nname = \"alice\"\npassword_file = \"{}\"\n", password.display())
}

fn config(folder: &Path) -> String {
    format!("domain = \"example.org\"\n{}", user(folder))
}

/// Sends over one connection until it breaks.
fn storm(address: SocketAddr, record: &Record, stop: &AtomicBool) {
    let Ok(mut client) = Client::open(address) else { return };
    for number in 0.. {
        let token = record.token();
        match client.send(&token, number) {
            Ok(250) => record.took(token),
            Ok(code) => panic!("a message was answered with {code}"),
            Err(_) => return,
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn one_life(daemon: Daemon, record: &Record, work: Duration) -> Place {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (address, stop) = (daemon.smtp, &stop);
            scope.spawn(move || storm(address, record, stop));
        }
        std::thread::sleep(work);
        daemon.signal("KILL");
        stop.store(true, Ordering::Relaxed);
    });
    daemon.kill()
}

#[test]
fn a_storm_of_mail_survives_every_kill() {
    let kills: u64 = std::env::var("STOA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let folder = tempfile::tempdir().unwrap();
    let record = Record::default();
    let mut place = Place::new(&config(folder.path()));
    for life in 0..kills {
        // moments spread over the first third of a second, another order in each life
        let work = Duration::from_millis(20 + life * 7919 % 300);
        place = one_life(place.start(), &record, work);
    }
    let daemon = place.start();
    let taken = record.check(&daemon.on_disk("/mail/alice"), "after the last start");
    let verified = daemon.must(&["history", "--verify"], "");
    assert!(verified.contains("every one as it was written"), "{verified}");
    eprintln!("{kills} kills, {taken} messages acknowledged, all there once");
    assert!(taken as u64 > kills, "the clients hardly got anything done");
}

/// Writes until nothing more goes in.
fn fill(file: &Path) {
    let mut filler = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    for size in [1 << 20, 64 << 10, 4 << 10, 1 << 10] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
}

/// What a door answers to an upload of 200 KB: curl's word for the last reply.
fn upload(daemon: &Daemon, url: &str, folder: &Path) -> String {
    let body = folder.join("body");
    fs::write(&body, vec![7; 200_000]).unwrap();
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{response_code}", "-u"]);
    command.arg(format!("alice:{PASSWORD}")).arg("-T").arg(&body).arg(url);
    let output = command.stdin(Stdio::null()).output().expect("curl");
    assert!(daemon.pid() > 0);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_full_disk_is_said_on_every_door_loses_nothing_and_passes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let tables = "[storage]\nkeep_free = \"0 B\"\n[http]\nbasic_in_clear = true\n";
    let place = Place::new(&format!("{}{tables}", config(folder.path())));
    let Some(_mounted) = Mounted::tmpfs(&place.data(), "24m") else { return };
    let daemon = place.start();
    let record = Record::default();
    let mut client = Client::open(daemon.smtp).unwrap();
    let mut send = |number: usize| {
        let token = record.token();
        let code = client.send(&token, number).expect("the connection stays");
        assert!(code == 250 || code == 452, "a full disk was answered with {code}");
        if code == 250 {
            record.took(token);
        }
        code == 250
    };
    assert!((1..20).all(&mut send), "there is room");
    let filler = daemon.data.join("filler");
    fill(&filler);
    // What the log of the catalog still has room for may be taken; then it is refused.
    let refused = (1..10_000).any(|number| {
        fill(&filler);
        !send(number)
    });
    assert!(refused, "a full disk took ten thousand messages");
    fill(&filler);
    let (ftp, http) = (format!("ftp://{}/home/alice/f", daemon.ftp), format!("http://{}/home/alice/h", daemon.http));
    assert_eq!(upload(&daemon, &ftp, folder.path()), "452");
    assert_eq!(upload(&daemon, &http, folder.path()), "507");
    fs::remove_file(&filler).unwrap();
    until("mail is taken again", || send(1));
    assert_eq!(upload(&daemon, &ftp, folder.path()), "226");
    assert_eq!(upload(&daemon, &http, folder.path()), "201");
    // What was acknowledged while it could not be put in place is put there now.
    let mailbox = daemon.on_disk("/mail/alice");
    let taken = record.taken.lock().unwrap().len();
    until("everything acknowledged is there", || mailbox_of(&mailbox).len() >= taken);
    record.check(&mailbox, "once there was room again");
    let place = daemon.kill();
    let daemon = place.start();
    record.check(&mailbox, "after a kill");
    drop(daemon);
}

/// Directories behind one fault.
struct Trees {
    folder: PathBuf,
    fault: Option<Arc<VolumeFault>>,
}

impl Volumes for Trees {
    fn open(&self, space: &TreePath, _source: &str) -> Result<Arc<dyn Volume>> {
        let root = self.folder.join("tree").join(space.to_string().trim_start_matches('/'));
        let plain: Arc<dyn Volume> = Arc::new(Directory::open(&root, &self.folder.join("stage"), true)?);
        Ok(match &self.fault {
            Some(fault) => Arc::new(FaultyVolume::new(plain, fault.clone())),
            None => plain,
        })
    }
}

type EngineFault = (u64, Fault, Moment);

async fn open(folder: &TempDir, volume: Option<Arc<VolumeFault>>, engine: Option<EngineFault>) -> Hub {
    let user = UserSettings { name: "alice".into(), ..UserSettings::default() };
    let settings = Settings {
        data: folder.path().to_owned(),
        domains: vec!["example.org".into()],
        users: vec![user],
        ..Settings::default()
    };
    let catalog = folder.path().join("catalog.db");
    let mut kept: Arc<dyn Engine> = Arc::new(Sqlite::open(&catalog, "one", &CatalogSettings::default()).unwrap());
    if let Some((nth, fault, moment)) = engine {
        kept = Arc::new(FaultyEngine::new(kept, Arc::new(AtomicU64::new(nth)), Calls::Commits, fault, moment));
    }
    let trees = Trees { folder: folder.path().to_owned(), fault: volume };
    Hub::open(settings, Catalog::new(kept), Arc::new(trees)).await.unwrap()
}

/// Six messages through the door, of which every third is large; whatever breaks, the connection must not.
async fn six_messages(hub: &Hub, record: &Record) {
    let names = ["localhost".to_owned()];
    let folder = tempfile::tempdir().unwrap();
    let tls = stoa::net::Tls::open(&stoa::net::TlsSettings::default(), folder.path(), &names).unwrap();
    let tools = Tools { hub: hub.clone(), tls, ready: Arc::new(|| true) };
    let door = smtp::Smtp.open(&Section { name: "smtp", values: smtp::Smtp.defaults() }, &tools).unwrap();
    let (link, client) = pipe("smtp", 64 << 10);
    let serving = tokio::spawn(async move { door.serve(link).await });
    let (reading, mut writing) = tokio::io::split(client);
    let mut lines = tokio::io::BufReader::new(reading).lines();
    assert!(lines.next_line().await.unwrap().expect("a greeting").starts_with("220"));
    let mut ask = async |text: &str| -> u16 {
        writing.write_all(text.as_bytes()).await.unwrap();
        let line = lines.next_line().await.unwrap().expect("a reply");
        line.get(..3).unwrap().parse().unwrap()
    };
    assert_eq!(ask("HELO fault\r\n").await, 250);
    for number in 0..6 {
        let token = record.token();
        ask("MAIL FROM:<a@b.test>\r\n").await;
        ask("RCPT TO:<alice@example.org>\r\n").await;
        if ask("DATA\r\n").await != 354 {
            ask("RSET\r\n").await;
            continue;
        }
        let code = ask(&message(&token, if number % 3 == 2 { 7 } else { 1 })).await;
        assert!(code == 250 || (400..500).contains(&code), "a fault was answered with {code}");
        if code == 250 {
            record.took(token);
        }
    }
    drop((lines, writing));
    serving.abort();
}

async fn break_and_check(volume: Option<Arc<VolumeFault>>, engine: Option<EngineFault>, story: &str) {
    let folder = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let record = Record::default();
    let stop = CancellationToken::new();
    let syncs = story.starts_with("Sync");
    let hub = open(&folder, volume.clone(), engine).await;
    let keepers = if syncs { hub.keep(&stop) } else { Vec::new() };
    six_messages(&hub, &record).await;
    stop.cancel();
    for keeper in keepers {
        keeper.await.unwrap();
    }
    drop(hub);
    let hub = open(&folder, None, None).await;
    record.check(&folder.path().join("tree/mail/alice"), story);
    let spaces = hub.spaces().await.unwrap();
    let usage = spaces.into_iter().find(|one| one.row.path == "/mail/alice").unwrap().usage;
    assert_eq!(usage.files, mailbox_of(&folder.path().join("tree/mail/alice")).len() as u64, "{story}: usage");
    assert!(hub.verify_history().await.unwrap().broken.is_empty(), "{story}: the history is broken");
}

#[tokio::test]
async fn every_fault_of_the_volume_spares_what_the_smtp_door_acknowledged() {
    for point in VolumePoint::ALL {
        for way in VolumeBreak::ALL {
            for nth in 1..=2 {
                let fault = VolumeFault::new(point, way, Arc::new(AtomicU64::new(nth)));
                break_and_check(Some(fault), None, &format!("{point:?} {way:?} {nth}")).await;
            }
        }
    }
}

#[tokio::test]
async fn every_fault_of_the_catalog_spares_what_the_smtp_door_acknowledged() {
    for moment in [Moment::Before, Moment::After] {
        for fault in [Fault::Fail(Kind::Unavailable), Fault::Fail(Kind::Full), Fault::Stop] {
            for nth in 1..=4 {
                break_and_check(None, Some((nth, fault, moment)), &format!("{moment:?} {fault:?} {nth}")).await;
            }
        }
    }
}
