//! Uploads by HTTP that come in pieces, come twice or break off: tus, PUT of parts, Idempotency-Key, receipts. The daemon is real, and
//! is killed where that is the point.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest as _;

use stoa::hub::{TreePath, UploadWish};
use stoa::units::Span;
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, Place, until};
use crate::world::World;

/// What a server said.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Said {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The bytes of a request by Basic; `who` is empty for a guest.
pub fn request(who: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Host: stoa".into(), "Connection: close".into()];
    if !who.is_empty() {
        lines.push(format!("Authorization: Basic {}", STANDARD.encode(format!("{who}:secret-{who}"))));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends bytes and reads to the end. A server that answers early may not take all of them.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Said {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    read(&mut stream)
}

pub fn read(stream: &mut TcpStream) -> Said {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let split = split.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = bytes[split + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body).unwrap_or_else(|| panic!("the body was cut off"));
    }
    Said { status, head, body }
}

/// `None` when the last chunk is missing.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(bytes.get(line + 2..line + 2 + size)?);
        bytes = bytes.get(line + 4 + size..)?;
    }
}

/// A daemon with alice (edits `/in`), bob (sees it) and guests (drop into `/drop`).
pub fn daemon(more: &str) -> Daemon {
    place(more).start()
}

fn place(more: &str) -> Place {
    let place = Place::new("");
    let folder = place.config().parent().unwrap().to_owned();
    for name in ["alice", "bob"] {
        fs::write(folder.join(name), format!("secret-{name}\n")).unwrap();
    }
    let user =
        |name: &str| format!("[[user]]\nname = \"{name}\"\npassword_file = \"{}\"\n", folder.join(name).display());
    let space = |path: &str, rest: &str| format!("[[space]]\npath = \"{path}\"\n{rest}\n");
    let alice = r#"grants = [ { to = "user:alice", allow = "edit" }, { to = "user:bob", allow = "view" } ]"#;
    let everyone = r#"grants = [ { to = "everyone", allow = "drop" }, { to = "users", allow = "view" } ]"#;
    place.configure(&format!(
        "\n{more}\n{}{}{}{}{}{}",
        user("alice"),
        user("bob"),
        space("/in", alice),
        space("/drop", everyone),
        space("/small", &format!("quota = \"100 B\"\n{alice}")),
        space("/both", &format!("overwrite = \"keep-both\"\n{alice}")),
    ));
    place
}

/// alice's.
fn ask(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Said {
    exchange(daemon.http, &request("alice", method, path, headers, body))
}

const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const CHUNK: (&str, &str) = ("Content-Type", "application/offset+octet-stream");

fn named(name: &str) -> String {
    format!("filename {}", STANDARD.encode(name))
}

/// Makes an upload in `/in/`; its address.
fn begin(daemon: &Daemon, name: &str, length: usize) -> String {
    let headers = [TUS, ("Upload-Length", &length.to_string()), ("Upload-Metadata", &named(name))];
    let said = ask(daemon, "POST", "/in/", &headers, b"");
    assert_eq!(said.status, 201, "{said:?}");
    assert!(said.header("upload-expires").is_some() && said.header("tus-resumable") == Some("1.0.0"), "{said:?}");
    said.header("location").unwrap().to_owned()
}

fn patch(daemon: &Daemon, url: &str, offset: usize, body: &[u8], more: &[(&str, &str)]) -> Said {
    let offset = offset.to_string();
    let headers = [&[TUS, CHUNK, ("Upload-Offset", offset.as_str())][..], more].concat();
    ask(daemon, "PATCH", url, &headers, body)
}

fn offset(daemon: &Daemon, url: &str) -> Option<usize> {
    let said = ask(daemon, "HEAD", url, &[TUS], b"");
    assert!([200, 404].contains(&said.status), "{said:?}");
    said.header("upload-offset").map(|text| text.parse().unwrap())
}

fn content(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).unwrap()).collect()
}

/// Names of a folder as a caller sees them.
fn names(daemon: &Daemon, folder: &str) -> Vec<String> {
    ask(daemon, "GET", &format!("{folder}?format=text"), &[], b"").text().lines().map(str::to_owned).collect()
}

#[test]
fn an_upload_in_pieces_survives_kills_and_is_finished_once() {
    let mut daemon = daemon("");
    let whole = content(300_000, 1);
    let url = begin(&daemon, "a.bin", whole.len());
    let mut at = 0;
    for end in [1, 70_000, 150_000, 299_999] {
        let said = patch(&daemon, &url, at, &whole[at..end], &[]);
        assert_eq!((said.status, said.header("upload-offset")), (204, Some(end.to_string().as_str())), "{said:?}");
        at = end;
        daemon = daemon.kill().start();
        assert_eq!(offset(&daemon, &url), Some(end), "what was answered is safe");
        assert_eq!(names(&daemon, "/in/"), Vec::<String>::new(), "nothing is visible before the end");
    }
    let last = patch(&daemon, &url, at, &whole[at..], &[]);
    assert_eq!((last.status, last.header("content-location")), (204, Some("/in/a.bin")), "{last:?}");
    assert!(last.header("etag").is_some());
    assert_eq!(fs::read(daemon.on_disk("/in/a.bin")).unwrap(), whole);
    let receipt = last.header("stoa-receipt").unwrap().to_owned();
    assert_eq!(daemon.must(&["history"], "").matches(&receipt).count(), 1);

    daemon = daemon.kill().start();
    let again = patch(&daemon, &url, at, &whole[at..], &[]);
    let told = |said: &Said, name: &str| said.header(name).map(str::to_owned);
    for name in ["upload-offset", "content-location", "etag", "stoa-receipt"] {
        assert_eq!(told(&again, name), told(&last, name), "{name}: the last piece once more is answered alike");
    }
    assert_eq!(again.status, 204);
    assert_eq!(patch(&daemon, &url, 0, &whole[..1], &[]).status, 409);
    assert_eq!(offset(&daemon, &url), Some(whole.len()));
    assert_eq!(daemon.must(&["history"], "").matches("/in/a.bin").count(), 1, "it was stored once");
}

#[test]
fn what_tus_asks_to_be_refused_is_refused_and_leaves_the_upload_as_it_was() {
    let daemon = daemon("");
    let url = begin(&daemon, "a", 10);
    assert_eq!(patch(&daemon, &url, 0, b"12345", &[]).status, 204);
    let version = ask(&daemon, "HEAD", &url, &[("Tus-Resumable", "0.2.2")], b"");
    assert_eq!((version.status, version.header("tus-version")), (412, Some("1.0.0")));
    let looked = ask(&daemon, "HEAD", &url, &[], b"");
    assert_eq!((looked.status, looked.header("upload-offset")), (200, Some("5")), "{looked:?}");
    assert_eq!(patch(&daemon, &url, 4, b"x", &[]).status, 409);
    assert_eq!(patch(&daemon, &url, 5, b"123456", &[]).status, 413);
    assert_eq!(offset(&daemon, &url), Some(5));
    let kind = [TUS, ("Content-Type", "text/plain"), ("Upload-Offset", "5")];
    assert_eq!(ask(&daemon, "PATCH", &url, &kind, b"x").status, 415);
    assert_eq!(ask(&daemon, "PATCH", &url, &[TUS, CHUNK], b"x").status, 400);
    let sum = format!("sha1 {}", STANDARD.encode(sha1::Sha1::digest(b"678")));
    assert_eq!(patch(&daemon, &url, 5, b"67x", &[("Upload-Checksum", &sum)]).status, 460);
    assert_eq!(patch(&daemon, &url, 5, b"678", &[("Upload-Checksum", "crc9 AAAA")]).status, 400);
    assert_eq!(offset(&daemon, &url), Some(5), "bytes with a wrong sum are not kept");
    assert_eq!(patch(&daemon, &url, 5, b"678", &[("Upload-Checksum", &sum)]).status, 204);
    // An upload belongs to its account.
    for (who, expected) in [("bob", 404), ("", 404)] {
        let said = exchange(daemon.http, &request(who, "HEAD", &url, &[TUS], b""));
        assert_eq!(said.status, expected, "{who}");
        let headers = [TUS, CHUNK, ("Upload-Offset", "8")];
        assert_eq!(exchange(daemon.http, &request(who, "PATCH", &url, &headers, b"90")).status, expected, "{who}");
        assert_eq!(exchange(daemon.http, &request(who, "DELETE", &url, &[TUS], b"")).status, expected, "{who}");
    }
    let bob = [TUS, ("Upload-Length", "1"), ("Upload-Metadata", &named("b"))];
    assert_eq!(exchange(daemon.http, &request("bob", "POST", "/in/", &bob, b"")).status, 403);
    for name in ["..", "a\0b", ".stoa-x"] {
        let headers = [TUS, ("Upload-Length", "1"), ("Upload-Metadata", &named(name))];
        assert_eq!(ask(&daemon, "POST", "/in/", &headers, b"").status, 400, "{name:?}");
    }
    for headers in
        [&[TUS][..], &[TUS, ("Upload-Length", "-1")], &[TUS, ("Upload-Length", "1"), ("Upload-Defer-Length", "1")]]
    {
        assert_eq!(ask(&daemon, "POST", "/in/", headers, b"").status, 400, "{headers:?}");
    }
    assert_eq!(ask(&daemon, "DELETE", &url, &[TUS], b"").status, 204);
    assert_eq!(offset(&daemon, &url), None);
    let options = ask(&daemon, "OPTIONS", "/-/uploads", &[], b"");
    assert!(options.header("tus-extension").unwrap().contains("concatenation"), "{options:?}");
}

#[test]
fn the_extensions_of_tus() {
    let daemon = daemon("");
    // creation-with-upload, deferred length, a nested path and a time.
    let said =
        format!("relativePath {},lastModified {}", STANDARD.encode("new/deep/b.txt"), STANDARD.encode("1700000000000"));
    let headers = [TUS, CHUNK, ("Upload-Defer-Length", "1"), ("Upload-Metadata", &said)];
    let made = ask(&daemon, "POST", "/in/", &headers, b"hello ");
    assert_eq!((made.status, made.header("upload-offset")), (201, Some("6")), "{made:?}");
    let url = made.header("location").unwrap();
    let told = ask(&daemon, "HEAD", url, &[TUS], b"");
    assert_eq!((told.header("upload-defer-length"), told.header("upload-metadata")), (Some("1"), Some(said.as_str())));
    assert_eq!(patch(&daemon, url, 6, b"world", &[("Upload-Length", "11")]).status, 204);
    let stored = daemon.on_disk("/in/new/deep/b.txt");
    assert_eq!(fs::read(&stored).unwrap(), b"hello world");
    let time = fs::metadata(&stored).unwrap().modified().unwrap();
    assert_eq!(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000);
    // Nothing at all is a file too.
    let headers = [TUS, ("Upload-Length", "0"), ("Upload-Metadata", &named("empty"))];
    assert_eq!(ask(&daemon, "POST", "/in/", &headers, b"").status, 201);
    assert_eq!(fs::read(daemon.on_disk("/in/empty")).unwrap(), b"");
    // concatenation
    let mut urls = Vec::new();
    for part in [&b"one "[..], b"two ", b"three"] {
        let length = part.len().to_string();
        let headers = [TUS, CHUNK, ("Upload-Concat", "partial"), ("Upload-Length", &length)];
        let made = ask(&daemon, "POST", "/in/", &headers, part);
        assert_eq!(made.status, 201, "{made:?}");
        urls.push(made.header("location").unwrap().to_owned());
    }
    let told = ask(&daemon, "HEAD", &urls[0], &[TUS], b"");
    assert_eq!((told.header("upload-concat"), told.header("upload-offset")), (Some("partial"), Some("4")));
    let concat = format!("final;{}", urls.join(" "));
    let headers = [TUS, ("Upload-Concat", concat.as_str()), ("Upload-Metadata", &named("joined"))];
    let joined = ask(&daemon, "POST", "/in/", &headers, b"");
    assert_eq!((joined.status, joined.header("upload-offset")), (201, Some("13")), "{joined:?}");
    assert_eq!(fs::read(daemon.on_disk("/in/joined")).unwrap(), b"one two three");
    let told = ask(&daemon, "HEAD", joined.header("location").unwrap(), &[TUS], b"");
    assert_eq!((told.header("upload-concat"), told.header("upload-length")), (Some(concat.as_str()), Some("13")));
    assert_eq!(patch(&daemon, joined.header("location").unwrap(), 0, b"x", &[]).status, 403);
    assert_eq!(ask(&daemon, "POST", "/in/", &headers, b"").status, 404, "the parts are gone");
    // A sum of the whole.
    let sum = STANDARD.encode("0".repeat(64));
    let said = format!("{},sha256 {sum}", named("wrong"));
    let headers = [TUS, CHUNK, ("Upload-Length", "3"), ("Upload-Metadata", said.as_str())];
    assert_eq!(ask(&daemon, "POST", "/in/", &headers, b"abc").status, 460);
    assert_eq!(names(&daemon, "/in/"), ["new/", "empty", "joined"]);
    // A guest's upload is its id's.
    let headers = [TUS, CHUNK, ("Upload-Length", "2"), ("Upload-Metadata", &named("g"))];
    assert_eq!(exchange(daemon.http, &request("", "POST", "/drop/", &headers, b"hi")).status, 201);
    assert_eq!(fs::read(daemon.on_disk("/drop/g")).unwrap(), b"hi");
}

#[test]
fn room_is_reserved_when_an_upload_is_made_and_free_when_it_ends() {
    let daemon = daemon("[storage]\nuploads_per_account = 3");
    let make = |length: &str, name: &str| {
        ask(&daemon, "POST", "/small/", &[TUS, ("Upload-Length", length), ("Upload-Metadata", &named(name))], b"")
    };
    assert_eq!(make("101", "x").status, 507);
    let first = make("80", "a");
    assert_eq!(first.status, 201);
    assert_eq!(make("30", "b").status, 507, "20 are left");
    assert_eq!(ask(&daemon, "PUT", "/small/c", &[], &[b'c'; 30]).status, 507, "for every door");
    assert_eq!(ask(&daemon, "PUT", "/small/c", &[], &[b'c'; 20]).status, 201);
    let url = first.header("location").unwrap().to_owned();
    let daemon = daemon.kill().start();
    assert_eq!(ask(&daemon, "PUT", "/small/d", &[], b"d").status, 507, "it is reserved after a restart too");
    assert_eq!(patch(&daemon, &url, 0, &[b'a'; 80], &[]).status, 204);
    assert_eq!(fs::read(daemon.on_disk("/small/a")).unwrap(), [b'a'; 80]);
    assert_eq!(ask(&daemon, "DELETE", "/small/a", &[], b"").status, 204);
    let make = |name: &str| {
        ask(&daemon, "POST", "/small/", &[TUS, ("Upload-Length", "10"), ("Upload-Metadata", &named(name))], b"")
    };
    let urls: Vec<_> = ["p", "q", "r"].map(|name| make(name).header("location").unwrap().to_owned()).into();
    assert_eq!(make("s").status, 429, "three under way are enough");
    assert_eq!(ask(&daemon, "DELETE", &urls[0], &[TUS], b"").status, 204);
    assert_eq!(make("s").status, 201);
}

#[test]
fn an_upload_is_given_up_when_nobody_goes_on() {
    let daemon = daemon("[storage]\nresume = \"1s\"");
    let url = begin(&daemon, "a", 10);
    until("it is given up", || offset(&daemon, &url).is_none());
    assert_eq!(patch(&daemon, &url, 0, b"x", &[]).status, 404);
}

/// The keeper comes once a minute: of time that passes by itself when nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn what_an_upload_had_reserved_is_free_when_its_time_is_over() {
    let world = World::with(|settings| settings.storage.resume = Span(Duration::from_millis(1))).await;
    let alice = world.caller("alice", "http").await;
    let wish = UploadWish {
        path: TreePath::parse("/small/a").unwrap(),
        length: Some(9 << 10),
        part: false,
        folders: false,
        modified: None,
        sha256: None,
        note: String::new(),
    };
    let made = alice.begin_upload(&wish).await.unwrap();
    let folder = TreePath::parse("/small").unwrap();
    assert!(alice.fits(&folder, 2 << 10).await.is_err(), "it is reserved");
    let stop = CancellationToken::new();
    let keepers = world.hub.keep(&stop);
    let mut minutes = 0;
    while alice.fits(&folder, 2 << 10).await.is_err() {
        tokio::time::sleep(Duration::from_mins(1)).await;
        minutes += 1;
        assert!(minutes < 1_000, "nobody gave it up");
    }
    assert!(alice.upload_resource(&made.id).await.is_err());
    stop.cancel();
    for keeper in keepers {
        keeper.await.unwrap();
    }
}

#[test]
fn whoever_comes_later_goes_on_with_an_upload() {
    let daemon = daemon("");
    let whole = content(200_000, 2);
    let url = begin(&daemon, "a", whole.len());
    // The first writer hangs half way, as a client behind a dead line does.
    let length = whole.len().to_string();
    let headers = [TUS, CHUNK, ("Upload-Offset", "0"), ("Content-Length", &length)];
    let mut hung = connect(daemon.http);
    hung.write_all(&request("alice", "PATCH", &url, &headers, &whole[..120_000])).unwrap();
    until("some of it is taken", || {
        offset(&daemon, &url).is_some_and(|at| at > 0) || {
            // Asking takes the upload from the first writer; should nothing have come before, it must begin again.
            hung = connect(daemon.http);
            hung.write_all(&request("alice", "PATCH", &url, &headers, &whole[..120_000])).unwrap();
            false
        }
    });
    let at = offset(&daemon, &url).unwrap();
    assert!(at <= 120_000);
    let said = patch(&daemon, &url, at, &whole[at..], &[]);
    assert_eq!(said.status, 204, "{said:?}");
    assert_eq!(fs::read(daemon.on_disk("/in/a")).unwrap(), whole);
}

#[test]
fn a_file_comes_in_parts_by_put_and_by_ftp() {
    let daemon = daemon("");
    assert_eq!(ask(&daemon, "PUT", "/in/a", &[], b"old").status, 201);
    let whole = content(100_000, 3);
    let put = |range: &str, body: &[u8]| ask(&daemon, "PUT", "/in/a", &[("Content-Range", range)], body);
    let old = || assert_eq!(fs::read(daemon.on_disk("/in/a")).unwrap(), b"old");
    assert_eq!(put("bytes */100000", b"").header("upload-offset"), Some("0"));
    let gap = put("bytes 10-19/100000", &whole[10..20]);
    assert_eq!((gap.status, gap.header("upload-offset")), (409, Some("0")), "what is there is never patched");
    let first = put("bytes 0-9/100000", &whole[..10]);
    assert_eq!((first.status, first.header("upload-offset")), (202, Some("10")), "{first:?}");
    old();
    assert_eq!(put("bytes 10-79999/100000", &whole[10..80_000]).header("upload-offset"), Some("80000"));
    for (range, body) in
        [("bytes 0-9/*", &whole[..10]), ("bytes 0-9/5", &whole[..10]), ("bytes 0-9/100000", &whole[..9])]
    {
        assert_eq!(put(range, body).status, 400, "{range}");
    }
    assert_eq!(put("bytes 90000-99999/100000", &whole[90_000..]).status, 409);
    let daemon = daemon.kill().start();
    let put = |range: &str, body: &[u8]| ask(&daemon, "PUT", "/in/a", &[("Content-Range", range)], body);
    assert_eq!(put("bytes */100000", b"").header("upload-offset"), Some("80000"), "it survives a restart");
    let last = put("bytes 70000-99999/100000", &whole[70_000..]);
    assert_eq!(last.status, 204, "{last:?}");
    assert_eq!(fs::read(daemon.on_disk("/in/a")).unwrap(), whole);
    assert_eq!(put("bytes */100000", b"").header("upload-offset"), Some("0"));
    // What one door left the other goes on with.
    assert_eq!(
        ask(&daemon, "PUT", "/in/b", &[("Content-Range", "bytes 0-49999/100000")], &whole[..50_000]).status,
        202
    );
    let file = daemon.data.join("../whole");
    fs::write(&file, &whole).unwrap();
    let url = format!("ftp://{}/in/b", daemon.ftp);
    curl(&["-u", "alice:secret-alice", "-C", "50000", "-T", file.to_str().unwrap(), &url]);
    assert_eq!(fs::read(daemon.on_disk("/in/b")).unwrap(), whole);
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--fail", "--max-time", "30"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_repeated_request_is_done_once_and_answered_alike() {
    let daemon = daemon("");
    let key = ("Idempotency-Key", "\"8e03978e-40d5-43dd\"");
    let json = ("Accept", "application/json");
    let first = ask(&daemon, "PUT", "/both/a", &[key, json], b"hello");
    assert_eq!(first.status, 201, "{first:?}");
    let receipt = first.json();
    assert_eq!((receipt["path"].as_str(), receipt["bytes"].as_u64()), (Some("/both/a"), Some(5)));
    let sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(receipt["sha256"].as_str(), Some(sum));
    // Without the key a second file would be made here.
    let again = ask(&daemon, "PUT", "/both/a", &[key, json], b"hello");
    assert_eq!((again.status, again.json()), (201, receipt.clone()));
    let daemon = daemon.kill().start();
    let again = ask(&daemon, "PUT", "/both/a", &[key, json], b"hello");
    assert_eq!((again.status, &again.json()["receipt"]), (201, &receipt["receipt"]), "also after a power cut");
    assert_eq!(names(&daemon, "/both/"), ["a"]);
    assert_eq!(daemon.must(&["history"], "").matches(receipt["receipt"].as_str().unwrap()).count(), 1);
    for (path, body) in [("/both/a", &b"hellx"[..]), ("/both/a", b"hello!"), ("/both/b", b"hello")] {
        assert_eq!(ask(&daemon, "PUT", path, &[key], body).status, 422, "{path}");
    }
    // A digest is compared with the body, as it was the first time.
    let digest = |text: &[u8]| format!("sha-256=:{}:", STANDARD.encode(sha2::Sha256::digest(text)));
    for header in ["Repr-Digest", "Content-Digest"] {
        for (said, body, expected) in
            [(&b"hello"[..], &b"hello"[..], 201), (b"hello", b"hellx", 400), (b"hellx", b"hellx", 422)]
        {
            let said = digest(said);
            let again = ask(&daemon, "PUT", "/both/a", &[key, (header, &said)], body);
            assert_eq!(again.status, expected, "{header} {said}: {}", again.text());
        }
    }
    assert_eq!(names(&daemon, "/both/"), ["a"]);
    assert_eq!(exchange(daemon.http, &request("", "PUT", "/drop/x", &[key], b"hello")).status, 401);

    // While it is being done it is not done again: the server asks for the body once it has begun.
    let slow = [("Idempotency-Key", "slow"), ("Content-Length", "5"), ("Expect", "100-continue")];
    let mut stream = connect(daemon.http);
    stream.write_all(&request("alice", "PUT", "/in/slow", &slow, b"")).unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(ask(&daemon, "PUT", "/in/slow", &[("Idempotency-Key", "slow")], b"hello").status, 409);
    stream.write_all(b"hello").unwrap();
    assert_eq!(read(&mut stream).status, 201);

    // A form of several files.
    let form = "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\none\r\n\
                --B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\ntwo\r\n--B--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=B"), ("Idempotency-Key", "form"), json];
    let first = ask(&daemon, "POST", "/both/", &headers, form.as_bytes());
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(ask(&daemon, "POST", "/both/", &headers, form.as_bytes()).json(), first.json());
    assert_eq!(names(&daemon, "/both/"), ["a", "x", "x (2)"]);
    let other = form.replace("two", "2wo");
    assert_eq!(ask(&daemon, "POST", "/both/", &headers, other.as_bytes()).status, 422);
}

/// Cuts a request after so many bytes, both ways: with an end, and without a word.
fn cut(address: SocketAddr, whole: &[u8], at: usize) {
    let mut stream = connect(address);
    stream.write_all(&whole[..at]).unwrap();
    if at.is_multiple_of(2) {
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_broken_upload_never_disturbs_the_file_that_is_there() {
    let mut daemon = daemon("");
    let old = content(5_000, 4);
    for name in ["put", "form", "tus"] {
        assert_eq!(ask(&daemon, "PUT", &format!("/in/{name}"), &[], &old).status, 201);
    }
    let new = content(150_000, 5);
    let put = request("alice", "PUT", "/in/put", &[], &new);
    let head = b"--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"form\"\r\n\r\n";
    let form = [&head[..], &new, b"\r\n--B--\r\n"].concat();
    let form = request("alice", "POST", "/in/", &[("Content-Type", "multipart/form-data; boundary=B")], &form);
    let intact = |daemon: &Daemon| {
        for name in ["put", "form", "tus"] {
            assert!(fs::read(daemon.on_disk(&format!("/in/{name}"))).unwrap() == old, "{name} is as it was");
        }
        assert_eq!(names(daemon, "/in/"), ["form", "put", "tus"]);
    };
    let length = new.len().to_string();
    for round in 0..3 {
        let url = begin(&daemon, "tus", new.len());
        let headers = [TUS, CHUNK, ("Upload-Offset", "0"), ("Content-Length", &length)];
        let tus = request("alice", "PATCH", &url, &headers, &new);
        for whole in [&put, &form, &tus] {
            for at in [1, whole.len() - new.len() + 1, whole.len() / 3, whole.len() / 2 + round, whole.len() - 40] {
                cut(daemon.http, whole, at);
            }
        }
        intact(&daemon);
        // In the middle of all three at once.
        let streams: Vec<_> = [&put, &form, &tus]
            .map(|whole| {
                let mut stream = connect(daemon.http);
                stream.write_all(&whole[..whole.len() - 60]).unwrap();
                stream
            })
            .into();
        daemon = daemon.kill().start();
        drop(streams);
        intact(&daemon);
    }
    for (whole, name) in [(&put, "put"), (&form, "form")] {
        assert!([204, 303].contains(&exchange(daemon.http, whole).status));
        assert!(fs::read(daemon.on_disk(&format!("/in/{name}"))).unwrap() == new, "{name} is the new one");
    }
}

/// Programs people have.
#[test]
fn real_clients_upload_resume_and_fetch() {
    let daemon = daemon("");
    let desk = tempfile::tempdir().unwrap();
    let whole = content(3_000_001, 6);
    let file = desk.path().join("film.bin");
    fs::write(&file, &whole).unwrap();
    let file = file.to_str().unwrap();
    let url = |path: &str| format!("http://{}{path}", daemon.http);
    let stored = |name: &str| assert!(fs::read(daemon.on_disk(name)).unwrap() == whole, "{name} came through");

    curl(&["-u", "alice:secret-alice", "-T", file, &url("/in/")]);
    stored("/in/film.bin");
    curl(&["-u", "alice:secret-alice", "-F", &format!("file=@{file};filename=form.bin"), &url("/in/")]);
    stored("/in/form.bin");
    let half = request("alice", "PUT", "/in/half.bin", &[("Content-Length", "3000001")], &whole[..1_500_000]);
    cut(daemon.http, &half, half.len());
    let mut kept = 0;
    until("what came is kept", || {
        let said = ask(&daemon, "PUT", "/in/half.bin", &[("Content-Range", "bytes */3000001")], b"");
        kept = said.header("upload-offset").unwrap().parse().unwrap();
        kept > 0
    });
    curl(&["-u", "alice:secret-alice", "-C", &kept.to_string(), "-T", file, &url("/in/half.bin")]);
    stored("/in/half.bin");

    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(desk.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let user = ["--http-user=alice", "--http-passwd=secret-alice"];
    run("aria2c", &[&["-q", "-x4", "-s4", "-k1M", "-o", "segments"][..], &user[..], &[&url("/in/film.bin")]].concat());
    fs::write(desk.path().join("half"), &whole[..1_000_003]).unwrap();
    run(
        "wget",
        &[
            "-q",
            "--continue",
            "-O",
            "half",
            "--user=alice",
            "--password=secret-alice",
            "--auth-no-challenge",
            &url("/in/film.bin"),
        ],
    );
    for name in ["segments", "half"] {
        assert!(fs::read(desk.path().join(name)).unwrap() == whole, "{name} is the file");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tus-upload.js");
    let output = Command::new("node").arg(&script).args([&url("/in/"), "alice:secret-alice", file]).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for name in ["/in/resumed.bin", "/in/parallel.bin"] {
        stored(name);
    }
}
