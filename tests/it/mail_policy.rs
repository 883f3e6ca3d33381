//! Who takes mail, from whom, and what is said: through the door of a daemon.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::daemon::{Daemon, Place};

struct Talk(BufReader<TcpStream>);

impl Talk {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound");
        let mut talk = Self(BufReader::new(stream));
        talk.reply();
        talk.ask("HELO here");
        talk
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        line
    }

    fn ask(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("room");
        self.reply()
    }

    fn send(&mut self, from: &str, to: &[&str], text: &str) -> String {
        let mut said = self.ask(&format!("MAIL FROM:<{from}>"));
        for to in to {
            said = self.ask(&format!("RCPT TO:<{to}>"));
            if !said.starts_with("250") {
                self.ask("RSET");
                return said;
            }
        }
        self.ask("DATA");
        said.clear();
        said + &self.ask(&format!("{text}\r\n."))
    }
}

fn messages(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("text")).collect()
}

#[test]
fn what_cannot_be_read_is_not_taken_and_the_reason_is_said() {
    let daemon = Daemon::start(
        "domain = \"example.org\"\n[[user]]\nname = \"bob\"\n[[user]]\nname = \"carol\"\ndisabled = true\n[[user]]\nname = \"dave\"\nroot = \"/shared\"\n",
    );
    let mut talk = Talk::open(daemon.smtp);
    for (to, code, words) in [
        ("carol@example.org", "550 5.1.1", "disabled"),
        ("dave@example.org", "550 5.1.1", "no mailbox"),
        ("erin@example.org", "550 5.1.1", "no erin"),
        ("root@web01", "550 5.7.1", "`domain`"),
        ("root@web01.example.net", "550 5.7.1", "does not relay"),
    ] {
        let said = talk.send("a@else.where", &[to], "");
        assert!(said.starts_with(code) && said.contains(words), "{to}: {said}");
    }
    // RFC 5321 §4.5.1: nobody is an administrator here.
    let said = talk.send("a@else.where", &["postmaster"], "Subject: help\r\n\r\nx");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(messages(&daemon.on_disk("/mail/bob/new")).len(), 1);
    let checked = daemon.place().run(&["check"], "");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("mail to postmaster goes to bob"), "{said}");
}

#[test]
fn a_stranger_does_not_send_in_our_name() {
    let place = Place::new(
        "domain = \"example.org\"\n[smtp]\nown_senders = []\n[[user]]\nname = \"bob\"\n[[user]]\nname = \"alice\"\n",
    );
    let daemon = place.start();
    let mut talk = Talk::open(daemon.smtp);
    let said = talk.ask("MAIL FROM:<bob@Example.org>");
    assert!(said.starts_with("550 5.7.1") && said.contains("sign in"), "{said}");
    assert!(talk.send("a@else.where", &["alice@example.org"], "Subject: x\r\n\r\nx").starts_with("250"));
    assert!(talk.send("", &["alice@example.org"], "Subject: x\r\n\r\ny").starts_with("250"));

    let daemon = Daemon::start("domain = \"example.org\"\n[[user]]\nname = \"bob\"\n");
    let said = Talk::open(daemon.smtp).ask("MAIL FROM:<bob@example.org>");
    assert!(said.starts_with("250"), "programs of this machine may: {said}");
}

#[test]
fn a_chunk_nobody_can_hold_is_refused_at_once() {
    let daemon = Daemon::start("domain = \"example.org\"\n[[user]]\nname = \"bob\"\n");
    for octets in ["18446744073709551615", "99999999999999999999 LAST", "9223372036854775808"] {
        let mut talk = Talk::open(daemon.smtp);
        talk.ask("MAIL FROM:<a@else.where>");
        talk.ask("RCPT TO:<bob@example.org>");
        let said = talk.ask(&format!("BDAT {octets}"));
        assert!(said.starts_with("552 5.3.4"), "{octets}: {said}");
        assert_eq!(talk.reply(), "", "closed");
    }
}

#[test]
fn a_message_is_found_by_every_name_it_had() {
    let daemon = Daemon::start(
        "domain = \"example.org\"\n[[user]]\nname = \"bob\"\n[[alias]]\naddress = \"root\"\nto = [\"staff\"]\n[[alias]]\naddress = \"staff\"\nto = [\"bob\"]\n",
    );
    let mut talk = Talk::open(daemon.smtp);
    let said = talk.send("cron@else.where", &["root"], "Subject: x\r\n\r\nx");
    let id = said.trim().rsplit(' ').next().expect("an id").to_owned();
    for name in ["root", "staff", "bob", "bob@example.org", "staff@example.org", "cron", "cron@else.where", "ROOT", &id]
    {
        let found = daemon.must(&["trace", name], "");
        assert!(found.contains(&id), "{name}: {found}");
    }
    for name in ["oot", "bob@elsewhere.org"] {
        let nothing = daemon.must(&["trace", name], "");
        assert!(!nothing.contains(&id), "{name}: {nothing}");
    }
}

#[test]
fn a_box_that_catches_everything_tells_for_whom_each_message_was() {
    let daemon = Daemon::start(
        "domain = \"example.org\"\n[[user]]\nname = \"dev\"\n[[listen]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:0\"\nsmtp = { role = \"catch\", catch_all = \"dev\" }\n",
    );
    let said = Talk::open(daemon.smtp).send("a@b.test", &["x@one.test", "y@two.test"], "Subject: x\r\n\r\nx");
    assert!(said.starts_with("250"), "{said}");
    let messages = messages(&daemon.on_disk("/mail/dev/new"));
    let [message] = messages.as_slice() else { panic!("one message") };
    assert!(message.contains("\nX-Envelope-To: <x@one.test>\r\nX-Envelope-To: <y@two.test>\r\n"), "{message}");
}

#[test]
fn an_mbox_brings_its_states_along() {
    let place = Daemon::start("domain = \"example.org\"\n[[user]]\nname = \"bob\"\n").stop();
    let folder = tempfile::tempdir().expect("a folder");
    let take = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("room");
        place.must(&["mail", "import", "bob", &path.display().to_string()], "")
    };
    let line = "From a@b Mon Nov 30 10:00:00 2026\n";
    assert!(take("empty.mbox", "").starts_with("0 messages taken"));
    let said = take(
        "thunderbird.mbox",
        &format!(
            "{line}X-Mozilla-Status: 0001\nSubject: kept\n\nx\n\n{line}X-Mozilla-Status: 0009\nSubject: gone\n\nx\n"
        ),
    );
    assert!(said.starts_with("1 messages taken") && said.contains("1 left out"), "{said}");
    take("mutt.mbox", &format!("{line}Status: RO\nX-Status: A\nSubject: read\n\nx\n\n{line}Subject: new\n\nx\n"));
    let root = place.data().join("tree/mail/bob");
    let subjects = |part: &str| {
        let mut all: Vec<String> = fs::read_dir(root.join(part))
            .expect("a folder")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let text = fs::read_to_string(&path).expect("text");
                let subject =
                    text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject").to_owned();
                let name = path.display().to_string();
                subject + " " + name.rsplit_once(":2,").map_or("", |(_, flags)| flags)
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!((subjects("cur"), subjects("new")), (vec!["kept S".into(), "read RS".into()], vec!["new ".into()]));
}
