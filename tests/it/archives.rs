//! Folders as zip and tar: what the programs people have make of them, who gets what, and what happens when something goes wrong on the way.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Daemon, until};
use crate::uploads::{Said, connect, daemon, exchange, request};

fn get(daemon: &Daemon, who: &str, path: &str) -> Said {
    exchange(daemon.http, &request(who, "GET", path, &[], b""))
}

fn put(daemon: &Daemon, path: &str, body: &[u8]) {
    let said = exchange(daemon.http, &request("alice", "PUT", &format!("{path}?folders=1"), &[], body));
    assert!([201, 204].contains(&said.status), "{said:?}");
}

/// A program that must like it; what it says.
fn must(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// Checks every entry and prints names, sizes and times as Python's own reader sees them.
const ZIPFILE: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z:
    assert z.testzip() is None
    for one in z.infolist():
        assert one.flag_bits & 0x800 and one.compress_type == (0 if one.is_dir() else 8)
        print(ascii(one.filename), one.file_size, *one.date_time)
";

#[test]
fn a_folder_comes_as_zip_and_tar_that_programs_unpack() {
    let daemon = daemon("");
    let desk = tempfile::tempdir().unwrap();
    let long = format!("{}/{}.txt", "long folder name ".repeat(7).trim(), "x".repeat(120));
    let large = vec![7; 300_000];
    let files = [("a.txt", &b"hello"[..]), ("sub/b \u{e9}.bin", &large), ("sub/empty", b""), (long.as_str(), b"deep")];
    for (name, body) in files {
        let url = name.split('/').map(|part| part.replace(' ', "%20").replace('\u{e9}', "%C3%A9")).collect::<Vec<_>>();
        put(&daemon, &format!("/in/d/{}", url.join("/")), body);
    }
    fs::File::options()
        .write(true)
        .open(daemon.on_disk("/in/d/a.txt"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
        .unwrap();
    for form in ["zip", "tar"] {
        let said = get(&daemon, "alice", &format!("/in/d/?archive={form}"));
        assert_eq!(said.status, 200);
        let name = format!("attachment; filename=\"d.{form}\"; filename*=UTF-8''d.{form}");
        assert_eq!(said.header("content-disposition"), Some(name.as_str()));
        fs::write(desk.path().join(format!("d.{form}")), &said.body).unwrap();
        let head = exchange(daemon.http, &request("alice", "HEAD", &format!("/in/d/?archive={form}"), &[], b""));
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
    must("unzip", &["-tq", "d.zip"], desk.path());
    must("bsdtar", &["-tf", "d.zip"], desk.path());
    let listed = must("python3", &["-c", ZIPFILE, "d.zip"], desk.path());
    assert!(listed.contains("'d/a.txt' 5 2023 11 14 22 13 20") && listed.contains("b \\xe9.bin' 300000"), "{listed}");
    for (form, unpack) in [
        ("zip", &["unzip", "-q", "../d.zip"][..]),
        ("tar", &["tar", "-xf", "../d.tar"]),
        ("bsd", &["bsdtar", "-xf", "../d.tar"]),
    ] {
        let place = desk.path().join(form);
        fs::create_dir(&place).unwrap();
        must(unpack[0], &unpack[1..], &place);
        for (name, body) in files {
            assert!(fs::read(place.join("d").join(name)).unwrap() == body, "{form}: {name} is as it was");
        }
        let time = fs::metadata(place.join("d/a.txt")).unwrap().modified().unwrap();
        assert_eq!(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000, "{form}");
    }
    assert_eq!(get(&daemon, "alice", "/in/d/?archive=rar").status, 400);
    assert_eq!(get(&daemon, "alice", "/in/none/?archive=zip").status, 404);

    // What was chosen, by the form of the page.
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let chosen = exchange(daemon.http, &request("alice", "POST", "/in/d/", &[form], b"do=tar&name=a.txt&name=sub"));
    assert_eq!(chosen.status, 200);
    fs::write(desk.path().join("some.tar"), &chosen.body).unwrap();
    let names = must("tar", &["-tf", "some.tar"], desk.path());
    assert_eq!(names, "d/a.txt\nd/sub/\nd/sub/b \u{e9}.bin\nd/sub/empty\n");
    for (name, expected) in [("none", 404), ("..", 400), ("sub%2Fempty", 400)] {
        let body = format!("do=zip&name={name}");
        assert_eq!(
            exchange(daemon.http, &request("alice", "POST", "/in/d/", &[form], body.as_bytes())).status,
            expected
        );
    }
}

#[test]
fn an_archive_holds_what_its_asker_may_read_under_names_that_do_nothing() {
    let daemon = daemon("[[space]]\npath = \"/in/private\"\ngrants = [ { to = \"user:alice\", allow = \"edit\" } ]");
    let desk = tempfile::tempdir().unwrap();
    put(&daemon, "/in/open.txt", b"open");
    put(&daemon, "/in/private/secret.txt", b"secret");
    for name in [&b"line\nfeed"[..], b"..\\..\\evil.exe", b"\x1b[31mred", b"C:\\boot"] {
        fs::write(daemon.on_disk("/in").join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", daemon.on_disk("/in/link")).unwrap();
    must("mkfifo", &["fifo"], &daemon.on_disk("/in"));
    for (who, private) in [("alice", true), ("bob", false)] {
        for form in ["zip", "tar"] {
            let said = get(&daemon, who, &format!("/in/?archive={form}"));
            assert_eq!(said.status, 200);
            assert_eq!(memchr(&said.body, b"secret.txt"), private, "{who} {form}");
            assert!(
                !memchr(&said.body, b"root:x:") && !memchr(&said.body, b"fifo"),
                "{form}: what is no file is not there"
            );
            fs::write(desk.path().join(format!("a.{form}")), &said.body).unwrap();
        }
        let names = must("python3", &["-c", ZIPFILE, "a.zip"], desk.path());
        let tar = must(
            "python3",
            &["-c", "import tarfile, sys\nfor one in tarfile.open(sys.argv[1]): print(ascii(one.name))", "a.tar"],
            desk.path(),
        );
        for name in
            [r"in/line\ufffd0Afeed", "in/..%5C..%5Cevil.exe", r"in/\ufffd1B[31mred", "in/C:%5Cboot", "in/open.txt"]
        {
            assert!(names.contains(name) && tar.contains(name), "{name}: {names} {tar}");
        }
    }
    assert_eq!(get(&daemon, "", "/in/?archive=zip").status, 401);
    assert!([401, 403].contains(&get(&daemon, "", "/drop/?archive=zip").status), "a drop box is not to be looked into");
}

fn memchr(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|one| one == needle)
}

/// What happens to a file, and how it is done.
type Break = (&'static str, fn(&Path));

#[test]
fn what_goes_wrong_on_the_way_cuts_the_archive_off() {
    let daemon = daemon("");
    // More than the sockets between us hold: the end of the first is read only when we read.
    let large = vec![b'x'; 24 << 20];
    fs::create_dir_all(daemon.on_disk("/in/d")).unwrap();
    fs::write(daemon.on_disk("/in/d/a"), &large).unwrap();
    fs::write(daemon.on_disk("/in/d/b"), "b").unwrap();
    let breaks: [Break; 3] = [
        ("shorter", |folder| fs::File::options().write(true).open(folder.join("a")).unwrap().set_len(1 << 20).unwrap()),
        ("written to", |folder| {
            let mut file = fs::File::options().append(true).open(folder.join("a")).unwrap();
            file.write_all(b"more").unwrap();
        }),
        ("gone", |folder| fs::remove_file(folder.join("b")).unwrap()),
    ];
    for form in ["zip", "tar"] {
        for (what, breaks) in breaks {
            fs::write(daemon.on_disk("/in/d/a"), &large).unwrap();
            fs::write(daemon.on_disk("/in/d/b"), "b").unwrap();
            until("both are there", || {
                let said = get(&daemon, "alice", "/in/d/?format=json").text();
                said.contains(&format!("\"size\":{}", large.len())) && said.contains("\"b\"")
            });
            let mut stream = connect(daemon.http);
            stream.write_all(&request("alice", "GET", &format!("/in/d/?archive={form}"), &[], b"")).unwrap();
            let mut some = vec![0; 64 << 10];
            stream.read_exact(&mut some).unwrap();
            breaks(&daemon.on_disk("/in/d"));
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(
                !rest.ends_with(b"\r\n0\r\n\r\n"),
                "{form}: a file is {what}, and the archive does not end as if it were whole"
            );
        }
    }
}
