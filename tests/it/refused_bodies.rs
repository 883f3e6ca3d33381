//! Refused uploads: whoever sends one reads the refusal, and what becomes of the connection is what the answer says. However the body comes: with the head, a
//! moment later, in chunks, or after a `100 Continue` that never comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::daemon::{Daemon, PATIENCE};

const CONFIG: &str = r#"
[http]
basic_in_clear = true
body_size = "64 MiB"
[[user]]
name = "ann"
password_file = "PASSWORD"
[[space]]
path = "/in"
grants = [ { to = "user:ann", allow = "own" }, { to = "everyone", allow = "view" } ]
[[space]]
path = "/full"
quota = "10 KiB"
grants = [ { to = "user:ann", allow = "own" } ]
[[space]]
path = "/once"
overwrite = "refuse"
grants = [ { to = "user:ann", allow = "own" } ]
[[space]]
path = "/others"
grants = []
"#;

const SIZE: usize = 5 << 20;

fn open() -> (Daemon, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "wonder-land\n").expect("a password");
    let daemon = Daemon::start(&CONFIG.replace("PASSWORD", &password.to_string_lossy()));
    let made = Client::to(daemon.http).ask("PUT /in/there", "", How::Together, 3);
    assert_eq!(made.0, 201);
    assert_eq!(Client::to(daemon.http).ask("PUT /once/there", "", How::Together, 3).0, 201);
    assert_eq!(Client::to(daemon.http).ask("MKCOL /in/folder", "", How::Without, 0).0, 201);
    (daemon, folder)
}

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Together,
    Later,
    Chunked,
    Expected,
    Without,
}

struct Client(TcpStream);

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        stream.set_write_timeout(Some(PATIENCE)).expect("a bound");
        Self(stream)
    }

    /// Status, and whether the connection goes on.
    fn ask(&mut self, line: &str, headers: &str, how: How, size: usize) -> (u16, bool) {
        let key = if headers.contains("Authorization") {
            String::new()
        } else {
            format!("Authorization: Basic {}\r\n", STANDARD.encode("ann:wonder-land"))
        };
        let length = match how {
            How::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            How::Without => String::new(),
            How::Expected => format!("Content-Length: {size}\r\nExpect: 100-continue\r\n"),
            How::Together | How::Later => format!("Content-Length: {size}\r\n"),
        };
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{key}{headers}{length}\r\n");
        self.0.write_all(head.as_bytes()).expect("the head");
        if how == How::Later {
            // The head is answered before the body comes.
            std::thread::sleep(Duration::from_millis(50));
        }
        let body = vec![b'x'; size];
        match how {
            How::Together | How::Later => self.0.write_all(&body).expect("the whole body is read"),
            How::Chunked => {
                for piece in body.chunks(100_000) {
                    self.0.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).expect("a chunk");
                    self.0.write_all(&[piece, b"\r\n"].concat()).expect("a chunk");
                }
                self.0.write_all(b"0\r\n\r\n").expect("the end");
            }
            How::Expected | How::Without => {}
        }
        self.answer()
    }

    fn answer(&mut self) -> (u16, bool) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(
                self.0.read(&mut byte).expect("an answer"),
                1,
                "closed after {}",
                String::from_utf8_lossy(&head)
            );
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = value("content-length:").map_or(0, |text| text.parse().expect("a number"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, value("connection:") != Some("close"))
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// The request, headers, and the refusal.
const REFUSED: &[(&str, &str, u16)] = &[
    ("PUT /in/nowhere/a", "", 409),
    ("PUT /in/folder", "", 409),
    ("PUT /in/there/a", "", 409),
    ("PUT /full/a", "", 507),
    ("PUT /once/there", "", 409),
    ("PUT /in/there", "If-None-Match: *\r\n", 412),
    ("PUT /in/there", "If-Match: \"other\"\r\n", 412),
    ("PUT /others/a", "", 404),
    ("PUT /in/a", "Authorization: Basic YW5uOndyb25n\r\n", 401),
    ("PUT /in/a", "Content-Encoding: gzip\r\n", 415),
    ("PUT /in/a", "Content-Range: bytes 5-1/10\r\n", 400),
    ("PUT /%zz", "", 400),
    ("POST /in/", "Content-Type: text/plain\r\n", 415),
    ("PROPFIND /in/", "Depth: 0\r\n", 413),
    ("DELETE /in/nowhere", "", 404),
    ("BREW /in/a", "", 501),
];

#[test]
fn the_refusal_is_read_and_the_connection_is_what_it_says() {
    let (daemon, _folder) = open();
    let mut wrong = Vec::new();
    for (line, headers, status) in REFUSED {
        for how in [How::Together, How::Later, How::Chunked, How::Expected] {
            let mut client = Client::to(daemon.http);
            let (said, goes_on) = client.ask(line, headers, how, SIZE);
            if said != *status {
                wrong.push(format!("{line} {headers:?} {how:?}: {said} instead of {status}"));
            } else if goes_on {
                let (next, _) = client.ask("GET /in/there", "", How::Without, 0);
                if next != 200 {
                    wrong.push(format!("{line} {how:?}: the next request got {next}"));
                }
            } else if how != How::Expected && !client.is_closed() {
                wrong.push(format!("{line} {how:?}: said to close, and did not"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_request_of_a_kept_connection_stays_without_an_answer() {
    let (daemon, _folder) = open();
    let address = daemon.http;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                for number in 0..40 {
                    let how = if number % 2 == 0 { How::Later } else { How::Together };
                    let (status, goes_on) = client.ask("PUT /full/a", "", how, 20_000);
                    assert_eq!(status, 507);
                    if !goes_on {
                        client = Client::to(address);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request is answered");
    }
}

#[test]
fn clients_that_send_before_they_read_see_the_refusal() {
    let (daemon, folder) = open();
    let script = "
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=30)
key = {'Authorization': 'Basic ' + sys.argv[2]}
for path, status in (('/in/nowhere/a', 409), ('/full/a', 507), ('/others/a', 404)):
    connection = http.client.HTTPConnection(sys.argv[1], timeout=30)
    connection.request('PUT', path, b'x' * (20 << 20), key)
    assert connection.getresponse().status == status, path
";
    let key = STANDARD.encode("ann:wonder-land");
    let python =
        Command::new("python3").args(["-c", script, &daemon.http.to_string(), &key]).output().expect("python3");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let file = folder.path().join("large");
    std::fs::write(&file, vec![0; 20 << 20]).expect("a file");
    for (path, status) in [("in/nowhere/a", "409"), ("full/a", "507")] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", "-u", "ann:wonder-land", "-T"])
            .arg(&file);
        let said = curl.arg(format!("http://{}/{path}", daemon.http)).output().expect("curl");
        assert_eq!(String::from_utf8_lossy(&said.stdout), status, "{}", String::from_utf8_lossy(&said.stderr));
    }
}

#[test]
fn retry_after_is_the_time_that_the_words_say() {
    let daemon = Daemon::start(
        "[http]\nbasic_in_clear = true\n[login]\nmemory = \"8 MiB\"\nattempts = 2\nban = \"90s\"\n[[user]]\nname = \"ann\"\n",
    );
    let mut said = String::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(daemon.http).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        stream.write_all(b"GET /in/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic YW5uOndyb25n\r\n\r\n").expect("sent");
        said.clear();
        stream.read_to_string(&mut said).expect("an answer");
        if said.starts_with("HTTP/1.1 429") {
            break;
        }
    }
    let (head, words) = said.split_once("\r\n\r\n").expect("an answer");
    let header = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap_or_else(|| panic!("{said}"));
    let seconds: u64 = header.parse().expect("seconds");
    let words = words.split("try again in ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let mut parts = words.split_whitespace();
    let (count, unit) = (parts.next().expect("a number"), parts.next().unwrap_or_default());
    let count: u64 = count.parse().expect("a number");
    let meant = if unit.starts_with("min") { count * 60 } else { count };
    assert!(meant >= seconds && meant < seconds + 60, "{header}: {words}");
}
