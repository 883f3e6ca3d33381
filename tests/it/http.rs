//! The HTTP door over real loopback sockets: raw requests, and curl where its own reading of the standard counts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa::hub::settings::{GrantSettings, LoginSettings, Overwrite, SpaceSettings, UserSettings};
use stoa::hub::{Hub, Settings, TreePath, Volumes};
use stoa::net::{self, Gate, Limits, ListenSettings, Passed, Service, Tls, TlsMode, TlsSettings, Workers};
use stoa::proto::{PROTOCOLS, Section, Tools};
use stoa::store::{Catalog, CatalogSettings, Directory, Volume};
use stoa::units::{ByteSize, Span};
use tokio_util::sync::CancellationToken;

/// A daemon's worth of rooms with the HTTP and admin doors open, in a folder of its own.
pub struct Site {
    pub folder: tempfile::TempDir,
    plain: SocketAddr,
    secure: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    _workers: Workers,
    runtime: tokio::runtime::Runtime,
}

struct Directories(std::path::PathBuf);

impl Volumes for Directories {
    fn open(&self, space: &TreePath, source: &str) -> stoa::Result<Arc<dyn Volume>> {
        let own = self.0.join("tree").join(space.to_string().trim_start_matches('/'));
        let root = if source.is_empty() { own } else { source.into() };
        Ok(Arc::new(Directory::open(&root, &self.0.join("stage"), true)?))
    }
}

impl Site {
    pub fn open() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let hub = runtime.block_on(async {
            let catalog = Catalog::open(&CatalogSettings::default(), &data, "test").await.unwrap();
            Hub::open(settings(&data), catalog, Arc::new(Directories(data.clone()))).await.unwrap()
        });
        let tls = Tls::open(&TlsSettings::default(), &data, &["localhost".into()]).unwrap();
        let tools = Tools { hub, tls: tls.clone(), ready: Arc::new(|| true) };
        let gate = Gate::new(limits).unwrap();
        let listen = |protocol: &str, tls| ListenSettings {
            protocol: protocol.into(),
            address: "127.0.0.1:0".into(),
            tls,
            ..ListenSettings::default()
        };
        let wanted = [listen("http", TlsMode::None), listen("http", TlsMode::Implicit), listen("admin", TlsMode::None)];
        let bound = net::listen::bind_all(&wanted, &mut Passed::default()).unwrap();
        let addresses: Vec<SocketAddr> = bound.iter().map(|bound| bound.address).collect();
        let services = bound.into_iter().map(|bound| {
            let protocol = PROTOCOLS.iter().find(|one| one.name() == bound.settings.protocol).unwrap();
            let section = Section { name: protocol.name(), values: protocol.defaults() };
            let handler = protocol.open(&section, &tools).unwrap();
            let service = Service::new(protocol.name(), handler, bound.settings.tls, &tls, &gate);
            (bound, service)
        });
        let workers = Workers::start(1, services.collect(), stop.clone()).unwrap();
        let [plain, secure, admin] = addresses[..] else { panic!("three listeners") };
        Self { folder, plain, secure, admin, stop, _workers: workers, runtime }
    }

    fn send(&self, request: &str) -> Reply {
        exchange(self.plain, request.as_bytes())
    }

    /// One request of alice's, by Basic.
    fn alice(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let length = body.len();
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: stoa\r\nAuthorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n\
             Content-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
        ))
    }

    fn get(&self, path: &str, headers: &str) -> Reply {
        self.alice("GET", path, headers, "")
    }

    pub fn put(&self, path: &str, body: &str) -> Reply {
        let reply = self.alice("PUT", path, "", body);
        assert!([201, 204].contains(&reply.status), "{reply:?}");
        reply
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.plain)
    }

    pub fn on_disk(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("tree").join(path)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.runtime.handle();
    }
}

fn settings(data: &Path) -> Settings {
    let secret = data.join("alice");
    std::fs::write(&secret, "wonderland\n").unwrap();
    let grant = |to: &str, allow: &str| GrantSettings { to: to.into(), allow: allow.into() };
    let space = |path: &str, grants: Vec<GrantSettings>| SpaceSettings {
        path: path.into(),
        grants,
        ..SpaceSettings::default()
    };
    Settings {
        data: data.to_owned(),
        users: vec![UserSettings {
            name: "alice".into(),
            password_file: secret.display().to_string(),
            ..UserSettings::default()
        }],
        spaces: vec![
            space("/scans", vec![grant("user:alice", "edit")]),
            space("/public", vec![grant("user:alice", "edit"), grant("everyone", "view")]),
            space("/inbox", vec![grant("everyone", "drop")]),
            SpaceSettings { quota: ByteSize(100), ..space("/small", vec![grant("user:alice", "edit")]) },
            SpaceSettings { overwrite: Overwrite::KeepBoth, ..space("/both", vec![grant("user:alice", "edit")]) },
        ],
        login: LoginSettings { attempts: 5, ..LoginSettings::default() },
        ..Settings::default()
    }
}

#[derive(Debug)]
pub struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn exchange(address: SocketAddr, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Reply {
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {bytes:?}"));
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = bytes[split + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Reply { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 4 + size..];
    }
}

fn curl(arguments: &[&str]) -> Output {
    let output = Command::new("curl").args(["-s", "-S", "--max-time", "20"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_file_that_was_put_is_there_for_everyone_it_is_for() {
    let site = Site::open();
    let reply = site.alice("PUT", "/public/h%C3%A9llo%20w.txt", "", "hello");
    assert_eq!((reply.status, reply.header("location")), (201, Some("/public/h%C3%A9llo%20w.txt")));
    let tag = reply.header("etag").unwrap().to_owned();
    assert_eq!(std::fs::read(site.on_disk("public/h\u{e9}llo w.txt")).unwrap(), b"hello");

    let reply = site.send("GET /public/h%C3%A9llo%20w.txt HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n\r\n");
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    assert_eq!(reply.header("etag"), Some(tag.as_str()));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(reply.header("last-modified").is_some() && reply.header("accept-ranges") == Some("bytes"));

    assert_eq!(site.alice("PUT", "/public/h%C3%A9llo%20w.txt", "", "again").status, 204);
    assert_eq!(site.alice("DELETE", "/public/h%C3%A9llo%20w.txt", "", "").status, 204);
    assert_eq!(site.get("/public/h%C3%A9llo%20w.txt", "").status, 404);
}

#[test]
fn head_says_what_get_would_send() {
    let site = Site::open();
    site.put("/public/a.txt", &"x".repeat(70_000));
    let reply = site.alice("HEAD", "/public/a.txt", "", "");
    assert_eq!((reply.status, reply.header("content-length"), reply.body.len()), (200, Some("70000"), 0));
    let reply = site.alice("HEAD", "/public/", "", "");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(site.alice("HEAD", "/public/none", "", "").body.len(), 0);
}

#[test]
fn ranges_of_a_file() {
    let site = Site::open();
    let body: String = (0..100_000).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
    site.put("/scans/a.bin", &body);
    let part = site.get("/scans/a.bin", "Range: bytes=5-9\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "fghij"));
    assert_eq!(part.header("content-range"), Some("bytes 5-9/100000"));
    assert_eq!(site.get("/scans/a.bin", "Range: bytes=1000-\r\n").text(), body[1000..]);

    let several = site.get("/scans/a.bin", "Range: bytes=0-1,50000-50001,-2\r\n");
    assert_eq!(several.status, 206);
    assert_eq!(several.header("content-length").unwrap().parse::<usize>().unwrap(), several.body.len());
    let kind = several.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let text = several.text();
    assert_eq!(text.matches(&format!("--{boundary}\r\n")).count(), 3);
    assert!(text.contains("Content-Range: bytes 50000-50001/100000\r\n\r\n") && text.contains(&body[50_000..50_002]));
    assert!(text.ends_with(&format!("--{boundary}--\r\n")));

    let none = site.get("/scans/a.bin", "Range: bytes=100000-\r\n");
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */100000")));
    let many =
        format!("Range: bytes={}\r\n", (0..17).map(|n| format!("{0}-{0}", n * 1000)).collect::<Vec<_>>().join(","));
    assert_eq!(site.get("/scans/a.bin", &many).status, 200);
}

#[test]
fn conditions_are_kept_on_reading_and_writing() {
    let site = Site::open();
    let tag = site.put("/scans/a", "one").header("etag").unwrap().to_owned();
    let date = site.get("/scans/a", "").header("last-modified").unwrap().to_owned();
    for header in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
        let reply = site.get("/scans/a", &header);
        assert_eq!((reply.status, reply.body.len(), reply.header("etag")), (304, 0, Some(tag.as_str())), "{header}");
    }
    assert_eq!(site.get("/scans/a", "If-Match: \"other\"\r\n").status, 412);
    assert_eq!(site.get("/scans/a", "Range: bytes=0-0\r\nIf-Range: \"other\"\r\n").status, 200);
    assert_eq!(site.get("/scans/a", &format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n")).status, 206);

    assert_eq!(site.alice("PUT", "/scans/a", "If-None-Match: *\r\n", "two").status, 412);
    assert_eq!(site.alice("PUT", "/scans/a", "If-Match: \"other\"\r\n", "two").status, 412);
    assert_eq!(site.alice("DELETE", "/scans/a", "If-Match: \"other\"\r\n", "").status, 412);
    assert_eq!(site.alice("PUT", "/scans/none", "If-Match: *\r\n", "two").status, 412);
    assert_eq!(site.get("/scans/a", "").text(), "one");
    assert_eq!(site.alice("PUT", "/scans/a", &format!("If-Match: {tag}\r\n"), "two").status, 204);
    assert_eq!(site.alice("PUT", "/scans/b", "If-None-Match: *\r\n", "new").status, 201);
    assert_ne!(site.get("/scans/a", "").header("etag"), Some(tag.as_str()));
}

#[test]
fn nothing_outside_the_tree_is_reached_in_any_spelling() {
    let site = Site::open();
    std::fs::write(site.folder.path().join("secret"), "secret").unwrap();
    for path in [
        "/../secret",
        "/scans/../../secret",
        "/scans/%2e%2e/%2e%2e/secret",
        "/scans/..%2f..%2fsecret",
        "/scans/%2E%2E%2F%2E%2E%2Fsecret",
        "/scans/.%2e/secret",
        "/scans//etc",
        "//secret",
        "/scans/a%00b",
        "/scans/%c0%ae%c0%ae/secret",
        "/scans/%",
        "/scans/%zz",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let reply = site.alice(method, path, "", "");
            assert_eq!(reply.status, 400, "{method} {path}: {reply:?}");
        }
    }
    for path in ["/scans/%252e%252e/secret", "/scans/..%5c..%5csecret", "/.stoa", "/scans/.stoa-x"] {
        assert!([400, 404].contains(&site.get(path, "").status), "{path}");
    }
    let long = format!("/{}", "a".repeat(9_000));
    assert_eq!(site.get(&long, "").status, 414);
}

#[test]
fn what_people_upload_cannot_script_this_origin() {
    let site = Site::open();
    for name in ["a.html", "a.svg", "a.xml", "a.xhtml", "a.unknown", "a.js"] {
        site.put(&format!("/public/{name}"), "<script>alert(1)</script>");
        let reply = site.get(&format!("/public/{name}"), "");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("sandbox; default-src 'none'") && !policy.contains("allow-"), "{name}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{name}");
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"), "{name}");
        // What is only saved is no page, and is said less about.
        let of_pages = ["referrer-policy", "cross-origin-opener-policy"].map(|header| reply.header(header).is_some());
        assert_eq!(of_pages, [name != "a.unknown"; 2], "{name}");
    }
    let policy = site.get("/public/", "Accept: text/html\r\n").header("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script-src") && !policy.contains("unsafe"));
}

#[test]
fn a_folder_is_a_page_or_json_or_names() {
    let site = Site::open();
    site.put("/scans/b.txt", "12345");
    site.put("/scans/%3Cb%3E%26%22%27.txt", "");
    assert_eq!(site.alice("MKCOL", "/scans/a", "", "").status, 201);
    let away = site.get("/scans?x=1", "");
    assert_eq!((away.status, away.header("location")), (308, Some("/scans/?x=1")));

    let json: serde_json::Value =
        serde_json::from_slice(&site.get("/scans/", "Accept: application/json\r\n").body).unwrap();
    assert_eq!(json["path"], "/scans");
    let entries = json["entries"].as_array().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["<b>&\"'.txt", "a", "b.txt"]);
    assert_eq!(
        (&entries[1]["type"], &entries[2]["type"], &entries[2]["size"]),
        (&"folder".into(), &"file".into(), &5.into())
    );
    assert_eq!(Some(entries[2]["etag"].as_str().unwrap()), site.get("/scans/b.txt", "").header("etag"));
    assert!(entries[2]["rights"].as_array().unwrap().contains(&"delete".into()));

    assert_eq!(site.get("/scans/?format=text", "").text(), "a/\n<b>&\"'.txt\nb.txt\n");
    let page = site.get("/scans/", "Accept: text/html,*/*\r\n");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("href=\"/scans/a/\"") && text.contains("&lt;b&gt;&amp;&quot;'.txt") && !text.contains("<b>"));
    assert_eq!(site.get("/scans/b.txt/", "").status, 404);
}

#[test]
fn a_large_folder_is_listed_to_its_last_name() {
    let site = Site::open();
    for number in 0..2_500 {
        std::fs::write(site.on_disk("scans").join(format!("{number:05}")), "").unwrap();
    }
    let json: serde_json::Value = serde_json::from_slice(&site.get("/scans/?format=json", "").body).unwrap();
    assert_eq!(json["entries"].as_array().unwrap().len(), 2_500);
    assert_eq!(site.get("/scans/?format=text", "").text().lines().count(), 2_500);
    // A page has 200 rows, and a head.
    assert_eq!(site.get("/scans/?format=html", "").text().matches("<tr>").count(), 201);
}

#[test]
fn refusals_come_before_the_body_and_say_why() {
    let site = Site::open();
    let expect = |path: &str, length: u64| {
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: stoa\r\nAuthorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n\
             Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        let reply = site.send(&request);
        assert!(!reply.head.contains("100 Continue"), "{path}: {reply:?}");
        reply.status
    };
    assert_eq!(expect("/small/a", 101), 507);
    assert_eq!(expect("/none/a", 1), 404);
    assert_eq!(expect("/scans/no/folder", 1), 409);
    assert_eq!(expect("/scans/", 1), 400);
    assert_eq!(
        site.send("PUT /public/a HTTP/1.1\r\nHost: stoa\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n").status,
        401
    );

    let reply = site.alice("PUT", "/small/a", "", &"x".repeat(101));
    assert_eq!(reply.status, 507, "{reply:?}");
    assert_eq!(site.alice("PUT", "/scans/a", "Content-Range: bytes 0-0/*\r\n", "x").status, 400);
    assert_eq!(site.alice("PUT", "/scans/a", "Content-Encoding: gzip\r\n", "x").status, 415);
    assert_eq!(site.alice("PUT", "/scans/new/deep/a?folders=1", "", "x").status, 201);
    let wrong = site.alice("PATCH", "/scans/a", "", "x");
    assert_eq!(wrong.status, 405);
    assert!(wrong.header("allow").unwrap().contains("PUT"));
}

#[test]
fn a_digest_is_given_when_asked_and_checked_when_sent() {
    let site = Site::open();
    let hello = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    let reply = site.alice("PUT", "/scans/a", "Want-Repr-Digest: sha-256=1\r\n", "hello");
    assert_eq!(reply.header("repr-digest"), Some(hello));
    assert_eq!(site.alice("PUT", "/scans/b", &format!("Repr-Digest: {hello}\r\n"), "hello").status, 201);
    assert_eq!(site.alice("PUT", "/scans/c", &format!("Repr-Digest: {hello}\r\n"), "jello").status, 400);
    assert_eq!(site.get("/scans/c", "").status, 404);
    assert_eq!(site.alice("PUT", "/scans/d", "X-OC-Mtime: 784111777\r\n", "x").status, 201);
    assert_eq!(site.get("/scans/d", "").header("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

#[test]
fn both_are_kept_where_the_space_says_so() {
    let site = Site::open();
    site.put("/both/a.txt", "one");
    let reply = site.put("/both/a.txt", "two");
    assert_eq!((reply.status, reply.header("location")), (201, Some("/both/a%20%282%29.txt")));
    assert_eq!(site.get("/both/a.txt", "").text(), "one");
}

#[test]
fn folders_are_made_moved_copied_and_removed() {
    let site = Site::open();
    assert_eq!(site.alice("MKCOL", "/scans/a/", "", "").status, 201);
    assert_eq!(site.alice("MKCOL", "/scans/a", "", "").status, 405);
    site.put("/scans/a/one", "1");
    assert_eq!(site.alice("COPY", "/scans/a/one", "Destination: /scans/two\r\n", "").status, 201);
    assert_eq!(
        site.alice("MOVE", "/scans/two", "Destination: http://stoa/scans/a/one\r\nOverwrite: F\r\n", "").status,
        412
    );
    assert_eq!(site.alice("MOVE", "/scans/two", "Destination: http://stoa/scans/three\r\n", "").status, 201);
    assert_eq!(site.alice("MOVE", "/scans/three", "Destination: http://other/scans/x\r\n", "").status, 502);
    assert_eq!(site.get("/scans/three", "").text(), "1");
    assert_eq!(site.alice("DELETE", "/scans/a/?all=0", "", "").status, 409);
    assert_eq!(site.alice("DELETE", "/scans/a/", "", "").status, 204);
    assert_eq!(site.get("/scans/a/", "").status, 404);
}

/// Signs alice in by the form; her cookie.
fn cookie(site: &Site) -> String {
    let form = "name=alice&password=wonderland&next=%2Fscans%2F";
    let reply = site.send(&format!(
        "POST /-/login HTTP/1.1\r\nHost: stoa\r\nOrigin: http://stoa\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    ));
    assert_eq!((reply.status, reply.header("location")), (303, Some("/scans/")), "{reply:?}");
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("Secure"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

fn with_cookie(site: &Site, method: &str, path: &str, cookie: &str, headers: &str) -> Reply {
    site.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: stoa\r\nCookie: {cookie}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n"
    ))
}

#[test]
fn a_session_opens_with_the_form_and_ends_with_the_button() {
    let site = Site::open();
    let away = site.send("GET /scans/?a=b HTTP/1.1\r\nHost: stoa\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    assert_eq!((away.status, away.header("location")), (303, Some("/-/login?next=%2Fscans%2F%3Fa%3Db")));
    let cookie = cookie(&site);
    assert_eq!(with_cookie(&site, "GET", "/scans/", &cookie, "").status, 200);
    let bearer = cookie.split('=').nth(1).unwrap();
    let by_token = |path: &str| {
        site.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: stoa\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
        ))
        .status
    };
    assert_eq!(by_token("/scans/"), 200);

    let out = with_cookie(&site, "POST", "/-/logout", &cookie, "Sec-Fetch-Site: same-origin\r\n");
    assert_eq!((out.status, out.header("location")), (303, Some("/-/login")));
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(with_cookie(&site, "GET", "/scans/", &cookie, "").status, 401);
    assert_eq!(by_token("/scans/"), 401);
}

#[test]
fn another_sites_page_cannot_act_with_the_cookie() {
    let site = Site::open();
    site.put("/scans/a", "x");
    let cookie = cookie(&site);
    for headers in [
        "",
        "Origin: http://evil\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\nOrigin: http://stoa\r\n",
    ] {
        for (method, path) in [("DELETE", "/scans/a"), ("PUT", "/scans/b"), ("POST", "/-/logout"), ("POST", "/scans/")]
        {
            let reply = with_cookie(&site, method, path, &cookie, headers);
            assert_eq!(reply.status, 403, "{method} {path} {headers}: {reply:?}");
        }
    }
    assert_eq!(with_cookie(&site, "DELETE", "/scans/a", &cookie, "Origin: http://stoa\r\n").status, 204);
    let form = "name=alice&password=wonderland";
    let forged = site.send(&format!(
        "POST /-/login HTTP/1.1\r\nHost: stoa\r\nOrigin: http://evil\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    ));
    assert_eq!(forged.status, 403);
}

#[test]
fn wrong_passwords_are_refused_and_then_wait() {
    let site = Site::open();
    let wrong =
        "GET /scans/ HTTP/1.1\r\nHost: stoa\r\nAuthorization: Basic YWxpY2U6d3Jvbmc=\r\nConnection: close\r\n\r\n";
    let reply = site.send(wrong);
    assert_eq!(
        (reply.status, reply.header("www-authenticate")),
        (401, Some("Basic realm=\"Stoa\", charset=\"UTF-8\""))
    );
    for garbage in ["Basic", "Basic !!!", "Basic YWxpY2U=", "Nonsense x"] {
        // It counts as none: the public thing, or the challenge.
        for (path, status) in [("/", 200), ("/scans/", 401)] {
            let request = "Host: stoa\r\nConnection: close\r\n";
            let reply = site.send(&format!("GET {path} HTTP/1.1\r\n{request}Authorization: {garbage}\r\n\r\n"));
            assert_eq!(reply.status, status, "{garbage} {path}");
            assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{garbage} {path}");
        }
    }
    let statuses: Vec<u16> = (0..8).map(|_| site.send(wrong).status).collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert!(site.send(wrong).header("retry-after").is_some());
}

#[test]
fn the_page_to_go_on_to_is_always_here() {
    let site = Site::open();
    for next in ["//evil", "https://evil", "/\\evil", "%0d%0aX: y"] {
        let form = format!("name=alice&password=wonderland&next={next}");
        let reply = site.send(&format!(
            "POST /-/login HTTP/1.1\r\nHost: stoa\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
            form.len()
        ));
        assert_eq!((reply.status, reply.header("location")), (303, Some("/")), "{next}: {reply:?}");
    }
}

#[test]
fn the_forms_of_a_folders_page_work_without_scripts() {
    let site = Site::open();
    let cookie = cookie(&site);
    let body = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\dir\\one.txt\"\r\n\r\nfirst\r\n\
                --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"two.txt\"\r\n\r\n\r\n--B--\r\n";
    let post = |kind: &str, body: &str| {
        site.send(&format!(
            "POST /scans/ HTTP/1.1\r\nHost: stoa\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
    };
    let reply = post("multipart/form-data; boundary=B", body);
    assert_eq!((reply.status, reply.header("location")), (303, Some("/scans/?added=2")), "{reply:?}");
    assert_eq!(site.get("/scans/one.txt", "").text(), "first");
    assert_eq!(site.get("/scans/two.txt", "").text(), "");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(post(form, "do=folder&name=new+one").header("location"), Some("/scans/new%20one/"));
    assert_eq!(post(form, "do=delete&name=one.txt").header("location"), Some("/scans/?removed=1"));
    assert_eq!(post(form, "do=delete&name=..%2Fx").status, 400);
    assert_eq!(site.get("/scans/one.txt", "").status, 404);
    let broken = post("multipart/form-data; boundary=B", &body[..body.len() - 60]);
    assert_eq!(broken.status, 408);
}

#[test]
fn a_drop_box_takes_and_does_not_show() {
    let site = Site::open();
    let put = |path: &str| {
        site.send(&format!("PUT {path} HTTP/1.1\r\nHost: stoa\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"))
    };
    assert_eq!(put("/inbox/a").status, 201);
    let guest = |path: &str, accept: &str| {
        site.send(&format!("GET {path} HTTP/1.1\r\nHost: stoa\r\nAccept: {accept}\r\nAuthorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(guest("/inbox/", "application/json").status, 403);
    let page = guest("/inbox/", "text/html");
    assert!(page.status == 200 && page.text().contains("multipart/form-data") && !page.text().contains("/inbox/a\""));
    assert!([403, 404].contains(&guest("/inbox/a", "*/*").status));
}

#[test]
fn curl_speaks_both_versions_with_and_without_tls() {
    let site = Site::open();
    let local = site.folder.path().join("up");
    std::fs::write(&local, vec![7_u8; 3 << 20]).unwrap();
    let put = curl(&[
        "-u",
        "alice:wonderland",
        "-T",
        local.to_str().unwrap(),
        "-w",
        "%{http_code}",
        &site.url("/public/big"),
    ]);
    assert_eq!(put.stdout, b"201");
    for arguments in [&["--http1.1"][..], &["--http2-prior-knowledge"]] {
        let got = curl(&[arguments, &[&site.url("/public/big")]].concat());
        assert_eq!(got.stdout, vec![7_u8; 3 << 20], "{arguments:?}");
    }
    let secure = format!("https://localhost:{}/public/big", site.secure.port());
    let said = curl(&["-k", "-o", "/dev/null", "-w", "%{http_version} %{http_code} %{size_download}", &secure]);
    assert_eq!(said.stdout, b"2 200 3145728");
    let put = curl(&[
        "-k",
        "-u",
        "alice:wonderland",
        "-T",
        local.to_str().unwrap(),
        "-w",
        "%{http_version} %{http_code}",
        &secure,
    ]);
    assert_eq!(put.stdout, b"2 204");
    let page = curl(&[
        "-k",
        "-i",
        "-d",
        "name=alice&password=wonderland",
        &format!("https://localhost:{}/-/login", site.secure.port()),
    ]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("set-cookie: __Host-stoa=") && page.contains("; Secure"), "{page}");
}

#[test]
fn requests_on_one_connection_follow_each_other() {
    let site = Site::open();
    site.put("/public/a", "first");
    let mut stream = TcpStream::connect(site.plain).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = "GET /public/a HTTP/1.1\r\nHost: stoa\r\n\r\n";
    let last = "GET /public/none HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{request}{request}{last}").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(
        (text.matches("200 OK").count(), text.matches("first").count(), text.matches("404 Not Found").count()),
        (2, 2, 1)
    );
}

fn hasty() -> Limits {
    let short = Span(Duration::from_millis(300));
    Limits { greeting: short, idle: short, stall: short, slowest: ByteSize(0), ..Limits::default() }
}

#[test]
fn the_silent_the_slow_and_the_stalled_are_cut() {
    let site = Site::with(hasty());
    let big = "x".repeat(8 << 20);
    site.put("/public/big", &big);
    let cut = |request: &str| {
        let mut stream = TcpStream::connect(site.plain).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let begun = Instant::now();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(begun.elapsed() < Duration::from_secs(10), "{request:?}");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert_eq!(cut(""), "");
    assert_eq!(cut("GET / HTTP/1.1\r\nHo"), "");
    let stalled = cut(
        "PUT /scans/half HTTP/1.1\r\nHost: stoa\r\nAuthorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\nContent-Length: 10\r\n\r\nhalf",
    );
    assert!(stalled.starts_with("HTTP/1.1 408"), "{stalled}");
    assert_eq!(std::fs::read_dir(site.on_disk("scans")).unwrap().count(), 0);

    // A reader that stops reading: the connection is reset or ended before the whole file went out.
    let mut stream = TcpStream::connect(site.plain).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /public/big HTTP/1.1\r\nHost: stoa\r\n\r\n").unwrap();
    let opened = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|to| to.ends_with("big"))
            .count()
    };
    let limit = Instant::now() + Duration::from_secs(10);
    while opened() == 0 && Instant::now() < limit {
        std::thread::yield_now();
    }
    while opened() > 0 {
        assert!(Instant::now() < limit, "a stalled reader still holds the file");
        std::thread::yield_now();
    }
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let site = Site::open();
    let mut stream = TcpStream::connect(site.plain).unwrap();
    stream
        .write_all(b"PUT /scans/half HTTP/1.1\r\nHost: stoa\r\nAuthorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    stream.write_all(&vec![1; 500_000]).unwrap();
    drop(stream);
    site.put("/scans/other", "x");
    assert_eq!(site.get("/scans/half", "").status, 404);
}

#[test]
fn the_admin_listener_shows_health_and_metrics() {
    let site = Site::open();
    let get = |path: &str| {
        exchange(site.admin, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
    };
    assert_eq!(get("/health").text(), "alive\n");
    assert_eq!(get("/ready").status, 200);
    let metrics = get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(metrics.text().ends_with("# EOF\n"), "{}", metrics.text());
    assert_eq!(get("/").status, 404);
    assert_eq!(site.send("GET /-/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").text(), "ok\n");
}

/// Bytes in which no two stretches are alike.
fn counted(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}

#[test]
fn large_files_arrive_as_they_are_on_every_way() {
    let site = Site::open();
    let (one, two) = (counted(5_000_003), counted(700_001));
    std::fs::write(site.on_disk("public/one"), &one).unwrap();
    std::fs::write(site.on_disk("public/two"), &two).unwrap();
    for arguments in [&["--http1.0"][..], &["--http1.1"], &["--http2-prior-knowledge"]] {
        assert!(curl(&[arguments, &[&site.url("/public/one")]].concat()).stdout == one, "{arguments:?}");
    }
    let secure = format!("https://localhost:{}/public/one", site.secure.port());
    assert!(curl(&["-k", "--http1.1", &secure]).stdout == one);

    // Both on one connection, asked for at once, read slowly.
    let mut stream = TcpStream::connect(site.plain).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = |path: &str, rest: &str| format!("GET {path} HTTP/1.1\r\nHost: stoa\r\n{rest}\r\n");
    let all = [request("/public/one", ""), request("/public/two", ""), request("/public/one", "Connection: close\r\n")];
    stream.write_all(all.concat().as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 10_007];
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
    for (file, last) in [(&one, false), (&two, false), (&one, true)] {
        let reply = parse(&bytes);
        assert!(reply.body.starts_with(file));
        bytes = reply.body[file.len()..].to_vec();
        assert_eq!(bytes.is_empty(), last);
    }

    let parts = site.get("/public/one", "Range: bytes=1-600000,1000000-1500000\r\n");
    assert_eq!(parts.header("content-length").unwrap().parse::<usize>().unwrap(), parts.body.len());
    let holds = |bytes: &[u8]| memchr::memmem::find(&parts.body, bytes).is_some();
    assert!(holds(&one[1..=600_000]) && holds(&one[1_000_000..=1_500_000]));
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_never_taken_for_whole() {
    let site = Site::open();
    let path = site.on_disk("public/log");
    let whole = counted(1 << 20).repeat(24);
    std::fs::write(&path, &whole).unwrap();
    let mut stream = TcpStream::connect(site.plain).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /public/log HTTP/1.1\r\nHost: stoa\r\n\r\n").unwrap();
    let mut begin = [0; 1000];
    stream.read_exact(&mut begin).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let mut bytes = begin.to_vec();
    let _ = stream.read_to_end(&mut bytes);
    let reply = parse(&bytes);
    assert_eq!(reply.header("content-length").unwrap(), whole.len().to_string());
    assert!(reply.body.len() < whole.len() && reply.body.starts_with(&whole[..1 << 20]));
}

#[test]
fn an_idle_connection_is_put_away_and_serves_on() {
    let limits = Limits { idle: Span(Duration::from_secs(2)), ..Limits::default() };
    let site = Site::with(limits);
    site.put("/public/a", "here");
    let mut stream = TcpStream::connect(site.plain).unwrap();
    let mut silence = [0; 1];
    // An eighth of the idle time more than it takes to be put away; nothing must arrive, not even an end.
    let mut quiet = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(750))).unwrap();
        assert!(stream.read(&mut silence).is_err(), "not closed");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    };
    for _ in 0..3 {
        quiet(&mut stream);
        stream.write_all(b"GET /public/a HTTP/1.1\r\nHost: stoa\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let mut byte = [0; 1];
        while !bytes.ends_with(b"here") {
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
    }
    quiet(&mut stream);
    assert_eq!(stream.read(&mut silence).unwrap(), 0, "closed after the idle time");
}
