//! The kill test: real clients upload and mail through every door while the daemon is killed again and again.
//!
//! The clients keep their own record. In the end every acknowledged item is there whole and once, nothing partial is
//! visible, the usage equals the files and the history verifies. `STOA_KILLS` sets how often it is killed (200).

use std::collections::HashMap;
use std::fs;
use std::hash::BuildHasher;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::daemon::{Daemon, Place, until};

const PASSWORD: &str = "wonder-land";

/// Uploads and mails at the same time.
const CLIENTS: usize = 6;

/// What clients were told is safe: name → content seed, newest for names that are overwritten.
#[derive(Default)]
struct Record {
    files: Mutex<HashMap<String, u64>>,
    mails: Mutex<Vec<String>>,
    number: AtomicU64,
    acknowledged: AtomicUsize,
}

impl Record {
    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn file(&self, name: String, seed: u64) {
        self.files.lock().unwrap().insert(name, seed);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn mail(&self, token: String) {
        self.mails.lock().unwrap().push(token);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn config(folder: &Path, durable: bool) -> String {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    format!(
        r#"
domain = "example.org"
[http]
basic_in_clear = true
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/in"
durable = {durable}
address = "in"
grants = [ {{ to = "user:alice", allow = "edit" }}, {{ to = "everyone", allow = "create" }} ]
"#,
        password.display()
    )
}

/// The content of an item: its seed as text, repeated; small ones ride in the commit, large ones are staged.
fn content(seed: u64) -> Vec<u8> {
    let line = format!("{seed:020}\n");
    line.repeat(if seed.is_multiple_of(3) { 9_000 } else { 60 }).into_bytes()
}

fn curl(args: &[&str], body: &Path) -> bool {
    let mut command = Command::new("curl");
    command.args(["-sS", "-f", "--max-time", "20", "-T"]).arg(body).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("curl").success()
}

/// One client: items through the doors in turn until told to stop.
fn client(daemon: &Daemon, record: &Record, stop: &AtomicBool, folder: &Path, own: usize) {
    let login = format!("alice:{PASSWORD}");
    while !stop.load(Ordering::Relaxed) {
        let seed = record.number.fetch_add(1, Ordering::Relaxed) + 1;
        let body = folder.join(format!("body-{own}"));
        // every fourth item overwrites the client's one file
        let name = if seed.is_multiple_of(4) { format!("same-{own}") } else { format!("item-{seed}") };
        match (seed + own as u64) % 3 {
            0 | 1 if seed.is_multiple_of(2) => {
                fs::write(&body, content(seed)).unwrap();
                let url = format!("ftp://{}/in/{name}", daemon.ftp);
                if curl(&["-u", &login, &url], &body) {
                    record.file(name, seed);
                }
            }
            0 | 1 => {
                fs::write(&body, content(seed)).unwrap();
                let url = format!("http://{}/in/{name}", daemon.http);
                if curl(&["-u", &login, &url], &body) {
                    record.file(name, seed);
                }
            }
            _ => {
                let token = format!("token-{seed}-end");
                let text = format!(
                    "Subject: {token}\r\n\r\n{}",
                    String::from_utf8(content(seed)).unwrap().replace('\n', "\r\n")
                );
                fs::write(&body, text).unwrap();
                let url = format!("smtp://{}", daemon.smtp);
                if curl(&["--url", &url, "--mail-from", "a@b.test", "--mail-rcpt", "alice@example.org"], &body) {
                    record.mail(token);
                }
            }
        }
    }
}

/// Lets clients work until so many items more are acknowledged, and a little longer, then pulls the plug.
fn one_life(daemon: Daemon, record: &Record, folder: &Path, more: usize, longer: Duration) -> Place {
    let enough = record.acknowledged() + more;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for own in 0..CLIENTS {
            let (daemon, stop) = (&daemon, &stop);
            scope.spawn(move || client(daemon, record, stop, folder, own));
        }
        // counted, not timed: a slow machine gets as much done between two kills as a fast one
        until("clients are served", || record.acknowledged() >= enough);
        std::thread::sleep(longer);
        daemon.signal("KILL");
        stop.store(true, Ordering::Relaxed);
    });
    daemon.kill()
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_acknowledged() {
    survive(std::env::var("STOA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200), true);
}

/// `durable = false` gives up the power cut only: what the kernel has survives its process, and the records catch up with the files.
#[test]
fn kills_lose_no_file_of_a_space_that_is_not_durable() {
    survive(20, false);
}

fn survive(kills: u64, durable: bool) {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::default();
    let mut place = Place::new(&config(folder.path(), durable));
    let dice = std::collections::hash_map::RandomState::new();
    for life in 0..kills {
        // a random moment: soon after the start, or in the middle of the work; another one in each run
        let random = dice.hash_one(life);
        let (more, longer) = (usize::try_from(random % 5).unwrap(), Duration::from_micros((random >> 8) % 100_000));
        place = one_life(place.start(), &record, folder.path(), more, longer);
    }
    let daemon = place.start();
    check_files(&daemon, &record);
    check_mails(&daemon, &record);
    check_books(&daemon);
    let acknowledged = record.acknowledged();
    eprintln!("{kills} kills, {acknowledged} uploads and mails acknowledged, all there");
    assert!(acknowledged as u64 >= kills, "the clients hardly got anything done");
}

fn check_files(daemon: &Daemon, record: &Record) {
    for (name, seed) in record.files.lock().unwrap().iter() {
        let found =
            fs::read(daemon.on_disk(&format!("/in/{name}"))).unwrap_or_else(|error| panic!("{name} is lost: {error}"));
        let there: u64 = String::from_utf8_lossy(&found[..20]).parse().unwrap();
        assert!(
            there == *seed || (name.starts_with("same") && there > *seed),
            "{name} holds {there}, acknowledged {seed}"
        );
    }
    for entry in fs::read_dir(daemon.on_disk("/in")).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::read(&path).unwrap();
        let seed: u64 = String::from_utf8_lossy(&found[..20.min(found.len())]).parse().unwrap_or_default();
        assert!(found == content(seed), "{} is partial: {} bytes", path.display(), found.len());
    }
}

fn check_mails(daemon: &Daemon, record: &Record) {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for entry in fs::read_dir(daemon.on_disk("/mail/alice/new")).unwrap() {
        let text = String::from_utf8(fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let token = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default().to_owned();
        let seed: u64 = token.split('-').nth(1).and_then(|text| text.parse().ok()).expect("a whole header");
        let body = text.split_once("\r\n\r\n").expect("a body").1.replace("\r\n", "\n");
        let (len, want) = (body.len(), content(seed));
        let first = body.bytes().zip(want.iter()).position(|(a, b)| a != *b);
        assert!(body.as_bytes() == want, "{token} differs: {len} bytes, sent {}, first at {first:?}", want.len());
        *seen.entry(token).or_default() += 1;
    }
    for token in record.mails.lock().unwrap().iter() {
        assert_eq!(seen.get(token), Some(&1), "{token} was acknowledged");
    }
}

fn check_books(daemon: &Daemon) {
    let verified = daemon.must(&["history", "--verify"], "");
    assert!(verified.contains("every one as it was written"), "{verified}");
    until("the usage equals the files", || {
        let spaces: serde_json::Value = serde_json::from_str(&daemon.must(&["space", "list", "--json"], "")).unwrap();
        spaces.as_array().unwrap().iter().all(|space| {
            let (bytes, files) = truth(&daemon.on_disk(space["path"].as_str().unwrap()));
            space["bytes"].as_u64() == Some(bytes) && space["files"].as_u64() == Some(files)
        })
    });
}

/// Bytes and files below a folder.
fn truth(folder: &Path) -> (u64, u64) {
    let Ok(entries) = fs::read_dir(folder) else { return (0, 0) };
    entries.map(|entry| entry.unwrap().path()).fold((0, 0), |(bytes, files), path| {
        if path.is_dir() {
            let (more, count) = truth(&path);
            (bytes + more, files + count)
        } else {
            (bytes + fs::metadata(&path).unwrap().len(), files + 1)
        }
    })
}
