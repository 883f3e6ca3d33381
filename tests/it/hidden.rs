//! What a caller may not see changes no reply: two servers that differ only in what is hidden answer every question alike,
//! and a change of what is hidden changes no answer.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::access::{DOORS, Wire, basic, pop3};
use crate::daemon::{Daemon, Place, until};

const PASSWORD: &str = "right-password";

/// What is there in one of two worlds only, and names below it.
const HIDDEN: [&str; 21] = [
    "/vault",
    "/vault/",
    "/vault/plan",
    "/pub/secret",
    "/pub/secret/",
    "/pub/secret/plan",
    "/pub/secret/none",
    "/open/secret",
    "/open/secret/plan",
    "/team/secret",
    "/team/secret/",
    "/team/secret/plan",
    "/team/secret/none",
    "/home/gina",
    "/home/gina/diary",
    "/home/leaver/",
    "/home/leaver/diary",
    "/mail/gina/",
    "/drop/plan",
    "/drop/plan/",
    "/drop/plan/x",
];

/// Names of hidden spaces in folders where eve may make names. That such a name is taken cannot be kept from her: making it is not asked.
const TAKEN: [&str; 2] = ["/team/secret", "/team/secret/"];

/// What makes the name it is asked for.
const MAKES: [&str; 10] = ["APPE", "LOCK", "MKCOL", "MKD", "POST", "PUT", "REST 1\r\nSTOR", "RNTO", "STOR", "STOU"];

/// Folders above it, in both.
const ABOVE: [&str; 7] = ["/", "/drop/", "/home/", "/mail/", "/open/", "/pub/", "/team/"];

const LOCK: &str = "<?xml version=\"1.0\"?><lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";

fn world(hidden: bool) -> Daemon {
    let place = Place::new(DOORS);
    let mut users = vec!["eve", "zoe"];
    let own = ["--grant", "user:zoe=own"];
    let mut spaces: Vec<Vec<&str>> = vec![
        vec!["/pub", "--grant", "users=view", "--grant", "user:zoe=own"],
        vec!["/open", "--grant", "everyone=view", "--grant", "user:zoe=own"],
        vec!["/team", "--grant", "user:eve=edit", "--grant", "user:zoe=edit"],
        vec!["/drop", "--grant", "everyone=drop", "--grant", "user:zoe=own"],
    ];
    if hidden {
        users.extend(["gina", "leaver"]);
        spaces
            .extend(["/vault", "/open/secret", "/pub/secret", "/team/secret"].map(|path| [&[path][..], &own].concat()));
    }
    for name in users {
        place.must(&["user", "add", name], &format!("{PASSWORD}\n"));
    }
    for space in spaces {
        place.must(&[&["space", "add"], &space[..]].concat(), "");
    }
    let daemon = place.start();
    for path in ["/open/seen", "/pub/seen", "/team/seen"] {
        assert!(http(&daemon, "zoe", "PUT", path, "", "seen").starts_with("HTTP/1.1 201"), "{path}");
    }
    if hidden {
        for (who, path) in [
            ("zoe", "/vault/plan"),
            ("zoe", "/pub/secret/plan"),
            ("zoe", "/open/secret/plan"),
            ("zoe", "/team/secret/plan"),
            ("zoe", "/drop/plan"),
            ("gina", "/home/gina/diary"),
            ("leaver", "/home/leaver/diary"),
        ] {
            assert!(http(&daemon, who, "PUT", path, "", "hidden").starts_with("HTTP/1.1 201"), "{path}");
        }
        for path in ["/drop/plan", "/pub/secret/plan", "/team/secret/plan"] {
            assert!(http(&daemon, "zoe", "LOCK", path, "", LOCK).starts_with("HTTP/1.1 200"), "{path}");
        }
        daemon.must(&["user", "remove", "leaver"], "");
        until("leaver is gone", || http(&daemon, "leaver", "GET", "/team/", "", "").starts_with("HTTP/1.1 401"));
    }
    daemon
}

/// One request on a connection of its own; a guest has no name.
fn http(daemon: &Daemon, who: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let proof = if who.is_empty() { String::new() } else { basic(who, PASSWORD) };
    let length = body.len();
    let mut wire = Wire::open(daemon.http);
    wire.say(&format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{proof}{headers}Content-Length: {length}\r\n\r\n{body}"
    ));
    wire.rest()
}

/// A reply without what differs between any two runs: times, addresses, ids.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")) {
        for word in line.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric() && !"-_:".contains(letter)) {
            let letters = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            out.push_str(if is_random(letters) { "#" } else { letters });
            out.push_str(word.get(letters.len()..).unwrap_or_default());
        }
        out.push('\n');
    }
    out
}

fn is_random(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_time =
        word.split(':').filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).count() > 1;
    let is_hex = word.len() >= 8 && digits > 0 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_time || is_hex || (word.len() >= 9 && digits >= 4)
}

/// Questions and what was said to them.
type Said = Vec<(String, String)>;

fn ask_http(daemon: &Daemon, said: &mut Said) {
    for who in ["", "eve"] {
        let mut ask = |method: &str, path: &str, headers: &str, body: &str| {
            let to = headers.rsplit_once("Destination: ").map(|(_, to)| to.trim_end()).unwrap_or_default();
            if TAKEN.contains(&to) || (TAKEN.contains(&path) && MAKES.contains(&method)) {
                return;
            }
            let reply = http(daemon, who, method, path, headers, body);
            said.push((format!("`{who}` {method} {path} {headers}"), reply));
        };
        for path in ABOVE {
            ask("GET", path, "", "");
            ask("GET", path, "Accept: application/json\r\n", "");
            ask("HEAD", path, "", "");
            ask("PROPFIND", path, "Depth: 0\r\n", "");
            ask("PROPFIND", path, "Depth: 1\r\n", "");
            ask("LOCK", path, "Timeout: Second-1\r\n", LOCK);
        }
        until("her locks have ended", || {
            !http(daemon, "eve", "PROPFIND", "/team/", "Depth: 0\r\n", "").contains("activelock")
        });
        ask("COPY", "/team/", "Destination: /home/eve/team\r\n", "");
        ask("COPY", "/pub/", "Destination: /home/eve/pub\r\n", "");
        for path in HIDDEN {
            for (method, headers) in [
                ("OPTIONS", ""),
                ("GET", ""),
                ("GET", "Range: bytes=0-1\r\n"),
                ("GET", "If-None-Match: *\r\n"),
                ("HEAD", ""),
                ("PROPFIND", "Depth: 0\r\n"),
                ("PROPFIND", "Depth: 1\r\n"),
                ("UNLOCK", "Lock-Token: <opaquelocktoken:0>\r\n"),
                ("DELETE", ""),
                ("DELETE", "If: (<opaquelocktoken:0>)\r\n"),
                ("MOVE", "Destination: /team/moved\r\n"),
                ("COPY", "Destination: /team/copied\r\n"),
                ("PUT", "If-Match: *\r\n"),
                ("PUT", "If-None-Match: *\r\n"),
                ("PUT", "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n"),
                ("PUT", "Content-Range: bytes 1-1/2\r\n"),
                ("PUT", ""),
                ("PUT", "Accept: application/json\r\n"),
                ("POST", ""),
            ] {
                ask(method, path, headers, if method == "PUT" { "x" } else { "" });
            }
            ask("LOCK", path, "Timeout: Second-1\r\n", LOCK);
            let change =
                "<propertyupdate xmlns=\"DAV:\"><set><prop><x xmlns=\"urn:x\">y</x></prop></set></propertyupdate>";
            ask("PROPPATCH", path, "", change);
            for overwrite in ["Overwrite: F\r\n", ""] {
                ask("COPY", "/team/seen", &format!("{overwrite}Destination: {path}\r\n"), "");
                ask("MOVE", "/pub/seen", &format!("{overwrite}Destination: {path}\r\n"), "");
            }
            ask("MKCOL", path, "", "");
            // Below a hidden space the name of that space would be made.
            if !path.starts_with("/team/secret") {
                ask("PUT", &format!("{path}?folders=1"), "", "x");
                ask("PUT", &format!("{}/deep/er?folders=1", path.trim_end_matches('/')), "", "x");
            }
        }
        let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"plan\"\r\n\r\nx\r\n--b--\r\n";
        for accept in ["text/html", "application/json"] {
            let headers = format!(
                "Content-Type: multipart/form-data; boundary=b\r\nAccept: {accept}\r\nOrigin: http://localhost\r\n"
            );
            ask("POST", "/drop/", &headers, form);
        }
    }
}

fn ask_tus(daemon: &Daemon, said: &mut Said) {
    const TUS: &str = "Tus-Resumable: 1.0.0\r\n";
    for who in ["", "eve"] {
        for path in HIDDEN.into_iter().filter(|path| !TAKEN.contains(path)) {
            let metadata = STANDARD.encode(path.trim_end_matches('/'));
            let headers = format!("{TUS}Upload-Length: 4\r\nUpload-Metadata: path {metadata}\r\n");
            let made = http(daemon, who, "POST", "/-/uploads", &headers, "");
            let place = made.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
            said.push((format!("`{who}` tus creation {path}"), made));
            let Some(place) = place else { continue };
            let place = place.find("/-/").map_or(place.clone(), |at| place[at..].to_owned());
            let bytes = format!("{TUS}Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n");
            for (method, headers, body) in [("HEAD", TUS, ""), ("PATCH", &bytes, "four"), ("HEAD", TUS, "")] {
                let reply = http(daemon, who, method, &place, headers, body);
                said.push((format!("`{who}` tus {method} {path}"), reply));
            }
        }
    }
}

/// The whole reply to a command.
fn reply(wire: &mut Wire) -> String {
    let mut all = wire.line();
    let end = format!("{} ", all.get(..3).unwrap_or_default());
    while !all.lines().last().is_some_and(|line| line.starts_with(&end)) {
        let line = wire.line();
        assert!(!line.is_empty(), "closed after {all}");
        all.push_str(&line);
    }
    all
}

fn ask_ftp(daemon: &Daemon, said: &mut Said) {
    let mut wire = Wire::open(daemon.ftp);
    reply(&mut wire);
    for command in ["USER gina", "PASS wrong-password", "USER nobody", "PASS wrong-password", "USER eve"] {
        wire.say(&format!("{command}\r\n"));
        said.push((format!("FTP {command}"), reply(&mut wire).replace("gina", "nobody")));
    }
    for command in [&format!("PASS {PASSWORD}"), "TYPE I"] {
        wire.say(&format!("{command}\r\n"));
        let told = reply(&mut wire);
        assert!(told.starts_with('2'), "{told}");
    }
    for path in HIDDEN.into_iter().chain(ABOVE) {
        for verb in [
            "CWD",
            "STAT",
            "SIZE",
            "MDTM",
            "MLST",
            "AVBL",
            "HASH",
            "XSHA256",
            "RNFR",
            "SITE CPFR",
            "SITE CHMOD 600",
            "MFMT 20200101000000",
            "DELE",
            "RMD",
            "MKD",
        ] {
            if TAKEN.contains(&path) && MAKES.contains(&verb) {
                continue;
            }
            wire.say(&format!("{verb} {path}\r\n"));
            said.push((format!("FTP {verb} {path}"), reply(&mut wire)));
            wire.say("SITE QUOTA\r\nCWD /\r\n");
            let quota: String =
                reply(&mut wire).split_inclusive('\n').filter(|line| !line.contains("left for one more")).collect();
            said.push((format!("FTP quota after {verb} {path}"), quota));
            reply(&mut wire);
        }
        if !TAKEN.contains(&path) {
            for from in ["/team/seen", "/pub/seen"] {
                wire.say(&format!("RNFR {from}\r\n"));
                let begun = reply(&mut wire);
                wire.say(&format!("RNTO {path}\r\n"));
                said.push((format!("FTP RNFR {from} RNTO {path}"), begun + &reply(&mut wire)));
            }
        }
        for (verb, sends) in [
            ("LIST", false),
            ("LIST -a", false),
            ("NLST", false),
            ("MLSD", false),
            ("RETR", false),
            ("STOR", true),
            ("APPE", true),
            ("STOU", true),
            ("REST 1\r\nSTOR", true),
        ] {
            if TAKEN.contains(&path) && MAKES.contains(&verb) {
                continue;
            }
            said.push((format!("FTP {verb} {path}"), transfer(daemon, &mut wire, verb, path, sends)));
        }
    }
}

fn transfer(daemon: &Daemon, wire: &mut Wire, verb: &str, path: &str, sends: bool) -> String {
    let told = wire.ask("EPSV", "229");
    let port: u16 = told.split('|').nth(3).expect("a port").parse().expect("a port");
    let mut data = TcpStream::connect((daemon.ftp.ip(), port)).expect("a data connection");
    let mut all = String::new();
    let mut commands = verb.split("\r\n").peekable();
    while let Some(command) = commands.next() {
        let line = if commands.peek().is_some() { command.to_owned() } else { format!("{command} {path}") };
        wire.say(&format!("{line}\r\n"));
        all.push_str(&reply(wire));
    }
    if !all.lines().last().is_some_and(|line| line.starts_with('1')) {
        return all;
    }
    if sends {
        data.write_all(b"x").expect("a reader");
    } else {
        let mut bytes = Vec::new();
        let _ = data.read_to_end(&mut bytes);
        all.push_str(&String::from_utf8_lossy(&bytes));
    }
    drop(data);
    let end = reply(wire);
    // The ids in it have no fixed length; the lines themselves are compared.
    all + if verb == "MLSD" { end.get(..3).unwrap_or_default() } else { &end }
}

fn ask_mail(daemon: &Daemon, said: &mut Said) {
    let mut wire = Wire::open(daemon.smtp);
    reply(&mut wire);
    let proof = STANDARD.encode("\0gina\0wrong-password");
    for command in
        ["EHLO here", "VRFY gina", "EXPN gina", "VRFY <gina@example.org>", "HELP gina", &format!("AUTH PLAIN {proof}")]
    {
        wire.say(&format!("{command}\r\n"));
        said.push((format!("SMTP {command}"), reply(&mut wire)));
    }
    let mut wire = Wire::open(pop3(daemon));
    wire.line();
    for command in [
        "CAPA",
        "USER gina",
        "PASS wrong-password",
        "USER eve",
        &format!("PASS {PASSWORD}"),
        "STAT",
        "LIST",
        "UIDL",
        "LIST 1",
        "TOP 1 0",
        "RETR 1",
    ] {
        wire.say(&format!("{command}\r\n"));
        let mut told = wire.line();
        let several = told.starts_with("+OK") && ["CAPA", "LIST", "UIDL"].contains(&command);
        while several && !told.ends_with("\n.\r\n") {
            told.push_str(&wire.line());
        }
        said.push((format!("POP3 {command}"), told));
    }
}

fn differences(one: &Said, other: &Said, plain: impl Fn(&str) -> String) -> Vec<String> {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().zip(other);
    pairs
        .filter(|((question, one), (again, other))| question != again || plain(one) != plain(other))
        .map(|((question, one), (_, other))| {
            format!("{question}\n--- hidden things:\n{}\n--- none:\n{}\n", plain(one), plain(other))
        })
        .collect()
}

#[test]
fn what_is_hidden_changes_no_reply_of_any_door() {
    let (with, without) = (world(true), world(false));
    let ask = |daemon: &Daemon| {
        let mut said = Said::new();
        ask_http(daemon, &mut said);
        ask_tus(daemon, &mut said);
        ask_ftp(daemon, &mut said);
        ask_mail(daemon, &mut said);
        said
    };
    let (one, other) = (ask(&with), ask(&without));
    assert!(one.len() > 800, "{}", one.len());
    let told: Vec<_> =
        one.iter().filter(|(question, reply)| question.contains("GET /pub/ ") && reply.contains("seen")).collect();
    assert!(!told.is_empty(), "what is visible is shown");
    let found = differences(&one, &other, plain);
    assert!(found.is_empty(), "{} of {} differ\n{}", found.len(), one.len(), found.join("\n"));
    // What was refused was not done. The drop box kept what was there, beside what came.
    assert!(http(&with, "zoe", "GET", "/team/secret/plan", "", "").ends_with("hidden"));
    assert!(http(&with, "zoe", "GET", "/drop/plan", "", "").ends_with("hidden"));
}
