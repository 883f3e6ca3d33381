//! A message whose `250` was lost is stored once; two that are the same byte for byte are two where the client of the first had shown that
//! it read the reply. Ways in which a conversation can end, each with a second message that is the same or nearly so.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::{Daemon, until};

const USERS: &str = "domain = \"example.org\"\n[[user]]\nname = \"bob\"\n";

/// One connection, read as far as it is wanted.
struct Talk(TcpStream);

impl Talk {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound");
        let mut talk = Self(stream);
        talk.expect("220");
        talk
    }

    fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("room");
    }

    /// One reply of one line.
    fn expect(&mut self, code: &str) {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") {
            let read = self.0.read(&mut byte).expect("a reply");
            assert!(read > 0, "the end instead of {code}: {}", String::from_utf8_lossy(&line));
            line.push(byte[0]);
        }
        assert!(line.starts_with(code.as_bytes()), "{} instead of {code}", String::from_utf8_lossy(&line));
    }

    fn ask(&mut self, line: &str, code: &str) {
        self.say(&format!("{line}\r\n"));
        self.expect(code);
    }

    /// Everything up to the dot.
    fn begin(&mut self, message: &str) {
        self.ask("HELO here", "250");
        self.ask("MAIL FROM:<camera@else.where>", "250");
        self.ask("RCPT TO:<bob@example.org>", "250");
        self.ask("DATA", "354");
        self.say(message);
    }

    /// Closes with a reset, as a crash of the machine or a dropped connection does.
    fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).expect("an option");
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).expect("the end");
        text
    }
}

/// The mailbox's folder of new messages, and how many of them hold a token.
fn count(mailbox: &Path, token: &str) -> usize {
    let Ok(entries) = fs::read_dir(mailbox) else { return 0 };
    let holds = |path: PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(token));
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| holds(entry.path()))).count()
}

/// How the first conversation ends, and whether its client showed that it read the `250`.
type Way = (&'static str, bool, fn(&Place, &str, &str));

/// Where messages go.
struct Place {
    smtp: SocketAddr,
    mailbox: PathBuf,
}

impl Place {
    /// A message that was sent up to its dot.
    fn begun(&self, message: &str) -> Talk {
        let mut talk = Talk::open(self.smtp);
        talk.begin(message);
        talk
    }

    fn wait(&self, token: &str) {
        until("the message is stored", || count(&self.mailbox, token) == 1);
    }

    /// A conversation as it should be.
    fn deliver(&self, message: &str) {
        let mut talk = self.begun(message);
        talk.ask(".", "250");
        talk.ask("QUIT", "221");
    }
}

const WAYS: &[Way] = &[
    ("QUIT, and the reply to it is read", true, |place, message, _| place.deliver(message)),
    ("QUIT, and nobody waits for the reply", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.ask(".", "250");
        talk.say("QUIT\r\n");
    }),
    ("another command, then a reset", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.ask(".", "250");
        talk.ask("NOOP", "250");
        talk.reset();
    }),
    ("the next message is begun, then a reset", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.ask(".", "250");
        talk.ask("MAIL FROM:<camera@else.where>", "250");
        talk.reset();
    }),
    ("a line that is no command, then a reset", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.ask(".", "250");
        talk.ask("THANKS", "500");
        talk.reset();
    }),
    ("an orderly close without QUIT", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.ask(".", "250");
    }),
    ("its own side is closed, then everything is read", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.ask(".", "250");
        talk.0.shutdown(Shutdown::Write).expect("a shutdown");
        talk.rest();
    }),
    ("QUIT behind the dot, and both replies are read", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.say(".\r\nQUIT\r\n");
        let said = talk.rest();
        assert!(said.starts_with("250") && said.contains("\n221"), "{said}");
    }),
    ("all is sent at once, as by netcat, and everything is read", true, |place, message, _| {
        let mut talk = place.begun(message);
        talk.say(".\r\nQUIT\r\n");
        talk.0.shutdown(Shutdown::Write).expect("a shutdown");
        assert!(talk.rest().contains("\n221"));
    }),
    ("closed before the reply comes", false, |place, message, token| {
        let mut talk = place.begun(message);
        talk.say(".\r\n");
        drop(talk);
        place.wait(token);
    }),
    ("reset with the reply unread", false, |place, message, token| {
        let mut talk = place.begun(message);
        talk.say(".\r\n");
        place.wait(token);
        talk.0.peek(&mut [0]).expect("a reply that is there");
        talk.reset();
    }),
    ("closed with the reply unread", false, |place, message, token| {
        let mut talk = place.begun(message);
        talk.say(".\r\n");
        place.wait(token);
        talk.0.peek(&mut [0]).expect("a reply that is there");
    }),
    ("QUIT behind the dot, and no reply is read", false, |place, message, token| {
        let mut talk = place.begun(message);
        talk.say(".\r\nQUIT\r\n");
        place.wait(token);
        talk.0.peek(&mut [0]).expect("a reply that is there");
        talk.reset();
    }),
];

/// Messages with everything that tells them apart, and with nothing, and what changes in the second one.
fn messages(token: &str, ids: bool) -> (String, Vec<(&'static str, String)>) {
    let head = |id: u32, date: u32| match ids {
        true => format!("Message-ID: <{id}@camera>\r\nDate: Mon, 30 Nov 2026 10:00:{date:02} +0000\r\n"),
        false => format!("X-Clock: {date}\r\nX-Number: {id}\r\n"),
    };
    let message = |head: String, body: &str| format!("{head}Subject: alarm {token}\r\n\r\n{body}\r\n");
    let first = message(head(1, 1), "motion");
    let others = vec![
        ("the same", first.clone()),
        ("another date", message(head(1, 2), "motion")),
        ("another id", message(head(2, 1), "motion")),
        ("another body", message(head(1, 1), "Motion")),
    ];
    (first, others)
}

#[test]
fn only_what_was_never_heard_of_is_stored_once() {
    let daemon = Daemon::start(USERS);
    let place = Place { smtp: daemon.smtp, mailbox: daemon.on_disk("/mail/bob/new") };
    let mut wrong = Vec::new();
    let mut trials = 0;
    for (number, (way, heard, end)) in WAYS.iter().enumerate() {
        for ids in [true, false] {
            for change in 0..4 {
                let token = format!("t{number}-{ids}-{change}-end");
                let (first, others) = messages(&token, ids);
                let (what, second) = &others[change];
                end(&place, &first, &token);
                place.deliver(second);
                let expected = if *heard || change > 0 { 2 } else { 1 };
                let there = count(&place.mailbox, &token);
                if there != expected {
                    wrong.push(format!("{way}; {what} (ids: {ids}): {there} instead of {expected}"));
                }
                trials += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {trials}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_was_heard_is_known_after_a_restart_too() {
    let daemon = Daemon::start(USERS);
    let place = |daemon: &Daemon| Place { smtp: daemon.smtp, mailbox: daemon.on_disk("/mail/bob/new") };
    let (heard, _) = messages("heard-end", false);
    let (lost, _) = messages("lost-end", false);
    place(&daemon).deliver(&heard);
    let mut talk = place(&daemon).begun(&lost);
    talk.say(".\r\n");
    place(&daemon).wait("lost-end");
    let daemon = daemon.stop().start();
    drop(talk);
    place(&daemon).deliver(&heard);
    place(&daemon).deliver(&lost);
    let count = |token| count(&place(&daemon).mailbox, token);
    assert_eq!((count("heard-end"), count("lost-end")), (2, 1));
    // The reply to the second was heard: from now on it is another message.
    place(&daemon).deliver(&lost);
    assert_eq!(count("lost-end"), 2);
}
