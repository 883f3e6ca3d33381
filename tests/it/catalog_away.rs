//! PostgreSQL goes away under a running daemon and comes back: every door says so in its own words, nothing that was acknowledged is lost,
//! nothing that was refused is there, and all works again without a restart.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::daemon::{Daemon, PATIENCE, Place, until};
use crate::postgres::Server;

const DOORS: &str = r#"
domain = "example.org"
[catalog]
engine = "postgres"
url = "URL"
connect = "1s"
answer = "2s"
[http]
basic_in_clear = true
[smtp]
auth_in_clear = true
[pop3]
auth_in_clear = true
[[user]]
name = "ann"
password_file = "PASSWORD"
[[user]]
name = "ben"
password_file = "PASSWORD"
[[space]]
path = "/in"
address = "in"
grants = [ { to = "user:ann", allow = "own" }, { to = "everyone", allow = "create" } ]
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
[[listen]]
protocol = "ftp"
address = "127.0.0.1:0"
[[listen]]
protocol = "smtp"
address = "127.0.0.1:0"
[[listen]]
protocol = "pop3"
address = "127.0.0.1:0"
[[listen]]
protocol = "admin"
address = "127.0.0.1:0"
"#;

/// One session of a line protocol.
struct Lines(BufReader<TcpStream>);

impl Lines {
    fn to(address: SocketAddr) -> (Self, String) {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut lines = Self(BufReader::new(stream));
        let greeting = lines.reply();
        (lines, greeting)
    }

    /// The last line of a reply; empty when the session is over.
    fn reply(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 || line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        let sent = self.0.get_mut().write_all(format!("{line}\r\n").as_bytes());
        if sent.is_err() { String::new() } else { self.reply() }
    }

    /// Says several things; the last reply, or the first that is no success.
    fn all(&mut self, lines: &[&str]) -> String {
        let mut last = String::new();
        for line in lines {
            last = self.say(line);
            if !(last.starts_with(['2', '3']) || last.starts_with("+OK")) {
                break;
            }
        }
        last
    }
}

struct Doors {
    daemon: Daemon,
    pop3: SocketAddr,
}

impl Doors {
    fn open(place: Place) -> Self {
        let daemon = place.start();
        let text = fs::read_to_string(daemon.data.join("listeners")).expect("the listeners");
        let pop3 = text.lines().find_map(|line| line.strip_prefix("pop3 ")).expect("POP3 listens");
        let pop3 = pop3.parse().expect("an address");
        Self { daemon, pop3 }
    }

    /// A request by ann: the head of its answer.
    fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.daemon.http).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (key, length) = (STANDARD.encode("ann:wonder-land"), body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {key}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("the server reads");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn status(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.daemon.admin).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        (answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default(), answer)
    }

    fn smtp(&self) -> Lines {
        let (mut lines, greeting) = Lines::to(self.daemon.smtp);
        assert!(greeting.starts_with("220"), "{greeting}");
        lines.say("EHLO client.example");
        lines
    }

    fn ftp(&self) -> (Lines, String) {
        let (mut lines, _) = Lines::to(self.daemon.ftp);
        let reply = lines.all(&["USER ann", "PASS wonder-land", "TYPE I", "CWD /in"]);
        (lines, reply)
    }

    fn pop3(&self, name: &str) -> (Lines, String) {
        let (mut lines, _) = Lines::to(self.pop3);
        let reply = lines.all(&[&format!("USER {name}"), "PASS wonder-land"]);
        (lines, reply)
    }
}

/// Sends a message; the reply that decides about it.
fn mail(session: &mut Lines, to: &str, subject: &str) -> String {
    let reply = session.all(&["RSET", "MAIL FROM:<a@else.where>", &format!("RCPT TO:<{to}>"), "DATA"]);
    if !reply.starts_with("354") {
        return reply;
    }
    session.say(&format!("Subject: {subject}\r\n\r\n{subject} has a body\r\n."))
}

/// Stores a file by FTP; the reply that decides about it.
fn store(session: &mut Lines, name: &str, content: &str) -> String {
    let passive = session.say("EPSV");
    let Some(port) = passive.split('|').nth(3).and_then(|port| port.parse::<u16>().ok()) else { return passive };
    let mut data = TcpStream::connect(("127.0.0.1", port)).expect("a data connection");
    let begun = session.say(&format!("STOR {name}"));
    if !begun.starts_with("150") {
        return begun;
    }
    let _ = data.write_all(content.as_bytes());
    drop(data);
    session.reply()
}

#[test]
fn without_its_catalog_every_door_says_so_and_nothing_acknowledged_is_lost() {
    let Some(mut server) = Server::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    fs::write(&password, "wonder-land\n").expect("a password");
    let toml = DOORS.replace("URL", &server.database("away")).replace("PASSWORD", &password.to_string_lossy());
    let doors = Doors::open(Place::new(&toml));

    let (mut old_smtp, (mut old_ftp, welcome)) = (doors.smtp(), doors.ftp());
    assert!(welcome.starts_with("250"), "{welcome}");
    assert!(doors.http("PUT", "/in/before-http", "kept").starts_with("HTTP/1.1 201"));
    assert!(store(&mut old_ftp, "before-ftp", "kept").starts_with("226"));
    assert!(mail(&mut old_smtp, "in@example.org", "before").starts_with("250"));
    assert!(mail(&mut old_smtp, "ann@example.org", "kept").starts_with("250"));
    let (mut old_pop3, listed) = doors.pop3("ann");
    assert!(listed.contains("+OK 1 message"), "{listed}");
    assert!(old_pop3.say("DELE 1").starts_with("+OK"));
    assert_eq!(doors.status("/ready").0, 200);

    server.stop();
    until("it is not ready", || doors.status("/ready").0 == 503);
    let (_, why) = doors.status("/ready");
    assert!(why.contains("catalog"), "{why}");
    assert_eq!(doors.status("/health").0, 200, "alive all the same");
    assert!(doors.status("/metrics").1.contains("stoa_ready 0"));

    for round in 0..2 {
        let refused = doors.http("PUT", &format!("/in/away-http-{round}"), "refused");
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(refused.to_ascii_lowercase().contains("\r\nretry-after: "), "{refused}");
        let refused = doors.http("DELETE", "/in/before-http", "");
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        for (session, whose) in [(&mut old_smtp, "an old"), (&mut doors.smtp(), "a new")] {
            for to in ["in@example.org", "ann@example.org"] {
                let refused = mail(session, to, "away");
                assert!(refused.starts_with("451 4.3.0"), "{whose} session, {to}: {refused}");
            }
        }
        let refused = store(&mut old_ftp, "away-ftp", "refused");
        assert!(refused.starts_with('4'), "{refused}");
        let (mut new_ftp, welcome) = doors.ftp();
        let refused = if welcome.starts_with('2') { store(&mut new_ftp, "away-ftp", "refused") } else { welcome };
        assert!(refused.starts_with('4'), "{refused}");
        let (_, refused) = doors.pop3("ben");
        assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    }
    let refused = old_pop3.say("QUIT");
    assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");

    server.start_again();
    until("it stores again", || doors.http("PUT", "/in/after-http", "kept").starts_with("HTTP/1.1 20"));
    until("it is ready again", || doors.status("/ready").0 == 200);
    assert!(doors.status("/metrics").1.contains("stoa_ready 1"));
    assert!(mail(&mut old_smtp, "in@example.org", "after").starts_with("250"), "the same session goes on");
    assert!(store(&mut old_ftp, "after-ftp", "kept").starts_with("226"), "and this one");
    let (mut pop3, listed) = doors.pop3("ann");
    assert!(listed.contains("+OK 1 message"), "the deletion was refused, so nothing was deleted: {listed}");
    assert!(pop3.say("DELE 1").starts_with("+OK") && pop3.say("QUIT").starts_with("+OK"));
    for name in ["before-http", "before-ftp", "after-http", "after-ftp"] {
        let answer = doors.http("GET", &format!("/in/{name}"), "");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("kept"), "{name}: {answer}");
    }
    let filed: Vec<_> = fs::read_dir(doors.daemon.on_disk("/in")).expect("a folder").flatten().collect();
    let names: Vec<_> = filed.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 6, "four files and two messages: {names:?}");
    assert!(!names.iter().any(|name| name.contains("away")), "what was refused is not there: {names:?}");

    // Sessions that are open when the daemon ends are told.
    let mut idle = doors.smtp();
    let mut writing = doors.smtp();
    writing.all(&["MAIL FROM:<a@else.where>", "RCPT TO:<in@example.org>"]);
    doors.daemon.signal("TERM");
    for session in [&mut idle, &mut writing, &mut old_smtp] {
        let parting = session.reply();
        assert!(parting.starts_with("421 "), "{parting:?}");
    }
    drop(doors.daemon.wait());
}
