//! Access that ends while sessions are open: every door says so in its own language within two seconds, and nothing that was
//! under way has an effect afterwards. What removed accounts and spaces leave behind belongs to administrators.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::daemon::{Daemon, Place, until};

/// Bound of the promise, and what a loaded machine may add to it.
const BOUND: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(3);

/// Every door in clear.
pub const DOORS: &str = r#"domain = "example.org"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
[[listen]]
protocol = "ftp"
address = "127.0.0.1:0"
[[listen]]
protocol = "smtp"
address = "127.0.0.1:0"
smtp = { auth_in_clear = true }
[[listen]]
protocol = "pop3"
address = "127.0.0.1:0"
pop3 = { auth_in_clear = true }
[http]
basic_in_clear = true
"#;

fn declared(name: &str, password: &Path, more: &str) -> String {
    format!("[[user]]\nname = \"{name}\"\npassword_file = {:?}\n{more}\n", password.display().to_string())
}

/// One connection that says lines and hears all that comes.
pub struct Wire(TcpStream);

impl Wire {
    pub fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("a listener");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self(stream)
    }

    pub fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("a listener");
    }

    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") && self.0.read(&mut byte).is_ok_and(|count| count == 1) {
            line.extend_from_slice(&byte);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Says a line and hears replies to the last line of one that begins so.
    pub fn ask(&mut self, command: &str, wanted: &str) -> String {
        self.say(&format!("{command}\r\n"));
        self.hear(wanted)
    }

    pub fn hear(&mut self, wanted: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "closed while `{wanted}` was awaited");
            if line.as_bytes().get(3) != Some(&b'-') {
                assert!(line.starts_with(wanted), "{line} instead of {wanted}");
                return line;
            }
        }
    }

    /// All that comes to the end.
    pub fn rest(mut self) -> String {
        let mut all = Vec::new();
        // A reset is an end too.
        let _ = self.0.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }

    fn http(&mut self, method: &str, path: &str, headers: &str, body: &str) -> u16 {
        let length = body.len();
        self.say(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ));
        match method {
            "HEAD" => self.head().0,
            _ => self.answer().0,
        }
    }

    /// Status and head of the next response; its body is read and forgotten.
    fn answer(&mut self) -> (u16, String) {
        let (status, head, length) = self.head();
        let _ = self.0.read_exact(&mut vec![0; length]);
        (status, head)
    }

    fn head(&mut self) -> (u16, String, usize) {
        let mut head = String::new();
        loop {
            let line = self.line();
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        (status, head, length)
    }
}

pub fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

pub fn pop3(daemon: &Daemon) -> SocketAddr {
    let text = std::fs::read_to_string(daemon.data.join("listeners")).expect("listeners");
    text.lines().find_map(|line| line.strip_prefix("pop3 ")).expect("pop3").parse().expect("an address")
}

fn ftp(daemon: &Daemon, name: &str, password: &str) -> Wire {
    let mut wire = Wire::open(daemon.ftp);
    wire.hear("220");
    wire.ask(&format!("USER {name}"), "331");
    wire.ask(&format!("PASS {password}"), "230");
    wire.ask("TYPE I", "200");
    wire
}

/// An upload under way: the control connection, and the data connection with the first half.
fn storing(daemon: &Daemon, name: &str, password: &str, path: &str) -> (Wire, TcpStream) {
    let mut wire = ftp(daemon, name, password);
    let told = wire.ask("EPSV", "229");
    let port: u16 = told.split('|').nth(3).expect("a port").parse().expect("a port");
    wire.say(&format!("STOR {path}\r\n"));
    let mut data = TcpStream::connect((daemon.ftp.ip(), port)).expect("a data connection");
    wire.hear("150");
    data.write_all(&vec![b'x'; 100_000]).expect("a reader");
    (wire, data)
}

fn smtp(daemon: &Daemon, name: &str, password: &str) -> Wire {
    let mut wire = Wire::open(daemon.smtp);
    wire.hear("220");
    wire.ask("EHLO here", "250");
    let proof = STANDARD.encode(format!("\0{name}\0{password}"));
    wire.ask(&format!("AUTH PLAIN {proof}"), "235");
    wire
}

/// All the sessions of one account.
struct Sessions {
    name: String,
    password: String,
    cookie: String,
    ftp: Wire,
    storing: (Wire, TcpStream),
    smtp: Wire,
    writing: Wire,
    pop3: Wire,
    basic: Wire,
    putting: Wire,
    tus: String,
}

impl Sessions {
    fn open(daemon: &Daemon, name: &str, password: &str) -> Self {
        let sign_in = basic(name, password);
        let mut form = Wire::open(daemon.http);
        let body = format!("name={name}&password={password}");
        let length = body.len();
        form.say(&format!(
            "POST /-/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let (status, head) = form.answer();
        assert_eq!(status, 303, "{head}");
        let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        let cookie = format!("Cookie: {}\r\n", set.split(';').next().expect("a cookie"));
        let mut kept = Wire::open(daemon.http);
        assert_eq!(kept.http("GET", &format!("/home/{name}/"), &sign_in, ""), 200, "{name}");
        assert_eq!(form.http("GET", &format!("/home/{name}/"), &cookie, ""), 200, "{name}");
        let mut putting = Wire::open(daemon.http);
        putting.say(&format!(
            "PUT /home/{name}/put HTTP/1.1\r\nHost: localhost\r\n{sign_in}Content-Length: 200000\r\n\r\n"
        ));
        putting.0.write_all(&vec![b'x'; 100_000]).expect("a reader");
        let mut made = Wire::open(daemon.http);
        made.say(&format!(
            "POST /home/{name}/ HTTP/1.1\r\nHost: localhost\r\n{sign_in}Tus-Resumable: 1.0.0\r\nUpload-Length: 10\r\nUpload-Metadata: filename {}\r\nContent-Length: 0\r\n\r\n",
            STANDARD.encode("tus")
        ));
        let (status, head) = made.answer();
        assert_eq!(status, 201, "{head}");
        let place = head.lines().find_map(|line| line.strip_prefix("location: ")).expect("a place").trim().to_owned();
        let tus = place.find("/-/").map_or(place.clone(), |at| place[at..].to_owned());
        let mut writing = smtp(daemon, name, password);
        writing.ask(&format!("MAIL FROM:<{name}@example.org>"), "250");
        writing.ask("RCPT TO:<keeper@example.org>", "250");
        writing.ask("DATA", "354");
        writing.say("Subject: half\r\n\r\nhalf a message\r\n");
        let mut mail = Wire::open(pop3(daemon));
        mail.hear("+OK");
        mail.ask(&format!("USER {name}"), "+OK");
        mail.ask(&format!("PASS {password}"), "+OK");
        Self {
            ftp: ftp(daemon, name, password),
            storing: storing(daemon, name, password, &format!("/home/{name}/stored")),
            smtp: smtp(daemon, name, password),
            name: name.to_owned(),
            password: password.to_owned(),
            cookie,
            writing,
            pop3: mail,
            basic: kept,
            putting,
            tus,
        }
    }

    /// Every one of them ends in time and in its language, and nothing was stored.
    fn end(mut self, daemon: &Daemon, way: &str) {
        let begun = Instant::now();
        let name = &self.name;
        assert!(self.ftp.rest().starts_with("421 "), "{way}: FTP");
        let stored = self.storing.0.rest();
        let codes: Vec<&str> = stored.lines().map(|line| &line[..3]).collect();
        assert_eq!(codes.last(), Some(&"421"), "{way}: FTP while storing: {stored}");
        assert!(codes.iter().all(|code| code.starts_with('4') || code.starts_with('5')), "{way}: {stored}");
        assert!(self.smtp.rest().starts_with("421 "), "{way}: SMTP");
        assert!(self.writing.rest().starts_with("421 "), "{way}: SMTP in a message");
        assert!(self.pop3.rest().starts_with("-ERR"), "{way}: POP3");
        let put = self.putting.rest();
        assert!(put.is_empty() || put.starts_with("HTTP/1.1 401"), "{way}: PUT: {put}");
        assert!(begun.elapsed() < BOUND + SLACK, "{way}: {:?}", begun.elapsed());
        let sign_in = basic(name, &self.password);
        let home = format!("/home/{name}/");
        let again = self.basic.http("GET", &home, &sign_in, "");
        assert!([0, 401].contains(&again), "{way}: Basic on a kept connection: {again}");
        let put = Wire::open(daemon.http).http("PUT", &format!("{home}late"), &self.cookie, "late");
        assert!([401, 403].contains(&put), "{way}: the cookie: {put}");
        let tus = format!("{sign_in}Tus-Resumable: 1.0.0\r\n");
        let gone = Wire::open(daemon.http).http("HEAD", &self.tus, &tus, "");
        assert!([401, 403, 404, 410].contains(&gone), "{way}: tus: {gone}");
        for file in ["put", "stored", "late", "tus"] {
            assert!(!daemon.on_disk(&home).join(file).exists(), "{way}: {file}");
        }
    }
}

#[test]
fn whatever_ends_access_ends_every_open_session_and_what_it_was_doing() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "right-password").expect("a file");
    let other = folder.path().join("other");
    std::fs::write(&other, "other-password").expect("a file");
    let ways = [
        ("d-disabled", Some((&password, "disabled = true"))),
        ("d-networks", Some((&password, "networks = [\"192.0.2.0/24\"]"))),
        ("d-doors", Some((&password, "protocols = [\"ftp\"]"))),
        ("d-password", Some((&other, ""))),
        ("d-removed", None),
    ];
    let keeper = declared("keeper", &password, "admin = true");
    let before = ways.iter().map(|(name, _)| declared(name, &password, "")).collect::<String>();
    let place = Place::new(&format!("{DOORS}{keeper}{before}"));
    let commands: [(&str, &[&[&str]]); 5] = [
        ("c-disabled", &[&["user", "disable", "c-disabled"]]),
        ("c-removed", &[&["user", "remove", "c-removed"]]),
        ("c-again", &[&["user", "remove", "c-again"], &["user", "add", "c-again"]]),
        ("c-password", &[&["user", "passwd", "c-password"]]),
        ("c-signed-out", &[&["user", "sign-out", "c-signed-out"]]),
    ];
    for (name, _) in &commands {
        place.must(&["user", "add", name], "right-password\n");
    }
    let daemon = place.start();
    // Commands beside the daemon.
    for (name, steps) in commands {
        let sessions = Sessions::open(&daemon, name, "right-password");
        for step in steps {
            daemon.must(step, "other-password\n");
        }
        if name == "c-signed-out" {
            // The password is right as before: only what was open ended.
            let Sessions { ftp, smtp, pop3, writing, cookie, .. } = sessions;
            assert!(ftp.rest().starts_with("421 ") && smtp.rest().starts_with("421 "));
            assert!(writing.rest().starts_with("421 ") && pop3.rest().starts_with("-ERR"));
            let put = Wire::open(daemon.http).http("PUT", &format!("/home/{name}/late"), &cookie, "late");
            assert!([401, 403].contains(&put), "{put}");
            continue;
        }
        sessions.end(&daemon, name);
    }
    // The configuration, read again.
    let sessions: Vec<_> = ways.iter().map(|(name, _)| Sessions::open(&daemon, name, "right-password")).collect();
    let after = ways.iter().filter_map(|(name, now)| now.map(|(file, more)| declared(name, file, more)));
    daemon.place().configure(&format!("{DOORS}{keeper}{}", after.collect::<String>()));
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration was reloaded");
    for ((name, _), sessions) in ways.iter().zip(sessions) {
        sessions.end(&daemon, name);
    }
    // Nobody's half message arrived.
    let mail = daemon.on_disk("/mail/keeper/new");
    assert!(std::fs::read_dir(mail).map_or(0, Iterator::count) == 0);
}

#[test]
fn a_grant_that_is_taken_away_holds_for_the_next_command_and_for_the_commit_of_a_running_upload() {
    let place = Place::new(DOORS);
    for name in ["ann", "bob"] {
        place.must(&["user", "add", name], "right-password\n");
    }
    place.must(&["space", "add", "/team", "--grant", "user:ann=edit", "--grant", "user:bob=edit"], "");
    let daemon = place.start();
    let mut idle = ftp(&daemon, "ann", "right-password");
    idle.ask("CWD /team", "250");
    let (mut control, data) = storing(&daemon, "ann", "right-password", "/team/half");
    let mut putting = Wire::open(daemon.http);
    let sign_in = basic("ann", "right-password");
    putting.say(&format!("PUT /team/put HTTP/1.1\r\nHost: localhost\r\n{sign_in}Content-Length: 10\r\n\r\nhalf "));
    daemon.must(&["space", "add", "/team", "--grant", "user:bob=edit"], "");
    until("ann may not", || {
        idle.say("CWD /team\r\n");
        idle.line().starts_with("550")
    });
    idle.ask("CWD /", "250");
    drop(data);
    control.hear("5");
    control.ask("NOOP", "200");
    putting.say("whole");
    assert!([403, 404].contains(&putting.answer().0));
    for file in ["half", "put"] {
        assert!(!daemon.on_disk("/team").join(file).exists(), "{file}");
    }
}

#[test]
fn what_a_removed_account_or_space_leaves_behind_is_for_administrators_until_they_decide() {
    let place = Place::new(DOORS);
    place.must(&["user", "add", "root", "--admin"], "right-password\n");
    for name in ["gina", "eve"] {
        place.must(&["user", "add", name], "right-password\n");
    }
    place.must(&["space", "add", "/", "--grant", "users=view"], "");
    place.must(&["space", "add", "/team", "--grant", "users=edit"], "");
    place.must(&["space", "add", "/team/boss", "--grant", "user:gina=edit"], "");
    let daemon = place.start();
    let ask = |method: &str, path: &str, who: &str| {
        let body = if method == "PUT" { "x" } else { "" };
        Wire::open(daemon.http).http(method, path, &basic(who, "right-password"), body)
    };
    assert_eq!(ask("PUT", "/home/gina/diary", "gina"), 201);
    assert_eq!(ask("PUT", "/team/boss/plan", "gina"), 201);
    daemon.must(&["user", "remove", "gina"], "");
    daemon.must(&["space", "remove", "/team/boss"], "");
    until("gina is gone", || ask("GET", "/home/gina/diary", "gina") == 401);
    for path in ["/home/gina/diary", "/team/boss/plan", "/home/gina/", "/team/boss/"] {
        assert_eq!(ask("GET", path, "eve"), 404, "{path}");
        assert_eq!(ask("GET", path, "root"), 200, "{path}");
    }
    let warned = daemon.place().run(&["user", "add", "gina"], "right-password\n");
    assert!(warned.status.success() && String::from_utf8_lossy(&warned.stderr).contains("/home/gina"), "{warned:?}");
    until("the new gina is there", || ask("GET", "/team/", "gina") == 200);
    assert_eq!(ask("GET", "/home/gina/diary", "gina"), 404, "she inherits nothing");
    let again = daemon.place().run(&["space", "add", "/team/boss", "--grant", "users=view"], "");
    assert!(!again.status.success(), "the files would be given away");
    daemon.must(&["space", "remove", "/team/boss", "--hand-over", "eve"], "");
    until("eve has it", || ask("GET", "/team/boss/plan", "eve") == 200);
    assert_eq!(ask("GET", "/team/boss/plan", "gina"), 404);
    daemon.must(&["space", "remove", "/home/gina", "--delete"], "");
    until("gina has an empty home", || ask("GET", "/home/gina/", "gina") == 200);
    assert_eq!(ask("GET", "/home/gina/diary", "gina"), 404);
    assert!(!daemon.on_disk("/home/gina/diary").exists());
}

#[test]
fn a_declared_account_that_goes_leaves_its_files_to_administrators() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "right-password").expect("a file");
    let space = "[[space]]\npath = \"/\"\ngrants = [{ to = \"users\", allow = \"view\" }]\n";
    let (eve, gina) = (declared("eve", &password, ""), declared("gina", &password, ""));
    let daemon = Place::new(&format!("{DOORS}{space}{eve}{gina}")).start();
    let ask = |method: &str, path: &str, who: &str| {
        let body = if method == "PUT" { "x" } else { "" };
        Wire::open(daemon.http).http(method, path, &basic(who, "right-password"), body)
    };
    assert_eq!(ask("PUT", "/home/gina/diary", "gina"), 201);
    let reload = |text: String, count: usize| {
        daemon.place().configure(&text);
        daemon.signal("HUP");
        until("the reload", || daemon.log().matches("the configuration was reloaded").count() == count);
    };
    reload(format!("{DOORS}{space}{eve}"), 1);
    assert_eq!(ask("GET", "/home/gina/diary", "eve"), 404);
    reload(format!("{DOORS}{space}{eve}{gina}"), 2);
    assert_eq!(ask("GET", "/home/gina/diary", "gina"), 404, "declared again, she inherits nothing");
    daemon.must(&["space", "remove", "/home/gina", "--hand-over", "gina"], "");
    until("it was handed over to her", || ask("GET", "/home/gina/diary", "gina") == 200);
}

/// More than the buffers of both sides hold.
const LARGE: usize = 24 << 20;

/// Reads what still comes, after a first part was read; how much it is in all.
fn read_on(stream: &mut TcpStream, read: usize) -> usize {
    let (mut all, mut piece) = (read, vec![0; 1 << 16]);
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 {
            break;
        }
        all += count;
    }
    all
}

#[test]
fn downloads_and_pieces_under_way_are_cut_when_access_ends() {
    let place = Place::new(DOORS);
    for name in ["ann", "bob"] {
        place.must(&["user", "add", name], "right-password\n");
    }
    let daemon = place.start();
    let sign_in = basic("ann", "right-password");
    let body = "x".repeat(LARGE);
    assert_eq!(Wire::open(daemon.http).http("PUT", "/home/ann/large", &sign_in, &body), 201);
    let mut sending = smtp(&daemon, "ann", "right-password");
    sending.ask("MAIL FROM:<ann@example.org>", "250");
    sending.ask("RCPT TO:<ann@example.org>", "250");
    sending.ask("DATA", "354");
    let line = "x".repeat(78) + "\r\n";
    sending.say(&format!("Subject: large\r\n\r\n{}.\r\n", line.repeat(LARGE / 80)));
    sending.hear("250");

    let mut getting = Wire::open(daemon.http);
    getting.say(&format!("GET /home/ann/large HTTP/1.1\r\nHost: localhost\r\n{sign_in}\r\n"));
    let (status, head, _) = getting.head();
    assert_eq!(status, 200, "{head}");
    let mut control = ftp(&daemon, "ann", "right-password");
    let told = control.ask("EPSV", "229");
    let port: u16 = told.split('|').nth(3).expect("a port").parse().expect("a port");
    control.say("RETR /home/ann/large\r\n");
    let mut data = TcpStream::connect((daemon.ftp.ip(), port)).expect("a data connection");
    data.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    control.hear("150");
    let mut mail = Wire::open(pop3(&daemon));
    mail.hear("+OK");
    mail.ask("USER ann", "+OK");
    mail.ask("PASS right-password", "+OK");
    mail.ask("RETR 1", "+OK");
    let mut first = vec![0; 1 << 16];
    for stream in [&mut getting.0, &mut data, &mut mail.0] {
        stream.read_exact(&mut first).expect("a first part");
    }
    let mut made = Wire::open(daemon.http);
    let name = STANDARD.encode("tus");
    made.say(&format!(
        "POST /home/ann/ HTTP/1.1\r\nHost: localhost\r\n{sign_in}Tus-Resumable: 1.0.0\r\nUpload-Length: 10\r\nUpload-Metadata: filename {name}\r\nContent-Length: 0\r\n\r\n"
    ));
    let (status, head) = made.answer();
    assert_eq!(status, 201, "{head}");
    let place = head.lines().find_map(|line| line.strip_prefix("location: ")).expect("a place").trim();
    let place = place.find("/-/").map_or(place, |at| &place[at..]);
    let mut piece = Wire::open(daemon.http);
    piece.say(&format!(
        "PATCH {place} HTTP/1.1\r\nHost: localhost\r\n{sign_in}Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 10\r\n\r\nhalf "
    ));

    daemon.must(&["user", "disable", "ann"], "");
    let begun = Instant::now();
    let cut = piece.rest();
    assert!(cut.is_empty() || cut.starts_with("HTTP/1.1 401"), "{cut}");
    assert!(begun.elapsed() < BOUND + SLACK, "{:?}", begun.elapsed());
    // What is still in the buffers may come; what is sent after the bound would be all of it.
    std::thread::sleep((BOUND + Duration::from_secs(1)).saturating_sub(begun.elapsed()));
    for (door, stream) in [("HTTP", &mut getting.0), ("FTP", &mut data), ("POP3", &mut mail.0)] {
        let came = read_on(stream, first.len());
        assert!(came < LARGE, "{door}: all {came} bytes came");
    }
    let ended = control.rest();
    let codes: Vec<&str> = ended.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes.last(), Some(&"421"), "{ended}");
    assert!(codes.iter().all(|code| code.starts_with('4')), "{ended}");
    assert!(!daemon.on_disk("/home/ann/tus").exists());
    assert!(Wire::open(pop3(&daemon)).line().starts_with("+OK"), "others are served");
}

#[test]
fn http2_and_ftp_with_tls_are_cut_as_well() {
    const SECURE: &str = "[[listen]]\nprotocol = \"http\"\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n\
        [[listen]]\nprotocol = \"ftp\"\naddress = \"127.0.0.1:0\"\ntls = \"upgrade\"\n";
    let place = Place::new(SECURE);
    place.must(&["user", "add", "ann"], "right-password\n");
    let daemon = place.start();
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large");
    std::fs::write(&large, vec![b'x'; LARGE]).expect("a file");
    let curl = |more: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-k", "--user", "ann:right-password", "--max-time", "60"]).args(more);
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    let url = |door: &str, name: &str| match door {
        "http" => format!("https://{}/home/ann/{name}", daemon.http),
        _ => format!("ftp://{}/home/ann/{name}", daemon.ftp),
    };
    let source = large.display().to_string();
    assert!(curl(&["--http2", "-T", &source, &url("http", "large")]).status().expect("curl").success());
    let mut running = Vec::new();
    for door in ["http", "ftp"] {
        let goal = folder.path().join(door);
        let (given, taken) = (url(door, "large"), url(door, "stored"));
        let way = if door == "http" { "--http2" } else { "--ssl-reqd" };
        let get =
            curl(&[way, "--limit-rate", "2M", "-N", "-o", &goal.display().to_string(), &given]).spawn().expect("curl");
        let put = curl(&[way, "--limit-rate", "2M", "-T", &source, &taken]).spawn().expect("curl");
        running.extend([(door, "download", get), (door, "upload", put)]);
        until("the download runs", || std::fs::metadata(&goal).is_ok_and(|file| file.len() > 0));
    }
    daemon.must(&["user", "disable", "ann"], "");
    for (door, what, mut child) in running {
        until(&format!("the {what} by {door} is cut"), || child.try_wait().expect("curl").is_some());
        assert!(!child.wait().expect("curl").success(), "{door} {what}");
    }
    for door in ["http", "ftp"] {
        assert!(std::fs::metadata(folder.path().join(door)).is_ok_and(|file| file.len() < LARGE as u64), "{door}");
    }
    assert!(!daemon.on_disk("/home/ann/stored").exists());
}

#[test]
fn a_disabled_device_cannot_sign_in_until_it_is_enabled() {
    let place = Place::new(DOORS);
    place.must(&["device", "add", "camera", "--folder", "/cameras/1"], "right-password\n");
    let daemon = place.start();
    let code = || {
        let mut wire = Wire::open(daemon.ftp);
        wire.line();
        wire.ask("USER camera", "331");
        wire.say("PASS right-password\r\n");
        wire.line().get(..3).unwrap_or_default().to_owned()
    };
    assert_eq!(code(), "230");
    for (word, expected) in [("disable", "530"), ("enable", "230")] {
        daemon.must(&["device", word, "camera"], "");
        until(&format!("the device is {word}d"), || code() == expected);
        let disabled = daemon.must(&["device", "list", "--json"], "").contains("\"disabled\": true")
            || daemon.must(&["device", "list", "--json"], "").contains("\"disabled\":true");
        assert_eq!(disabled, word == "disable");
    }
}
