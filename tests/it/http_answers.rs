//! What HTTP says of files: whose bytes are sent, their tags, times, names and types, and who is asked to sign in.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stoa::hub::login::hash_password;
use stoa::hub::settings::LoginSettings;
use stoa::units::ByteSize;

use crate::daemon::{Daemon, until};
use crate::web;
use crate::webdav::{Reply, ask};

/// `alice` may do all in `/pub`, which everyone may read, and in `/own`; everyone may add to `/box`; `kai` begins at `/own/kai`.
fn daemon(http: &str) -> Daemon {
    let login = LoginSettings { memory: ByteSize(8 << 10), ..LoginSettings::default() };
    let hash = hash_password(b"secret", &login).expect("a hash");
    let daemon = Daemon::start(&format!(
        r#"
[http]
{http}
[[user]]
name = "alice"
password_hash = "{hash}"
[[user]]
name = "kai"
password_hash = "{hash}"
root = "/own/kai"
[[space]]
path = "/pub"
grants = [ {{ to = "user:alice", allow = "own" }}, {{ to = "everyone", allow = "view" }} ]
[[space]]
path = "/own"
grants = [ {{ to = "user:alice", allow = "own" }}, {{ to = "user:kai", allow = "edit" }} ]
[[space]]
path = "/box"
grants = [ {{ to = "everyone", allow = "list read create" }} ]
"#
    ));
    until("the spaces are there", || daemon.on_disk("/box").is_dir());
    daemon
}

fn of(daemon: &Daemon, who: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    ask(daemon.http, who, method, path, headers, body)
}

/// As browsers ask: without a length, so that the answer may come out of the cache.
fn get(daemon: &Daemon, path: &str, headers: &str) -> web::Reply {
    web::ask(daemon.http, "GET", path, "stoa", headers, "")
}

fn set_time(path: &Path, seconds: i64) {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span };
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

fn time_of(path: &Path) -> i64 {
    match fs::metadata(path).unwrap().modified().unwrap().duration_since(UNIX_EPOCH) {
        Ok(span) => i64::try_from(span.as_secs()).unwrap(),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
    }
}

fn age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn packed(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            encoder.write_all(text).unwrap();
            encoder.into_inner()
        }
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(text, 5).unwrap(),
    }
}

const CODINGS: [(&str, &str); 3] = [("gzip", "gz"), ("br", "br"), ("zstd", "zst")];

#[test]
fn what_others_put_beside_a_file_never_stands_for_other_bytes() {
    let daemon = daemon("compress = []");
    let text = "the price is 10. ".repeat(500).into_bytes();
    let other = "the price is 99. ".repeat(500).into_bytes();
    for (coding, suffix) in CODINGS {
        let right = packed(coding, &text);
        for (number, (what, sibling, sent)) in [
            ("another text", packed(coding, &other), false),
            ("no coding at all", other.clone(), false),
            ("cut off", right[..right.len() / 2].to_vec(), false),
            ("more than it", packed(coding, &[&text[..], b"!"].concat()), false),
            ("nothing", Vec::new(), false),
            ("the same text", right.clone(), true),
        ]
        .into_iter()
        .enumerate()
        {
            let path = format!("/box/{suffix}{number}.txt");
            fs::write(daemon.on_disk(&path), &text).unwrap();
            age(&daemon.on_disk(&path), 100);
            let put = of(&daemon, "", "PUT", &format!("{path}.{suffix}"), "", &sibling);
            assert_eq!(put.status, 201, "{coding} {what}");
            // The second and third answer may come out of the cache.
            for _ in 0..3 {
                let reply = get(&daemon, &path, &format!("Accept-Encoding: {coding}\r\n"));
                assert_eq!(reply.header("content-encoding"), sent.then_some(coding), "{coding} {what}");
                assert!(reply.body == if sent { sibling.clone() } else { text.clone() }, "{coding} {what}");
            }
        }
    }
}

#[test]
fn whoever_sends_back_a_coded_tag_can_save() {
    let daemon = daemon("");
    let text = "all work and no play ".repeat(400);
    for beforehand in [false, true] {
        for (coding, suffix) in CODINGS {
            let path = format!("/pub/{suffix}-{beforehand}.txt");
            assert_eq!(of(&daemon, "alice", "PUT", &path, "", text.as_bytes()).status, 201);
            if beforehand {
                let sibling = packed(coding, text.as_bytes());
                assert_eq!(of(&daemon, "alice", "PUT", &format!("{path}.{suffix}"), "", &sibling).status, 201);
            }
            let coded = || get(&daemon, &path, &format!("Accept-Encoding: {coding}\r\n"));
            let tag = coded().header("etag").unwrap().to_owned();
            assert_eq!((coded().header("content-encoding"), coded().header("etag")), (Some(coding), Some(&*tag)));
            assert!(tag.starts_with('"'), "{tag} is strong");
            assert_ne!(get(&daemon, &path, "").header("etag"), Some(&*tag), "other bytes have another tag");
            for (method, headers, before, after) in [
                ("GET", format!("Accept-Encoding: {coding}\r\nIf-None-Match: {tag}\r\n"), 304, 200),
                ("GET", format!("Accept-Encoding: {coding}\r\nIf-Match: {tag}\r\n"), 200, 412),
                ("PROPPATCH", format!("If: ([{tag}])\r\n"), 207, 412),
                ("PUT", format!("If-None-Match: {tag}\r\n"), 412, 204),
                ("PUT", format!("If-Match: \"x\", {tag}\r\n"), 204, 412),
            ] {
                let body = if method == "PROPPATCH" {
                    "<propertyupdate xmlns=\"DAV:\"><set><prop><x xmlns=\"urn:x\">1</x></prop></set></propertyupdate>"
                } else {
                    &text
                };
                let body = if method == "GET" { "" } else { body };
                let reply = of(&daemon, "alice", method, &path, &headers, body.as_bytes());
                assert_eq!(reply.status, before, "{coding} {beforehand}: {method} {headers}");
                if reply.status == 204 {
                    let again = of(&daemon, "alice", method, &path, &headers, body.as_bytes());
                    assert_eq!(again.status, after, "{coding} {beforehand}: {method} {headers} once more");
                }
            }
            let gone = of(&daemon, "alice", "DELETE", &path, &format!("If-Match: {tag}\r\n"), b"");
            assert_eq!(gone.status, 412, "the tag of a version that is no more");
            let tag = coded().header("etag").unwrap().to_owned();
            let gone = of(&daemon, "alice", "DELETE", &path, &format!("If-Match: {tag}\r\n"), b"");
            assert_eq!(gone.status, 204, "{coding} {beforehand}");
        }
    }
}

#[test]
fn every_time_is_a_time() {
    let daemon = daemon("");
    for seconds in [0, 1, -1, -86_400, -1_000_000_000, 2_147_483_647, 2_147_483_648, 4_102_444_800] {
        let path = format!("/own/t{seconds}.txt");
        let put = of(&daemon, "alice", "PUT", &path, &format!("X-OC-Mtime: {seconds}\r\n"), b"x");
        assert_eq!((put.status, put.header("x-oc-mtime")), (201, Some("accepted")), "{seconds}");
        assert_eq!(time_of(&daemon.on_disk(&path)), seconds);
        // Also as another program sets it.
        set_time(&daemon.on_disk(&path), seconds);
        let at = jiff::Timestamp::from_second(seconds).unwrap();
        let imf = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap();
        let found = of(&daemon, "alice", "PROPFIND", &path, "Depth: 0\r\n", b"").text();
        assert!(found.contains(&format!("<D:getlastmodified>{imf}</D:getlastmodified>")), "{seconds}: {found}");
        assert!(found.contains(&format!("<D:creationdate>{at}</D:creationdate>")), "{seconds}");
        let listed = of(&daemon, "alice", "GET", "/own/?format=json", "", b"").text();
        assert!(listed.contains(&format!("\"modified\":\"{at}\"")), "{seconds}: {listed}");
        let page = of(&daemon, "alice", "GET", "/own/?format=html", "", b"").text();
        assert!(page.contains(&format!("datetime=\"{at}\"")), "{seconds}");
        assert!(page.contains(&format!("value=\"t{seconds}.txt\"")), "it can be renamed and deleted");
        let file = of(&daemon, "alice", "GET", &path, "", b"");
        if seconds < 2_000_000_000 {
            assert_eq!(file.header("last-modified"), Some(&*imf));
            let same = of(&daemon, "alice", "GET", &path, &format!("If-Modified-Since: {imf}\r\n"), b"");
            assert_eq!(same.status, 304, "{imf}");
        } else {
            assert_eq!(file.header("last-modified"), file.header("date"), "a file from the future");
        }
        let set = format!(
            "<propertyupdate xmlns=\"DAV:\"><set><prop><getlastmodified>{imf}</getlastmodified></prop></set></propertyupdate>"
        );
        assert_eq!(of(&daemon, "alice", "PROPPATCH", &path, "", set.as_bytes()).status, 207);
        assert_eq!(time_of(&daemon.on_disk(&path)), seconds, "set by PROPPATCH");
    }
}

#[test]
fn a_file_from_the_future_has_the_date_of_each_answer() {
    let daemon = daemon("");
    fs::write(daemon.on_disk("/pub/a.txt"), "x").unwrap();
    set_time(&daemon.on_disk("/pub/a.txt"), 4_102_444_800);
    until("the clock goes on", || {
        let reply = get(&daemon, "/pub/a.txt", "");
        let second = |name: &str| {
            let time: Vec<u32> =
                reply.header(name).unwrap()[17..25].split(':').map(|part| part.parse().unwrap()).collect();
            time[0] * 3_600 + time[1] * 60 + time[2]
        };
        let behind = (second("date") + 86_400 - second("last-modified")) % 86_400;
        assert!(behind <= 1, "{:?} {:?}", reply.header("last-modified"), reply.header("date"));
        let (_, second) = reply.header("date").unwrap().rsplit_once(':').unwrap();
        second.starts_with("00") || second.ends_with("0 GMT") || second.ends_with("5 GMT")
    });
}

#[test]
fn a_range_goes_on_only_with_the_very_same_bytes() {
    let daemon = daemon("");
    let path = "/pub/a.bin";
    assert_eq!(of(&daemon, "alice", "PUT", path, "", b"first version").status, 201);
    let first = get(&daemon, path, "");
    let date = first.header("last-modified").unwrap().to_owned();
    let part = |if_range: &str| {
        let reply = get(&daemon, path, &format!("Range: bytes=6-\r\nIf-Range: {if_range}\r\n"));
        (reply.status, reply.text())
    };
    // Written again, with the very same time.
    let same = format!("X-Modified: {date}\r\n");
    assert_eq!(of(&daemon, "alice", "PUT", path, &same, b"other version").status, 204);
    assert_eq!(part(&date), (200, "other version".into()), "the date names both");
    assert_eq!(part(first.header("etag").unwrap()), (200, "other version".into()));
    age(&daemon.on_disk(path), 59);
    let date = |reply: &web::Reply| reply.header("last-modified").unwrap().to_owned();
    assert_eq!(part(&date(&get(&daemon, path, ""))).0, 200, "not for long enough");
    age(&daemon.on_disk(path), 120);
    assert_eq!(part(&date(&get(&daemon, path, ""))), (206, "version".into()));
    assert_eq!(part(get(&daemon, path, "").header("etag").unwrap()), (206, "version".into()));
}

#[test]
fn a_destination_is_taken_as_clients_write_it() {
    let daemon = daemon("");
    let host = daemon.http;
    for (number, (destination, path)) in [
        ("/own/ć ž.txt".to_owned(), "/own/ć ž.txt"),
        ("/own/%C4%87%20b.txt".to_owned(), "/own/ć b.txt"),
        (format!("http://alice@{host}/own/c.txt"), "/own/c.txt"),
        (format!("http://alice:secret@{host}/own/d d.txt"), "/own/d d.txt"),
        (format!("http://{host}/own/日本.txt"), "/own/日本.txt"),
        ("/own/{e}|^`.txt".to_owned(), "/own/{e}|^`.txt"),
    ]
    .into_iter()
    .enumerate()
    {
        for method in ["COPY", "MOVE"] {
            let from = format!("/own/from{number}.txt");
            assert_eq!(of(&daemon, "alice", "PUT", &from, "", b"x").status, 201);
            let reply = of(&daemon, "alice", method, &from, &format!("Destination: {destination}\r\n"), b"");
            assert_eq!(reply.status, 201, "{method} {destination}");
            assert!(daemon.on_disk(path).is_file(), "{method} {destination}");
            // The `If` header names resources in the same way.
            let named = format!("If: <{destination}> (Not <urn:x>)\r\n");
            let judged = of(&daemon, "alice", "PROPFIND", &from, &format!("Depth: 0\r\n{named}"), b"");
            assert_ne!(judged.status, 400, "{destination}");
            fs::remove_file(daemon.on_disk(path)).unwrap();
            let _ = fs::remove_file(daemon.on_disk(&from));
        }
    }
    assert_eq!(of(&daemon, "alice", "PUT", "/own/f", "", b"x").status, 201);
    for (destination, status) in
        [("http://alice@elsewhere/own/f2", 502), ("http://", 400), ("", 400), ("/own/../f2", 400)]
    {
        let reply = of(&daemon, "alice", "MOVE", "/own/f", &format!("Destination: {destination}\r\n"), b"");
        assert_eq!(reply.status, status, "{destination}");
    }
    assert!(daemon.on_disk("/own/f").is_file());
}

#[test]
fn a_copy_gets_the_time_that_was_asked_for() {
    let daemon = daemon("");
    assert_eq!(of(&daemon, "alice", "PUT", "/own/a", "X-OC-Mtime: 1000000000\r\n", b"x").status, 201);
    for (name, header, status, time) in [
        ("b", "X-OC-Mtime: 1234567890\r\n", 201, Some(1_234_567_890)),
        ("c", "X-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 201, Some(0)),
        ("d", "X-OC-Mtime: -5\r\n", 201, Some(-5)),
        ("e", "X-OC-Mtime: yesterday\r\n", 400, None),
    ] {
        let headers = format!("Destination: /own/{name}\r\n{header}");
        let reply = of(&daemon, "alice", "COPY", "/own/a", &headers, b"");
        assert_eq!(reply.status, status, "{header}");
        let accepted = (status == 201 && header.starts_with("X-OC")).then_some("accepted");
        assert_eq!(reply.header("x-oc-mtime"), accepted, "{header}");
        let on_disk = daemon.on_disk(&format!("/own/{name}"));
        assert_eq!(on_disk.exists().then(|| time_of(&on_disk)), time, "{header}");
    }
    let moved = of(&daemon, "alice", "MOVE", "/own/a", "Destination: /own/z\r\nX-OC-Mtime: 1000000000\r\n", b"");
    assert_eq!((moved.status, time_of(&daemon.on_disk("/own/z"))), (201, 1_000_000_000));
}

#[test]
fn what_is_saved_has_a_plain_name_too() {
    let daemon = daemon("");
    fs::create_dir(daemon.on_disk("/pub/Übersicht \"1\"")).unwrap();
    fs::write(daemon.on_disk("/pub/Übersicht \"1\"/ä.txt"), "x").unwrap();
    let folder = "/pub/%C3%9Cbersicht%20%221%22/";
    for (url, value) in [
        ("/pub/?archive=zip".to_owned(), "attachment; filename=\"pub.zip\"; filename*=UTF-8''pub.zip"),
        (
            format!("{folder}?archive=tar"),
            "attachment; filename=\"_bersicht _1_.tar\"; filename*=UTF-8''%C3%9Cbersicht%20%221%22.tar",
        ),
        (format!("{folder}%C3%A4.txt?download=1"), "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A4.txt"),
    ] {
        assert_eq!(get(&daemon, &url, "").header("content-disposition"), Some(value), "{url}");
    }
    let chosen = of(
        &daemon,
        "alice",
        "POST",
        "/pub/",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        b"do=zip&name=%C3%9Cbersicht+%221%22",
    );
    assert_eq!(
        chosen.header("content-disposition"),
        Some("attachment; filename=\"pub.zip\"; filename*=UTF-8''pub.zip")
    );
}

#[test]
fn options_of_a_folder_say_what_tus_can_do() {
    let daemon = daemon("");
    let own = of(&daemon, "", "OPTIONS", "/-/uploads", "", b"");
    for path in ["/", "/pub/", "/own/", "/nowhere/"] {
        let reply = of(&daemon, "", "OPTIONS", path, "", b"");
        assert_eq!(reply.header("dav"), Some("1, 2, 3"), "{path}");
        for name in ["tus-version", "tus-resumable", "tus-extension", "tus-max-size", "tus-checksum-algorithm"] {
            assert_eq!(reply.header(name), own.header(name), "{path} {name}");
        }
        assert_eq!(reply.header("tus-version"), Some("1.0.0"), "{path}");
    }
    assert_eq!(of(&daemon, "", "OPTIONS", "/pub/a.txt", "", b"").header("tus-version"), None);
}

#[test]
fn guests_are_asked_to_sign_in_by_webdav_where_it_is_said() {
    const METHODS: [&str; 7] = ["PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"];
    let open = daemon("");
    assert_eq!(of(&open, "", "PROPFIND", "/pub/", "Depth: 1\r\n", b"").status, 207);
    let guide = of(&open, "", "GET", "/-/connect", "", b"").text();
    assert!(guide.contains("webdav_sign_in"));
    drop(open);
    let asks = daemon("webdav_sign_in = true");
    for method in METHODS {
        for path in ["/pub/", "/pub/none", "/"] {
            let reply = of(&asks, "", method, path, "", b"");
            assert_eq!(reply.status, 401, "{method} {path}");
            assert!(reply.header("www-authenticate").unwrap().starts_with("Basic "), "{method} {path}");
        }
    }
    assert_eq!(of(&asks, "", "OPTIONS", "/pub/", "", b"").status, 200);
    assert_eq!(get(&asks, "/pub/", "").status, 200, "reading is not WebDAV's");
    assert_eq!(of(&asks, "alice", "PROPFIND", "/pub/", "Depth: 1\r\n", b"").status, 207);
    assert!(!of(&asks, "", "GET", "/-/connect", "", b"").text().contains("webdav_sign_in"));
}

#[test]
fn above_its_own_folder_an_account_gets_one_answer() {
    let daemon = daemon("");
    until("the folder is there", || daemon.on_disk("/own/kai").is_dir());
    for path in ["/", "/own/", "/own"] {
        for depth in ["0", "1", "infinity"] {
            let reply = of(&daemon, "kai", "PROPFIND", path, &format!("Depth: {depth}\r\n"), b"");
            assert_eq!(reply.status, 403, "{path} {depth}");
            assert!(reply.text().contains("/own/kai/"), "it says where: {}", reply.text());
        }
    }
    assert_eq!(of(&daemon, "kai", "PROPFIND", "/own/kai/", "Depth: 1\r\n", b"").status, 207);
    for path in ["/pub/", "/own/other/"] {
        let statuses =
            ["0", "1"].map(|depth| of(&daemon, "kai", "PROPFIND", path, &format!("Depth: {depth}\r\n"), b"").status);
        assert_eq!(statuses, [404, 404], "{path}");
    }
}

fn hits(daemon: &Daemon) -> u64 {
    let text = ask(daemon.admin, "", "GET", "/metrics", "", b"").text();
    let line = text.lines().find_map(|line| line.strip_prefix("stoa_http_cache_hits_total "));
    line.expect("the metric").parse().unwrap()
}

#[test]
fn a_change_elsewhere_does_not_empty_the_cache() {
    let daemon = daemon("");
    let path = "/pub/kept.txt";
    fs::write(daemon.on_disk(path), "kept").unwrap();
    // What was changed a moment ago is not told apart by its times alone.
    until("the response is kept", || {
        let before = hits(&daemon);
        assert_eq!(get(&daemon, path, "").status, 200);
        std::fs::metadata(daemon.on_disk(path)).unwrap().modified().unwrap().elapsed().unwrap() > Duration::from_secs(2)
            && hits(&daemon) > before
    });
    // Another account and another grant come from elsewhere and are followed within a second or two.
    let before = hits(&daemon);
    let stop = AtomicBool::new(false);
    let asked = 400;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                for space in ["/own", "/pub"] {
                    fs::write(daemon.on_disk(&format!("{space}/busy{}", number % 50)), number.to_string()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        daemon.must(&["user", "add", "zoe"], "a-long-password\n");
        for _ in 0..asked {
            assert_eq!(get(&daemon, path, "").text(), "kept");
        }
        // The file itself changes: no answer is older than the change.
        for number in 0..50 {
            let text = number.to_string();
            fs::write(daemon.on_disk(path), &text).unwrap();
            assert_eq!(get(&daemon, path, "").text(), text);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let kept = hits(&daemon) - before;
    assert!(kept >= asked * 9 / 10, "{kept} of {asked} came from memory");
}

#[test]
fn a_head_that_is_too_large_is_refused_also_for_what_is_kept() {
    let daemon = daemon("head_lines = 20\nhead_size = \"2 KiB\"");
    fs::write(daemon.on_disk("/pub/a.txt"), "x").unwrap();
    let mut lines = String::new();
    for number in 0..30 {
        let _ = write!(lines, "X-{number}: y\r\n");
    }
    let large = format!("X-Large: {}\r\n", "y".repeat(2_048));
    for _ in 0..20 {
        assert_eq!(get(&daemon, "/pub/a.txt", "").status, 200);
        assert_eq!(get(&daemon, "/pub/a.txt", &lines).status, 431);
        assert_eq!(get(&daemon, "/pub/a.txt", &large).status, 431);
    }
}
