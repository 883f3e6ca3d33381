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
