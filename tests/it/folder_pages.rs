//! The page of a folder: it asks before it deletes, replaces nothing unasked, and shows a large folder in pages.

use std::fmt::Write as _;
use std::fs;

use stoa::hub::login::hash_password;
use stoa::hub::settings::LoginSettings;
use stoa::units::ByteSize;

use crate::daemon::{Daemon, until};
use crate::webdav::{Reply, ask};

const FORM: &str = "Accept: text/html\r\nContent-Type: application/x-www-form-urlencoded\r\n";

fn daemon() -> Daemon {
    let login = LoginSettings { memory: ByteSize(8 << 10), ..LoginSettings::default() };
    let hash = hash_password(b"secret", &login).expect("a hash");
    let daemon = Daemon::start(&format!(
        r#"
[[user]]
name = "alice"
password_hash = "{hash}"
[[space]]
path = "/own"
grants = [ {{ to = "user:alice", allow = "own" }}, {{ to = "everyone", allow = "view" }} ]
[[space]]
path = "/both"
overwrite = "keep-both"
grants = [ {{ to = "user:alice", allow = "edit" }} ]
"#
    ));
    until("the spaces are there", || daemon.on_disk("/own").is_dir() && daemon.on_disk("/both").is_dir());
    daemon
}

fn post(daemon: &Daemon, folder: &str, fields: &str) -> Reply {
    ask(daemon.http, "alice", "POST", folder, FORM, fields.as_bytes())
}

fn upload(daemon: &Daemon, folder: &str, accept: &str, files: &[(&str, &str)]) -> Reply {
    let mut body = String::new();
    for (name, content) in files {
        let _ = write!(
            body,
            "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n"
        );
    }
    body.push_str("--XX--\r\n");
    let headers = format!("{accept}Content-Type: multipart/form-data; boundary=XX\r\n");
    ask(daemon.http, "alice", "POST", folder, &headers, body.as_bytes())
}

#[test]
fn deleting_asks_first_and_says_what_would_go() {
    let daemon = daemon();
    let at = |path: &str| daemon.on_disk(&format!("/own/{path}"));
    fs::create_dir_all(at("full/inner")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    for file in ["a<b>.txt", "full/1", "full/inner/2", "full/inner/3"] {
        fs::write(at(file), "x").unwrap();
    }
    let page = ask(daemon.http, "alice", "GET", "/own/", "Accept: text/html\r\n", b"").text();
    assert!(page.contains("value=\"remove\"") && !page.contains("value=\"delete\""), "no button deletes at once");
    for (fields, words) in [
        ("name=a%3Cb%3E.txt", &["Delete a&lt;b&gt;.txt?", "cannot be undone"][..]),
        ("name=empty", &["Delete empty?", "Nothing is in it."]),
        ("name=full", &["Delete full?", "With all that is in it: 1 folder, 3 files, 3 B"]),
        ("name=full&name=empty&name=a%3Cb%3E.txt", &["Delete 3 items?", "1 folder, 3 files", "<li>empty</li>"]),
    ] {
        let asked = post(&daemon, "/own/", &format!("do=remove&{fields}"));
        assert_eq!(asked.status, 200, "{fields}");
        for word in words {
            assert!(asked.text().contains(word), "{fields}: {word}: {}", asked.text());
        }
    }
    assert!(at("a<b>.txt").exists() && at("empty").exists() && at("full/inner/3").exists(), "asking deletes nothing");
    assert_eq!(post(&daemon, "/own/", "do=remove&name=none").status, 404);
    assert_eq!(
        ask(daemon.http, "", "POST", "/own/", FORM, b"do=remove&name=full").status,
        401,
        "a guest signs in first"
    );
    // Without the page that asks, a folder must be empty.
    assert_eq!(post(&daemon, "/own/", "do=delete&name=full").status, 409);
    assert!(at("full/inner/3").exists());
    let done = post(&daemon, "/own/", "do=delete&all=1&name=full&name=empty&name=a%3Cb%3E.txt");
    assert_eq!((done.status, done.header("location")), (303, Some("/own/?removed=3")));
    assert_eq!(fs::read_dir(at("")).unwrap().count(), 0);
}

#[test]
fn the_page_replaces_nothing_unless_it_says_so() {
    let daemon = daemon();
    let at = |path: &str| daemon.on_disk(path);
    let read = |path: &str| fs::read_to_string(at(path)).unwrap();
    for path in ["/own/a.txt", "/own/b.txt", "/both/a.txt"] {
        fs::write(at(path), "first").unwrap();
    }
    let html = "Accept: text/html\r\n";
    let files = [("a.txt", "second"), ("new.txt", "second"), ("b.txt", "second")];
    let left = upload(&daemon, "/own/", html, &files);
    assert_eq!(left.status, 409);
    for word in ["<li>a.txt</li>", "<li>b.txt</li>", "One other file was added"] {
        assert!(left.text().contains(word), "{word}: {}", left.text());
    }
    assert!(!left.text().contains("<li>new.txt</li>"));
    assert_eq!([read("/own/a.txt"), read("/own/b.txt"), read("/own/new.txt")].join(" "), "first first second");
    let done = upload(&daemon, "/own/?replace=1", html, &files);
    assert_eq!((done.status, done.header("location")), (303, Some("/own/?added=3")));
    assert_eq!([read("/own/a.txt"), read("/own/b.txt")].join(" "), "second second");
    // A program says what it means.
    assert_eq!(upload(&daemon, "/own/", "Accept: application/json\r\n", &[("a.txt", "third")]).status, 201);
    assert_eq!(read("/own/a.txt"), "third");
    // A space that keeps both needs no question.
    assert_eq!(upload(&daemon, "/both/", html, &[("a.txt", "second")]).status, 303);
    assert_eq!((read("/both/a.txt"), fs::read_dir(at("/both")).unwrap().count()), ("first".into(), 2));
    // Nor does a new name take another file's place.
    let taken = post(&daemon, "/own/", "do=rename&name=a.txt&to=b.txt");
    assert_eq!(taken.status, 409);
    assert!(taken.text().contains("name is taken"));
    assert_eq!([read("/own/a.txt"), read("/own/b.txt")].join(" "), "third second");
    assert_eq!(post(&daemon, "/own/", "do=folder&name=a.txt").status, 409);
}

/// `1,234`
fn thousands(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

#[test]
fn a_large_folder_is_shown_in_pages_and_in_the_order_of_numbers() {
    let daemon = daemon();
    let folder = daemon.on_disk("/own/many");
    fs::create_dir(&folder).unwrap();
    let mut wanted: Vec<String> = vec!["sub2".into(), "sub10".into()];
    for name in &wanted {
        fs::create_dir(folder.join(name)).unwrap();
    }
    for number in 1..=1_234 {
        let name = format!("IMG_{number}.jpg");
        fs::write(folder.join(&name), "x").unwrap();
        wanted.push(name);
    }
    let (mut query, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = ask(daemon.http, "alice", "GET", &format!("/own/many/{query}"), "Accept: text/html\r\n", b"");
        let text = page.text();
        assert!(page.status == 200 && text.len() < 400 << 10, "{} {} bytes", page.status, text.len());
        assert!(text.contains("2 folders, 1,234 files"));
        let names = text.split("aria-label=\"Choose ").skip(1).filter_map(|rest| rest.split('"').next());
        let names: Vec<String> = names.map(str::to_owned).collect();
        let place = format!("{}–{} of 1,236", thousands(seen.len() + 1), thousands(seen.len() + names.len()));
        assert!(text.contains(&place), "{place}");
        assert!(names.len() <= 200);
        seen.extend(names);
        pages += 1;
        let next =
            text.split("href=\"").find(|rest| rest.split('>').next().is_some_and(|tag| tag.contains("rel=\"next\"")));
        let Some(next) = next.and_then(|rest| rest.split('"').next()) else { break };
        query = next.replace("&amp;", "&");
    }
    assert_eq!((pages, seen.len()), (7, wanted.len()));
    assert!(seen == wanted, "in order");
    // Every other form is whole.
    let list = ask(daemon.http, "alice", "GET", "/own/many/?format=text", "", b"").text();
    assert_eq!(list.lines().count(), wanted.len());
}

#[test]
fn a_folder_on_the_way_to_others_has_no_time() {
    let more = "[[space]]\npath = \"/way/to/it\"\ngrants = [ { to = \"user:alice\", allow = \"edit\" } ]";
    let daemon = crate::uploads::daemon(more);
    std::fs::create_dir(daemon.on_disk("/in/folder")).expect("a folder");
    let json = [("Accept", "application/json")];
    for (folder, name, timed) in [("/", "way", false), ("/way/", "to", false), ("/in/", "folder", true)] {
        let said =
            crate::uploads::exchange(daemon.http, &crate::uploads::request("alice", "GET", folder, &json, b"")).json();
        let entries = said["entries"].as_array().expect("entries");
        let entry = entries.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name}: {said}"));
        assert_eq!(entry.get("modified").is_some(), timed, "{entry}");
    }
}
