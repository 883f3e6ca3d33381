//! Messages that other people collected, sent through a real daemon: the fixtures of Python's `email`, of the PyPI package `mail-parser` and of
//! the crate `mail-parser`. Each is accepted or refused in so many words, each attachment that Python decodes is filed byte for byte or the
//! whole message is filed, and the daemon answers afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::daemon::{Daemon, PATIENCE};

const DROP: &str = r#"
domain = "example.org"
[mail]
redelivery = "0ms"
[[space]]
path = "/in"
address = "in"
overwrite = "keep-both"
grants = [ { to = "everyone", allow = "list read create" } ]
"#;

/// The files below a folder whose names say that they are messages.
fn below(folder: &Path, is_message: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(below(&path, is_message));
        } else if is_message(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Where cargo unpacked a crate that this one is built with.
fn crate_source(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("cargo");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name).expect("the crate is locked");
    Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder").to_owned()
}

fn collections() -> Vec<(&'static str, Vec<PathBuf>, usize)> {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    let ends = |ending: &'static str| move |path: &Path| path.extension().is_some_and(|own| own == ending);
    let starts = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mail_"));
    let python = clients.join("python-testsuite/usr/lib/python3.11/test/test_email/data");
    vec![
        ("Python's email", below(&python, &ends("txt")), 40),
        ("mail-parser of PyPI", below(&clients.join("mail_parser-4.8.0/tests/mails"), &starts), 15),
        ("mail-parser of crates.io", below(&crate_source("mail-parser").join("resources/eml"), &ends("eml")), 80),
    ]
}

/// What Python's `email` makes of each message: its parts with a name.
fn decoded(messages: &[PathBuf]) -> BTreeMap<PathBuf, Vec<(String, Vec<u8>)>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/parts.py");
    let output = Command::new("python3").arg(script).args(messages).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all = BTreeMap::new();
    for line in output.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        let attachments = line["attachments"].as_array().expect("a list").iter().map(|pair| {
            let bytes = STANDARD.decode(pair[1].as_str().expect("text")).expect("base64");
            (pair[0].as_str().expect("a name").to_owned(), bytes)
        });
        all.insert(line["path"].as_str().expect("a path").into(), attachments.collect());
    }
    all
}

struct Session(BufReader<TcpStream>);

impl Session {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut session = Self(BufReader::new(stream));
        session.reply();
        session.say(b"EHLO corpora.example");
        session
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a reply") > 0, "the session was closed");
            if line.as_bytes().get(3) == Some(&b' ') {
                return line;
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) -> String {
        self.0.get_mut().write_all(&[bytes, b"\r\n"].concat()).expect("the server reads");
        self.reply()
    }

    fn send(&mut self, message: &[u8]) -> String {
        assert!(self.say(b"MAIL FROM:<a@else.where> BODY=8BITMIME SMTPUTF8").starts_with("250"));
        assert!(self.say(b"RCPT TO:<in@example.org>").starts_with("250"));
        assert!(self.say(b"DATA").starts_with("354"));
        let mut out = Vec::with_capacity(message.len() + 2);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").map_or(line, |text| text.strip_suffix(b"\r").unwrap_or(text));
            out.extend_from_slice(if text.starts_with(b".") { b"." } else { b"" });
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        out.push(b'.');
        self.say(&out)
    }
}

/// Without the line end behind it, which belongs to the boundary or to the content, as one reads the standard.
fn without_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
    &bytes[..end]
}

#[test]
fn collections_of_others_are_filed_whole_and_exactly() {
    let daemon = Daemon::start(DROP);
    let folder = daemon.on_disk("/in");
    let (mut wrong, mut compared) = (Vec::new(), 0);
    let mut session = Session::open(daemon.smtp);
    let mut known = BTreeSet::new();
    for (name, messages, least) in collections() {
        assert!(messages.len() >= least, "{name}: {} messages; scripts/test installs them", messages.len());
        let decoded = decoded(&messages);
        for path in messages {
            let message = fs::read(&path).expect("a message");
            let reply = session.send(&message);
            if !reply.starts_with("250") {
                wrong.push(format!("{}: {reply}", path.display()));
                continue;
            }
            let mut filed = BTreeMap::new();
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if known.insert(name.clone()) {
                    filed.insert(name, fs::read(entry.path()).expect("a file"));
                }
            }
            let whole = filed.iter().any(|(name, bytes)| {
                std::path::Path::new(name).extension().is_some_and(|end| end == "eml")
                    && bytes.starts_with(b"Return-Path: ")
            });
            if filed.is_empty() {
                wrong.push(format!("{}: nothing was filed", path.display()));
            }
            for (name, bytes) in &decoded[&path] {
                compared += 1;
                if !whole && !filed.values().any(|file| without_end(file) == without_end(bytes)) {
                    let names: Vec<_> = filed.keys().collect();
                    wrong.push(format!("{}: {name:?} is not among {names:?}", path.display()));
                }
            }
        }
    }
    assert!(session.say(b"NOOP").starts_with("250"), "the daemon answers");
    assert!(compared >= 80, "{compared} attachments compared");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
