//! One verdict: the same caller asking for the same thing gets the same answer through every door.
//!
//! Every cell of principal × verb × place is asked of a running daemon's FTP, HTTP, WebDAV and SMTP over loopback by clients
//! written here, and compared with what the hub's policy says; then the disk is looked at, so that "refused" was not
//! done and "done" was.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stoa::error::Kind;
use stoa::hub::login::hash_password;
use stoa::hub::settings::{DeviceSettings, GrantSettings, LoginSettings, SpaceSettings, UserSettings};
use stoa::hub::{Hub, Settings, TreePath, Verb};
use stoa::net::{Gate, Limits, ListenSettings, Passed, Service, Tls, TlsMode, TlsSettings, Workers, bind_all};
use stoa::origin::Origin;
use stoa::proto::{PROTOCOLS, Section, Tools};
use stoa::store::{Catalog, CatalogSettings};
use stoa::units::ByteSize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::accounts::Trees;

/// Longest wait for any answer; far more than one takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a door answered, or should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Allowed,
    NotThere,
    Refused,
    SignIn,
}

/// The callers: nobody signed in, a member of a group, a user alone, a machine, a confined user, an administrator.
const CALLERS: &[&str] = &["", "alice", "bob", "camera", "carol", "root"];

/// What a door can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Create,
    Delete,
    List,
    MakeFolder,
    Overwrite,
    Read,
    Rename,
}

const ASKS: &[Ask] = &[Ask::List, Ask::Read, Ask::Create, Ask::MakeFolder, Ask::Overwrite, Ask::Delete, Ask::Rename];

impl Ask {
    fn verb(self) -> Verb {
        match self {
            Self::Create | Self::MakeFolder => Verb::Create,
            Self::Delete => Verb::Delete,
            Self::List => Verb::List,
            Self::Overwrite => Verb::Overwrite,
            Self::Read => Verb::Read,
            Self::Rename => Verb::Rename,
        }
    }
}

/// Whom the generated spaces are granted to, and what.
const GRANTED: &[&str] = &["everyone", "users", "group:staff", "user:bob", "device:camera"];
const ALLOWED: &[&str] = &[
    "list",
    "read",
    "create",
    "overwrite",
    "delete",
    "rename",
    "rename create",
    "list read delete",
    "view",
    "drop",
    "edit",
    "own",
];

/// A folder in which each verb is tried.
#[derive(Clone)]
struct Place {
    folder: TreePath,
    /// Where its files are on the disk.
    disk: PathBuf,
    /// Its drop address, where it has one.
    address: Option<String>,
}

/// One question and what the policy says to it.
struct Cell {
    caller: &'static str,
    ask: Ask,
    place: Place,
    meant: Class,
    /// As seen by FTP from the caller's root; `None` where it cannot be named.
    seen: Option<TreePath>,
    /// The caller may add here and see nothing: it is not told that a name is taken, and gets another.
    unseeing: bool,
}

fn at(text: &str) -> TreePath {
    TreePath::parse(text).expect(text)
}

fn grant(to: &str, allow: &str) -> GrantSettings {
    GrantSettings { to: to.into(), allow: allow.into() }
}

fn space(path: &str, address: &str, grants: Vec<GrantSettings>) -> SpaceSettings {
    SpaceSettings { path: path.into(), address: address.into(), durable: false, grants, ..SpaceSettings::default() }
}

/// The whole table, generated: one space for each principal and set of verbs, and the special cases.
fn settings(data: &Path) -> Settings {
    let login = LoginSettings { memory: ByteSize(8 << 10), ..LoginSettings::default() };
    let password_hash = hash_password(b"secret", &login).expect("a hash");
    let user = |name: &str, groups: &[&str], root: &str, admin| UserSettings {
        name: name.into(),
        password_hash: password_hash.clone(),
        groups: groups.iter().map(ToString::to_string).collect(),
        root: root.into(),
        admin,
        ..UserSettings::default()
    };
    let mut spaces = vec![
        // The most specific space counts, also where it gives less or more.
        space("/nest", "nest", vec![grant("users", "edit"), grant("everyone", "view")]),
        space("/nest/closed", "closed", vec![grant("user:bob", "edit")]),
        space("/nest/open", "open", vec![grant("everyone", "edit")]),
        // Verbs of several principals add up.
        space("/sum", "sum", vec![grant("everyone", "list"), grant("users", "read"), grant("group:staff", "delete")]),
        // A landing folder inside a space that gives its device nothing.
        space("/land", "land", vec![grant("group:staff", "edit")]),
        // The home of the confined one.
        space("/rooms", "rooms", vec![grant("group:staff", "edit"), grant("user:carol", "view drop")]),
        space("/nobody", "nobody", vec![]),
    ];
    for (column, to) in GRANTED.iter().enumerate() {
        for (row, allow) in ALLOWED.iter().enumerate() {
            let name = format!("s{column}-{row}");
            spaces.push(space(&format!("/{name}"), &name, vec![grant(to, allow)]));
        }
    }
    Settings {
        data: data.to_owned(),
        domains: vec!["example.org".into()],
        users: vec![
            user("alice", &["staff"], "/", false),
            user("bob", &[], "/", false),
            user("carol", &[], "/rooms/carol", false),
            user("root", &[], "/", true),
        ],
        devices: vec![DeviceSettings {
            name: "camera".into(),
            password_hash: password_hash.clone(),
            folder: "/land/camera".into(),
            // It is asked about the whole tree.
            root: "/".into(),
            ..DeviceSettings::default()
        }],
        spaces,
        login,
        ..Settings::default()
    }
}

/// The folders that are tried: one below the top of each space, and where roots, landings and homes are.
fn places(data: &Path, settings: &Settings) -> Vec<Place> {
    let mut folders: Vec<(TreePath, Option<String>)> = settings
        .spaces
        .iter()
        .map(|space| (at(&space.path).join("box").expect("a path"), Some(format!("{}+box", space.address))))
        .collect();
    folders.push((at("/land/camera"), Some("land+camera".into())));
    folders.push((at("/rooms/carol"), Some("rooms+carol".into())));
    folders.push((at("/rooms/carol/box"), None));
    folders.push((at("/home/bob"), None));
    folders.push((at("/home/carol"), None));
    let disk = |folder: &TreePath| folder.parts().fold(data.join("tree"), |path, part| path.join(part));
    folders.into_iter().map(|(folder, address)| Place { disk: disk(&folder), folder, address }).collect()
}

/// A hub and its three doors.
struct Daemon {
    hub: Hub,
    doors: BTreeMap<&'static str, SocketAddr>,
    places: Vec<Place>,
    workers: Workers,
    _folder: TempDir,
}

impl Daemon {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_owned();
        let settings = settings(&data);
        let places = places(&data, &settings);
        let catalog = Catalog::open(&CatalogSettings::default(), &data, "one").await.expect("a catalog");
        let hub = Hub::open(settings, catalog, Arc::new(Trees(data.clone()))).await.expect("a hub");
        let tls = Tls::open(&TlsSettings::default(), &data, &["localhost".into()]).expect("a certificate");
        let gate = Gate::new(Limits::default()).expect("limits");
        let tools = Tools { hub: hub.clone(), tls: tls.clone(), ready: Arc::new(|| true) };
        let listen = |protocol: &str| ListenSettings {
            protocol: protocol.into(),
            address: "127.0.0.1:0".into(),
            tls: TlsMode::None,
            ..ListenSettings::default()
        };
        let bound = bind_all(&["ftp", "http", "smtp"].map(listen), &mut Passed::default()).expect("ports");
        let mut doors = BTreeMap::new();
        let mut services = Vec::new();
        for one in bound {
            let language = PROTOCOLS.iter().find(|language| language.name() == one.settings.protocol).expect("known");
            let mut values = language.defaults();
            if language.name() == "smtp" {
                values.insert("auth_in_clear".into(), true.into());
            }
            let handler = language.open(&Section { name: language.name(), values }, &tools).expect("a door");
            doors.insert(language.name(), one.address);
            services.push((one, Service::new(language.name(), handler, TlsMode::None, &tls, &gate)));
        }
        let workers = Workers::start(2, services, CancellationToken::new()).expect("workers");
        Self { hub, doors, places, workers, _folder: folder }
    }

    /// Every cell with the policy's own verdict.
    async fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for caller in CALLERS {
            let origin = Origin::inside("http");
            let who = match *caller {
                "" => self.hub.guest(origin),
                name => self.hub.login(&origin, name, b"secret").await.expect(name),
            };
            for place in &self.places {
                for ask in ASKS {
                    let path = match ask {
                        Ask::List => place.folder.clone(),
                        _ => place.folder.join("file").expect("a path"),
                    };
                    let mut said = who.allow(ask.verb(), &path);
                    if *ask == Ask::Rename {
                        // The new name is made.
                        said = said.and_then(|()| who.allow(Verb::Create, &path));
                    }
                    let unseeing = who.is_unseeing(&path);
                    // A folder's name would tell which names are taken.
                    if *ask == Ask::MakeFolder && unseeing {
                        said = Err(stoa::Error::new(Kind::Denied, ""));
                    }
                    let meant = match said.map_err(|error| error.kind()) {
                        Ok(()) => Class::Allowed,
                        Err(Kind::Denied) => Class::Refused,
                        Err(Kind::NotFound) => Class::NotThere,
                        Err(Kind::Unauthenticated) => Class::SignIn,
                        Err(kind) => panic!("{kind:?} is no verdict"),
                    };
                    let seen = place.folder.is_in(&who.top()).then(|| place.folder.seen_from(&who.top()));
                    cells.push(Cell { caller, ask: *ask, place: place.clone(), meant, seen, unseeing });
                }
            }
        }
        cells
    }
}

impl Cell {
    /// A file of its own for each question, so that none disturbs another.
    fn name(&self, door: &str) -> String {
        let who = if self.caller.is_empty() { "guest" } else { self.caller };
        format!("{door}-{who}-{:?}.txt", self.ask)
    }

    /// Lays what the question is about.
    fn prepare(&self, door: &str) {
        if !matches!(self.ask, Ask::Create | Ask::List | Ask::MakeFolder) {
            std::fs::write(self.place.disk.join(self.name(door)), "old").expect("a file is laid");
        }
    }

    /// Was it done, as the disk tells? `None` for what leaves no trace.
    fn done(&self, door: &str) -> Option<bool> {
        let file = self.place.disk.join(self.name(door));
        match self.ask {
            Ask::Create => Some(file.is_file()),
            Ask::MakeFolder => Some(file.is_dir()),
            Ask::Overwrite if self.unseeing => {
                assert_eq!(std::fs::read(&file).expect("it is there"), b"old");
                let other = self.name(door).replace(".txt", " (2).txt");
                Some(std::fs::read(self.place.disk.join(other)).is_ok_and(|bytes| bytes == b"new"))
            }
            Ask::Overwrite => Some(std::fs::read(&file).expect("it is there") == b"new"),
            Ask::Delete => Some(!file.exists()),
            Ask::Rename => Some(!file.exists() && file.with_extension("moved").exists()),
            Ask::List | Ask::Read => None,
        }
    }

    fn says(&self) -> String {
        format!("`{}` {:?} in {}", self.caller, self.ask, self.place.folder)
    }
}

/// A line protocol's client.
struct Talk {
    reader: BufReader<TcpStream>,
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the door is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_nodelay(true).expect("no delay");
    stream
}

impl Talk {
    fn open(address: SocketAddr) -> Self {
        let mut talk = Self { reader: BufReader::new(connect(address)) };
        talk.expect("220");
        talk
    }

    /// One reply; of several lines the last.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            let count = self.reader.read_line(&mut line).expect("a reply in time");
            assert!(count > 0, "the door closed the connection");
            if line.as_bytes().get(3) == Some(&b' ') && line.as_bytes().iter().take(3).all(u8::is_ascii_digit) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        self.reader.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("sent");
        self.reply()
    }

    fn expect(&mut self, code: &str) {
        let reply = self.reply();
        assert!(reply.starts_with(code), "{reply}");
    }

    fn must(&mut self, line: &str, code: &str) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(code), "{line}: {reply}");
        reply
    }
}

/// FTP: one control connection for all questions of a caller.
struct Ftp(Talk);

impl Ftp {
    fn open(address: SocketAddr, caller: &str) -> Self {
        let mut talk = Talk::open(address);
        let name = if caller.is_empty() { "anonymous" } else { caller };
        talk.must(&format!("USER {name}"), "331");
        talk.must("PASS secret", "230");
        talk.must("TYPE I", "200");
        Self(talk)
    }

    fn class(reply: &str) -> Class {
        match reply.as_bytes() {
            [b'2' | b'3', ..] => Class::Allowed,
            _ if reply.starts_with("530") => Class::SignIn,
            _ if reply.starts_with("550") && reply.contains("may not") => Class::Refused,
            _ if reply.starts_with("550") => Class::NotThere,
            _ => panic!("FTP said {reply}"),
        }
    }

    /// A command with a data connection: what is sent, or takes what comes.
    fn transfer(&mut self, command: &str, body: Option<&[u8]>) -> Class {
        let reply = self.0.must("EPSV", "229");
        let port: u16 = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
        let control = self.0.reader.get_ref().peer_addr().expect("connected");
        let mut data = connect(SocketAddr::new(control.ip(), port));
        let reply = self.0.say(command);
        if !reply.starts_with('1') {
            return Self::class(&reply);
        }
        match body {
            Some(body) => data.write_all(body).expect("sent"),
            None => drop(data.read_to_end(&mut Vec::new()).expect("taken")),
        }
        drop(data);
        Self::class(&self.0.reply())
    }

    fn ask(&mut self, cell: &Cell) -> Class {
        let folder = cell.seen.clone().unwrap_or_else(|| cell.place.folder.clone());
        let file = folder.join(&cell.name("ftp")).expect("a path");
        match cell.ask {
            Ask::List => self.transfer(&format!("MLSD {folder}"), None),
            Ask::Read => self.transfer(&format!("RETR {file}"), None),
            Ask::MakeFolder => Self::class(&self.0.say(&format!("MKD {file}"))),
            Ask::Create | Ask::Overwrite => self.transfer(&format!("STOR {file}"), Some(b"new")),
            Ask::Delete => Self::class(&self.0.say(&format!("DELE {file}"))),
            Ask::Rename => match Self::class(&self.0.say(&format!("RNFR {file}"))) {
                Class::Allowed => {
                    let moved = file.to_string().replace(".txt", ".moved");
                    Self::class(&self.0.say(&format!("RNTO {moved}")))
                }
                other => other,
            },
        }
    }
}

/// HTTP/1.1, keeping its connection, in one of its ways.
struct Http {
    door: &'static str,
    reader: BufReader<TcpStream>,
    sign_in: String,
    /// The last lock token that was given.
    token: String,
}

/// The ways of HTTP: its methods, the forms of a folder's page, uploads in pieces, archives of folders, WebDAV.
const HTTP: [&str; 5] = ["http", "http-form", "http-tus", "http-archive", "dav"];

/// Can this way be asked for that?
fn offers(door: &str, ask: Ask) -> bool {
    match door {
        "http-archive" => ask == Ask::List,
        "http-form" => !matches!(ask, Ask::List | Ask::Read),
        "http-tus" => matches!(ask, Ask::Create | Ask::Overwrite),
        _ => true,
    }
}

impl Http {
    fn open(door: &'static str, address: SocketAddr, caller: &str) -> Self {
        let sign_in = match caller {
            "" => String::new(),
            name => format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:secret"))),
        };
        Self { door, reader: BufReader::new(connect(address)), sign_in, token: String::new() }
    }

    fn request(&mut self, method: &str, path: &str, more: &str, body: &str) -> u16 {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: stoa\r\nAccept: application/json\r\n{}{more}Content-Length: {}\r\n\r\n{body}",
            self.sign_in,
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes()).expect("sent");
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a response in time");
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let (mut length, mut chunked, mut closes) = (0, false, false);
        loop {
            let mut header = String::new();
            self.reader.read_line(&mut header).expect("a header");
            let header = header.trim_end().to_ascii_lowercase();
            if let Some(token) = header.strip_prefix("lock-token: ") {
                token.clone_into(&mut self.token);
            }
            match header.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().expect("a length"),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(("connection", value)) => closes = value == "close",
                Some(_) => {}
            }
        }
        let whole = self.skip_body(length, chunked);
        // Files come and go while the others are asked.
        assert!(whole || path.ends_with("?archive=tar"), "the body of {method} {path} was cut off");
        if closes || !whole {
            let address = self.reader.get_ref().peer_addr().expect("connected");
            self.reader = BufReader::new(connect(address));
        }
        status
    }

    /// False where the connection ended before it.
    fn skip_body(&mut self, length: u64, chunked: bool) -> bool {
        let skip = |reader: &mut BufReader<TcpStream>, count: u64| {
            std::io::copy(&mut reader.take(count), &mut std::io::sink()).expect("a body");
        };
        if !chunked {
            skip(&mut self.reader, length);
            return true;
        }
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).expect("a chunk") == 0 {
                return false;
            }
            let size = u64::from_str_radix(line.trim(), 16).expect("a size");
            skip(&mut self.reader, size + 2);
            if size == 0 {
                return true;
            }
        }
    }

    /// A form of the folder's page.
    fn fields(&mut self, folder: &str, fields: &str) -> u16 {
        self.request("POST", folder, "Content-Type: application/x-www-form-urlencoded\r\n", fields)
    }

    fn ask(&mut self, cell: &Cell) -> Class {
        let name = cell.name(self.door);
        let file = cell.place.folder.join(&name).expect("a path").to_string();
        let folder = format!("{}/", cell.place.folder);
        let status = match (self.door, cell.ask) {
            ("http-archive", _) => self.request("GET", &format!("{folder}?archive=tar"), "", ""),
            ("http-tus", _) => {
                let more = format!(
                    "Tus-Resumable: 1.0.0\r\nUpload-Length: 3\r\nContent-Type: application/offset+octet-stream\r\n\
                     Upload-Metadata: filename {}\r\n",
                    STANDARD.encode(name)
                );
                self.request("POST", &folder, &more, "new")
            }
            ("http-form", Ask::MakeFolder) => self.fields(&folder, &format!("do=folder&name={name}")),
            ("http-form", Ask::Delete) => self.fields(&folder, &format!("do=delete&name={name}")),
            ("http-form", Ask::Rename) => {
                self.fields(&folder, &format!("do=rename&name={name}&to={}", name.replace(".txt", ".moved")))
            }
            ("http-form", _) => {
                let body = format!(
                    "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\nnew\r\n--B--\r\n"
                );
                self.request("POST", &folder, "Content-Type: multipart/form-data; boundary=B\r\n", &body)
            }
            (_, ask) => self.method(ask, cell, &file),
        };
        Self::class(status, cell)
    }

    fn class(status: u16, cell: &Cell) -> Class {
        match status {
            200..=399 => Class::Allowed,
            401 => Class::SignIn,
            403 => Class::Refused,
            404 => Class::NotThere,
            // A name below what is not there (RFC 4918 §9.3.1, §9.7.1).
            409 if cell.meant == Class::NotThere => Class::NotThere,
            status => panic!("HTTP said {status} to {}", cell.says()),
        }
    }

    fn method(&mut self, ask: Ask, cell: &Cell, file: &str) -> u16 {
        match ask {
            Ask::List => self.request("GET", &format!("{}/", cell.place.folder), "", ""),
            Ask::Read => self.request("GET", file, "", ""),
            Ask::MakeFolder => self.request("MKCOL", file, "", ""),
            Ask::Create | Ask::Overwrite => self.request("PUT", file, "", "new"),
            Ask::Delete => self.request("DELETE", file, "", ""),
            Ask::Rename => {
                let destination = format!("Destination: {}\r\n", file.replace(".txt", ".moved"));
                self.request("MOVE", file, &destination, "")
            }
        }
    }

    /// The same by the methods of WebDAV, as its clients do it: what is written is locked before.
    fn ask_dav(&mut self, cell: &Cell) -> Class {
        let file = cell.place.folder.join(&cell.name("dav")).expect("a path").to_string();
        let status = match cell.ask {
            Ask::List => self.request("PROPFIND", &format!("{}/", cell.place.folder), "Depth: 1\r\n", ""),
            Ask::Read => self.request("GET", &file, "Translate: f\r\nIf: (Not <DAV:no-lock>)\r\n", ""),
            Ask::MakeFolder => self.request("MKCOL", &format!("{file}/"), "", ""),
            // Only those who are signed in may lock, and see what they lock.
            Ask::Create if cell.caller.is_empty() || cell.unseeing => {
                self.request("PUT", &file, "If: (Not <DAV:no-lock>)\r\n", "new")
            }
            Ask::Create => match self.request("LOCK", &file, "Timeout: Second-600\r\n", LOCKINFO) {
                201 => {
                    let token = self.token.clone();
                    let filled = self.request("PUT", &file, &format!("If: ({token})\r\n"), "new");
                    assert!(
                        [200, 204].contains(&filled),
                        "an empty file of one's own is filled, said {filled}: {}",
                        cell.says()
                    );
                    self.request("UNLOCK", &file, &format!("Lock-Token: {token}\r\n"), "")
                }
                refused => refused,
            },
            Ask::Overwrite => match self.request("PROPPATCH", &file, "", PROPERTYUPDATE) {
                207 => self.request("PUT", &file, "", "new"),
                refused => refused,
            },
            Ask::Delete => self.request("DELETE", &file, "Depth: infinity\r\n", ""),
            Ask::Rename => {
                let destination = file.replace(".txt", ".moved");
                self.request("MOVE", &file, &format!("Destination: http://stoa{destination}\r\nOverwrite: F\r\n"), "")
            }
        };
        Self::class(status, cell)
    }
}

const LOCKINFO: &str =
    "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
const PROPERTYUPDATE: &str =
    "<propertyupdate xmlns='DAV:'><set><prop><x xmlns='urn:x'>1</x></prop></set></propertyupdate>";

/// SMTP: a file sent to a drop address is a file made there.
struct Smtp(Talk);

impl Smtp {
    fn open(address: SocketAddr, caller: &str) -> Self {
        let mut talk = Talk::open(address);
        talk.must("EHLO client.example.net", "250");
        if !caller.is_empty() {
            let secret = STANDARD.encode(format!("\0{caller}\0secret"));
            talk.must(&format!("AUTH PLAIN {secret}"), "235");
        }
        Self(talk)
    }

    fn ask(&mut self, cell: &Cell, address: &str) -> Class {
        self.0.must("MAIL FROM:<sender@example.net>", "250");
        let reply = self.0.say(&format!("RCPT TO:<{address}@example.org>"));
        if reply.starts_with("550 5.7.1") {
            return Class::Refused;
        }
        assert!(reply.starts_with("250"), "{}: {reply}", cell.says());
        self.0.must("DATA", "354");
        let message = format!(
            "From: sender@example.net\r\nSubject: a file\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\
             Content-Disposition: attachment; filename=\"{}\"\r\n\r\nnew\r\n.",
            cell.name("smtp")
        );
        self.0.must(&message, "250");
        Class::Allowed
    }
}

/// Asks one door everything on behalf of one caller; says what differed.
fn interview(door: &'static str, address: SocketAddr, caller: &'static str, cells: &[Cell]) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut asked = 0;
    let mut note = |cell: &Cell, said: Class, meant: Class| {
        asked += 1;
        let keeps_both = cell.ask == Ask::Overwrite && cell.unseeing && door != "dav";
        let meant = if keeps_both { Class::Allowed } else { meant };
        if said != meant {
            wrong.push(format!("{door}: {}: policy says {meant:?}, the door {said:?}", cell.says()));
        }
        if cell.done(door).is_some_and(|done| done != (said == Class::Allowed)) {
            wrong.push(format!("{door}: {}: answered {said:?}, and the disk says otherwise", cell.says()));
        }
    };
    let mine = cells.iter().filter(|cell| cell.caller == caller && offers(door, cell.ask));
    match door {
        "ftp" => {
            let mut ftp = Ftp::open(address, caller);
            for cell in mine {
                cell.prepare(door);
                let said = ftp.ask(cell);
                // What is outside its root has no name for a confined caller: the same words mean a place inside that
                // is not there.
                let outside = cell.seen.is_none() && said != Class::Allowed;
                note(cell, said, if outside { said } else { cell.meant });
            }
        }
        _ if HTTP.contains(&door) => {
            let mut http = Http::open(door, address, caller);
            for cell in mine {
                cell.prepare(door);
                let said = if door == "dav" { http.ask_dav(cell) } else { http.ask(cell) };
                note(cell, said, cell.meant);
            }
        }
        _ => {
            let mut smtp = Smtp::open(address, caller);
            for cell in mine.filter(|cell| cell.ask == Ask::Create) {
                let Some(local) = &cell.place.address else { continue };
                // Addresses are no secret: every refusal is the same there.
                let meant = if cell.meant == Class::Allowed { Class::Allowed } else { Class::Refused };
                let said = smtp.ask(cell, local);
                note(cell, said, meant);
                if said == Class::Refused {
                    // The door parts with those who ask for too much that is not theirs.
                    smtp = Smtp::open(address, caller);
                }
            }
        }
    }
    (asked, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_gives_the_verdict_of_the_policy_in_every_cell() {
    let daemon = Daemon::start().await;
    for place in &daemon.places {
        std::fs::create_dir_all(&place.disk).expect("a folder");
    }
    let cells = Arc::new(daemon.cells().await);
    for class in [Class::Allowed, Class::NotThere, Class::Refused, Class::SignIn] {
        assert!(cells.iter().filter(|cell| cell.meant == class).count() > 50, "the table has enough of {class:?}");
    }
    let mut interviews = Vec::new();
    let http = HTTP.map(|way| (way, daemon.doors["http"]));
    let doors = daemon.doors.iter().map(|(door, address)| (*door, *address)).filter(|(door, _)| *door != "http");
    for (door, address) in doors.chain(http) {
        for caller in CALLERS {
            let cells = cells.clone();
            interviews.push(std::thread::spawn(move || interview(door, address, caller, &cells)));
        }
    }
    let finished = tokio::task::spawn_blocking(move || {
        interviews.into_iter().map(|one| one.join().expect("an interview")).collect::<Vec<_>>()
    });
    let (counts, wrong): (Vec<_>, Vec<_>) = finished.await.expect("interviews").into_iter().unzip();
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    let asked: usize = counts.into_iter().sum();
    let offered = HTTP.iter().map(|way| cells.iter().filter(|cell| offers(way, cell.ask)).count()).sum::<usize>();
    assert_eq!(
        asked,
        cells.len()
            + offered
            + cells.iter().filter(|cell| cell.ask == Ask::Create && cell.place.address.is_some()).count()
    );
    daemon.workers.drain(Duration::from_secs(5)).await;
}
