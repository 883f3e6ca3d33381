//! WebDAV over real loopback sockets: properties, copies, the words of its errors, and the habits of its clients.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::events::Event;
use stoa::hub::login::hash_password;
use stoa::hub::settings::LoginSettings;
use stoa::units::ByteSize;

use crate::daemon::{Daemon, Place};

/// A daemon with two users who may edit `/dav`, one who may not, and places with rules of their own.
pub struct Dav {
    pub daemon: Daemon,
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    /// The lock token it gave, in its brackets.
    pub fn token(&self) -> String {
        self.header("lock-token").unwrap_or_else(|| panic!("no token: {} {}", self.status, self.text())).to_owned()
    }

    /// The body, which must be well-formed XML.
    fn xml(&self) -> String {
        let text = self.text();
        let mut reader = quick_xml::NsReader::from_str(&text);
        loop {
            match reader.read_resolved_event() {
                Ok((quick_xml::name::ResolveResult::Unknown(prefix), _)) => panic!("{prefix} is not declared: {text}"),
                Ok((_, Event::Eof)) => return text,
                Ok(_) => {}
                Err(error) => panic!("{error}: {text}"),
            }
        }
    }
}

const CONFIG: &str = r#"
[[space]]
path = "/dav"
grants = [{ to = "user:alice", allow = "own" }, { to = "user:bob", allow = "edit" }, { to = "user:carol", allow = "view" }]
[[space]]
path = "/small"
quota = "1000 B"
grants = [{ to = "user:alice", allow = "edit" }]
[[space]]
path = "/both"
overwrite = "keep-both"
grants = [{ to = "user:alice", allow = "list read create" }, { to = "user:bob", allow = "edit" }]
[[space]]
path = "/public"
grants = [{ to = "everyone", allow = "view" }, { to = "user:alice", allow = "edit" }]
"#;

impl Dav {
    pub fn start() -> Self {
        Self { daemon: Place::new(&Self::config("")).start() }
    }

    /// The configuration with more tables.
    pub fn config(more: &str) -> String {
        let login = LoginSettings { memory: ByteSize(8 << 10), ..LoginSettings::default() };
        let hash = hash_password(b"secret", &login).expect("a hash");
        let users = ["alice", "bob", "carol"].iter().fold(String::new(), |mut users, name| {
            let _ = writeln!(users, "[[user]]\nname = \"{name}\"\npassword_hash = \"{hash}\"");
            users
        });
        format!("{CONFIG}{users}{more}")
    }

    /// One request by someone (empty: a guest), with headers that end in CRLF each.
    pub fn ask(&self, who: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        ask(self.daemon.http, who, method, path, headers, body)
    }

    pub fn alice(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        self.ask("alice", method, path, headers, body.as_bytes())
    }

    /// Like `alice`, and it must succeed.
    pub fn must(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let reply = self.alice(method, path, headers, body);
        assert!((200..300).contains(&reply.status), "{method} {path}: {} {}", reply.status, reply.text());
        reply
    }

    pub fn propfind(&self, path: &str, depth: &str, body: &str) -> String {
        let reply = self.alice("PROPFIND", path, &format!("Depth: {depth}\r\n"), body);
        assert_eq!(reply.status, 207, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/xml; charset=utf-8"));
        reply.xml()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.daemon.http)
    }
}

pub fn ask(address: SocketAddr, who: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let sign_in = match who {
        "" => String::new(),
        name => format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:secret"))),
    };
    let length = match headers.contains("Transfer-Encoding") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{sign_in}{length}{headers}\r\n");
    let mut stream = TcpStream::connect(address).expect("the door is open");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    stream.write_all(head.as_bytes()).expect("sent");
    // A body that is refused early may not go out whole; the answer counts.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..split].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut body = bytes.split_off(split + 4);
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Reply { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").expect("a chunk's head");
        let size = std::str::from_utf8(&bytes[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.expect("a chunk's size");
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 4 + size..];
    }
}

fn set(properties: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><propertyupdate xmlns=\"DAV:\"><set><prop>{properties}</prop></set></propertyupdate>"
    )
}

#[test]
fn options_is_answered_before_anyone_signs_in() {
    let dav = Dav::start();
    for path in ["*", "/", "/dav/", "/dav/none", "/nowhere/at/all"] {
        let reply = dav.ask("", "OPTIONS", path, "", b"");
        assert_eq!((reply.status, reply.header("dav")), (200, Some("1, 2, 3")), "{path}");
        assert_eq!(reply.header("ms-author-via"), Some("DAV"));
        let allow = reply.header("allow").expect("Allow");
        for method in ["PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "COPY", "MOVE", "MKCOL"] {
            assert!(allow.contains(method), "{path}: {allow}");
        }
    }
    let reply = dav.ask("", "PROPFIND", "/", "Depth: 0\r\n", b"");
    assert_eq!(reply.status, 401, "a client that could sign in is asked to, although there is something public");
    assert!(reply.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Basic")));
    assert_eq!(dav.ask("", "PROPFIND", "/public/", "Depth: 1\r\n", b"").status, 207);
    for method in ["LOCK", "UNLOCK", "PROPPATCH", "MKCOL", "PROPFIND", "COPY", "MOVE"] {
        let headers = "Depth: 0\r\nDestination: /dav/y\r\n";
        let reply = dav.ask("", method, "/dav/x", headers, set("<x/>").as_bytes());
        assert_eq!(reply.status, 401, "{method}");
    }
}

#[test]
fn properties_are_asked_for_in_every_form() {
    let dav = Dav::start();
    let put = dav.must("PUT", "/dav/a%20%26%20b.txt", "X-Modified: 784111777\r\n", "hello");
    dav.must("MKCOL", "/dav/sub/", "", "");
    let all = dav.propfind("/dav/", "1", "");
    for part in [
        "<D:href>/dav/</D:href>",
        "<D:href>/dav/sub/</D:href>",
        "<D:href>/dav/a%20%26%20b.txt</D:href>",
        "<D:displayname>a &amp; b.txt</D:displayname>",
        "<D:getcontentlength>5</D:getcontentlength>",
        "<D:getcontenttype>text/plain; charset=utf-8</D:getcontenttype>",
        "<D:getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</D:getlastmodified>",
        "<D:creationdate>1994-11-06T08:49:37Z</D:creationdate>",
        "<D:resourcetype><D:collection/></D:resourcetype>",
        "<D:resourcetype/>",
        "<D:lockscope><D:shared/></D:lockscope>",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let tag = put.header("etag").expect("a tag").replace('"', "&quot;");
    assert!(all.contains(&format!("<D:getetag>{tag}</D:getetag>")), "{tag}: {all}");
    assert!(!all.contains("quota"), "not part of allprop: {all}");
    let included = "<propfind xmlns='DAV:'><allprop/><include><quota-used-bytes/><getetag/></include></propfind>";
    let all = dav.propfind("/dav/", "0", included);
    assert!(all.contains("<D:quota-used-bytes>5</D:quota-used-bytes>") && all.contains("<D:resourcetype>"), "{all}");

    let names = dav.propfind("/dav/sub", "0", "<propfind xmlns='DAV:'><propname/></propfind>");
    assert!(names.contains("<D:quota-available-bytes/>") && !names.contains("getcontentlength"), "{names}");
    let some = "<propfind xmlns='DAV:'><prop><getcontentlength/><z xmlns='urn:z'/></prop></propfind>";
    let found = dav.propfind("/dav/sub", "0", some);
    assert!(
        found.contains("<D:getcontentlength/><z xmlns=\"urn:z\"/></D:prop><D:status>HTTP/1.1 404 Not Found"),
        "{found}"
    );
    let brief = dav.alice("PROPFIND", "/dav/sub", "Depth: 0\r\nBrief: t\r\n", some);
    assert!(!brief.xml().contains("404"), "{}", brief.text());

    let quota = "<propfind xmlns='DAV:'><prop><quota-available-bytes/><quota-used-bytes/></prop></propfind>";
    dav.must("PUT", "/small/a", "", &"x".repeat(400));
    let found = dav.propfind("/small/", "0", quota);
    assert!(found.contains("<D:quota-available-bytes>600</D:quota-available-bytes>"), "{found}");
    assert!(found.contains("<D:quota-used-bytes>400</D:quota-used-bytes>"), "{found}");
    let root = dav.propfind("/", "1", "");
    for space in ["/dav/", "/small/", "/both/", "/public/"] {
        assert!(root.contains(&format!("<D:href>{space}</D:href>")), "{root}");
    }
}

#[test]
fn a_whole_tree_at_once_is_refused_with_the_reason() {
    let dav = Dav::start();
    for headers in ["Depth: infinity\r\n", ""] {
        let reply = dav.alice("PROPFIND", "/dav/", headers, "");
        assert_eq!(reply.status, 403);
        assert!(reply.xml().contains("<D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/>"), "{}", reply.text());
    }
    assert_eq!(dav.alice("PROPFIND", "/dav/", "Depth: 2\r\n", "").status, 400);
    assert_eq!(dav.alice("MKCOL", "/dav/sub", "", "").status, 201);
    for depth in ["1,noroot", "1 , NoRoot"] {
        let listed = dav.alice("PROPFIND", "/dav/", &format!("Depth: {depth}\r\n"), "").xml();
        assert!(
            !listed.contains("<D:href>/dav/</D:href>") && listed.contains("<D:href>/dav/sub/</D:href>"),
            "{listed}"
        );
    }
    assert_eq!(dav.alice("PROPFIND", "/dav/none", "Depth: 0\r\n", "").status, 404);
}

#[test]
fn a_large_folder_comes_piece_by_piece_and_whole() {
    let dav = Dav::start();
    let folder = dav.daemon.on_disk("/dav/many");
    std::fs::create_dir_all(&folder).expect("a folder");
    for number in 0..3_000 {
        std::fs::write(folder.join(format!("{number:05} ü.txt")), "").expect("a file");
    }
    dav.must("PROPPATCH", "/dav/many/02500%20%C3%BC.txt", "", &set("<k xmlns='urn:k'>kept</k>"));
    let reply = dav.alice("PROPFIND", "/dav/many/", "Depth: 1\r\n", "");
    assert_eq!((reply.status, reply.header("content-length")), (207, None));
    let text = reply.xml();
    assert_eq!(text.matches("<D:response>").count(), 3_001);
    for number in 0..3_000 {
        assert!(text.contains(&format!("<D:href>/dav/many/{number:05}%20%C3%BC.txt</D:href>")), "{number}");
    }
    assert_eq!(text.matches("<k xmlns=\"urn:k\">kept</k>").count(), 1);
}

#[test]
fn what_clients_keep_is_set_whole_or_not_at_all() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "a");
    let reply = dav.must("PROPPATCH", "/dav/a", "", &set("<x:c xmlns:x='urn:x' x:t='1'>b&lt;<d/>é</x:c><e xmlns=''/>"));
    assert!(
        reply.xml().contains("<c xmlns=\"urn:x\"/><e xmlns=\"\"/></D:prop><D:status>HTTP/1.1 200 OK"),
        "{}",
        reply.text()
    );
    let kept = "<c xmlns=\"urn:x\" xmlns:n0=\"urn:x\" n0:t=\"1\">b&lt;<d xmlns=\"DAV:\"/>é</c>";
    assert!(dav.propfind("/dav/a", "0", "").contains(kept));
    let named = "<propfind xmlns='DAV:'><prop><c xmlns='urn:x'/></prop></propfind>";
    assert!(dav.propfind("/dav/a", "0", named).contains(kept));

    let both = "<propertyupdate xmlns='DAV:'><remove><prop><c xmlns='urn:x'/></prop></remove>\
                <set><prop><getetag>mine</getetag></prop></set></propertyupdate>";
    let text = dav.must("PROPPATCH", "/dav/a", "", both).xml();
    assert!(text.contains("<c xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 424 Failed Dependency"), "{text}");
    assert!(text.contains("403 Forbidden</D:status><D:error><D:cannot-modify-protected-property/>"), "{text}");
    assert!(dav.propfind("/dav/a", "0", "").contains(kept), "nothing was done");
    dav.must("PROPPATCH", "/dav/a", "", &both.replace("<set><prop><getetag>mine</getetag></prop></set>", ""));
    assert!(!dav.propfind("/dav/a", "0", "").contains(kept));

    let large =
        dav.must("PROPPATCH", "/dav/a", "", &set(&format!("<l xmlns='urn:x'>{}</l>", "x".repeat(20_000)))).xml();
    assert!(large.contains("HTTP/1.1 507 Insufficient Storage"), "{large}");
    let many: String = (0..101).map(|n| format!("<p{n} xmlns='urn:x'/>")).collect();
    assert!(dav.must("PROPPATCH", "/dav/a", "", &set(&many)).xml().contains("507"));
    assert_eq!(dav.ask("carol", "PROPPATCH", "/dav/a", "", set("<x/>").as_bytes()).status, 403);
    assert_eq!(dav.alice("PROPPATCH", "/dav/none", "", &set("<x/>")).status, 404);
    assert_eq!(dav.alice("PROPPATCH", "/dav/a", "", "").status, 400);
}

#[test]
fn what_clients_keep_follows_the_file_by_every_door() {
    let dav = Dav::start();
    dav.must("MKCOL", "/dav/d/", "", "");
    dav.must("PUT", "/dav/d/a", "", "a");
    dav.must("PROPPATCH", "/dav/d/a", "", &set("<k xmlns='urn:k'>1</k>"));
    dav.must("PROPPATCH", "/dav/d/", "", &set("<k xmlns='urn:k'>2</k>"));
    let kept = |path: &str, value: u8| dav.propfind(path, "0", "").contains(&format!("<k xmlns=\"urn:k\">{value}</k>"));
    dav.must("PUT", "/dav/d/a", "", "another content");
    assert!(kept("/dav/d/a", 1), "a PUT keeps it");
    dav.must("COPY", "/dav/d/", "Destination: /dav/copy\r\n", "");
    assert!(kept("/dav/copy/", 2) && kept("/dav/copy/a", 1));
    ftp(&dav, &["RNFR /dav/copy", "RNTO /dav/renamed"]);
    assert!(kept("/dav/renamed/", 2) && kept("/dav/renamed/a", 1));
    dav.must("MOVE", "/dav/renamed/a", "Destination: /both/moved\r\n", "");
    assert!(kept("/both/moved", 1), "to another space too");
    ftp(&dav, &["DELE /dav/d/a"]);
    dav.must("PUT", "/dav/d/a", "", "new");
    assert!(!kept("/dav/d/a", 1), "a new file has nothing of the old one");
    dav.must("DELETE", "/dav/d/", "", "");
    dav.must("MKCOL", "/dav/d/", "", "");
    assert!(!kept("/dav/d/", 2));
}

/// FTP commands as alice, each of which must be accepted.
pub fn ftp(dav: &Dav, commands: &[&str]) {
    for (command, reply) in commands.iter().zip(ftp_as(dav, "alice", commands)) {
        assert!(reply.starts_with(['2', '3']), "{command}: {reply}");
    }
}

/// FTP commands as someone; the last line of each reply.
pub fn ftp_as(dav: &Dav, who: &str, commands: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect(dav.daemon.ftp).expect("the door is open");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    let mut reader = std::io::BufReader::new(stream.try_clone().expect("a clone"));
    let mut reply = move || loop {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line).expect("a reply");
        assert!(!line.is_empty(), "the door closed");
        if line.as_bytes().get(3) == Some(&b' ') {
            return line.trim_end().to_owned();
        }
    };
    let mut say = |command: &str| {
        stream.write_all(format!("{command}\r\n").as_bytes()).expect("sent");
        reply()
    };
    // The greeting answers before the first command does.
    assert!(say(&format!("USER {who}")).starts_with("220"));
    assert!(say("PASS secret").starts_with("331"));
    assert!(say("NOOP").starts_with("230"));
    let mut replies: Vec<String> = commands.iter().map(|command| say(command)).collect();
    replies.push(say("QUIT"));
    replies.remove(0);
    replies
}

#[test]
fn times_are_set_as_windows_and_macos_do_it() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "a");
    let modified = || {
        let metadata = std::fs::metadata(dav.daemon.on_disk("/dav/a")).expect("a file");
        metadata.modified().expect("a time").duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    };
    let windows = "<Z:Win32CreationTime xmlns:Z='urn:schemas-microsoft-com:'>Sun, 06 Nov 1994 08:49:30 GMT</Z:Win32CreationTime>\
                   <Z:Win32LastModifiedTime xmlns:Z='urn:schemas-microsoft-com:'>Sun, 06 Nov 1994 08:49:37 GMT</Z:Win32LastModifiedTime>\
                   <Z:Win32FileAttributes xmlns:Z='urn:schemas-microsoft-com:'>00000020</Z:Win32FileAttributes>";
    assert!(!dav.must("PROPPATCH", "/dav/a", "", &set(windows)).xml().contains("40"));
    assert_eq!(modified(), 784_111_777);
    assert!(dav.propfind("/dav/a", "0", "").contains(">00000020</Win32FileAttributes>"));
    dav.must("PROPPATCH", "/dav/a", "", &set("<getlastmodified>Sun, 06 Nov 1994 08:49:38 GMT</getlastmodified>"));
    assert_eq!(modified(), 784_111_778);
    assert!(dav.must("PROPPATCH", "/dav/a", "", &set("<getlastmodified>soon</getlastmodified>")).xml().contains("403"));
    assert_eq!(modified(), 784_111_778);
}

#[test]
fn folders_are_copied_and_moved_with_what_is_in_them() {
    let dav = Dav::start();
    for folder in ["/dav/a/", "/dav/a/b/", "/dav/a/b/c/"] {
        dav.must("MKCOL", folder, "", "");
    }
    for (path, body) in [("/dav/a/1", "one"), ("/dav/a/b/2", "two"), ("/dav/a/b/c/3", "three")] {
        dav.must("PUT", path, "", body);
    }
    let go = |method: &str, from: &str, to: &str, more: &str| {
        dav.alice(method, from, &format!("Destination: {}\r\n{more}", dav.url(to)), "").status
    };
    assert_eq!(go("COPY", "/dav/a/", "/dav/copy/", ""), 201);
    assert_eq!(dav.must("GET", "/dav/copy/b/c/3", "", "").text(), "three");
    assert_eq!(go("COPY", "/dav/a/", "/dav/copy/", "Overwrite: F\r\n"), 412);
    assert_eq!(go("COPY", "/dav/a/b/", "/dav/copy/", "Overwrite: T\r\n"), 204);
    assert_eq!(dav.alice("GET", "/dav/copy/1", "", "").status, 404, "what was there is gone");
    assert_eq!(go("COPY", "/dav/a/", "/dav/shallow/", "Depth: 0\r\n"), 201);
    assert_eq!(std::fs::read_dir(dav.daemon.on_disk("/dav/shallow")).expect("a folder").count(), 0);

    for (method, from, to, more, status) in [
        ("COPY", "/dav/a/", "/dav/a/b/x", "", 403),
        ("MOVE", "/dav/a/", "/dav/a/b/x", "", 403),
        ("MOVE", "/dav/a/b/", "/dav/a/", "", 403),
        ("COPY", "/dav/a/1", "/dav/a/1", "", 403),
        ("COPY", "/dav/a/", "/dav/none/x", "", 409),
        ("MOVE", "/dav/a/1", "/dav/none/x", "", 409),
        ("COPY", "/dav/none", "/dav/x", "", 404),
        ("MOVE", "/dav/none", "/dav/x", "", 404),
        ("MOVE", "/dav/a/", "/dav/x/", "Depth: 0\r\n", 400),
        ("COPY", "/dav/a/1", "/dav/x", "Overwrite: maybe\r\n", 400),
        ("COPY", "/dav/a/1", "/-/x", "", 403),
        ("COPY", "/dav/a/1", "/", "", 403),
    ] {
        assert_eq!(go(method, from, to, more), status, "{method} {from} {to}");
    }
    for wrong in ["Destination: http://elsewhere.example/x\r\n", "Destination: http://[\r\n", ""] {
        assert!([400, 403, 502].contains(&dav.alice("COPY", "/dav/a/1", wrong, "").status), "{wrong}");
    }
    assert_eq!(go("MOVE", "/dav/a/", "/dav/copy/", ""), 204);
    assert_eq!(dav.must("GET", "/dav/copy/b/c/3", "", "").text(), "three");
    assert_eq!(go("MOVE", "/dav/copy/1", "/dav/shallow", ""), 204, "a file in the place of a folder");
    assert_eq!(dav.must("GET", "/dav/shallow", "", "").text(), "one");
    assert_eq!(go("MOVE", "/dav/copy/", "/both/there/", ""), 201, "to another space");
    assert_eq!(dav.must("GET", "/both/there/b/c/3", "", "").text(), "three");
    assert_eq!(dav.alice("GET", "/dav/copy/", "", "").status, 404);
}

#[test]
fn a_copy_that_fits_in_part_says_what_is_missing() {
    let dav = Dav::start();
    dav.must("MKCOL", "/dav/a/", "", "");
    for name in ["1", "2", "3"] {
        dav.must("PUT", &format!("/dav/a/{name}"), "", &"x".repeat(400));
    }
    let reply = dav.alice("COPY", "/dav/a/", "Destination: /small/a\r\n", "");
    assert_eq!(reply.status, 207);
    let text = reply.xml();
    assert!(
        text.contains("<D:href>/small/a/3</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>"),
        "{text}"
    );
    assert_eq!(text.matches("<D:response>").count(), 1, "{text}");
    assert_eq!(dav.must("GET", "/small/a/2", "", "").body.len(), 400);
    assert_eq!(dav.alice("MOVE", "/dav/a/", "Destination: /small/b\r\n", "").status, 207);
    assert_eq!(dav.must("GET", "/dav/a/1", "", "").body.len(), 400, "nothing is removed that did not arrive");
    let few = Dav { daemon: Place::new(&Dav::config("[http]\ncopy_entries = 2\n")).start() };
    few.must("MKCOL", "/dav/a/", "", "");
    few.must("PUT", "/dav/a/1", "", "");
    few.must("PUT", "/dav/a/2", "", "");
    assert_eq!(few.alice("COPY", "/dav/a/", "Destination: /dav/b\r\n", "").status, 413);
}

#[test]
fn a_folder_is_made_by_itself() {
    let dav = Dav::start();
    assert_eq!(dav.alice("MKCOL", "/dav/a/", "", "").status, 201);
    assert_eq!(dav.alice("MKCOL", "/dav/a/", "", "").status, 405);
    assert_eq!(dav.alice("MKCOL", "/dav/x/y/", "", "").status, 409);
    assert_eq!(dav.alice("MKCOL", "/dav/b/", "Content-Type: application/xml\r\n", "<x/>").status, 415);
    assert_eq!(dav.alice("MKCOL", "/dav/", "", "").status, 405);
    assert_eq!(dav.ask("carol", "MKCOL", "/dav/c/", "", b"").status, 403);
}

#[test]
fn hostile_xml_is_refused_and_costs_nothing() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "a");
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", dav.daemon.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak").to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    dav.propfind("/dav/a", "0", "");
    let before = memory();
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">\
                <!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\">]><propfind xmlns=\"DAV:\"><prop><x>&c;</x></prop></propfind>";
    let outside = "<!DOCTYPE l SYSTEM \"file:///etc/passwd\"><propfind xmlns='DAV:'><allprop/></propfind>";
    let wide: String = (0..20_000).map(|n| format!("<p{n}/>")).collect();
    let declared: String = (0..2_000).map(|n| format!(" xmlns:a{n}='urn:{n}'")).collect();
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("an entity bomb", bomb.into(), &[400]),
        ("a document from outside", outside.into(), &[400]),
        ("200,000 elements deep", "<a>".repeat(200_000).into(), &[413]),
        ("65 elements deep", format!("{}{}", "<a>".repeat(65), "</a>".repeat(65)).into(), &[413]),
        ("many elements", format!("<propfind xmlns='DAV:'><prop>{wide}</prop></propfind>").into(), &[413]),
        ("many namespaces", format!("<propfind xmlns='DAV:'{declared}><allprop/></propfind>").into(), &[400, 413]),
        ("a huge name", format!("<{}/>", "n".repeat(200_000)).into(), &[413]),
        ("a body over the limit", vec![b' '; 300_000], &[413]),
        ("not UTF-8", b"<propfind xmlns='DAV:'><prop><x>\xff\xfe</x></prop></propfind>".to_vec(), &[400]),
        ("another encoding", b"<?xml version='1.0' encoding='ebcdic'?><propfind xmlns='DAV:'/>".to_vec(), &[400]),
        ("not XML", b"{\"propfind\":1}".to_vec(), &[400]),
        ("another document", b"<html/>".to_vec(), &[400]),
        ("cut off", b"<propfind xmlns='DAV:'><allprop/>".to_vec(), &[400]),
    ];
    // What the first round takes (threads, the allocator's arenas) is kept; the others must do with it.
    let mut peaks = Vec::new();
    for _ in 0..4 {
        for (what, body, wanted) in &cases {
            for method in ["PROPFIND", "PROPPATCH", "LOCK"] {
                let reply = dav.ask("alice", method, "/dav/a", "Depth: 0\r\n", body);
                assert!(wanted.contains(&reply.status), "{method} with {what}: {} {}", reply.status, reply.text());
                assert!(reply.body.len() < 1_000, "{method} with {what} is answered in a line");
            }
        }
        peaks.push(memory());
    }
    let grown = peaks[3].saturating_sub(peaks[0]);
    assert!(grown < 32_000 && peaks[0] - before < 128_000, "from {before} kB to {peaks:?}");
    assert!(!dav.propfind("/dav/a", "0", "").contains("<D:activelock>"), "nothing was locked");
}

#[test]
fn explorer_finder_and_their_like_get_along() {
    let dav = Dav::start();
    // Windows looks around first, makes an empty file, locks it, writes, sets times, unlocks.
    assert_eq!(
        dav.ask("", "OPTIONS", "/dav", "Translate: f\r\nUser-Agent: Microsoft-WebDAV-MiniRedir/10\r\n", b"").status,
        200
    );
    assert_eq!(dav.alice("PROPFIND", "/dav", "Depth: 0\r\nTranslate: f\r\n", "").status, 207);
    assert_eq!(dav.alice("PROPFIND", "/dav/New%20Text%20Document.txt", "Depth: 0\r\n", "").status, 404);
    assert_eq!(dav.alice("PUT", "/dav/New%20Text%20Document.txt", "Translate: f\r\n", "").status, 201);
    let locked =
        dav.must("LOCK", "/dav/New%20Text%20Document.txt", "Timeout: Second-3600\r\nTranslate: f\r\n", LOCKINFO);
    assert_eq!(locked.status, 200);
    let token = locked.token();
    let tagged = format!("If: <{}> ({token})\r\n", dav.url("/dav/New%20Text%20Document.txt"));
    assert_eq!(dav.alice("PUT", "/dav/New%20Text%20Document.txt", &tagged, "text").status, 204);
    assert_eq!(
        dav.alice("HEAD", "/dav/New%20Text%20Document.txt", "Translate: f\r\n", "").header("content-length"),
        Some("4")
    );
    assert_eq!(
        dav.alice("UNLOCK", "/dav/New%20Text%20Document.txt", &format!("Lock-Token: {token}\r\n"), "").status,
        204
    );

    // macOS writes in chunks, says how much will come, and keeps its own files beside.
    for name in ["._film.mov", ".DS_Store"] {
        assert_eq!(dav.alice("PUT", &format!("/dav/{name}"), "", "\0\0").status, 201, "{name}");
    }
    let chunked = "Transfer-Encoding: chunked\r\nX-Expected-Entity-Length: 5\r\nExpect: 100-continue\r\n";
    let put = dav.ask("alice", "PUT", "/dav/film.mov", chunked, b"5\r\nhello\r\n0\r\n\r\n");
    assert!([100, 201].contains(&put.status), "{}", put.head);
    assert_eq!(dav.must("GET", "/dav/film.mov", "", "").text(), "hello");
    let announced = "Transfer-Encoding: chunked\r\nX-Expected-Entity-Length: 5000\r\n";
    assert_eq!(
        dav.ask("alice", "PUT", "/small/big", announced, b"5\r\nhello\r\n0\r\n\r\n").status,
        507,
        "refused at once"
    );
    let listed = dav.propfind("/dav/", "1", "");
    assert!(listed.contains("/dav/._film.mov") && listed.contains("/dav/.DS_Store"));
}

const LOCKINFO: &str = "<?xml version=\"1.0\" encoding=\"utf-8\" ?><D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope>\
     <D:locktype><D:write/></D:locktype><D:owner><D:href>HOST\\alice</D:href></D:owner></D:lockinfo>";

#[test]
fn a_page_says_how_to_connect() {
    let dav = Dav::start();
    for who in ["", "alice"] {
        let reply = dav.ask(who, "GET", "/-/connect", "Accept: text/html\r\n", b"");
        let text = reply.text();
        assert_eq!(reply.status, 200);
        assert!(text.contains(&dav.url("/")) && !text.contains("<script"), "{text}");
        for client in ["Windows", "macOS", "GNOME", "KDE", "davfs2", "rclone", "cadaver", "iPhone", "Android"] {
            assert!(text.contains(client), "{client}");
        }
    }
    let forged = ask(dav.daemon.http, "", "GET", "/-/connect", "X-Forwarded-Host: evil\r\n", b"");
    assert!(!forged.text().contains("evil"));
}
