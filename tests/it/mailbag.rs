//! `stoa mail import` and `stoa mail export` beside a running daemon: nothing lost, nothing doubled, however often they are done or broken off.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::daemon::{Daemon, STOA, until};

const USERS: &str = "domain = \"example.org\"\n[[user]]\nname = \"alice\"\n[[user]]\nname = \"bob\"\n[[space]]\npath = \"/mail/bob\"\nquota = \"2 MiB\"\n";

/// Digest → how often it is in a folder of mail, `new` and `cur` together.
fn kept(maildir: &Path) -> BTreeMap<Vec<u8>, u32> {
    let mut found = BTreeMap::new();
    for part in ["new", "cur"] {
        for entry in fs::read_dir(maildir.join(part)).into_iter().flatten() {
            let bytes = fs::read(entry.expect("an entry").path()).expect("a message");
            *found.entry(Sha256::digest(&bytes).to_vec()).or_default() += 1;
        }
    }
    found
}

fn digests(messages: &[Vec<u8>]) -> BTreeMap<Vec<u8>, u32> {
    messages.iter().map(|message| (Sha256::digest(message).to_vec(), 1)).collect()
}

/// Messages as they are on the network, and the mbox they make.
fn letters(count: usize) -> (Vec<Vec<u8>>, String) {
    let texts: Vec<String> = (0..count)
        .map(|n| {
            format!("Subject: number {n}\r\n\r\nFrom the start\r\n>From quoted\r\n\r\n{}\r\n", "body ".repeat(n % 50))
        })
        .collect();
    let quoted = |text: &str| text.replace("\r\n", "\n").replace("\n>From", "\n>>From").replace("\nFrom", "\n>From");
    let mbox =
        texts.iter().map(|text| format!("From me@else.where Mon Nov 23 00:30:00 2026\n{}\n", quoted(text))).collect();
    (texts.into_iter().map(String::into_bytes).collect(), mbox)
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(&path, content).expect("a file");
    path.display().to_string()
}

#[test]
fn an_import_done_twice_is_done_once() {
    let daemon = Daemon::start(USERS);
    let desk = tempfile::tempdir().unwrap();
    let (messages, mbox) = letters(150);
    let file = write(desk.path(), "old.mbox", mbox);
    let said = daemon.must(&["mail", "import", "alice", &file], "");
    assert!(said.starts_with("150 messages taken") && said.contains(" 0 there already"), "{said}");
    let maildir = daemon.on_disk("/mail/alice");
    assert_eq!(kept(&maildir), digests(&messages), "with the line ends of the network, and nothing of the file's own");
    let again = daemon.must(&["mail", "import", "alice", &file], "");
    assert!(again.starts_with("0 messages taken") && again.contains("150 there already"), "{again}");
    assert_eq!(kept(&maildir), digests(&messages));
    let history = daemon.must(&["history", "--door", "cli", "--path", "/mail/alice", "--limit", "1", "--json"], "");
    assert!(history.contains("\"import\"") && history.contains("message 150 at byte "), "{history}");
}

#[test]
fn a_maildir_comes_with_its_flags_and_folders() {
    let daemon = Daemon::start(USERS);
    let desk = tempfile::tempdir().unwrap();
    let old = desk.path().join("Maildir");
    for folder in ["", ".Sent"] {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(old.join(folder).join(part)).unwrap();
        }
    }
    write(&old, "new/1.a.host", "Subject: fresh\n\nwith bare LF\n");
    write(&old, "cur/2.b.host:2,RS", "Subject: answered\r\n\r\nx\r\n");
    write(&old, ".Sent/cur/3.c.host:2,S", "Subject: sent\r\n\r\ny\r\n");
    write(&old, "tmp/4.d.host", "half");
    let eml = write(desk.path(), "one.eml", "Subject: alone\r\n\r\nno end of line");
    daemon.must(&["mail", "import", "alice", &old.display().to_string(), &eml], "");
    let inbox = daemon.on_disk("/mail/alice");
    let wanted =
        ["Subject: fresh\n\nwith bare LF\n", "Subject: answered\r\n\r\nx\r\n", "Subject: alone\r\n\r\nno end of line"];
    assert_eq!(kept(&inbox), digests(&wanted.map(|text| text.as_bytes().to_vec())), "byte for byte");
    let names: Vec<_> = fs::read_dir(inbox.join("cur")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() == 1 && names[0].to_string_lossy().ends_with(":2,RS"), "{names:?}");
    assert_eq!(kept(&inbox.join(".Sent")).len(), 1);

    let out = desk.path().join("out").display().to_string();
    daemon.must(&["mail", "export", "alice", &out, "--as", "maildir"], "");
    assert_eq!(kept(Path::new(&out)), kept(&inbox));
    assert_eq!(kept(&Path::new(&out).join(".Sent")), kept(&inbox.join(".Sent")));
    daemon.must(&["mail", "import", "alice", &out], "");
    assert_eq!(kept(&inbox).len(), 3, "what went out comes in once");
    let single = desk.path().join("single");
    daemon.must(&["mail", "export", "alice", &single.display().to_string(), "--as", "eml"], "");
    let mut files: Vec<_> =
        fs::read_dir(&single).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    files.sort();
    assert_eq!(digests(&files), kept(&inbox));
}

#[test]
fn an_mbox_goes_out_and_comes_in_the_same() {
    let daemon = Daemon::start(USERS);
    let desk = tempfile::tempdir().unwrap();
    let (messages, mbox) = letters(40);
    daemon.must(&["mail", "import", "alice", "-"], &mbox);
    let out = desk.path().join("out.mbox").display().to_string();
    daemon.must(&["mail", "export", "alice", &out], "");
    let taken = daemon.place().run(&["mail", "export", "alice", &out], "");
    assert_eq!(taken.status.code(), Some(73), "a file that is there is not written over");
    daemon.must(&["mail", "import", "bob", &out], "");
    assert_eq!(kept(&daemon.on_disk("/mail/bob")), digests(&messages));
    let piped = daemon.must(&["mail", "export", "alice", "-"], "");
    assert_eq!(piped, fs::read_to_string(&out).unwrap());
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let daemon = Daemon::start(USERS);
    let desk = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = daemon.place().run(args, "");
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let one = write(desk.path(), "one.eml", "Subject: x\r\n\r\n");
    assert!(run(&["mail", "import", "nobody", &one]).contains("there is no user nobody"));
    assert!(run(&["mail", "import", "alice", "/nowhere"]).contains("/nowhere"));
    assert!(run(&["mail", "import", "alice", "--folder", "Sent", &one]).contains("begins with a dot"));
    // Room for two of three: what fits is kept.
    let large = |n: u8| format!("From a@b Mon Nov 23 00:30:0{n} 2026\nSubject: {n}\n\n{}\n\n", "x".repeat(900_000));
    let file = write(desk.path(), "large.mbox", [large(1), large(2), large(3)].concat());
    let said = run(&["mail", "import", "bob", &file]);
    let begun = large(1).len() * 2;
    assert!(said.contains(&format!("large.mbox message 3 at byte {begun}")) && said.contains("quota"), "{said}");
    assert_eq!(kept(&daemon.on_disk("/mail/bob")).len(), 2);
}

#[test]
fn a_killed_import_is_done_again_and_nothing_is_doubled() {
    let daemon = Daemon::start(USERS);
    let desk = tempfile::tempdir().unwrap();
    let (messages, mbox) = letters(1200);
    let file = write(desk.path(), "old.mbox", mbox);
    let maildir = daemon.on_disk("/mail/alice");
    for rounds in 1..=3 {
        let mut import = Command::new(STOA)
            .arg("--config")
            .arg(daemon.place().config())
            .args(["mail", "import", "alice", &file])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary");
        until("some are taken", || {
            import.try_wait().expect("a child").is_some()
                || fs::read_dir(maildir.join("new")).map_or(0, Iterator::count) >= rounds * 200
        });
        import.kill().expect("a child");
        import.wait().expect("an end");
    }
    daemon.must(&["mail", "import", "alice", &file], "");
    assert_eq!(kept(&maildir), digests(&messages));
    daemon.must(&["history", "--verify"], "");
}
