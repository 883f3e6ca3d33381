//! Limits that the configuration names: each counts as it is set.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::daemon::{Daemon, PATIENCE};

const SPACE: &str = "domain = \"example.org\"\n[[user]]\nname = \"bob\"\n[[space]]\npath = \"/in\"\ngrants = [{ to = \"everyone\", allow = \"list read create\" }]\n";

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
    stream
}

/// `SETTINGS_MAX_CONCURRENT_STREAMS` of the server's first frame (RFC 9113 §6.5).
fn streams(daemon: &Daemon) -> Option<u32> {
    let mut stream = connect(daemon.http);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!(head[3], 4, "SETTINGS");
    let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut body).expect("its values");
    let value = |setting: &[u8]| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
    body.chunks(6).find(|setting| setting[..2] == [0, 3]).map(value)
}

#[test]
fn requests_of_one_connection_are_as_many_as_is_said() {
    assert_eq!(streams(&Daemon::start(SPACE)), Some(100));
    assert_eq!(streams(&Daemon::start(&format!("{SPACE}[limits]\nstreams = 7\n"))), Some(7));
}

/// Bytes of a refused upload that the server took before it let go.
fn lingered(daemon: &Daemon) -> usize {
    let mut stream = connect(daemon.http);
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a bound");
    let most = 64 << 20;
    let head = format!("PUT /nowhere/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {most}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the head");
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < most && stream.write_all(&piece).is_ok() {
        sent += piece.len();
    }
    sent
}

#[test]
fn a_refused_upload_is_read_as_far_as_is_said() {
    let whole = lingered(&Daemon::start(SPACE));
    assert_eq!(whole, 64 << 20, "by default all of it is read, and the refusal is seen");
    for limits in ["linger_size = \"1 MiB\"", "linger = \"1ms\""] {
        let part = lingered(&Daemon::start(&format!("{SPACE}[limits]\n{limits}\n")));
        assert!(part < 48 << 20, "{limits}: {part} bytes");
    }
}

/// A session of SMTP.
struct Mail(BufReader<TcpStream>);

impl Mail {
    fn open(daemon: &Daemon) -> Self {
        let mut mail = Self(BufReader::new(connect(daemon.smtp)));
        mail.reply();
        mail.say("HELO here");
        mail
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        line
    }

    fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("the server reads");
        self.reply()
    }
}

#[test]
fn a_session_ends_after_so_many_wrong_recipients_and_a_loop_has_so_many_hops() {
    let daemon = Daemon::start(&format!("{SPACE}[smtp]\nbad_recipients = 2\nhops = 3\n"));
    let mut mail = Mail::open(&daemon);
    mail.say("MAIL FROM:<a@else.where>");
    assert!(mail.say("RCPT TO:<nobody@example.org>").starts_with("550"));
    assert!(mail.say("RCPT TO:<nobody@example.org>").starts_with("421"));
    let mut mail = Mail::open(&daemon);
    for (hops, code) in [(2, "250"), (3, "554")] {
        mail.say("MAIL FROM:<a@else.where>");
        mail.say("RCPT TO:<bob@example.org>");
        mail.say("DATA");
        let said = mail.say(&format!("{}Subject: {hops}\r\n\r\nx\r\n.", "Received: by a\r\n".repeat(hops)));
        assert!(said.starts_with(code), "{hops}: {said}");
    }
}

#[test]
fn a_file_is_put_together_of_so_many_parts() {
    let daemon = Daemon::start(&format!("{SPACE}[storage]\nupload_parts = 2\n"));
    let ask = |head: &str, body: &str| {
        let mut stream = connect(daemon.http);
        let length = body.len();
        write!(stream, "POST /in/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTus-Resumable: 1.0.0\r\nContent-Length: {length}\r\n{head}\r\n{body}")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let part = || {
        let made =
            ask("Upload-Length: 1\r\nUpload-Concat: partial\r\nContent-Type: application/offset+octet-stream\r\n", "x");
        made.lines().find_map(|line| line.strip_prefix("location: ")).expect("a part").to_owned()
    };
    let join = |parts: &[String], name: &str| {
        ask(&format!("Upload-Concat: final;{}\r\nUpload-Metadata: filename {name}\r\n", parts.join(" ")), "")
    };
    let parts = [part(), part(), part()];
    let refused = join(&parts, "YQ==");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("1 to 2 parts"), "{refused}");
    assert!(join(&parts[..2], "Yg==").starts_with("HTTP/1.1 201"));
}

#[test]
fn wrong_passwords_files_of_a_form_and_messages_of_a_mailbox_have_their_limits() {
    let doors = ["ftp", "smtp", "pop3", "http"]
        .map(|door| format!("[[listen]]\nprotocol = \"{door}\"\naddress = \"127.0.0.1:0\"\n"));
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "wonder-land\n").expect("a password");
    let user = format!("name = \"bob\"\npassword_file = {password:?}");
    let keys = "[limits]\nsign_ins = 2\n[smtp]\nauth_in_clear = true\n[pop3]\nauth_in_clear = true\n[http]\nform_files = 2\n[mail]\nmailbox_messages = 2\n";
    let daemon = Daemon::start(&format!("{}{keys}{}", SPACE.replace("name = \"bob\"", &user), doors.concat()));
    let listeners = std::fs::read_to_string(daemon.data.join("listeners")).expect("the listeners");
    let pop3: SocketAddr =
        listeners.lines().find_map(|line| line.strip_prefix("pop3 ")).expect("POP3").parse().expect("an address");

    let said = |to: SocketAddr, text: &str| {
        let mut stream = connect(to);
        stream.write_all(text.as_bytes()).expect("sent");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    for (to, once, refused) in [
        (daemon.ftp, "USER bob\r\nPASS x\r\n", "530"),
        (daemon.smtp, "AUTH PLAIN AGJvYgB4\r\n", "535"),
        (pop3, "USER bob\r\nPASS x\r\n", "-ERR [AUTH]"),
    ] {
        let all = said(to, &format!("{}{}", if to == daemon.smtp { "EHLO here\r\n" } else { "" }, once.repeat(4)));
        let refusals = all.lines().filter(|line| line.starts_with(refused)).count();
        assert!((1..=2).contains(&refusals), "the second one ends it: {all}");
    }

    let part =
        |name: &str| format!("--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\nx\r\n");
    for (names, status) in [(&["1", "2"][..], "303"), (&["3", "4", "5"], "413")] {
        let body = names.iter().map(|name| part(name)).collect::<Vec<_>>().concat() + "--b--\r\n";
        let head = format!(
            "POST /in/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = said(daemon.http, &(head + &body));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }

    let mut mail = Mail::open(&daemon);
    for number in 0..3 {
        mail.say("MAIL FROM:<a@else.where>");
        mail.say("RCPT TO:<bob@example.org>");
        mail.say("DATA");
        assert!(mail.say(&format!("Subject: {number}\r\n\r\nx\r\n.")).starts_with("250"));
    }
    let all = said(pop3, "USER bob\r\nPASS wonder-land\r\nSTAT\r\nQUIT\r\n");
    assert!(all.contains("\r\n+OK 2 "), "{all}");
}
