//! A space that keeps both never loses a file or folder to another of its name, by whatever door and command that one comes.

use std::collections::BTreeMap;
use std::path::Path;

use crate::daemon::Place;
use crate::webdav::{Dav, Reply, ask};

/// Every file below a folder, with what is in it.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(one) = waiting.pop() {
        for entry in std::fs::read_dir(one).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                waiting.push(entry);
            } else {
                let name = entry.strip_prefix(folder).expect("below").display().to_string();
                found.insert(name, std::fs::read_to_string(&entry).expect("text"));
            }
        }
    }
    found
}

#[test]
fn moves_copies_and_renames_keep_both_and_name_the_new_one() {
    let more = "[[space]]\npath = \"/kept\"\noverwrite = \"keep-both\"\ngrants = [{ to = \"user:alice\", allow = \"edit\" }]\n\
                [[space]]\npath = \"/never\"\noverwrite = \"refuse\"\ngrants = [{ to = \"user:alice\", allow = \"edit\" }]\n";
    let daemon = Place::new(&Dav::config(more)).start();
    let go = |method: &str, from: &str, to: &str, more: &str| -> Reply {
        ask(daemon.http, "alice", method, from, &format!("Destination: {to}\r\n{more}"), b"")
    };
    let put =
        |path: &str, text: &str| assert!(ask(daemon.http, "alice", "PUT", path, "", text.as_bytes()).status < 300);
    for space in ["/kept", "/never"] {
        for folder in ["d", "e"] {
            assert_eq!(ask(daemon.http, "alice", "MKCOL", &format!("{space}/{folder}/"), "", b"").status, 201);
            put(&format!("{space}/{folder}/x"), folder);
        }
        put(&format!("{space}/a.txt"), "a");
        put(&format!("{space}/b.txt"), "b");
    }
    put("/dav/a.txt", "other");

    // Each goes to a name that is taken.
    for (method, from, to, new) in [
        ("MOVE", "/kept/b.txt", "/kept/a.txt", "/kept/a%20%282%29.txt"),
        ("COPY", "/kept/a.txt", "/kept/e", "/kept/e%20%282%29"),
        ("COPY", "/dav/a.txt", "/kept/a.txt", "/kept/a%20%283%29.txt"),
        ("MOVE", "/dav/a.txt", "/kept/a.txt", "/kept/a%20%284%29.txt"),
        ("COPY", "/kept/d/", "/kept/e/", "/kept/e%20%283%29/"),
        ("MOVE", "/kept/d/", "/kept/e/", "/kept/e%20%284%29/"),
        ("MOVE", "/kept/e%20%284%29/", "/kept/a.txt", "/kept/a%20%285%29.txt/"),
    ] {
        let before = files(&daemon.on_disk("/kept"));
        let refused = go(method, from, to, "Overwrite: F\r\n");
        assert_eq!(refused.status, 412, "{method} {from} {to}");
        assert_eq!(files(&daemon.on_disk("/kept")), before, "{method} {from} {to} was refused");
        let reply = go(method, from, to, "Overwrite: T\r\n");
        assert_eq!(
            (reply.status, reply.header("location")),
            (201, Some(new)),
            "{method} {from} {to}: {}",
            reply.text()
        );
    }
    let wanted = [
        ("a.txt", "a"),
        ("a (2).txt", "b"),
        ("a (3).txt", "other"),
        ("a (4).txt", "other"),
        ("a (5).txt/x", "d"),
        ("e/x", "e"),
        ("e (2)", "a"),
        ("e (3)/x", "d"),
    ];
    let wanted: BTreeMap<_, _> = wanted.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    assert_eq!(files(&daemon.on_disk("/kept")), wanted);

    // The rename form too.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let reply = ask(daemon.http, "alice", "POST", "/kept/", form, b"do=rename&name=a+%282%29.txt&to=a.txt");
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, Some("/kept/?renamed=a%20%286%29.txt")),
        "{}",
        reply.text()
    );
    let reply = ask(daemon.http, "alice", "POST", "/kept/", form, b"do=rename&name=a.txt&to=a.txt");
    assert_eq!(reply.header("location"), Some("/kept/?renamed=a.txt"), "the name that it has is not taken");

    // Where nothing is ever replaced, nothing is removed for a newcomer either.
    let before = files(&daemon.on_disk("/never"));
    for (method, from, to) in [
        ("MOVE", "/never/b.txt", "/never/a.txt"),
        ("COPY", "/never/b.txt", "/never/a.txt"),
        ("MOVE", "/never/b.txt", "/never/e"),
        ("COPY", "/never/b.txt", "/never/e"),
        ("MOVE", "/never/d/", "/never/e/"),
        ("COPY", "/never/d/", "/never/e/"),
        ("MOVE", "/never/d/", "/never/a.txt"),
        ("MOVE", "/kept/e/", "/never/e/"),
    ] {
        let reply = go(method, from, to, "Overwrite: T\r\n");
        assert!(reply.status >= 400, "{method} {from} {to}: {}", reply.status);
        assert_eq!(files(&daemon.on_disk("/never")), before, "{method} {from} {to}");
    }
    assert!(daemon.on_disk("/kept/e/x").exists(), "what could not move is where it was");
}
