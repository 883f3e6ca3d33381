//! Responses that are kept and sent again: the same as the first time, and never older than the file.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::daemon::{Daemon, until};

const PASSWORD: &str = "wonder-land";
/// `alice:wonder-land`
const BASIC: &str = "Authorization: Basic YWxpY2U6d29uZGVyLWxhbmQ=\r\n";

fn daemon(folder: &std::path::Path) -> Daemon {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    Daemon::start(&format!(
        r#"
[http]
basic_in_clear = true
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/pub"
grants = [ {{ to = "user:alice", allow = "edit" }}, {{ to = "everyone", allow = "view" }} ]
[[space]]
path = "/own"
grants = [ {{ to = "user:alice", allow = "edit" }} ]
"#,
        password.display()
    ))
}

/// One connection, kept alive.
struct Client(TcpStream, Vec<u8>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream, Vec::new())
    }

    fn say(&mut self, method: &str, path: &str, headers: &str) {
        // In one piece, as clients send it: a head that comes in several is hyper's.
        let request = format!("{method} {path} HTTP/1.1\r\nHost: stoa\r\n{headers}\r\n");
        self.0.write_all(request.as_bytes()).unwrap();
    }

    /// The next response: its head without the date, and its body.
    fn hear(&mut self, body: bool) -> (String, Vec<u8>) {
        let end = loop {
            match self.1.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more(),
            }
        };
        let head = String::from_utf8(self.1.drain(..end).collect()).unwrap().to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        let length: usize = if body { length } else { 0 };
        while self.1.len() < length {
            self.more();
        }
        let mut lines: Vec<&str> =
            head.lines().filter(|line| !line.starts_with("date: ") && !line.is_empty()).collect();
        lines.sort_unstable();
        (lines.join("\n"), self.1.drain(..length).collect())
    }

    fn more(&mut self) {
        let mut buffer = [0; 8 << 10];
        let count = self.0.read(&mut buffer).unwrap();
        assert!(count > 0, "the server closed the connection");
        self.1.extend_from_slice(&buffer[..count]);
    }

    fn get(&mut self, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        self.say("GET", path, headers);
        let (head, body) = self.hear(true);
        let status = head.lines().find_map(|line| line.strip_prefix("http/1.1 ")).unwrap()[..3].parse().unwrap();
        (status, head, body)
    }
}

/// One request on a connection of its own.
fn get(daemon: &Daemon, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    Client::new(daemon.http).get(path, headers)
}

fn hits(daemon: &Daemon) -> u64 {
    let (_, _, text) = Client::new(daemon.admin).get("/metrics", "");
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("stoa_http_cache_hits_total "));
    line.expect("the metric").parse().unwrap()
}

/// Asks until the response is kept; volumes can say so once they are watched.
fn warm(daemon: &Daemon, path: &str, headers: &str) {
    until("the response is kept", || {
        let before = hits(daemon);
        // Each on a connection of its own: hyper keeps the one it was given.
        assert_eq!(get(daemon, path, headers).0, 200);
        hits(daemon) > before
    });
}

#[test]
fn what_is_kept_is_what_was_sent_the_first_time() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    for (name, size) in
        [("small.txt", 1_000), ("empty", 0), ("page.html", 20_000), ("medium.bin", 100_000), ("large.bin", 300_000)]
    {
        let content: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        fs::write(daemon.on_disk(&format!("/pub/{name}")), &content).unwrap();
        let path = format!("/pub/{name}");
        let first = get(&daemon, &path, "");
        assert_eq!((first.0, first.2 == content), (200, true), "{name}");
        warm(&daemon, &path, "");
        // Beside it the watcher may be at work on something else, and hyper answers; that passes.
        until("every response is a kept one", || {
            let before = hits(&daemon);
            sent_again(&daemon, &path, &first.1, &content);
            let more = hits(&daemon) - before;
            assert!(more <= 4, "{more} of four");
            more == 4
        });
        let mut client = Client::new(daemon.http);
        // Something special: hyper answers on the same connection, and goes on with it.
        let (status, _, part) = client.get(&path, "Range: bytes=0-9\r\n");
        assert_eq!((status, part.len()), if size == 0 { (416, part.len()) } else { (206, 10) });
        assert!(client.get(&path, "").2 == content);
        // One request, then the end.
        let (_, head, body) = get(&daemon, &path, "Connection: close\r\n");
        assert!(head.contains("connection: close") && body == content, "{head}");
    }
}

/// Four requests on one connection: one alone, then three pipelined with HEAD between.
fn sent_again(daemon: &Daemon, path: &str, head: &str, content: &[u8]) {
    let mut client = Client::new(daemon.http);
    let again = client.get(path, "");
    assert_eq!(again.1, head);
    assert!(again.2 == content, "{path}");
    for method in ["GET", "HEAD", "GET"] {
        client.say(method, path, "");
    }
    for body in [true, false, true] {
        let (found, bytes) = client.hear(body);
        assert_eq!(found, head);
        assert!(!body || bytes == content, "{path}");
    }
}

#[test]
fn a_reader_that_is_late_gets_every_byte_of_what_it_asked_for_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    let content: Vec<u8> = (0..200_000).map(|n: u32| (n % 251) as u8).collect();
    fs::write(daemon.on_disk("/pub/medium.bin"), &content).unwrap();
    warm(&daemon, "/pub/medium.bin", "");
    let mut client = Client::new(daemon.http);
    // 60 MB, more than the sockets hold: the server has to wait in the midst of a file.
    let request = "GET /pub/medium.bin HTTP/1.1\r\nHost: stoa\r\n\r\n".repeat(300);
    client.0.write_all(request.as_bytes()).unwrap();
    until("the server has begun", || client.0.peek(&mut [0]).is_ok_and(|count| count > 0));
    for _ in 0..300 {
        assert!(client.hear(true).1 == content);
    }
}

#[test]
fn nothing_kept_is_ever_older_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    let file = daemon.on_disk("/pub/a.txt");
    let other = daemon.on_disk("/pub/b.txt");
    fs::write(&file, "start").unwrap();
    warm(&daemon, "/pub/a.txt", "");
    let before = hits(&daemon);
    for round in 0..300 {
        let text = format!("round {round}");
        match round % 3 {
            // in place, of the same length or not
            0 => fs::write(&file, &text).unwrap(),
            // by another file taking its name
            1 => {
                fs::write(&other, &text).unwrap();
                fs::rename(&other, &file).unwrap();
            }
            // by a door
            _ => {
                let length = text.len();
                let mut client = Client::new(daemon.http);
                client.say("PUT", "/pub/a.txt", &format!("{BASIC}Content-Length: {length}\r\n\r\n{text}"));
                assert!(client.hear(true).0.contains("http/1.1 204"));
            }
        }
        for _ in 0..3 {
            let (status, _, body) = get(&daemon, "/pub/a.txt", "");
            assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (200, text.as_str()));
        }
    }
    assert!(hits(&daemon) > before, "nothing was ever kept");
}

#[test]
fn what_is_sent_often_is_never_older_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    let (file, other) = (daemon.on_disk("/pub/a.bin"), daemon.on_disk("/pub/b.bin"));
    let mut client = Client::new(daemon.http);
    for round in 0..12_u8 {
        let content: Vec<u8> = (0..100_000 + u32::from(round) % 5 * 4096).map(|at| (at % 251) as u8 ^ round).collect();
        match round % 3 {
            // in place: cut to nothing and written anew, over the pages that are held
            0 => fs::write(&file, &content).unwrap(),
            // in place, byte over byte, and then to its new length
            1 => {
                let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&open, &content, 0).unwrap();
                open.set_len(content.len() as u64).unwrap();
            }
            _ => {
                fs::write(&other, &content).unwrap();
                fs::rename(&other, &file).unwrap();
            }
        }
        assert!(client.get("/pub/a.bin", "").2 == content, "round {round}");
        let before = hits(&daemon);
        until("it was sent often", || {
            assert!(client.get("/pub/a.bin", "").2 == content, "round {round}");
            hits(&daemon) >= before + 20
        });
    }
}

#[test]
fn what_is_kept_goes_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    fs::create_dir(daemon.on_disk("/pub/d")).unwrap();
    fs::write(daemon.on_disk("/pub/d/a.txt"), "one").unwrap();
    warm(&daemon, "/pub/d/a.txt", "");
    fs::rename(daemon.on_disk("/pub/d"), daemon.on_disk("/pub/e")).unwrap();
    assert_eq!(get(&daemon, "/pub/d/a.txt", "").0, 404);
    fs::create_dir(daemon.on_disk("/pub/d")).unwrap();
    fs::write(daemon.on_disk("/pub/d/a.txt"), "two").unwrap();
    assert_eq!(get(&daemon, "/pub/d/a.txt", "").2, b"two");
    warm(&daemon, "/pub/d/a.txt", "");
    fs::remove_dir_all(daemon.on_disk("/pub/d")).unwrap();
    assert_eq!(get(&daemon, "/pub/d/a.txt", "").0, 404);
}

#[test]
fn what_is_kept_for_one_is_not_shown_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    fs::write(daemon.on_disk("/own/a.txt"), "mine").unwrap();
    let token = sign_in(&daemon);
    let cookie = format!("Cookie: stoa={token}\r\n");
    warm(&daemon, "/own/a.txt", &cookie);
    assert_eq!(get(&daemon, "/own/a.txt", "").0, 401);
    assert_eq!(get(&daemon, "/own/a.txt", "Cookie: stoa=nobody\r\n").0, 401);
    assert_eq!(get(&daemon, "/own/a.txt", "Cookie: other=1\r\n").0, 401);
    let (_, head, body) = get(&daemon, "/own/a.txt", &cookie);
    assert!(head.contains("cache-control: private, no-cache") && body == b"mine", "{head}");
    let (head, _) = {
        let mut client = Client::new(daemon.http);
        client.say("POST", "/-/logout", &format!("{cookie}Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n"));
        client.hear(true)
    };
    assert!(head.contains("http/1.1 303"), "{head}");
    assert_eq!(get(&daemon, "/own/a.txt", &cookie).0, 401, "after signing out");
}

/// Signs alice in; the token as the server gave it.
fn sign_in(daemon: &Daemon) -> String {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    let form = format!("name=alice&password={PASSWORD}");
    let length = form.len();
    write!(
        stream,
        "POST /-/login HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.split_once("stoa=").expect("a cookie").1;
    value.split(';').next().unwrap().to_owned()
}
