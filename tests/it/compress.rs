//! Content codings: siblings compressed beforehand, text compressed on its way out, and all that must stay as it is.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::daemon::{Daemon, until};
use crate::web::{Reply, ask};

fn daemon(more: &str) -> Daemon {
    let daemon = Daemon::start(&format!(
        "[http]\n{more}\n[[space]]\npath = \"/pub\"\ngrants = [ {{ to = \"everyone\", allow = \"edit\" }} ]\n"
    ));
    until("the space is there", || daemon.on_disk("/pub").is_dir());
    daemon
}

fn get(address: SocketAddr, path: &str, headers: &str) -> Reply {
    ask(address, "GET", path, "stoa", headers, "")
}

fn text() -> String {
    (0..30_000_u32).map(|n| format!("{} ", n % 1_013)).collect()
}

fn set_age(file: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
}

fn unpacked(reply: &Reply) -> String {
    let mut text = String::new();
    let bytes = reply.body.as_slice();
    match reply.header("content-encoding") {
        Some("br") => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text).unwrap(),
        Some("gzip") => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap(),
        Some("zstd") => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_string(&mut text).unwrap(),
        _ => return reply.text(),
    };
    text
}

#[test]
fn text_is_compressed_for_who_asks_and_is_the_same_text() {
    let daemon = daemon("");
    let (small, large) = (text()[..20_000].to_owned(), text().repeat(3));
    fs::write(daemon.on_disk("/pub/small.css"), &small).unwrap();
    fs::write(daemon.on_disk("/pub/large.json"), &large).unwrap();
    for (path, content) in [("/pub/small.css", &small), ("/pub/large.json", &large)] {
        for (accepted, coding) in [
            ("gzip", Some("gzip")),
            ("br", Some("br")),
            ("zstd", Some("zstd")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip;q=1, zstd;q=0.5", Some("gzip")),
            ("deflate", None),
            ("gzip;q=0", None),
            ("identity", None),
        ] {
            // The second and third answer may come out of the cache.
            for turn in 0..3 {
                let reply = get(daemon.http, path, &format!("Accept-Encoding: {accepted}\r\n"));
                assert_eq!(reply.header("content-encoding"), coding, "{path} {accepted} {turn}");
                assert!(unpacked(&reply) == **content, "{path} {accepted} {turn}: another text");
                assert!(reply.all("vary").contains("Accept-Encoding"), "{path} {accepted}");
                assert!(reply.header("etag").unwrap().starts_with('"'), "{path} {accepted}: a strong tag");
                assert!(coding.is_none() || reply.body.len() * 2 < content.len(), "{path} {accepted}");
            }
        }
        let plain = get(daemon.http, path, "");
        assert!(plain.header("content-encoding").is_none() && plain.text() == **content);
    }
}

#[test]
fn a_coded_answer_has_a_tag_of_its_own_and_never_a_part() {
    let daemon = daemon("");
    fs::write(daemon.on_disk("/pub/a.txt"), text()).unwrap();
    let coded = get(daemon.http, "/pub/a.txt", "Accept-Encoding: gzip\r\n");
    let plain = get(daemon.http, "/pub/a.txt", "");
    let (tag, strong) = (coded.header("etag").unwrap(), plain.header("etag").unwrap());
    assert_ne!(tag, strong);
    let ask = |headers: &str| get(daemon.http, "/pub/a.txt", &format!("Accept-Encoding: gzip\r\n{headers}"));
    let same = ask(&format!("If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some(tag), 0));
    assert!(same.all("vary").contains("Accept-Encoding"));
    assert_eq!(ask(&format!("If-None-Match: {strong}\r\n")).status, 200, "another form of it");
    let part = ask("Range: bytes=0-9\r\n");
    assert_eq!((part.status, part.header("content-encoding"), part.header("etag")), (206, None, Some(strong)));
    assert_eq!(part.text(), text()[..10]);
    assert_eq!(ask(&format!("If-Match: {strong}\r\n")).status, 200);
    assert_eq!(ask(&format!("If-Match: {tag}\r\n")).status, 200, "it names the version too");
    assert_eq!(ask("If-Match: \"x-gzip.4\"\r\n").status, 412);
    let head = crate::web::ask(daemon.http, "HEAD", "/pub/a.txt", "stoa", "Accept-Encoding: gzip\r\n", "");
    assert_eq!((head.status, head.header("content-encoding"), head.body.len()), (200, Some("gzip"), 0));
    assert_eq!(head.header("etag"), Some(tag));
}

#[test]
fn what_is_compressed_already_too_small_or_too_large_is_left_alone() {
    let daemon = daemon("compress_least = \"2 KiB\"\ncompress_most = \"100 KiB\"");
    for (name, size) in [
        ("a.png", 50_000),
        ("a.zip", 50_000),
        ("a.svgz", 50_000),
        ("a.txt", 2_047),
        ("b.txt", 102_401),
        ("noname", 9_000),
    ] {
        fs::write(daemon.on_disk(&format!("/pub/{name}")), "a".repeat(size)).unwrap();
        let reply = get(daemon.http, &format!("/pub/{name}"), "Accept-Encoding: gzip, br, zstd\r\n");
        assert_eq!((reply.header("content-encoding"), reply.body.len()), (None, size), "{name}");
        assert!(!reply.header("etag").unwrap().starts_with("W/"), "{name}");
    }
    let folder = get(daemon.http, "/pub/", "Accept: text/html\r\nAccept-Encoding: gzip\r\n");
    assert_eq!(folder.header("content-encoding"), None, "a page of ours is never compressed");
}

fn packed(coding: &str, text: &str) -> Vec<u8> {
    if coding == "br" {
        let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.into_inner()
    } else {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }
}

#[test]
fn a_file_compressed_beforehand_stands_for_the_other_unless_it_is_older() {
    let daemon = daemon("compress = []");
    let at = |name: &str| daemon.on_disk(&format!("/pub/{name}"));
    fs::write(at("a.js"), "plain").unwrap();
    set_age(&at("a.js"), 100);
    for (name, coding) in [("a.js.gz", "gzip"), ("a.js.br", "br")] {
        fs::write(at(name), packed(coding, "plain")).unwrap();
        set_age(&at(name), 50);
    }
    let ask = |headers: &str| get(daemon.http, "/pub/a.js", headers);
    let coding = |headers: &str| ask(headers).header("content-encoding").map(str::to_owned);
    for _ in 0..4 {
        let best = ask("Accept-Encoding: gzip, br\r\n");
        assert_eq!((best.header("content-encoding"), unpacked(&best).as_str()), (Some("br"), "plain"));
        assert_eq!(best.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(ask("Accept-Encoding: gzip\r\n").body, packed("gzip", "plain"));
        assert_eq!(ask("Accept-Encoding: br;q=0.1, gzip;q=0.9\r\n").body, packed("gzip", "plain"));
        assert_eq!((ask("").text(), ask("Accept-Encoding: zstd\r\n").text()), ("plain".into(), "plain".into()));
    }
    let tags: Vec<String> = ["", "Accept-Encoding: gzip\r\n", "Accept-Encoding: br\r\n"]
        .map(|headers| ask(headers).header("etag").unwrap().to_owned())
        .into();
    assert!(tags.iter().all(|tag| tag.starts_with('"')) && tags[0] != tags[1] && tags[1] != tags[2], "{tags:?}");
    let part = ask(&format!("Accept-Encoding: gzip\r\nRange: bytes=2-4\r\nIf-Range: {}\r\n", tags[1]));
    assert_eq!((part.status, part.header("content-encoding")), (206, Some("gzip")));
    assert_eq!(part.body, packed("gzip", "plain")[2..5]);
    assert_eq!(get(daemon.http, "/pub/a.js.gz", "Accept-Encoding: gzip\r\n").header("content-encoding"), None);

    // The text changes; what was compressed before is older now, kept or not.
    fs::write(at("a.js"), "newer").unwrap();
    until("the older ones are left", || ask("Accept-Encoding: gzip, br\r\n").text() == "newer");
    // As new as the text, and of another one.
    fs::write(at("a.js.gz"), packed("gzip", "wrong")).unwrap();
    assert_eq!(ask("Accept-Encoding: gzip\r\n").text(), "newer");
    fs::write(at("a.js.gz"), packed("gzip", "newer")).unwrap();
    until("the newer one is sent", || coding("Accept-Encoding: gzip\r\n").as_deref() == Some("gzip"));
    fs::remove_file(at("a.js.gz")).unwrap();
    assert_eq!(ask("Accept-Encoding: gzip\r\n").text(), "newer", "a kept answer ends with its file");
    fs::remove_file(at("a.js")).unwrap();
    assert_eq!(ask("Accept-Encoding: br\r\n").status, 404);
}

#[test]
fn types_of_ones_own_decide_what_is_text() {
    let daemon =
        daemon("compress = [\"gzip\"]\n[http.types]\nscad = \"text/x-scad\"\ntxt = \"application/octet-stream\"");
    for name in ["a.scad", "a.txt"] {
        fs::write(daemon.on_disk(&format!("/pub/{name}")), "cube(1); ".repeat(1_000)).unwrap();
    }
    let scad = get(daemon.http, "/pub/a.scad", "Accept-Encoding: gzip\r\n");
    assert_eq!((scad.header("content-type"), scad.header("content-encoding")), (Some("text/x-scad"), Some("gzip")));
    let txt = get(daemon.http, "/pub/a.txt", "Accept-Encoding: gzip\r\n");
    assert_eq!((txt.header("content-type"), txt.header("content-encoding")), (Some("application/octet-stream"), None));
    let found = crate::uploads::request("", "PROPFIND", "/pub/", &[("Depth", "1")], b"");
    let found = crate::uploads::exchange(daemon.http, &found).text();
    for kind in ["text/x-scad", "application/octet-stream"] {
        assert!(found.contains(&format!("<D:getcontenttype>{kind}</D:getcontenttype>")), "{kind}: {found}");
    }
}
