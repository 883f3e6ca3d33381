//! One rule for names: what one door or another program made, every other door lists, fetches, renames, moves and deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stoa::error::Kind;
use stoa::hub::{RemoveCopied, TreePath};
use stoa::store::volume::name;
use stoa::store::{Batch, Catalog, CatalogSettings, Edit};
use unicode_normalization::UnicodeNormalization;

use crate::daemon::{Place, until};
use crate::webdav::{Dav, ask, ftp_as};
use crate::world::World;

/// A second space, one under a name that has two spellings, and a device that writes Cyrillic.
const MORE: &str = r#"
[[space]]
path = "/other"
grants = [{ to = "user:alice", allow = "edit" }]
[[space]]
path = "/post"
address = "post"
overwrite = "keep-both"
grants = [{ to = "user:alice", allow = "edit" }, { to = "everyone", allow = "create" }]
[[space]]
path = "/dav/cafe\u0301"
grants = [{ to = "user:carol", allow = "edit" }]
[[ftp.accounts]]
names = ["bob"]
encoding = "cp1251"
"#;

fn start() -> Dav {
    Dav { daemon: Place::new(&Dav::config(MORE)).start() }
}

/// Names as text, a slash behind each.
const TEXTS: &str = "\
    caf\u{e9}/nai\u{308}ve/\u{212b}ngstrom/\u{c5}land/A\u{30a}land-2/\u{1100}\u{1161}/\u{ac01}/\u{958}/a\u{316}\u{301}/\
    a\u{301}\u{316}-2/\u{301}first/\u{212a}elvin/\u{37e}/\u{fb01}ne/x\u{323}\u{307}/a\nb/a\r\nb/a\tb/\u{1b}[2J/x\u{7f}y/\
    a\u{85}b/a\u{2028}b/a\u{2029}b/x\u{fffe}/x\u{ffff}/\n\u{301}/\u{202e}fdp.exe/\u{200f}rtl/\u{2066}iso\u{2069}/a\u{200b}b/\
    a\u{200d}b/\u{feff}bom/no\u{a0}break/\u{ad}shy/\u{1f600}/\u{1f469}\u{200d}\u{1f680}/\u{1f1e9}\u{1f1ea}/\u{10ffff}/\
    \u{e000}/\u{fdd0}/-x.tmp/-la/--/-rf */ lead/trail /  /a  b/.hidden/..a/.../a./a. /\u{fffd}/\u{fffd}0A/\u{fffd}FF/\
    \u{fffd}2F/\u{fffd}2E\u{fffd}2E/\u{fffd}0a/\u{fffd}\u{fffd}0A/\u{fffd}C3\u{fffd}A9z/%2F/%2e%2e/%00/%/%zz/%0A/a%5Cb/a\\b/\
    \\\\host\\x/C:\\x/a:b/file:/CON/nul.txt/aux./LPT1/*/?/[a]/a*b/{a,b}/\"q\"/'q'/<x>/a|b/&amp;/&#65533;0A/]]>/<!--/a;b/\
    a;type=i/#frag/a?b=c/a&b/a+b/a=b/~/~root/$HOME/`id`/!x/@x/a,b/20200101000000 a.txt/x 0 7/desktop.ini/";

/// Names that have hurt somebody: every single byte, and what follows from the rules of UTF-8, Unicode, shells, URLs, FTP, XML and other
/// systems.
fn nasty() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        (1..=255_u8).filter(|byte| !matches!(byte, b'/' | b'.')).map(|byte| vec![byte]).collect();
    let invalid: [&[u8]; 16] = [
        b"\xc0\xae\xc0\xae",
        b"\xc0\x80",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80.txt",
        b"\xed\xa0\xbd\xed\xb8\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x82",
        b"\xe2\x82.txt",
        b"f\xfcr.pdf",
        b"\xd1\x82\xff.doc",
        b"\x80\x81\x82",
        b"\xffa\xfeb",
        b"e\xcc\x81\xff",
    ];
    names.extend(invalid.map(<[u8]>::to_vec));
    names.extend(TEXTS.split_terminator('/').map(|text| text.as_bytes().to_vec()));
    names.extend([
        vec![b'a'; 255],
        vec![0xff; 255],
        vec![b'\n'; 255],
        "\u{e9}".repeat(127).into_bytes(),
        "\u{1f600}".repeat(63).into_bytes(),
    ]);
    names.extend(["\u{fffd}".repeat(85).into_bytes(), "e\u{301}".repeat(85).into_bytes()]);
    names.sort();
    names.dedup();
    names
}

/// The text each name of a folder is shown with.
fn shown(names: &[Vec<u8>]) -> Vec<String> {
    let there: BTreeSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let mut taken = BTreeSet::new();
    let own = |disk: &[u8]| name::text(disk).into_owned();
    let mut sorted: Vec<&Vec<u8>> = names.iter().collect();
    sorted.sort();
    let by_disk: BTreeMap<&[u8], String> = sorted
        .into_iter()
        .map(|disk| {
            let nfc =
                name::equivalent(disk).filter(|nfc| !there.contains(&*name::bytes(nfc)) && taken.insert(nfc.clone()));
            (disk.as_slice(), nfc.unwrap_or_else(|| own(disk)))
        })
        .collect();
    names.iter().map(|disk| by_disk[disk.as_slice()].clone()).collect()
}

fn encoded(text: &str) -> String {
    encoded_bytes(text.as_bytes())
}

fn encoded_bytes(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A session of FTP; what goes in and comes out are bytes.
pub struct Ftp(BufReader<TcpStream>);

impl Ftp {
    pub fn sign_in(dav: &Dav, who: &str) -> Self {
        let stream = TcpStream::connect(dav.daemon.ftp).expect("the door is open");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        let mut ftp = Self(BufReader::new(stream));
        ftp.reply();
        ftp.must(format!("USER {who}"), "331");
        ftp.must("PASS secret", "230");
        ftp.must("TYPE I", "200");
        ftp
    }

    pub fn reply(&mut self) -> String {
        loop {
            let mut line = Vec::new();
            self.0.read_until(b'\n', &mut line).expect("a reply");
            assert!(!line.is_empty(), "the door closed");
            if line.get(3) == Some(&b' ') {
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
        }
    }

    pub fn ask(&mut self, line: impl AsRef<[u8]>) -> String {
        self.0.get_mut().write_all(&[line.as_ref(), b"\r\n"].concat()).expect("sent");
        self.reply()
    }

    fn must(&mut self, line: impl AsRef<[u8]>, code: &str) -> String {
        let reply = self.ask(line.as_ref());
        assert!(reply.starts_with(code), "{}: {reply}", line.as_ref().escape_ascii());
        reply
    }

    pub fn lane(&mut self) -> TcpStream {
        let reply = self.must("EPSV", "229");
        let port: u16 = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
        let lane = TcpStream::connect(("127.0.0.1", port)).expect("a data connection");
        lane.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        lane
    }

    fn fetch(&mut self, line: impl AsRef<[u8]>) -> Vec<u8> {
        let mut lane = self.lane();
        self.must(line.as_ref(), "150");
        let mut bytes = Vec::new();
        lane.read_to_end(&mut bytes).expect("bytes");
        assert!(self.reply().starts_with("226"), "{}", line.as_ref().escape_ascii());
        bytes
    }

    fn store(&mut self, line: impl AsRef<[u8]>, content: &[u8]) {
        let mut lane = self.lane();
        self.must(line.as_ref(), "150");
        lane.write_all(content).expect("sent");
        drop(lane);
        let reply = self.reply();
        assert!(reply.starts_with("226"), "{}: {reply}", line.as_ref().escape_ascii());
    }

    /// The names of a listing: what follows the `skip` blank-separated words of each line.
    fn names(&mut self, line: &str, skip: usize) -> BTreeSet<String> {
        let text = String::from_utf8(self.fetch(line)).expect("UTF-8");
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        let name = |line: &&str| line.splitn(skip + 1, ' ').last().expect("a name").to_owned();
        let names: BTreeSet<String> = lines.iter().map(name).collect();
        assert_eq!(names.len(), lines.len(), "{line}: two lines are the same");
        names
    }
}

/// A file as it should be: its text, and what is in it.
type Files = BTreeMap<String, Vec<u8>>;

/// All pages of a folder, one after the other.
fn pages(dav: &Dav, folder: &str) -> String {
    let (mut all, mut query) = (String::new(), String::new());
    loop {
        let page = dav.alice("GET", &format!("{folder}/{query}"), "Accept: text/html\r\n", "").text();
        let next =
            page.split("href=\"").find(|rest| rest.split('>').next().is_some_and(|tag| tag.contains("rel=\"next\"")));
        let next = next.and_then(|rest| rest.split('"').next()).map(|query| query.replace("&amp;", "&"));
        all.push_str(&page);
        match next {
            Some(next) => query = next,
            None => return all,
        }
    }
}

/// Every door lists the same names, and each file comes out of each door whole.
fn is_seen_everywhere(dav: &Dav, ftp: &mut Ftp, folder: &str, files: &Files) {
    let wanted: BTreeSet<String> = files.keys().cloned().collect();
    let json = dav.alice("GET", &format!("{folder}/"), "Accept: application/json\r\n", "").text();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let entries = json["entries"].as_array().expect("entries");
    let listed: BTreeSet<String> =
        entries.iter().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(listed, wanted, "{folder}: JSON");
    let xml = dav.propfind(&format!("{folder}/"), "1", "");
    let hrefs = xml.matches("<D:href>").count();
    assert_eq!(hrefs, wanted.len() + 1, "{folder}: PROPFIND");
    assert_eq!(ftp.names(&format!("MLSD {folder}"), 1), wanted, "{folder}: MLSD");
    let prefixed = ftp.names(&format!("NLST {folder}"), 0);
    let prefixed: BTreeSet<String> = prefixed.iter().map(|name| name[folder.len() + 1..].to_owned()).collect();
    assert_eq!(prefixed, wanted, "{folder}: NLST");
    let long = String::from_utf8(ftp.fetch(format!("LIST {folder}"))).expect("UTF-8");
    assert_eq!(long.split_terminator("\r\n").count(), wanted.len(), "{folder}: LIST");
    assert!(wanted.iter().all(|name| long.contains(&format!(" {name}\r\n"))), "{folder}: LIST");
    let page = pages(dav, folder);
    for (name, content) in files {
        assert!(xml.contains(&format!("{folder}/{}<", href(name))), "{name:?} in {xml}");
        assert!(page.contains(&format!("href=\"{folder}/{}\"", href(name))), "{name:?} in the page");
        let got = dav.alice("GET", &format!("{folder}/{}", encoded(name)), "", "");
        assert_eq!((got.status, &got.body), (200, content), "GET {name:?}");
        let disposition = got.header("content-disposition").unwrap_or_default();
        assert!(!disposition.contains(char::is_control));
        assert_eq!(&ftp.fetch(format!("RETR {folder}/{name}")), content, "RETR {name:?}");
    }
}

/// As the daemon writes a URL: percent signs for all but these.
fn href(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@,".contains(&byte);
    name.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Gives a file another name, by the door that is due.
fn rename(dav: &Dav, ftp: &mut Ftp, turn: usize, folder: &str, from: &str, to: &str) {
    match turn % 3 {
        0 => {
            ftp.must(format!("RNFR {folder}/{from}"), "350");
            ftp.must(format!("RNTO {folder}/{to}"), "250");
        }
        1 => {
            let place = format!("Destination: {folder}/{}\r\n", encoded(to));
            dav.must("MOVE", &format!("{folder}/{}", encoded(from)), &place, "");
        }
        _ => {
            let form = format!("do=rename&name={}&to={}", encoded(from), encoded(to));
            let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
            let said = dav.alice("POST", &format!("{folder}/"), kind, &form);
            assert_eq!(said.status, 303, "{from:?} to {to:?}: {}", said.text());
        }
    }
}

fn relocate(dav: &Dav, ftp: &mut Ftp, turn: usize, (from, to): (&str, &str), name: &str) {
    if turn.is_multiple_of(2) {
        let place = format!("Destination: {to}/{}\r\nOverwrite: F\r\n", encoded(name));
        dav.must("MOVE", &format!("{from}/{}", encoded(name)), &place, "");
    } else {
        ftp.must(format!("RNFR {from}/{name}"), "350");
        ftp.must(format!("RNTO {to}/{name}"), "250");
    }
}

fn delete(dav: &Dav, ftp: &mut Ftp, turn: usize, folder: &str, name: &str) {
    match turn % 3 {
        0 => drop(dav.must("DELETE", &format!("{folder}/{}", encoded(name)), "", "")),
        1 => drop(ftp.must(format!("DELE {folder}/{name}"), "250")),
        _ => {
            let form = format!("do=delete&name={}", encoded(name));
            let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
            assert_eq!(dav.alice("POST", &format!("{folder}/"), kind, &form).status, 303, "{name:?}");
        }
    }
}

/// Renames, moves and deletes every file by doors in turn, and the folder at the end.
fn is_changed_everywhere(dav: &Dav, ftp: &mut Ftp, folder: &str, files: &Files, first: usize) {
    let sub = format!("{folder}/-sub");
    ftp.must(format!("MKD {sub}"), "257");
    let disk = |place: &str, text: &str| dav.daemon.on_disk(place).join(OsStr::from_bytes(&name::bytes(text)));
    for (at, (text, content)) in files.iter().enumerate() {
        let turn = first + at;
        let longer = format!("r.{text}");
        let plain = name::is_alias(text) || name::bytes(&longer).len() > 255;
        let new = if plain { format!("r{at}") } else { longer };
        rename(dav, ftp, turn, folder, text, &new);
        assert_eq!(&std::fs::read(disk(folder, &new)).expect("renamed"), content, "{new:?}");
        relocate(dav, ftp, turn / 3, (folder, &sub), &new);
        assert_eq!(&std::fs::read(disk(&sub, &new)).expect("moved"), content, "{new:?}");
        delete(dav, ftp, turn / 2, &sub, &new);
        assert!(!disk(&sub, &new).exists(), "{new:?}");
    }
    ftp.must(format!("RMD {sub}"), "250");
    assert_eq!(dav.alice("DELETE", &format!("{folder}/?all=0"), "", "").status, 204);
    assert!(!dav.daemon.on_disk(folder).exists());
}

#[test]
fn names_on_the_disk_are_seen_and_changed_through_every_door() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    let names = nasty();
    assert!(names.len() > 330, "{}", names.len());
    let folder = dav.daemon.on_disk("/dav/disk");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut files = Files::new();
    for (at, (disk, text)) in names.iter().zip(shown(&names)).enumerate() {
        let content = format!("content {at}").into_bytes();
        std::fs::write(folder.join(OsStr::from_bytes(disk)), &content).expect("a file");
        assert!(files.insert(text.clone(), content).is_none(), "two names are shown as {text:?}");
    }
    is_seen_everywhere(&dav, &mut ftp, "/dav/disk", &files);
    is_changed_everywhere(&dav, &mut ftp, "/dav/disk", &files, 0);
}

/// The names as somebody types them who can: in UTF-8, or else escaped; each canonical name once.
fn typed() -> BTreeMap<String, String> {
    let names = nasty();
    let texts = names.iter().map(|disk| match std::str::from_utf8(disk) {
        Ok(text) => text.to_owned(),
        Err(_) => name::text(disk).into_owned(),
    });
    // A text such as `e<U+FFFD>CC<U+FFFD>81` names nothing new.
    let typed = texts
        .map(|text| (name::canonical(&text).into_owned(), text))
        .filter(|(canonical, _)| !name::is_alias(canonical));
    typed.filter(|(canonical, _)| name::bytes(canonical).len() <= 255).collect()
}

fn created(
    dav: &Dav,
    ftp: &mut Ftp,
    folder: &str,
    first: usize,
    mut make: impl FnMut(&Dav, &mut Ftp, &str, &[u8]) -> bool,
) {
    ftp.must(format!("MKD {folder}"), "257");
    let mut files = Files::new();
    for (at, (canonical, typed)) in typed().into_iter().enumerate() {
        let content = format!("{folder} {at}").into_bytes();
        if make(dav, ftp, &typed, &content) {
            let disk = dav.daemon.on_disk(folder).join(OsStr::from_bytes(&name::bytes(&canonical)));
            assert_eq!(std::fs::read(disk).expect("stored under its canonical name"), content, "{typed:?}");
            files.insert(canonical, content);
        }
    }
    assert!(files.len() > 300, "{}", files.len());
    is_seen_everywhere(dav, ftp, folder, &files);
    is_changed_everywhere(dav, ftp, folder, &files, first);
}

#[test]
fn names_put_by_http_and_webdav_go_through_every_door() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    created(&dav, &mut ftp, "/dav/put", 1, |dav, _, typed, content| {
        let said = dav.ask("alice", "PUT", &format!("/dav/put/{}", encoded(typed)), "", content);
        assert_eq!(said.status, 201, "{typed:?}: {}", said.text());
        true
    });
    // Folders: the same names, and a file in each.
    dav.must("MKCOL", "/dav/folders", "", "");
    for (canonical, typed) in typed() {
        let place = format!("/dav/folders/{}", encoded(&typed));
        dav.must("MKCOL", &place, "", "");
        assert_eq!(dav.alice("MKCOL", &format!("/dav/folders/{}", encoded(&canonical)), "", "").status, 405);
        dav.must("PUT", &format!("{place}/{}", encoded("f\u{e9}")), "", "x");
        assert_eq!(ftp.fetch(format!("RETR /dav/folders/{canonical}/fe\u{301}")), b"x");
        ftp.must(format!("CWD /dav/folders/{canonical}"), "250");
        ftp.must("CWD /", "250");
        ftp.must(format!("RMD /dav/folders/{canonical}"), "550");
        ftp.must(format!("DELE /dav/folders/{canonical}/f\u{e9}"), "250");
        ftp.must(format!("RMD /dav/folders/{canonical}"), "250");
    }
    ftp.must("RMD /dav/folders", "250");
}

#[test]
fn names_sent_by_forms_and_tus_go_through_every_door() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    // A form and a tus client may send the path a file had: a backslash ends a folder there.
    created(&dav, &mut ftp, "/dav/form", 2, |dav, _, typed, content| {
        if typed.contains(['\\', '\r', '\n']) || typed.trim() != typed {
            return false;
        }
        // As browsers write it (HTML, multipart/form-data encoding algorithm).
        let file = typed.replace('"', "%22");
        let part = format!("Content-Disposition: form-data; name=\"f\"; filename=\"{file}\"\r\n\r\n");
        let body = [b"--line\r\n", part.as_bytes(), content, b"\r\n--line--\r\n"].concat();
        let head = "Content-Type: multipart/form-data; boundary=line\r\nAccept: application/json\r\n";
        let said = dav.ask("alice", "POST", "/dav/form/", head, &body);
        assert_eq!(said.status, 201, "{typed:?}: {}", said.text());
        true
    });
    created(&dav, &mut ftp, "/dav/tus", 3, |dav, _, typed, content| {
        if typed.contains('\\') {
            return false;
        }
        let head = format!(
            "Tus-Resumable: 1.0.0\r\nUpload-Length: {}\r\nUpload-Metadata: filename {}\r\n\
             Content-Type: application/offset+octet-stream\r\n",
            content.len(),
            STANDARD.encode(typed)
        );
        let said = dav.ask("alice", "POST", "/dav/tus/", &head, content);
        assert_eq!(said.status, 201, "{typed:?}: {}", said.text());
        true
    });
}

#[test]
fn names_stored_by_ftp_go_through_every_door() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    created(&dav, &mut ftp, "/dav/ftp", 4, |_, ftp, typed, content| {
        // No line of FTP can hold a line end: such a name is sent as it is shown.
        let sent = if typed.contains(['\r', '\n']) { name::canonical(typed).into_owned() } else { typed.to_owned() };
        ftp.store(format!("STOR /dav/ftp/{sent}"), content);
        true
    });
}

/// Sends messages with one attachment each.
fn post<'a>(dav: &Dav, to: &str, files: impl Iterator<Item = (&'a str, Vec<u8>)>) {
    let mut lines = BufReader::new(TcpStream::connect(dav.daemon.smtp).expect("a connection"));
    let mut say = |text: Vec<u8>, code: &str| {
        lines.get_mut().write_all(&text).expect("the server reads");
        let mut line = String::new();
        while line.as_bytes().get(3) != Some(&b' ') {
            line.clear();
            assert!(lines.read_line(&mut line).expect("a reply") > 0, "closed");
        }
        assert!(line.starts_with(code), "{line}");
    };
    say(Vec::new(), "220");
    say(b"EHLO names.example\r\n".into(), "250");
    for (name, content) in files {
        say(b"MAIL FROM:<a@else.where>\r\n".into(), "250");
        say(format!("RCPT TO:<{to}>\r\n").into_bytes(), "250");
        say(b"DATA\r\n".into(), "354");
        let head = format!(
            "Subject: x\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment;\r\n filename*=utf-8''{}\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            encoded(name)
        );
        say(format!("{head}{}\r\n.\r\n", STANDARD.encode(content)).into_bytes(), "250");
    }
}

#[test]
fn names_of_attachments_go_through_every_door() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    let typed: Vec<String> = typed().into_values().collect();
    let content = |at: usize| format!("attachment {at}").into_bytes();
    post(&dav, "post+names@localhost", typed.iter().enumerate().map(|(at, name)| (name.as_str(), content(at))));
    // What a scanner calls its file is made safe; each is there all the same, under a name of its own.
    let mut files = Files::new();
    for entry in std::fs::read_dir(dav.daemon.on_disk("/post/names")).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        files.insert(name::text(name.as_bytes()).into_owned(), std::fs::read(entry.path()).expect("a file"));
    }
    let there: BTreeSet<&Vec<u8>> = files.values().collect();
    let lost: Vec<&String> =
        (0..).zip(&typed).filter(|(at, _)| !there.contains(&content(*at))).map(|one| one.1).collect();
    assert!(lost.is_empty() && files.len() == typed.len(), "{lost:?} of {}", files.len());
    is_seen_everywhere(&dav, &mut ftp, "/post/names", &files);
    is_changed_everywhere(&dav, &mut ftp, "/post/names", &files, 5);
}

#[test]
fn a_device_with_a_code_page_loses_no_letter() {
    let dav = start();
    let (mut device, mut ftp) = (Ftp::sign_in(&dav, "bob"), Ftp::sign_in(&dav, "alice"));
    ftp.must("MKD /dav/page", "257");
    let mut files = Files::new();
    for byte in 0x21..=0xff_u8 {
        if matches!(byte, b'/' | 0x7f | 0x98) {
            continue;
        }
        // 0xFF twice is what RFC 854 asks for; once is what devices send.
        for (at, raw) in [vec![b'n', byte, b'.'], vec![byte, b'x', byte]].into_iter().enumerate() {
            let letter = encoding_rs::WINDOWS_1251.decode_without_bom_handling(&raw).0.into_owned();
            let content = format!("{byte} {at}").into_bytes();
            device.store([b"STOR /dav/page/", raw.as_slice()].concat(), &content);
            files.insert(name::canonical(&letter).into_owned(), content);
        }
    }
    for raw in [&b"\xff\xf0\xec.doc"[..], b"\xf1\xf2\xe0\xf2\xfc\xff.doc", b"\xff\xf4\xff\xf2.doc"] {
        let letters = encoding_rs::WINDOWS_1251.decode_without_bom_handling(raw).0.into_owned();
        device.store([b"STOR /dav/page/", raw].concat(), raw);
        files.insert(letters, raw.to_vec());
    }
    assert!(files.len() > 400);
    is_seen_everywhere(&dav, &mut ftp, "/dav/page", &files);
    // What only another name can say is told and taken back in the page's own letters.
    std::fs::write(dav.daemon.on_disk("/dav/page").join(OsStr::from_bytes(b"z\xff\n")), "odd").expect("a file");
    let listing = device.fetch("NLST /dav/page");
    let line = listing.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"/dav/page/z&")).expect("listed");
    let line = line.strip_suffix(b"\r").expect("a line");
    assert_eq!(device.fetch([b"RETR ", line].concat()), b"odd");
    device.must([b"DELE ", line].concat(), "250");
}

#[test]
fn what_is_there_comes_before_what_an_argument_might_mean() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    let disk = dav.daemon.on_disk("/dav");
    for name in
        ["keep1.txt", "-x.tmp", "-y.tmp", "b.txt", "-a b.txt", "-l", "a.txt", "20200101000000 a.txt", "x", "x 0 1"]
    {
        std::fs::write(disk.join(name), name).expect("a file");
    }
    ftp.must("CWD /dav", "250");
    for (ask, answer) in [
        ("NLST -*.tmp", "-x.tmp\r\n-y.tmp\r\n"),
        ("NLST -a -*.tmp", "-x.tmp\r\n-y.tmp\r\n"),
        ("NLST -a b.txt", "-a b.txt\r\n"),
        ("NLST -1 b.txt", "b.txt\r\n"),
        ("NLST -l", "-l\r\n"),
    ] {
        assert_eq!(String::from_utf8(ftp.fetch(ask)).expect("UTF-8"), answer, "{ask}");
    }
    assert_eq!(ftp.names("NLST -la", 0).len(), 10);
    ftp.must("STAT -x.tmp", "213");
    let modified = |name: &str| std::fs::metadata(disk.join(name)).and_then(|meta| meta.modified()).expect("a time");
    let before = modified("a.txt");
    let told = ftp.must("MDTM 20200101000000 a.txt", "213");
    assert!(!told.contains("20200101000000") && modified("a.txt") == before, "a question changes nothing");
    std::fs::remove_file(disk.join("20200101000000 a.txt")).expect("removed");
    ftp.must("MDTM 20200101000000 a.txt", "213 20200101000000");
    assert_ne!(modified("a.txt"), before, "as clients set a time");
    assert_eq!(ftp.must("XCRC x 0 1", "250"), ftp.must("XCRC \"x 0 1\"", "250"));
    std::fs::remove_file(disk.join("x 0 1")).expect("removed");
    assert_eq!(ftp.must("XCRC x 0 1", "250"), ftp.must("XCRC \"x\" 0 1", "250"));
}

#[test]
fn a_folder_with_odd_entries_is_not_empty_and_nothing_is_stuck() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    let disk = dav.daemon.on_disk("/dav");
    let before = std::fs::read("/etc/passwd").expect("there");
    let odd: [(&str, &dyn Fn(PathBuf)); 4] = [
        ("bytes", &|folder| std::fs::write(folder.join(OsStr::from_bytes(b"x\xff")), "x").expect("a file")),
        ("link", &|folder| std::os::unix::fs::symlink("/etc/passwd", folder.join("l")).expect("a link")),
        ("pipe", &|folder| {
            assert!(std::process::Command::new("mkfifo").arg(folder.join("p")).status().expect("mkfifo").success());
        }),
        ("socket", &|folder| drop(std::os::unix::net::UnixListener::bind(folder.join("s")).expect("a socket"))),
    ];
    for (name, make) in odd {
        std::fs::create_dir(disk.join(name)).expect("a folder");
        make(disk.join(name));
        let place = format!("/dav/{name}");
        ftp.must(format!("RMD {place}"), "550");
        assert_eq!(dav.alice("DELETE", &format!("{place}/?all=0"), "", "").status, 409, "{name}");
        dav.must("PUT", &format!("{place}/after"), "", "nothing is stuck");
        ftp.must(format!("DELE {place}/after"), "250");
        // It can be seen for what it is, renamed and deleted.
        let listing = dav.alice("GET", &format!("{place}/"), "Accept: application/json\r\n", "").text();
        let listing: serde_json::Value = serde_json::from_str(&listing).expect("JSON");
        let entry = listing["entries"][0].clone();
        assert_eq!(entry["type"] == "special", name != "bytes", "{entry}");
        let shown = entry["name"].as_str().expect("a name").to_owned();
        if name != "bytes" {
            let got = dav.alice("GET", &format!("{place}/{shown}"), "", "");
            assert!(
                got.status == 409 && got.text().contains("link or a special file"),
                "{} {}",
                got.status,
                got.text()
            );
            let mut lane = ftp.lane();
            ftp.must(format!("RETR {place}/{shown}"), "550");
            assert_eq!(lane.read(&mut [0; 1]).unwrap_or_default(), 0);
            assert_eq!(dav.alice("PUT", &format!("{place}/{shown}"), "", "x").status, 409, "a link is not replaced");
            let facts = String::from_utf8(ftp.fetch(format!("MLSD {place}"))).expect("UTF-8");
            assert!(facts.contains("perm=df;"), "{facts}");
        }
        rename(&dav, &mut ftp, 0, &place, &shown, "renamed");
        rename(&dav, &mut ftp, 1, &place, "renamed", "again");
        assert_eq!(disk.join(name).read_dir().expect("a folder").count(), 1);
        delete(&dav, &mut ftp, 1, &place, "again");
        ftp.must(format!("RMD {place}"), "250");
    }
    // A name of the server's own is not shown, and counts.
    std::fs::create_dir(disk.join("own")).expect("a folder");
    std::fs::write(disk.join("own/.stoa-x"), "x").expect("a file");
    assert!(ftp.must("RMD /dav/own", "550").contains("reserved"));
    assert_eq!(dav.alice("DELETE", "/dav/own/?all=0", "", "").status, 409);
    dav.must("PUT", "/dav/own/after", "", "nothing is stuck");
    assert!(before == std::fs::read("/etc/passwd").expect("there"), "nothing was done to what a link points to");
}

#[test]
fn a_move_to_another_space_carries_everything_or_leaves_everything() {
    let dav = start();
    let disk = dav.daemon.on_disk("/dav");
    let fill = |folder: &str| {
        std::fs::create_dir_all(disk.join(folder).join("deep")).expect("a folder");
        for name in [&b"a\xff"[..], b"a\n", b"plain", "cafe\u{301}".as_bytes()] {
            std::fs::write(disk.join(folder).join("deep").join(OsStr::from_bytes(name)), name).expect("a file");
        }
    };
    fill("whole");
    let said = dav.alice("MOVE", "/dav/whole/", "Destination: /other/whole/\r\n", "");
    assert_eq!(said.status, 201, "{}", said.text());
    assert!(!disk.join("whole").exists());
    for name in [&b"a\xff"[..], b"a\n", b"plain"] {
        let there = dav.daemon.on_disk("/other/whole/deep").join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read(there).expect("carried"), name);
    }
    assert_eq!(
        std::fs::read(dav.daemon.on_disk("/other/whole/deep/caf\u{e9}")).expect("carried"),
        "cafe\u{301}".as_bytes()
    );
    let special: [(&str, &str); 2] = [("link", "l"), ("own", ".stoa-x")];
    for (name, entry) in special {
        fill(name);
        match name {
            "link" => std::os::unix::fs::symlink("plain", disk.join(name).join("deep").join(entry)).expect("a link"),
            _ => std::fs::write(disk.join(name).join("deep").join(entry), "x").expect("a file"),
        }
        for method in ["COPY", "MOVE"] {
            let said =
                dav.alice(method, &format!("/dav/{name}/"), &format!("Destination: /other/{method}{name}/\r\n"), "");
            assert_eq!(said.status, 207, "{method} {name}: {}", said.text());
            assert!(
                said.text().contains(&format!("/other/{method}{name}/deep")),
                "says what is left out: {}",
                said.text()
            );
            assert_eq!(disk.join(name).join("deep").read_dir().expect("the source").count(), 5, "{method} {name}");
        }
    }
    // Within a space a folder moves with all in it.
    assert_eq!(dav.alice("MOVE", "/dav/link/", "Destination: /dav/moved/\r\n", "").status, 201);
    assert_eq!(disk.join("moved/deep").read_dir().expect("moved").count(), 5);
    assert_eq!(dav.alice("MOVE", "/dav/moved/deep/l", "Destination: /other/l\r\n", "").status, 409);
    assert!(disk.join("moved/deep/l").is_symlink());
    // What cannot be copied takes nothing away where it was to go.
    dav.must("MKCOL", "/other/kept/", "", "");
    dav.must("PUT", "/other/kept/a", "", "a");
    for method in ["COPY", "MOVE"] {
        assert_eq!(dav.alice(method, "/dav/moved/deep/l", "Destination: /other/kept\r\n", "").status, 409);
        assert_eq!(dav.alice("GET", "/other/kept/a", "", "").text(), "a");
    }
}

#[test]
fn equivalent_spellings_are_one_name_for_rights_and_locks_too() {
    let dav = start();
    let mut ftp = Ftp::sign_in(&dav, "alice");
    let (nfc, nfd) = ("na\u{ef}ve-\u{1e69}.txt", "na\u{ef}ve-\u{1e69}.txt".nfd().collect::<String>());
    let (one, two) = (format!("/dav/{}", encoded(nfc)), format!("/dav/{}", encoded(&nfd)));
    assert_eq!(dav.alice("PUT", &one, "", "1").status, 201);
    assert_eq!(dav.alice("PUT", &two, "", "2").status, 204, "no twin");
    assert_eq!(dav.alice("GET", &one, "", "").text(), "2");
    ftp.must(format!("SIZE /dav/{nfd}"), "213 1");
    assert_eq!(ftp.names("MLSD /dav", 1).iter().filter(|name| name.starts_with("na")).count(), 1);
    // A lock on one spelling holds for the other, and for one with escapes.
    let lock = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let token = dav.must("LOCK", &one, "", lock).token();
    let escaped: String = nfc
        .bytes()
        .map(|byte| if byte.is_ascii() { char::from(byte).to_string() } else { format!("\u{fffd}{byte:02X}") })
        .collect();
    for spelling in [&two, &format!("/dav/{}", encoded(&escaped))] {
        assert_eq!(dav.ask("bob", "PUT", spelling, "", b"3").status, 423, "{spelling}");
        assert_eq!(dav.ask("bob", "DELETE", spelling, "", b"").status, 423, "{spelling}");
        assert_eq!(dav.alice("GET", spelling, "", "").text(), "2");
    }
    assert!(ftp_as(&dav, "bob", &[&format!("DELE /dav/{nfd}")])[0].starts_with("550"));
    dav.must("UNLOCK", &two, &format!("Lock-Token: {token}\r\n"), "");
    // A space whose name is spelt in either way: alice owns what is around it and has no part in it.
    for spelling in ["caf\u{e9}", "cafe\u{301}", "cafe\u{fffd}CC\u{fffd}81", "caf\u{fffd}C3\u{fffd}A9"] {
        let place = format!("/dav/{}/x", encoded(spelling));
        let refused = dav.alice("PUT", &place, "", "x").status;
        assert!([400, 403, 404, 409].contains(&refused), "{spelling:?}: {refused}");
        let carol = dav.ask("carol", "PUT", &place, "", b"x").status;
        assert!(name::is_alias(spelling) || [201, 204].contains(&carol), "{spelling:?}: {carol}");
    }
    // What another program wrote in its own form is found, replaced in place, and adopted under one name.
    let disk = dav.daemon.on_disk("/dav");
    std::fs::write(disk.join("e\u{301}.txt"), "outside").expect("a file");
    assert_eq!(dav.alice("GET", "/dav/%C3%A9.txt", "", "").text(), "outside");
    assert_eq!(dav.alice("PUT", "/dav/%C3%A9.txt", "", "inside").status, 204);
    assert_eq!(std::fs::read_to_string(disk.join("e\u{301}.txt")).expect("in place"), "inside");
    assert!(!disk.join("\u{e9}.txt").exists());
    // A second entry: the exact name wins, the other one is an alias; an alias cannot be made.
    let alias = encoded("e\u{fffd}CC\u{fffd}81.txt");
    assert_eq!(dav.alice("GET", &format!("/dav/{alias}"), "", "").status, 404, "shown under its NFC name");
    assert_eq!(dav.alice("PUT", &format!("/dav/{alias}"), "", "x").status, 400);
    std::fs::write(disk.join("\u{e9}.txt"), "exact").expect("a file");
    until("the exact name wins", || dav.alice("GET", "/dav/%C3%A9.txt", "", "").text() == "exact");
    assert_eq!(dav.alice("GET", &format!("/dav/{alias}"), "", "").text(), "inside");
    // A copy cannot be an alias: it gets the plain name, and replaces nothing.
    dav.must("COPY", &format!("/dav/{alias}"), &format!("Destination: /other/{alias}\r\n"), "");
    dav.must("COPY", &format!("/dav/{alias}"), &format!("Destination: /other/{alias}\r\n"), "");
    for copy in ["%C3%A9.txt", "%C3%A9%20(2).txt"] {
        assert_eq!(dav.alice("GET", &format!("/other/{copy}"), "", "").text(), "inside", "{copy}");
    }
    dav.must("MKCOL", "/dav/pair", "", "");
    for (form, body) in [("e\u{301}", "one"), ("\u{e9}", "two")] {
        std::fs::create_dir_all(disk.join("pair").join(format!("{form}d"))).expect("a folder");
        std::fs::write(disk.join("pair").join(format!("{form}d/in")), body).expect("a file");
    }
    dav.must("COPY", "/dav/pair", "Destination: /other/pair\r\n", "");
    let copied =
        ["%C3%A9d", "%C3%A9d%20(2)"].map(|name| dav.alice("GET", &format!("/other/pair/{name}/in"), "", "").text());
    assert_eq!(copied, ["two", "one"], "the exact name keeps its name");
    dav.must("MOVE", &format!("/dav/{alias}"), "Destination: /dav/other.txt\r\n", "");
    assert_eq!(dav.alice("GET", "/dav/other.txt", "", "").text(), "inside");
    assert_eq!(std::fs::read_to_string(disk.join("\u{e9}.txt")).expect("untouched"), "exact");
}

#[test]
fn a_taken_name_of_full_length_gets_a_number() {
    let dav = start();
    for name in ["a".repeat(255), format!("{}.pdf", "\u{e9}".repeat(125)), "\u{1f600}".repeat(63)] {
        let place = format!("/both/{}", encoded(&name));
        for body in ["1", "2", "3"] {
            let said = ask(dav.daemon.http, "bob", "PUT", &place, "", body.as_bytes());
            assert_eq!(said.status, 201, "{name}: {}", said.text());
            let location = said.header("location").expect("a place").to_owned();
            assert_eq!(dav.ask("bob", "GET", &location, "", b"").text(), body);
        }
    }
}

#[tokio::test]
async fn records_of_an_earlier_version_keep_their_owner_under_the_canonical_name() {
    let dav = start();
    let (nfc, nfd) = ("e\u{301}t\u{e9}.txt".nfc().collect::<String>(), "e\u{301}te\u{301}.txt");
    dav.must("PUT", &format!("/dav/{}", encoded(&nfc)), "", "summer");
    let place = dav.daemon.stop();
    // As it was when each spelling was a name of its own.
    let tree = place.data().join("tree/dav");
    std::fs::rename(tree.join(&nfc), tree.join(nfd)).expect("renamed");
    let catalog = Catalog::open(&CatalogSettings::default(), &place.data(), "test").await.expect("a catalog");
    let back = Edit::MoveFiles { space: "/dav".into(), from: nfc.clone(), to: nfd.to_owned() };
    catalog.commit(Batch { edits: vec![back] }).await.expect("moved");
    drop(catalog);
    let dav = Dav { daemon: place.start() };
    until("it has its canonical name", || {
        dav.daemon.must(&["history"], "").contains("recorded under its canonical name")
    });
    let place = dav.daemon.stop();
    let catalog = Catalog::open(&CatalogSettings::default(), &place.data(), "test").await.expect("a catalog");
    let row = catalog.file("/dav", &nfc).await.expect("a question").expect("a row");
    assert_eq!((row.owner.as_str(), row.size), ("alice", 6));
    assert!(catalog.file("/dav", nfd).await.expect("a question").is_none());
    assert_eq!(catalog.usage("/dav").await.expect("usage").files, 1);
}

#[tokio::test]
async fn what_comes_into_a_folder_while_it_is_moved_is_not_dropped() {
    let world = World::new().await;
    let at = |text: &str| TreePath::parse(text).expect(text);
    let alice = world.caller("alice", "http").await;
    let late: [(&str, &[u8]); 3] =
        [("/scans/d/late", b"new"), ("/scans/d/deep/a", b"changed"), ("/scans/d/deep/x/y", b"new")];
    for (turn, (path, content)) in late.into_iter().enumerate() {
        world.put("/scans/d/deep/a", b"a");
        let copied =
            alice.copy_folder(&at("/scans/d"), &at(&format!("/pub/d{turn}")), true, 100).await.expect("copied");
        assert!(copied.failed.is_empty());
        world.put(path, content);
        let act = RemoveCopied { path: at("/scans/d"), copied: copied.sources };
        assert_eq!(alice.perform(act).await.map_err(|error| error.kind()), Err(Kind::Conflict), "{path}");
        assert_eq!(std::fs::read(world.disk(path)).expect("still there"), content);
    }
    let copied = alice.copy_folder(&at("/scans/d"), &at("/pub/whole"), true, 100).await.expect("copied");
    alice.perform(RemoveCopied { path: at("/scans/d"), copied: copied.sources }).await.expect("removed");
    assert!(!world.disk("/scans/d").exists() && world.disk("/pub/whole/deep/x/y").exists());
}
