//! HTTP/2 by other people's clients: `h2load`, curl, and the Python `h2` library frame by frame (`tests/clients/h2-session.py`).

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::daemon::{Daemon, until};

/// Where `scripts/test` puts the Python client.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/h2/bin/python");
const SESSION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/h2-session.py");

/// A daemon with files, and its listener with TLS.
fn daemon(folder: &Path) -> (Daemon, SocketAddr) {
    let password = folder.join("password");
    fs::write(&password, "wonder-land").unwrap();
    let daemon = Daemon::start(&format!(
        r#"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
tls = "implicit"
[[listen]]
protocol = "admin"
address = "127.0.0.1:0"
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/pub"
grants = [ {{ to = "user:alice", allow = "edit" }}, {{ to = "everyone", allow = "view" }} ]
"#,
        password.display()
    ));
    let big: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    fs::create_dir(daemon.on_disk("/pub/up")).unwrap();
    fs::write(daemon.on_disk("/pub/a.txt"), "hello").unwrap();
    fs::write(daemon.on_disk("/pub/big"), big).unwrap();
    let secure = daemon.http;
    (daemon, secure)
}

fn session(address: SocketAddr, last: &str) -> Child {
    assert!(Path::new(PYTHON).exists(), "run scripts/test once: it installs the Python h2 client");
    let mut command = Command::new(PYTHON);
    command.args([SESSION, &address.ip().to_string(), &address.port().to_string(), last]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_python_client_is_served_and_its_floods_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, secure) = daemon(folder.path());
    let output = session(secure, &daemon.pid().to_string()).wait_with_output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{wrong}");
}

#[test]
fn a_drain_says_goodbye_to_http2() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, secure) = daemon(folder.path());
    let mut client = session(secure, "drain");
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    daemon.signal("TERM");
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (status, _place) = daemon.wait();
    assert!(status.success());
}

#[test]
fn h2load_and_curl_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (_daemon, secure) = daemon(folder.path());
    let url = |path: &str| format!("https://{secure}{path}");
    for (path, count) in [("/pub/a.txt", "3000"), ("/pub/big", "60")] {
        let output = Command::new("h2load").args(["-n", count, "-c", "4", "-m", "20", &url(path)]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("status codes: {count} 2xx")), "{said}");
        assert!(said.contains("Application protocol: h2"), "{said}");
    }
    let got = folder.path().join("got");
    let arguments = ["-sSk", "--http2", "--max-time", "20", "-w", "%{http_version} %{http_code}", "-o"];
    let output = Command::new("curl").args(arguments).arg(&got).arg(url("/pub/big")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200");
    until("the file is whole", || fs::metadata(&got).is_ok_and(|there| there.len() == 300_000));
}

/// Status, headers without the date, and body by one of curl's requests.
fn curl(words: &[&str], url: &str) -> (String, Vec<String>, Vec<u8>) {
    let output = Command::new("curl").args(["-sSki", "--max-time", "20"]).args(words).arg(url).output().unwrap();
    assert!(output.status.success(), "{words:?} {url}: {}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output.stdout[..end]).to_ascii_lowercase();
    let mut lines = head.lines().map(str::to_owned);
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let mut lines: Vec<String> = lines.filter(|line| !line.starts_with("date: ")).collect();
    lines.sort_unstable();
    (status, lines, output.stdout[end + 4..].to_vec())
}

fn hits(daemon: &Daemon) -> u64 {
    let (_, _, text) = curl(&[], &format!("http://{}/metrics", daemon.admin));
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.strip_prefix("stoa_http_cache_hits_total ")).unwrap().parse().unwrap()
}

#[test]
fn what_is_kept_is_the_same_by_http2_and_never_older_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, secure) = daemon(folder.path());
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 241) as u8).collect();
    fs::write(daemon.on_disk("/pub/middle.bin"), &content).unwrap();
    let url = format!("https://{secure}/pub/middle.bin");
    let first = curl(&["--http2"], &url);
    assert!(first.0 == "200" && first.2 == content);
    until("the response is kept", || {
        let before = hits(&daemon);
        assert_eq!(curl(&["--http2"], &url).0, "200");
        hits(&daemon) > before
    });
    let tag = first.1.iter().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let same = format!("If-None-Match: {tag}");
    for words in [&[][..], &["-I"], &["-r", "5-104"], &["-H", &same]] {
        until("both answers are kept ones", || {
            let before = hits(&daemon);
            let second = curl(&[&["--http2"], words].concat(), &url);
            let kept = hits(&daemon) - before;
            // HTTP/1 says the same of the same kept bytes.
            let one = curl(&[&["--http1.1"], words].concat(), &url);
            assert_eq!(second, one, "{words:?}");
            let asked = curl(&[&["--http2", "-H", "Want-Repr-Digest: sha-256=0"], words].concat(), &url);
            assert_eq!(second, asked, "{words:?}: what is kept is what is made anew");
            kept == 1
        });
    }
    assert_eq!(curl(&["--http2", "-H", &same], &url).0, "304");
    assert!(curl(&["--http2", "-r", "5-104"], &url).2 == content[5..105]);
    fs::write(daemon.on_disk("/pub/middle.bin"), "new").unwrap();
    let (status, _, body) = curl(&["--http2"], &url);
    assert_eq!((status.as_str(), body.as_slice()), ("200", &b"new"[..]));
}

#[test]
fn a_refusal_is_read_by_who_still_sends() {
    let folder = tempfile::tempdir().unwrap();
    let (_daemon, secure) = daemon(folder.path());
    // curl sends the body behind the head; when its stream is reset meanwhile, it loses the response that it got.
    for _ in 0..25 {
        let output = Command::new("curl")
            .args(["-sSk", "--http2", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["-H", "Origin: https://evil.example", "-d", "name=alice&password=wonder-land"])
            .arg(format!("https://{secure}/-/login"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "403", "{error}");
    }
}
