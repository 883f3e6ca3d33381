//! Uploads that are cut: by every method of HTTP/1 and HTTP/2, by FTP and FTPS, by DATA and BDAT. Whatever the way, the file that was there
//! stays as it was, and nothing of the new one is visible. Each method is also ended in good order once: then the new file is there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConnection, StreamOwned};

use crate::daemon::{Daemon, Place};
use crate::frames::{self, Connection, frame};
use crate::smtp::Anyone;
use crate::uploads::exchange;

const OLD: &[u8] = b"what was there before";
/// One that stays in memory, and one that is staged on the disk.
const SIZES: [usize; 2] = [900, 150_000];

fn daemon() -> Daemon {
    let place = Place::new("");
    let folder = place.config().parent().unwrap().to_owned();
    fs::write(folder.join("alice"), "secret-alice\n").unwrap();
    let password = folder.join("alice");
    place.configure(&format!(
        r#"
domain = "example.org"
[limits]
stall = "2s"
drain = "5s"
connections_per_address = 4096
connections_per_account = 4096
[http]
basic_in_clear = true
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/in"
grants = [ {{ to = "user:alice", allow = "edit" }} ]
[[space]]
path = "/mail"
address = "mail"
grants = [ {{ to = "everyone", allow = "create" }} ]
"#,
        password.display()
    ));
    place.start()
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

/// Sends RST instead of an orderly end.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Reads until the server ends the connection, which it must.
fn outwait(mut stream: impl Read) {
    let mut scrap = [0; 4096];
    while let Ok(1..) = stream.read(&mut scrap) {}
}

/// Files whose fate is known when the daemon has ended.
#[derive(Default)]
struct Book {
    /// Name and what it must hold.
    files: BTreeMap<String, Vec<u8>>,
    /// Connections on which nothing more is said: the server must end them.
    stalled: Vec<TcpStream>,
    /// The same by HTTP/2: the server must end the stream.
    stalled_streams: Vec<Connection>,
}

impl Book {
    fn check(&self, daemon: &Daemon, folder: &str) {
        let mut there = BTreeMap::new();
        collect(&daemon.on_disk(folder), &mut there);
        for (name, wanted) in &self.files {
            let found = there.get(name).unwrap_or_else(|| panic!("{name} is gone"));
            assert!(found == wanted, "{name} holds {} bytes that it should not: {}", found.len(), daemon.log());
        }
        let more: Vec<_> = there.keys().filter(|name| !self.files.contains_key(*name)).collect();
        assert!(more.is_empty(), "{more:?} should not be there");
    }
}

/// All files below a folder by their last name.
fn collect(folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => collect(&entry.path(), into),
            false => drop(into.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())),
        }
    }
}

/// One upload request of HTTP.
struct Sending {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

const METHODS: [&str; 7] = ["put", "form", "forms", "tus", "tus-made", "range", "locked"];

fn basic() -> String {
    format!("Basic {}", STANDARD.encode("alice:secret-alice"))
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> crate::uploads::Said {
    let mut headers = headers.to_vec();
    if method == "LOCK" {
        headers.push(("Content-Type", "application/xml"));
    }
    exchange(address, &crate::uploads::request("alice", method, path, &headers, body))
}

/// What comes before an upload by this method to `/in/NAME`, and the upload itself.
fn sending(address: SocketAddr, method: &str, name: &str, new: &[u8]) -> Sending {
    let tus = ("Tus-Resumable", "1.0.0");
    let chunk = ("Content-Type", "application/offset+octet-stream");
    let named = format!("filename {}", STANDARD.encode(name));
    let length = new.len().to_string();
    let own = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect()
    };
    let file = format!("/in/{name}");
    let part = |name: &str| format!("--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\n");
    let form = own(&[("Content-Type", "multipart/form-data; boundary=B")]);
    let folder = || "/in/".to_owned();
    match method {
        "put" => Sending { method: "PUT", path: file, headers: vec![], body: new.to_vec() },
        "form" => {
            let body = [part(name).as_bytes(), new, b"\r\n--B--\r\n"].concat();
            Sending { method: "POST", path: folder(), headers: form, body }
        }
        "forms" => {
            let (first, second) = new.split_at(new.len() / 4);
            let (one, other) = (part(name), part(&format!("{name}-second")));
            let body = [one.as_bytes(), first, b"\r\n", other.as_bytes(), second, b"\r\n--B--\r\n"].concat();
            Sending { method: "POST", path: folder(), headers: form, body }
        }
        "tus" => {
            let headers = [tus, ("Upload-Length", length.as_str()), ("Upload-Metadata", &named)];
            let made = ask(address, "POST", "/in/", &headers, b"");
            assert_eq!(made.status, 201, "{made:?}");
            let path = made.header("location").unwrap().to_owned();
            Sending { method: "PATCH", path, headers: own(&[tus, chunk, ("Upload-Offset", "0")]), body: new.to_vec() }
        }
        "tus-made" => {
            let headers = own(&[tus, chunk, ("Upload-Length", &length), ("Upload-Metadata", &named)]);
            Sending { method: "POST", path: folder(), headers, body: new.to_vec() }
        }
        "range" => {
            let (first, rest) = new.split_at(100);
            let said = ask(address, "PUT", &file, &[("Content-Range", &format!("bytes 0-99/{length}"))], first);
            assert_eq!(said.status, 202, "{said:?}");
            let range = format!("bytes 100-{}/{length}", new.len() - 1);
            Sending { method: "PUT", path: file, headers: own(&[("Content-Range", &range)]), body: rest.to_vec() }
        }
        "locked" => {
            let lock =
                b"<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
            let said = ask(address, "LOCK", &file, &[], lock);
            assert_eq!(said.status, 200, "{said:?}");
            let token = format!("({})", said.header("lock-token").unwrap());
            Sending { method: "PUT", path: file, headers: own(&[("If", &token)]), body: new.to_vec() }
        }
        other => panic!("{other}"),
    }
}

/// The new content as this method stores it.
fn stored(method: &str, new: &[u8]) -> Vec<u8> {
    if method == "forms" { new[..new.len() / 4].to_vec() } else { new.to_vec() }
}

const CUTS_OF_ONE: [&str; 10] = [
    "half-fin",
    "half-close",
    "half-reset",
    "half-stall",
    "last-fin",
    "last-reset",
    "chunks-fin",
    "chunks-reset",
    "chunk-size",
    "chunk-end",
];

fn head(upload: &Sending, length: Option<usize>) -> Vec<u8> {
    let mut head =
        format!("{} {} HTTP/1.1\r\nHost: stoa\r\nAuthorization: {}\r\n", upload.method, upload.path, basic());
    for (name, value) in &upload.headers {
        head.extend([name.as_str(), ": ", value, "\r\n"]);
    }
    match length {
        Some(length) => head.extend(["Content-Length: ", &length.to_string(), "\r\n\r\n"]),
        None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    head.into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Cuts an upload by HTTP/1.
fn cut_one(address: SocketAddr, upload: &Sending, how: &str, book: &mut Book) {
    let body = &upload.body;
    let fixed = |count: usize| [&head(upload, Some(body.len()))[..], &body[..count]].concat();
    let chunked = |count: usize, after: &[u8]| [&head(upload, None)[..], &chunk(&body[..count]), after].concat();
    let (half, most) = (body.len() / 2, body.len() - 1);
    let (bytes, end) = match how {
        "half-fin" => (fixed(half), "fin"),
        "half-close" => (fixed(half), "close"),
        "half-reset" => (fixed(half), "reset"),
        "half-stall" => (fixed(half), "stall"),
        "last-fin" => (fixed(most), "fin"),
        "last-reset" => (fixed(most), "reset"),
        // Every byte is here, and the last chunk is not.
        "chunks-fin" => (chunked(body.len(), b""), "fin"),
        "chunks-reset" => (chunked(body.len(), b""), "reset"),
        "chunk-size" => (chunked(half, b"no size\r\n"), "fin"),
        "chunk-end" => (chunked(body.len(), b"0\r\n"), "fin"),
        other => panic!("{other}"),
    };
    let mut stream = crate::uploads::connect(address);
    let _ = stream.write_all(&bytes);
    match end {
        "fin" => {
            let _ = stream.shutdown(Shutdown::Write);
            outwait(&mut stream);
        }
        "reset" => reset(stream),
        "stall" => book.stalled.push(stream),
        _ => drop(stream),
    }
}

fn whole_one(address: SocketAddr, upload: &Sending) {
    let mut stream = crate::uploads::connect(address);
    let parts: Vec<u8> = upload.body.chunks(1_000).flat_map(chunk).collect();
    stream.write_all(&[&head(upload, None)[..], &parts, b"0\r\n\r\n"].concat()).unwrap();
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first).unwrap();
    assert!(first.starts_with("HTTP/1.1 2") || first.starts_with("HTTP/1.1 303"), "{first}");
}

/// Creates the file that is there before, and gives the upload that is to replace it.
fn prepare(daemon: &Daemon, protocol: &str, method: &str, how: &str, size: usize, book: &mut Book) -> Sending {
    let name = format!("{protocol}-{method}-{how}-{size}");
    fs::write(daemon.on_disk(&format!("/in/{name}")), OLD).unwrap();
    let new = content(size);
    let wanted = if how == "whole" { stored(method, &new) } else { OLD.to_vec() };
    if how == "whole" && method == "forms" {
        book.files.insert(format!("{name}-second"), new[size / 4..].to_vec());
    }
    book.files.insert(name.clone(), wanted);
    sending(daemon.http, method, &name, &new)
}

/// The daemon ends, so that whatever it was about to do is done; then the files are looked at.
fn settle(daemon: Daemon, mut book: Book, folder: &str) {
    for connection in &mut book.stalled_streams {
        connection.answered(1);
    }
    for stream in &book.stalled {
        outwait(stream);
    }
    daemon.signal("TERM");
    let (status, place) = daemon.wait();
    assert!(status.success(), "{}", place.log());
    let daemon = place.start();
    book.check(&daemon, folder);
    let verified = daemon.must(&["history", "--verify"], "");
    assert!(!verified.is_empty());
}

#[test]
fn an_upload_by_http1_that_is_cut_stores_nothing() {
    let daemon = daemon();
    let mut book = Book::default();
    for size in SIZES {
        for method in METHODS {
            for how in CUTS_OF_ONE {
                let upload = prepare(&daemon, "one", method, how, size, &mut book);
                cut_one(daemon.http, &upload, how, &mut book);
            }
            let upload = prepare(&daemon, "one", method, "whole", size, &mut book);
            whole_one(daemon.http, &upload);
        }
    }
    settle(daemon, book, "/in");
}

const CUTS_OF_TWO: [&str; 11] =
    ["no-error", "cancel", "internal", "all-no-error", "fin", "reset", "goaway", "short", "long", "broken", "stall"];

/// Cuts an upload by HTTP/2.
fn cut_two(address: SocketAddr, upload: &Sending, how: &str, book: &mut Book) {
    let body = &upload.body;
    let mut connection = Connection::open(address, &[]);
    let basic = basic();
    let mut headers: Vec<(&str, &str)> =
        upload.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.push(("authorization", &basic));
    let length = body.len().to_string();
    if matches!(how, "short" | "long" | "cancel") {
        headers.push(("content-length", &length));
    }
    connection.send(&frames::request(1, upload.method, &upload.path, &headers, false));
    let half = frames::body(1, &body[..body.len() / 2], false);
    let rst = |code: u32| frame(frames::RST_STREAM, 0, 1, &code.to_be_bytes());
    match how {
        "no-error" => connection.send(&[half, rst(0)].concat()),
        "cancel" => connection.send(&[half, rst(8)].concat()),
        "internal" => connection.send(&[half, rst(2)].concat()),
        "all-no-error" => connection.send(&[frames::body(1, body, false), rst(0)].concat()),
        "goaway" => connection.send(&[half, frame(frames::GOAWAY, 0, 0, &[0; 8])].concat()),
        "short" => connection.send(&frames::body(1, &body[..body.len() - 1], true)),
        "long" => connection.send(&[frames::body(1, body, false), frames::body(1, b"x", true)].concat()),
        // DATA outside of a stream is an error of the connection.
        "broken" => connection.send(&[half, frame(frames::DATA, 0, 0, b"x")].concat()),
        _ => connection.send(&half),
    }
    match how {
        "reset" => reset(connection.0),
        "stall" => book.stalled_streams.push(connection),
        "no-error" | "all-no-error" | "cancel" | "internal" => {
            // The connection goes on; its next request is answered.
            connection.send(&frames::request(3, "GET", "/-/health", &[], true));
            assert!(connection.answered(3), "{how}");
        }
        _ => {
            let _ = connection.0.shutdown(Shutdown::Write);
            outwait(&mut connection.0);
        }
    }
}

fn whole_two(address: SocketAddr, upload: &Sending) {
    let mut connection = Connection::open(address, &[]);
    let basic = basic();
    let mut headers: Vec<(&str, &str)> =
        upload.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.push(("authorization", &basic));
    connection.send(&frames::request(1, upload.method, &upload.path, &headers, false));
    connection.send(&frames::body(1, &upload.body, true));
    assert!(connection.answered(1), "{} {}", upload.method, upload.path);
}

#[test]
fn an_upload_by_http2_that_is_cut_stores_nothing() {
    let daemon = daemon();
    let mut book = Book::default();
    for size in SIZES {
        for method in METHODS {
            for how in CUTS_OF_TWO {
                let upload = prepare(&daemon, "two", method, how, size, &mut book);
                cut_two(daemon.http, &upload, how, &mut book);
            }
            let upload = prepare(&daemon, "two", method, "whole", size, &mut book);
            whole_two(daemon.http, &upload);
        }
    }
    settle(daemon, book, "/in");
}

/// A stream in clear or under TLS.
enum Line {
    Clear(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    fn secure(self, config: &Arc<rustls::ClientConfig>) -> Self {
        let Self::Clear(stream) = self else { panic!("it is secure") };
        let session = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        Self::Secure(Box::new(StreamOwned::new(session, stream)))
    }

    fn tcp(self) -> TcpStream {
        match self {
            Self::Clear(stream) => stream,
            Self::Secure(stream) => stream.sock,
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(stream) => stream,
            Self::Secure(stream) => &stream.sock,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Clear(stream) => stream.write_all(bytes),
            Self::Secure(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
    }

    /// Ends in good order: close_notify under TLS, then FIN.
    fn end(mut self) {
        if let Self::Secure(stream) = &mut self {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
        outwait(self.socket());
    }

    fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            let read = match self {
                Self::Clear(stream) => stream.read(&mut byte),
                Self::Secure(stream) => stream.read(&mut byte),
            };
            if !matches!(read, Ok(1)) {
                break;
            }
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// The last line of the next reply; empty at the end.
    fn reply(&mut self) -> String {
        loop {
            let line = self.read_line();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    fn must(&mut self, line: &str, start: &str) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(start), "{line} → {reply}");
        reply
    }
}

/// Takes any certificate and keeps its sessions.
fn config() -> Arc<rustls::ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

/// A connection to a line protocol, past its greeting and STARTTLS.
fn lines(address: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>, hello: Option<&str>, ask: &str) -> Line {
    let mut line = Line::Clear(crate::uploads::connect(address));
    assert!(line.reply().starts_with("220"));
    if let Some(config) = tls {
        if let Some(hello) = hello {
            line.must(hello, "250");
        }
        line.must(ask, "2");
        line = line.secure(config);
    }
    if let Some(hello) = hello {
        line.must(hello, "250");
    }
    line
}

const CUTS_OF_FTP: [&str; 8] =
    ["reset", "killed", "gone-first", "abort", "stall", "both-reset", "inside-record", "appended"];

/// Sends a file by STOR, and cuts it. `whole`: in good order.
fn store(
    address: SocketAddr,
    tls: Option<&Arc<rustls::ClientConfig>>,
    name: &str,
    how: &str,
    bytes: &[u8],
    book: &mut Book,
) {
    let mut control = lines(address, tls, None, "AUTH TLS");
    control.must("USER alice", "331");
    control.must("PASS secret-alice", "230");
    control.must("TYPE I", "200");
    if tls.is_some() {
        control.must("PBSZ 0", "200");
        control.must("PROT P", "200");
    }
    let reply = control.must("EPSV", "229");
    let port: u16 = reply.split('|').nth(3).unwrap().parse().unwrap();
    let lane = Line::Clear(crate::uploads::connect(SocketAddr::new(address.ip(), port)));
    let verb = if how == "appended" { "APPE" } else { "STOR" };
    control.must(&format!("{verb} /in/{name}"), "150");
    let mut lane = match tls {
        Some(config) => lane.secure(config),
        None => lane,
    };
    let half = &bytes[..bytes.len() / 2];
    lane.write(if how == "whole" { bytes } else { half });
    match how {
        "whole" => {
            lane.end();
            let reply = control.reply();
            assert!(reply.starts_with("226"), "{reply}");
        }
        "reset" | "appended" => {
            reset(lane.tcp());
            let reply = control.reply();
            // 425: the reset overtook the end of the TLS handshake.
            assert!(reply.starts_with("426") || (tls.is_some() && reply.starts_with("425")), "{reply}");
        }
        // What the kernel does for a killed program: an orderly end of both connections.
        "killed" => {
            drop(lane.tcp());
            drop(control.tcp());
        }
        "gone-first" => {
            drop(control.tcp());
            drop(lane.tcp());
        }
        "abort" => {
            let reply = control.say("ABOR");
            assert!(reply.starts_with("426"), "{reply}");
            drop(lane);
        }
        "stall" => {
            book.stalled.push(lane.tcp());
            let reply = control.reply();
            assert!(reply.starts_with("426"), "{reply}");
        }
        "both-reset" => {
            reset(lane.tcp());
            reset(control.tcp());
        }
        // A record that announces more than comes: whoever cut it was not the sender's TLS. In clear: a reset.
        "inside-record" => {
            let mut tcp = lane.tcp();
            if tls.is_some() {
                tcp.write_all(&[23, 3, 3, 4, 0, 1, 2, 3]).unwrap();
                let _ = tcp.shutdown(Shutdown::Write);
                outwait(&tcp);
            } else {
                reset(tcp);
            }
            let reply = control.reply();
            assert!(reply.starts_with('4'), "{reply}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_upload_by_ftp_or_ftps_that_is_cut_stores_nothing() {
    let daemon = daemon();
    let (mut book, config) = (Book::default(), config());
    for tls in [None, Some(&config)] {
        for size in SIZES {
            for how in CUTS_OF_FTP.into_iter().chain(["whole"]) {
                let name = format!("ftp-{}-{how}-{size}", tls.is_some());
                fs::write(daemon.on_disk(&format!("/in/{name}")), OLD).unwrap();
                let new = content(size);
                store(daemon.ftp, tls, &name, how, &new, &mut book);
                book.files.insert(name, if how == "whole" { new } else { OLD.to_vec() });
            }
        }
    }
    settle(daemon, book, "/in");
}

const CUTS_OF_MAIL: [&str; 8] = ["fin", "close", "reset", "stall", "last-fin", "dot-fin", "dot-reset", "bare-dot"];

fn send_data(line: &mut Line, how: &str, bytes: &[u8]) {
    line.must("DATA", "354");
    line.write(match how {
        "whole" | "dot-fin" | "dot-reset" | "bare-dot" => bytes,
        "last-fin" => &bytes[..bytes.len() - 1],
        _ => &bytes[..bytes.len() / 2],
    });
    line.write(match how {
        "dot-fin" | "dot-reset" => b".\r",
        "bare-dot" => b"\n.\n",
        "whole" => b".\r\n",
        _ => b"",
    });
}

/// In two chunks: the first is answered, the second is the last.
fn send_bdat(line: &mut Line, how: &str, bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 3);
    line.write(format!("BDAT {}\r\n", first.len()).as_bytes());
    line.write(first);
    assert!(line.reply().starts_with("250"));
    if matches!(how, "dot-fin" | "dot-reset" | "bare-dot") {
        // Every octet comes, and none of the chunks is the last.
        line.write(format!("BDAT {}\r\n", second.len()).as_bytes());
        line.write(second);
        assert!(line.reply().starts_with("250"));
        return;
    }
    line.write(format!("BDAT {} LAST\r\n", second.len()).as_bytes());
    line.write(match how {
        "whole" => second,
        "last-fin" => &second[..second.len() - 1],
        _ => &second[..second.len() / 2],
    });
}

/// Sends a message with one attachment by DATA or BDAT, and cuts it.
fn mail(
    address: SocketAddr,
    tls: Option<&Arc<rustls::ClientConfig>>,
    verb: &str,
    name: &str,
    how: &str,
    book: &mut Book,
) {
    let mut line = lines(address, tls, Some("EHLO client"), "STARTTLS");
    line.must("MAIL FROM:<a@example.net>", "250");
    line.must("RCPT TO:<mail@example.org>", "250");
    let size = if how.len().is_multiple_of(2) { 900 } else { 150_000 };
    let text = "0123456789abcdef\r\n".repeat(size / 18);
    let message = format!(
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
         Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename={name}\r\n\r\n{text}\r\n--b--\r\n"
    );
    let bytes = message.as_bytes();
    if verb == "DATA" {
        send_data(&mut line, how, bytes);
    } else {
        send_bdat(&mut line, how, bytes);
    }
    match how {
        "whole" => {
            let reply = line.reply();
            assert!(reply.starts_with("250"), "{reply}");
            book.files.insert(name.to_owned(), text.into_bytes());
        }
        "close" => drop(line),
        "reset" | "dot-reset" => reset(line.tcp()),
        "stall" => book.stalled.push(line.tcp()),
        "bare-dot" if verb == "DATA" => book.stalled.push(line.tcp()),
        _ => {
            let _ = line.socket().shutdown(Shutdown::Write);
            outwait(line.socket());
        }
    }
}

#[test]
fn a_message_by_data_or_bdat_that_is_cut_stores_nothing() {
    let daemon = daemon();
    let (mut book, config) = (Book::default(), config());
    for tls in [None, Some(&config)] {
        for verb in ["DATA", "BDAT"] {
            for how in CUTS_OF_MAIL.into_iter().chain(["whole"]) {
                let name = format!("{verb}-{}-{how}.bin", tls.is_some());
                mail(daemon.smtp, tls, verb, &name, how, &mut book);
            }
        }
    }
    settle(daemon, book, "/mail");
}
