//! Behind a proxy, across origins, by TLS only, and within bounds: what a request's head may say, and what it is told back.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::daemon::{Daemon, until};
use crate::web::{Reply, ask};

const BASIC: &str = "Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n";

fn daemon(folder: &Path, http: &str, listen: &str) -> Daemon {
    let password = folder.join("password");
    fs::write(&password, "wonderland").unwrap();
    Daemon::start(&format!(
        r#"
[http]
{http}
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
{listen}
[log]
folder = "{}"
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/pub"
grants = [ {{ to = "everyone", allow = "view" }}, {{ to = "user:alice", allow = "edit" }} ]
"#,
        folder.join("log").display(),
        password.display()
    ))
}

fn get(address: SocketAddr, path: &str, headers: &str) -> Reply {
    ask(address, "GET", path, "stoa.example", headers, "")
}

/// The lines of the access log that hold this.
fn noted(folder: &Path, words: &str) -> Vec<String> {
    let files = fs::read_dir(folder.join("log")).into_iter().flatten().flatten();
    let text: String = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
    text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

#[test]
fn a_trusted_proxy_says_who_asks_and_how_and_nobody_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let behind = daemon(folder.path(), "", "trusted = [\"127.0.0.1\"]");
    fs::write(behind.on_disk("/pub/a.txt"), "a").unwrap();
    let said =
        "X-Forwarded-For: 198.51.100.9, 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: files.example\r\n";
    for _ in 0..3 {
        let reply = get(behind.http, "/pub/a.txt", said);
        assert_eq!((reply.status, reply.header("strict-transport-security")), (200, Some("max-age=15552000")));
    }
    until("the client is in the access log", || !noted(folder.path(), "203.0.113.7").is_empty());
    assert!(noted(folder.path(), "198.51.100.9").is_empty(), "what the client itself said of others does not count");
    let page = ask(
        behind.http,
        "POST",
        "/-/login",
        "stoa.example",
        &format!("{said}Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n"),
        "name=alice&password=wonderland",
    );
    assert!(
        page.header("set-cookie")
            .is_some_and(|cookie| cookie.starts_with("__Host-stoa=") && cookie.contains("; Secure")),
        "{page:?}"
    );
    let plain = get(behind.http, "/pub/a.txt", "");
    assert_eq!((plain.status, plain.header("strict-transport-security")), (200, None));
    let other = get(behind.http, "/pub/a.txt", "Forwarded: for=192.0.2.1;proto=https\r\n");
    assert_eq!(other.header("strict-transport-security"), None, "the other kind of header is a client's own");
    // A password in the clear, from far away.
    let far = format!("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: http\r\n{BASIC}");
    assert_eq!(get(behind.http, "/pub/a.txt", &far).status, 403);
    assert_eq!(get(behind.http, "/pub/a.txt", &far.replace("http\r\n", "https\r\n")).status, 200);
    drop(behind);

    let elsewhere = tempfile::tempdir().unwrap();
    let direct = daemon(elsewhere.path(), "", "trusted = [\"10.0.0.0/8\"]");
    fs::write(direct.on_disk("/pub/b.txt"), "b").unwrap();
    let reply = get(direct.http, "/pub/b.txt", said);
    assert_eq!((reply.status, reply.header("strict-transport-security")), (200, None));
    until("the peer is in the access log", || !noted(elsewhere.path(), "/pub/b.txt").is_empty());
    assert!(noted(elsewhere.path(), "203.0.113.7").is_empty());
}

#[test]
fn the_proxy_speaks_the_dialect_it_is_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "forwarded = \"forwarded\"", "trusted = [\"127.0.0.0/8\"]");
    let said = "Forwarded: for=192.0.2.1, for=\"[2001:db8::7]:99\";proto=https;host=a.example\r\n";
    assert!(get(daemon.http, "/-/health", said).header("strict-transport-security").is_some());
    until("the client is in the access log", || !noted(folder.path(), "2001:db8::7").is_empty());
    let other = get(daemon.http, "/-/health", "X-Forwarded-Proto: https\r\n");
    assert_eq!(other.header("strict-transport-security"), None);
}

#[test]
fn a_listener_leads_to_the_same_place_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "trusted = [\"127.0.0.1\"]\nhttp = { redirect_to_https = true, https_port = 8443 }";
    let daemon = daemon(folder.path(), "", listen);
    let reply = get(daemon.http, "/pub/a%20b?x=1", BASIC);
    let place = "https://stoa.example:8443/pub/a%20b?x=1";
    assert_eq!((reply.status, reply.header("location")), (308, Some(place)));
    assert_eq!(get(daemon.http, "/-/health", "").status, 200);
    assert_eq!(get(daemon.http, "/-/login", "X-Forwarded-Proto: https\r\n").status, 200, "it came by TLS already");
    assert_eq!(ask(daemon.http, "GET", "/", "", "", "").status, 400, "nowhere to lead to");
}

#[test]
fn pages_of_listed_origins_may_and_others_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "cors = [\"https://app.example\"]", "");
    fs::write(daemon.on_disk("/pub/a.txt"), "a").unwrap();
    let allowed = |reply: &Reply| reply.header("access-control-allow-origin").map(str::to_owned);
    let listed = "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n";
    let other = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    for _ in 0..3 {
        let reply = get(daemon.http, "/pub/a.txt", listed);
        assert_eq!(allowed(&reply).as_deref(), Some("https://app.example"));
        assert!(reply.all("vary").contains("Origin") && reply.header("access-control-allow-credentials").is_none());
        assert!(reply.header("access-control-expose-headers").unwrap().contains("ETag"));
        for headers in [other, ""] {
            let reply = get(daemon.http, "/pub/a.txt", headers);
            assert_eq!((reply.status, allowed(&reply)), (200, None), "{headers}");
            assert!(reply.all("vary").contains("Origin"), "{headers}");
        }
    }
    let ask_first =
        "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization, x-modified\r\n";
    let may = ask(daemon.http, "OPTIONS", "/pub/b.txt", "stoa", &format!("{listed}{ask_first}"), "");
    assert_eq!((may.status, allowed(&may).as_deref()), (204, Some("https://app.example")));
    assert!(may.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert_eq!(may.header("access-control-allow-headers"), Some("authorization, x-modified"));
    let may_not = ask(daemon.http, "OPTIONS", "/pub/b.txt", "stoa", &format!("{other}{ask_first}"), "");
    assert_eq!((allowed(&may_not), may_not.header("access-control-allow-methods")), (None, None));

    assert_eq!(ask(daemon.http, "PUT", "/pub/b.txt", "stoa", &format!("{listed}{BASIC}"), "b").status, 201);
    assert_eq!(ask(daemon.http, "PUT", "/pub/c.txt", "stoa", &format!("{other}{BASIC}"), "c").status, 403);
}

#[test]
fn a_page_of_any_origin_may_read_where_the_star_says_so_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "cors = [\"*\"]", "");
    fs::write(daemon.on_disk("/pub/a.txt"), "a").unwrap();
    let headers = "Origin: https://any.example\r\nSec-Fetch-Site: cross-site\r\n";
    for headers in [headers, ""] {
        let reply = get(daemon.http, "/pub/a.txt", headers);
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("cross-origin"));
    }
    let asked = format!("{headers}Access-Control-Request-Method: PUT\r\n");
    let reply = ask(daemon.http, "OPTIONS", "/pub/a.txt", "stoa", &asked, "");
    assert_eq!(reply.header("access-control-allow-methods"), Some("GET, HEAD"));
    assert_eq!(ask(daemon.http, "PUT", "/pub/a.txt", "stoa", &format!("{headers}{BASIC}"), "b").status, 403);
}

#[test]
fn the_digest_the_store_knows_is_told_and_a_wrong_one_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "", "");
    let hello = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    let want = "Want-Repr-Digest: sha-512=1, sha-256=9\r\n";
    let put = |path: &str, headers: &str| ask(daemon.http, "PUT", path, "stoa", &format!("{BASIC}{headers}"), "hello");
    assert_eq!(put("/pub/a.bin", want).status, 201);
    let told = |path: &str, headers: &str| get(daemon.http, path, headers).header("repr-digest").map(str::to_owned);
    for headers in [want.to_owned(), format!("{want}Range: bytes=1-2\r\n")] {
        assert_eq!(told("/pub/a.bin", &headers).as_deref(), Some(hello), "{headers}");
    }
    assert_eq!(told("/pub/a.bin", ""), None);
    assert_eq!(told("/pub/a.bin", "Want-Repr-Digest: sha-256=0\r\n"), None);
    assert_eq!(told("/pub/a.bin", "Want-Repr-Digest: sha-512=1\r\n"), None);
    fs::write(daemon.on_disk("/pub/a.bin"), "other bytes").unwrap();
    assert_eq!(told("/pub/a.bin", want), None, "nobody computed it for these");
    let wrong = hello.replace("LPJ", "AAA");
    for name in ["Repr-Digest", "Content-Digest"] {
        let reply = put("/pub/d.bin", &format!("{name}: {wrong}\r\n"));
        assert_eq!(reply.status, 400, "{name}: {reply:?}");
    }
    assert!(!daemon.on_disk("/pub/d.bin").exists());
    assert_eq!(put("/pub/d.bin", &format!("Content-Digest: {hello}\r\n")).status, 201);
}

#[test]
fn heads_urls_and_bodies_beyond_their_bounds_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = "head_size = \"4 KiB\"\nhead_lines = 20\nuri_length = \"1 KiB\"\nbody_size = \"2 KiB\"";
    let daemon = daemon(folder.path(), bounds, "");
    let refused = |reply: &Reply, status: u16, key: &str| {
        assert!(reply.status == status && reply.text().contains(key), "{reply:?}");
    };
    // With a query, so that the fast path leaves them to the door itself.
    refused(&get(daemon.http, &format!("/-/health?{}", "a".repeat(1_100)), ""), 414, "uri_length");
    refused(&get(daemon.http, "/-/health?a", &format!("X-A: {}\r\n", "a".repeat(5_000))), 431, "head_size");
    refused(&get(daemon.http, "/-/health?a", &"X-A: b\r\n".repeat(25)), 431, "head_lines");
    refused(&ask(daemon.http, "PUT", "/pub/a", "stoa", BASIC, &"a".repeat(3_000)), 413, "body_size");
    let mut chunked = format!("{BASIC}Transfer-Encoding: chunked\r\n");
    chunked.push_str("\r\nbb8\r\n");
    chunked.push_str(&"a".repeat(3_000));
    chunked.push_str("\r\n0\r\n");
    let put = format!("PUT /pub/a HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n{chunked}\r\n");
    let stream = std::net::TcpStream::connect(daemon.http).unwrap();
    refused(&crate::web::ask_over(stream, &put), 413, "body_size");
    assert_eq!(get(daemon.http, "/-/health?a", "").status, 200);
}

#[test]
fn a_unix_socket_is_served_as_any_other_and_speaks_for_whom_it_is_said_to() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("http.sock");
    let more = format!(
        "[[listen]]\nprotocol = \"http\"\naddress = \"unix:{}\"\nmode = \"0600\"\ntrusted = [\"unix\"]\n",
        socket.display()
    );
    let start = || daemon(folder.path(), "", &more);
    let over = |headers: &str| {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let request = crate::web::request("GET", "/pub/a.txt", "stoa", headers, "");
        crate::web::ask_over(stream, &request)
    };
    let first = start();
    let body = "x".repeat(300_000);
    fs::write(first.on_disk("/pub/a.txt"), &body).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for _ in 0..3 {
        assert!(over("").text() == body, "the bytes are the file's");
    }
    let said = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    assert!(over(said).header("strict-transport-security").is_some());
    until("the client is in the access log", || !noted(folder.path(), "203.0.113.9").is_empty());
    // What a killed daemon left does not hinder the next one.
    let place = first.kill();
    assert!(socket.exists());
    let second = place.start();
    assert_eq!(over("").status, 200);
    drop(second);
}

#[test]
fn the_proxy_protocol_names_the_client_to_http_too() {
    use std::net::TcpStream;
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "", "[limits]\nproxy_from = [\"127.0.0.1\"]\n");
    fs::write(daemon.on_disk("/pub/a.txt"), "a").unwrap();
    let line = "PROXY TCP4 203.0.113.5 192.0.2.1 40000 80\r\n";
    let said = "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n";
    for _ in 0..2 {
        let request = format!("{line}{}", crate::web::request("GET", "/pub/a.txt", "stoa", said, ""));
        let reply = crate::web::ask_over(TcpStream::connect(daemon.http).unwrap(), &request);
        assert_eq!((reply.status, reply.header("strict-transport-security")), (200, None));
    }
    until("the client is in the access log", || !noted(folder.path(), "203.0.113.5").is_empty());
    assert!(noted(folder.path(), "198.51.100.1").is_empty(), "headers are another way, and not opened here");
    let far = crate::web::request("GET", "/pub/a.txt", "stoa", BASIC, "");
    let reply = crate::web::ask_over(TcpStream::connect(daemon.http).unwrap(), &format!("{line}{far}"));
    assert_eq!(reply.status, 403, "the client's own address decides about passwords in the clear");
}
