//! A real daemon on a disk that refuses: a folder of another account, a full disk, a space folder that was removed. Through every door, what
//! is acknowledged is there and stays there, and what is refused changes nothing, now and after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::daemon::Place;
use crate::mail::with_files;
use crate::names::Ftp;
use crate::volume::Mounted;
use crate::webdav::Dav;

/// An account that has no rights by itself.
const NOBODY: u32 = 65_534;

/// Rides in the commit.
const SMALL: usize = 100;

/// Is staged.
const LARGE: usize = 150_000;

/// A space with a drop address; `more` are its other keys.
fn config(more: &str) -> String {
    let grants = r#"grants = [{ to = "user:alice", allow = "own" }, { to = "everyone", allow = "create" }]"#;
    let space = format!("[[space]]\npath = \"/in\"\naddress = \"in\"\noverwrite = \"replace\"\n{grants}\n{more}\n");
    format!("domain = \"example.org\"\n{}", Dav::config(&space))
}

fn bytes(mark: u8, len: usize) -> Vec<u8> {
    vec![mark; len]
}

/// Every file and folder below, with its content.
fn picture(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path.clone());
                found.insert(path, None);
            } else {
                let content = fs::read(&path).unwrap();
                found.insert(path, Some(content));
            }
        }
    }
    found
}

/// Mails a file to a drop address; was it taken?
fn mail(dav: &Dav, to: &str, name: &str, content: &[u8]) -> bool {
    let message = dav.daemon.place().config().with_extension("eml");
    fs::write(&message, with_files(&[(name, content)])).unwrap();
    let (url, to) = (format!("smtp://{}", dav.daemon.smtp), format!("{to}@example.org"));
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "--mail-from", "a@b.test", "--mail-rcpt", &to, "--url", &url, "-T"]);
    command.arg(&message).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("curl").success()
}

/// Stores a file by FTP; the reply at its end.
fn store(ftp: &mut Ftp, line: &str, content: &[u8]) -> String {
    let mut lane = ftp.lane();
    let reply = ftp.ask(line);
    if !reply.starts_with("150") {
        return reply;
    }
    // A body that is refused early may not go out whole.
    let _ = std::io::Write::write_all(&mut lane, content);
    drop(lane);
    ftp.reply()
}

/// Nothing waits, and records and disk agree.
fn is_settled(place: &Place) {
    place.must(&["verify"], "");
}

/// The folder is not the daemon's any more, or with `mend` it is again.
fn seal(folder: &Path, mend: bool) {
    let mode = |mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        mode(0o755);
        let owner = if mend { NOBODY } else { 0 };
        chown(folder, Some(owner), Some(owner)).unwrap();
    } else {
        mode(if mend { 0o755 } else { 0o555 });
    }
}

/// All that may be tried in a folder, by HTTP and WebDAV.
const BY_HTTP: [(&str, &str, &str, usize); 14] = [
    ("PUT", "/in/fixed/new", "", SMALL),
    ("PUT", "/in/fixed/new", "", LARGE),
    ("PUT", "/in/fixed/a", "", SMALL),
    ("PUT", "/in/fixed/a", "", LARGE),
    ("MKCOL", "/in/fixed/folder", "", 0),
    ("DELETE", "/in/fixed/a", "", 0),
    ("DELETE", "/in/fixed/empty", "", 0),
    ("DELETE", "/in/fixed/full", "", 0),
    ("DELETE", "/in/fixed", "", 0),
    ("MOVE", "/in/fixed/a", "Destination: /in/fixed/c\r\n", 0),
    ("MOVE", "/in/fixed/a", "Destination: /in/free/c\r\n", 0),
    ("MOVE", "/in/free/y", "Destination: /in/fixed/y\r\n", 0),
    ("MOVE", "/in/free/y", "Destination: /in/fixed/a\r\n", 0),
    ("COPY", "/in/free/y", "Destination: /in/fixed/y\r\n", 0),
];

/// By FTP: a line, or two.
const BY_FTP: [&[&str]; 9] = [
    &["STOR /in/fixed/new"],
    &["STOR /in/fixed/a"],
    &["APPE /in/fixed/a"],
    &["DELE /in/fixed/a"],
    &["MKD /in/fixed/folder"],
    &["RMD /in/fixed/empty"],
    &["RNFR /in/fixed/a", "RNTO /in/fixed/c"],
    &["RNFR /in/fixed/a", "RNTO /in/free/c"],
    &["RNFR /in/free/y", "RNTO /in/fixed/y"],
];

/// Tries everything; each must be refused and change nothing.
fn all_are_refused(dav: &Dav, root: &Path) {
    let before = picture(root);
    for (method, path, headers, len) in BY_HTTP {
        let reply = dav.ask("alice", method, path, headers, &bytes(7, len));
        assert!(reply.status >= 400 || reply.status == 207, "{method} {path} {headers}: {}", reply.status);
        assert!(reply.status != 207 || reply.text().contains("HTTP/1.1 4"), "{}", reply.text());
        assert_eq!(picture(root), before, "{method} {path} {headers}");
    }
    let mut ftp = Ftp::sign_in(dav, "alice");
    for lines in BY_FTP {
        let mut reply = String::new();
        for line in lines {
            let carries = line.starts_with("STOR") || line.starts_with("APPE");
            reply = if carries { store(&mut ftp, line, &bytes(7, LARGE)) } else { ftp.ask(line) };
        }
        assert!(reply.starts_with('4') || reply.starts_with('5'), "{lines:?}: {reply}");
        assert_eq!(picture(root), before, "{lines:?}");
    }
    for len in [SMALL, LARGE] {
        assert!(!mail(dav, "in+fixed", "new.pdf", &bytes(7, len)), "mail of {len} bytes was taken");
        assert_eq!(picture(root), before, "mail");
    }
}

#[test]
fn a_folder_of_another_account_refuses_and_nothing_is_done_later() {
    for durable in [true, false] {
        let place = Place::new(&config(&format!("durable = {durable}"))).owned_by(NOBODY);
        let dav = Dav { daemon: place.start() };
        for folder in ["free", "fixed", "fixed/empty", "fixed/full"] {
            dav.must("MKCOL", &format!("/in/{folder}"), "", "");
        }
        for (file, content) in [("free/y", "why"), ("fixed/a", "first"), ("fixed/full/x", "ex")] {
            dav.must("PUT", &format!("/in/{file}"), "", content);
        }
        let root = dav.daemon.on_disk("/in");
        let fixed = root.join("fixed");
        let before = picture(&root);
        seal(&fixed, false);
        all_are_refused(&dav, &root);
        assert_eq!(dav.alice("GET", "/in/fixed/a", "", "").text(), "first");
        // Mended while the daemon runs, and again after a kill: nothing that was refused is done.
        let place = dav.daemon.kill();
        seal(&fixed, true);
        let dav = Dav { daemon: place.start() };
        assert_eq!(picture(&root), before, "done after a kill");
        seal(&fixed, false);
        all_are_refused(&dav, &root);
        seal(&fixed, true);
        let place = dav.daemon.stop();
        is_settled(&place);
        let dav = Dav { daemon: place.start() };
        assert_eq!(picture(&root), before, "done after a restart");
        for (method, path, headers, len) in BY_HTTP.iter().filter(|(method, ..)| *method == "PUT" || *method == "MKCOL")
        {
            let reply = dav.ask("alice", method, path, headers, &bytes(7, *len));
            assert!(reply.status < 300, "{method} {path}: {}", reply.status);
        }
        assert!(mail(&dav, "in+fixed", "new.pdf", &bytes(7, SMALL)));
        assert_eq!(fs::read(fixed.join("new.pdf")).unwrap(), bytes(7, SMALL));
    }
}

/// What was tried on a disk: the content of what was acknowledged, and the names of what was refused.
#[derive(Default)]
struct Record {
    taken: BTreeMap<String, Vec<u8>>,
    refused: BTreeSet<String>,
}

impl Record {
    /// Puts one file by the door that is due.
    fn put(&mut self, dav: &Dav, number: usize) {
        // Large ones fill the disk, small ones find the last gaps.
        let len = [400_000, LARGE, 4_000, SMALL][number % 4];
        let content = bytes(u8::try_from(number % 200).unwrap() + 1, len);
        let name = format!("{number}.pdf");
        let taken = match number % 3 {
            0 => dav.ask("alice", "PUT", &format!("/in/{name}"), "", &content).status < 300,
            1 => store(&mut Ftp::sign_in(dav, "alice"), &format!("STOR /in/{name}"), &content).starts_with('2'),
            _ => mail(dav, "in", &name, &content),
        };
        if taken {
            self.taken.insert(name.clone(), content);
            self.is_true_of(dav, &name);
        } else {
            assert_eq!(dav.alice("GET", &format!("/in/{name}"), "", "").status, 404, "{name} was refused");
            self.refused.insert(name);
        }
    }

    fn is_true_of(&self, dav: &Dav, name: &str) {
        let reply = dav.alice("GET", &format!("/in/{name}"), "", "");
        assert_eq!(reply.status, 200, "{name} was acknowledged");
        assert!(reply.body == self.taken[name], "{name} has other bytes");
    }

    /// What was acknowledged is there, and what was refused is not.
    fn is_true(&self, dav: &Dav) {
        for name in self.taken.keys() {
            self.is_true_of(dav, name);
        }
        for name in &self.refused {
            assert_eq!(dav.alice("GET", &format!("/in/{name}"), "", "").status, 404, "{name} was refused");
        }
    }
}

/// Fills a disk of this size, with the data folder or only one space on it.
fn fills(all: bool, size: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::tmpfs(&folder.path().join("disk"), size) else { return };
    let disk = folder.path().join("disk");
    let source = if all { String::new() } else { format!("source = {:?}", disk.display().to_string()) };
    let place = Place::new(&config(&format!("{source}\n[storage]\nkeep_free = \"0 B\"\nreserve = \"4 MiB\"\n")));
    if all {
        std::os::unix::fs::symlink(&disk, place.data()).unwrap();
    }
    let mut record = Record::default();
    let mut dav = Dav { daemon: place.start() };
    for round in 0..2 {
        let (start, refused) = (round * 1_000, record.refused.len());
        for number in start..start + 1_000 {
            record.put(&dav, number);
            // Every size was refused several times.
            if record.refused.len() >= refused + 12 {
                break;
            }
        }
        assert!(record.refused.len() >= refused + 12 && record.taken.len() > 5, "the disk is never full");
        record.is_true(&dav);
        let place = if round == 0 { dav.daemon.kill() } else { dav.daemon.stop() };
        dav = Dav { daemon: place.start() };
        record.is_true(&dav);
        // Room is made again, and used again.
        let names: Vec<String> = record.taken.keys().take(4).cloned().collect();
        for name in names {
            let reply = dav.alice("DELETE", &format!("/in/{name}"), "", "");
            assert!(reply.status < 300, "{name}: {} {}", reply.status, reply.text());
            record.taken.remove(&name);
            record.refused.insert(name);
        }
        record.is_true(&dav);
    }
    is_settled(&dav.daemon.stop());
}

#[test]
fn a_full_disk_of_a_space_takes_whole_files_or_none() {
    fills(false, "3m");
}

#[test]
fn a_data_disk_full_to_its_last_byte_takes_whole_files_or_none_and_the_daemon_starts_on_it() {
    fills(true, "24m");
}

#[test]
fn a_space_folder_removed_under_the_daemon_is_made_again_and_takes_what_it_acknowledges() {
    let mut dav = Dav { daemon: Place::new(&config("")).start() };
    let root = dav.daemon.on_disk("/in");
    let mut record = Record::default();
    for round in 0..3 {
        for number in 0..6 {
            record.put(&dav, round * 6 + number);
        }
        assert!(record.refused.is_empty(), "{:?}", record.refused);
        record.is_true(&dav);
        for (name, content) in &record.taken {
            assert!(fs::read(root.join(name)).unwrap() == *content, "{name} is in the folder of the space");
        }
        if round == 1 {
            dav = Dav { daemon: dav.daemon.stop().start() };
            record.is_true(&dav);
        }
        fs::remove_dir_all(&root).unwrap();
        record = Record::default();
    }
    let reply = dav.alice("MKCOL", "/in/again", "", "");
    assert_eq!((reply.status, root.join("again").is_dir()), (201, true));
}
