//! The HTTP door under attack: each way in that browsers, names, paths and forms have offered elsewhere, and that it is shut here.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::daemon::Daemon;
use crate::uploads::{Said, daemon, exchange, request};

fn ask(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Said {
    exchange(daemon.http, &request("alice", method, path, headers, body))
}

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Signs in by the form; the cookie as a browser sends it back.
fn cookie(daemon: &Daemon, more: &[(&str, &str)]) -> String {
    let said = exchange(
        daemon.http,
        &request("", "POST", "/-/login", &[&[FORM][..], more].concat(), b"name=alice&password=secret-alice"),
    );
    assert_eq!(said.status, 303, "{said:?}");
    said.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

fn with_cookie(daemon: &Daemon, cookie: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Said {
    exchange(daemon.http, &request("", method, path, &[&[("Cookie", cookie)][..], headers].concat(), body))
}

#[test]
fn no_path_leaves_the_tree_in_any_encoding() {
    let daemon = daemon("");
    fs::write(daemon.data.join("secret"), "top secret").unwrap();
    let climbs = [
        "/../secret",
        "/in/../../secret",
        "/in/%2e%2e/%2e%2e/secret",
        "/in/%2E%2e%2f%2e%2e%2fsecret",
        "/in/%252e%252e/%252e%252e/secret",
        "/in/..%5c..%5csecret",
        "/in/%5c..%5c..%5csecret",
        "/in/..%00/secret",
        "/in/a%00b",
        "/in/%c0%ae%c0%ae/%c0%ae%c0%ae/secret",
        "/in/%c0%af../secret",
        "/in/%e0%80%ae%e0%80%ae/secret",
        "/in/%u002e%u002e/secret",
        "/in/..;/..;/secret",
        "//secret",
        "/in//../../secret",
        "/./in/./../../secret",
        "http://stoa/in/../../secret",
        "http://stoa/in/%2e%2e/%2e%2e/secret",
        "/in/.stoa/x",
    ];
    for path in climbs {
        for method in ["GET", "HEAD", "DELETE", "MKCOL"] {
            let said = ask(&daemon, method, path, &[], b"");
            assert!([400, 403, 404, 409].contains(&said.status) || method == "MKCOL", "{method} {path}: {said:?}");
            assert!(!said.text().contains("top secret"), "{method} {path}");
        }
        let put = ask(&daemon, "PUT", path, &[], b"mine");
        assert!([201, 400, 403, 404, 405, 409].contains(&put.status), "{path}: {put:?}");
        for destination in [path.to_owned(), format!("http://stoa{path}")] {
            ask(&daemon, "PUT", "/in/from", &[], b"mine");
            ask(&daemon, "COPY", "/in/from", &[("Destination", &destination)], b"");
        }
    }
    assert_eq!(fs::read(daemon.data.join("secret")).unwrap(), b"top secret");
    let outside: Vec<_> = fs::read_dir(daemon.data.join("tree")).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert!(
        outside.iter().all(|name| ["in", "drop", "small", "both", "home", "mail"].iter().any(|known| name == known)),
        "{outside:?}"
    );
}

#[test]
fn what_is_neither_file_nor_folder_is_never_followed_or_opened() {
    let daemon = daemon("");
    let folder = daemon.on_disk("/in");
    fs::write(daemon.data.join("secret"), "top secret").unwrap();
    std::os::unix::fs::symlink(daemon.data.join("secret"), folder.join("link")).unwrap();
    std::os::unix::fs::symlink(&daemon.data, folder.join("folder-link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("device-link")).unwrap();
    let fifo = Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap();
    assert!(fifo.success());
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    // Only root can make one; the others show the same.
    let _ = Command::new("mknod").arg(folder.join("device")).args(["c", "1", "5"]).status();
    let names = ["link", "folder-link", "folder-link/secret", "device-link", "fifo", "socket", "device"];
    let listed = ask(&daemon, "GET", "/in/?format=text", &[], b"").text();
    assert!(names.iter().all(|name| name.contains('/') || listed.contains(name)), "they can be seen: {listed}");
    for name in names {
        for method in ["GET", "HEAD", "PUT", "MKCOL", "COPY"] {
            let goal = [("Destination", "/in/copy")];
            let said = ask(&daemon, method, &format!("/in/{name}"), if method == "COPY" { &goal } else { &[] }, b"");
            assert!([403, 404, 405, 409].contains(&said.status), "{method} {name}: {said:?}");
            assert!(!said.text().contains("top secret"));
        }
    }
    for name in names {
        let there = !name.contains('/') && folder.join(name).symlink_metadata().is_ok();
        let said = ask(&daemon, "DELETE", &format!("/in/{name}"), &[], b"");
        assert_eq!(said.status, if there { 204 } else { 404 }, "{name}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "each can be removed");
    assert_eq!(fs::read(daemon.data.join("secret")).unwrap(), b"top secret", "a link is never followed");
}

#[test]
fn no_name_becomes_a_header() {
    let daemon = daemon("");
    let name = std::ffi::OsStr::from_bytes(b"a\r\nSet-Cookie: stoa=evil\r\n\r\n<script>.txt");
    fs::write(daemon.on_disk("/in").join(name), "x").unwrap();
    let url = "/in/a%0D%0ASet-Cookie:%20stoa=evil%0D%0A%0D%0A%3Cscript%3E.txt";
    let clean = |said: &Said| {
        assert!(said.header("set-cookie").is_none() && !said.head.contains("\nSet-Cookie"), "{}", said.head);
    };
    for path in [url.to_owned(), format!("{url}?download"), "/in/?archive=zip".into(), "/in/".into()] {
        let said = ask(&daemon, "GET", &path, &[("Accept", "text/html")], b"");
        assert_eq!(said.status, 200, "{path}");
        clean(&said);
    }
    clean(&ask(&daemon, "PUT", "/in/b%0D%0ASet-Cookie:%20x=y", &[], b"x"));
    clean(&ask(&daemon, "COPY", url, &[("Destination", "/in/c%0D%0ASet-Cookie:%20x=y")], b""));
    clean(&ask(&daemon, "GET", &format!("{url}/"), &[], b""));
    let login = b"name=alice&password=secret-alice&next=/in/%0d%0aSet-Cookie:%20x=y";
    let said = exchange(daemon.http, &request("", "POST", "/-/login", &[FORM], login));
    assert!(!said.header("location").unwrap().contains("Set-Cookie"), "{said:?}");
    // A bare line end within a header is no request at all.
    let raw = b"GET /in/ HTTP/1.1\r\nHost: stoa\r\nDestination: /a\nX: y\rz\r\nConnection: close\r\n\r\n";
    let said = exchange(daemon.http, raw);
    assert!([400, 401].contains(&said.status), "{said:?}");
}

#[test]
fn what_is_stored_runs_nothing_in_our_name() {
    let daemon = daemon("");
    let script = b"<html xmlns='http://www.w3.org/1999/xhtml'><script>alert(1)</script></html>";
    let polyglot = b"GIF89a/*<script>alert(1)</script>*/=1;//";
    let cases: &[(&str, &[u8])] = &[
        ("a.html", script),
        ("a.HTM", script),
        ("a.svg", script),
        ("a.svgz", script),
        ("a.xml", script),
        ("a.xsl", script),
        ("a.xhtml", script),
        ("a.js", script),
        ("a.mjs", script),
        ("a.txt", script),
        ("a.pdf.html", script),
        ("a.unknown", script),
        ("a", script),
        ("a.html.", script),
        ("a.html%20", script),
        ("a.pdf", script),
        ("a.png", polyglot),
        ("a.gif", polyglot),
        ("a.wasm", polyglot),
        ("%3Cimg%20src=x%20onerror=alert(1)%3E.pdf", b"%PDF-1.4"),
    ];
    for (name, body) in cases {
        assert_eq!(ask(&daemon, "PUT", &format!("/in/{name}"), &[], body).status, 201, "{name}");
        let said = ask(&daemon, "GET", &format!("/in/{name}"), &[], b"");
        assert_eq!(said.header("x-content-type-options"), Some("nosniff"), "{name}");
        let (policy, kind) = (said.header("content-security-policy").unwrap(), said.header("content-type").unwrap());
        let inert = kind == "application/pdf" || (kind.starts_with("image/") && !kind.contains("svg"));
        assert!(inert || policy.starts_with("sandbox;"), "{name}: {kind}: {policy}");
        assert!(!policy.contains("script-src") && policy.contains("default-src 'none'"), "{name}: {policy}");
    }
    let page = ask(&daemon, "GET", "/in/", &[("Accept", "text/html")], b"");
    assert!(!page.text().contains("<img") && !page.text().contains("<script"), "names are text");
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
}

#[test]
fn another_sites_page_changes_nothing_here() {
    let daemon = daemon("");
    assert_eq!(ask(&daemon, "PUT", "/in/kept", &[], b"x").status, 201);
    let cookie = cookie(&daemon, &[]);
    let forged: &[&[(&str, &str)]] = &[
        &[],
        &[("Origin", "https://evil.example")],
        &[("Origin", "null")],
        &[("Origin", "http://stoa.evil.example")],
        &[("Origin", "http://stoa:81")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", "http://stoa")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "http://stoa")],
    ];
    let part = ("Content-Type", "multipart/form-data; boundary=B");
    let upload = b"--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"new\"\r\n\r\nx\r\n--B--\r\n";
    for headers in forged {
        let post = |kind: (&'static str, &'static str), path: &str, body: &[u8]| {
            with_cookie(&daemon, &cookie, "POST", path, &[&[kind][..], *headers].concat(), body).status
        };
        assert_eq!(post(FORM, "/in/", b"do=delete&name=kept"), 403, "{headers:?}");
        assert_eq!(post(FORM, "/in/", b"do=rename&name=kept&to=new"), 403, "{headers:?}");
        assert_eq!(post(FORM, "/in/", b"do=folder&name=new"), 403, "{headers:?}");
        assert_eq!(post(part, "/in/", upload), 403, "{headers:?}");
        assert_eq!(post(("Content-Type", "text/plain"), "/in/", b"do=delete&name=kept"), 403, "{headers:?}");
        assert_eq!(post(FORM, "/-/logout", b""), 403, "{headers:?}");
        let tus = [&[("Tus-Resumable", "1.0.0"), ("Upload-Length", "0")][..], *headers].concat();
        assert_eq!(with_cookie(&daemon, &cookie, "POST", "/in/", &tus, b"").status, 403, "{headers:?}");
        for method in ["PUT", "DELETE", "MKCOL", "MOVE", "PATCH"] {
            assert_eq!(
                with_cookie(&daemon, &cookie, method, "/in/kept", headers, b"").status,
                403,
                "{method} {headers:?}"
            );
        }
    }
    // Nobody is signed in by another site either.
    let evil = [FORM, ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(
        exchange(daemon.http, &request("", "POST", "/-/login", &evil, b"name=alice&password=secret-alice")).status,
        403
    );
    assert_eq!(fs::read(daemon.on_disk("/in/kept")).unwrap(), b"x");
    assert!(!daemon.on_disk("/in/new").exists());
    let ours = [FORM, ("Origin", "http://stoa"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(with_cookie(&daemon, &cookie, "POST", "/in/", &ours, b"do=delete&name=kept").status, 303);
}

#[test]
fn a_session_cannot_be_chosen_for_somebody_nor_used_after_its_end() {
    let daemon = daemon("");
    // A cookie that was there before signing in is worth nothing after it.
    let planted = format!("stoa={}", "A".repeat(43));
    let cookie = cookie(&daemon, &[("Cookie", planted.as_str())]);
    assert_ne!(cookie, planted);
    let status = |cookie: &str| with_cookie(&daemon, cookie, "GET", "/in/?format=json", &[], b"").status;
    assert_eq!((status(&planted), status(&cookie)), (401, 200));
    // Of two, the planted one does not take the place of the other's account.
    assert_eq!(status(&format!("{planted}; x=1")), 401);
    let token = cookie.split_once('=').unwrap().1.to_owned();
    let bearer = format!("Bearer {token}");
    let by_token =
        || exchange(daemon.http, &request("", "GET", "/in/?format=json", &[("Authorization", &bearer)], b"")).status;
    assert_eq!(by_token(), 200);
    let second = self::cookie(&daemon, &[]);
    assert_ne!(second, cookie, "each sign-in has a token of its own");
    let out = with_cookie(&daemon, &cookie, "POST", "/-/logout", &[("Sec-Fetch-Site", "same-origin")], b"");
    assert!(out.status == 303 && out.header("set-cookie").unwrap().contains("Max-Age=0"), "{out:?}");
    assert_eq!((status(&cookie), by_token()), (401, 401), "what was copied before is dead");
    assert_eq!(status(&second), 200);
    let daemon = daemon.stop().start();
    let status = |cookie: &str| with_cookie(&daemon, cookie, "GET", "/in/?format=json", &[], b"").status;
    assert_eq!((status(&cookie), status(&second)), (401, 200), "also after a restart");
}

#[test]
fn signing_in_leads_to_no_other_site() {
    let daemon = daemon("");
    for next in [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/%5cevil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "javascript:alert(1)",
        "http:evil.example",
        "/%09/evil.example",
        "%2f%2fevil.example",
        " //evil.example",
        "/in/\r\nLocation: https://evil.example",
    ] {
        let encoded: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = format!("name=alice&password=secret-alice&next={encoded}");
        let said = exchange(daemon.http, &request("", "POST", "/-/login", &[FORM], body.as_bytes()));
        assert_eq!(said.status, 303, "{next}");
        let place = said.header("location").unwrap();
        let stays =
            place.starts_with('/') && !place.starts_with("//") && !place.contains('\\') && !place.contains('\n');
        assert!(stays, "{next}: {place}");
        let page = exchange(
            daemon.http,
            &request("", "GET", &format!("/-/login?next={encoded}"), &[("Accept", "text/html")], b""),
        );
        assert!(!page.text().contains("javascript:") || page.text().contains("value=\"javascript:"), "{next}");
    }
}

#[test]
fn names_in_forms_stay_in_their_folder() {
    let daemon = daemon("");
    let upload = |file: &str| {
        let body =
            format!("--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{file}\"\r\n\r\nx\r\n--B--\r\n");
        let headers = [("Content-Type", "multipart/form-data; boundary=B"), ("Accept", "application/json")];
        ask(&daemon, "POST", "/in/", &headers, body.as_bytes())
    };
    for (file, stored) in
        [("../../x", "x"), ("/etc/passwd", "passwd"), ("C:\\Users\\me\\y.txt", "y.txt"), ("..\\..\\z", "z")]
    {
        let said = upload(file);
        assert_eq!(said.status, 201, "{file}: {said:?}");
        assert_eq!(said.json()["files"][0]["path"], format!("/in/{stored}"), "{file}");
    }
    for file in ["..", ".", "../..", "a\0b", ".stoa", ".stoa-stage", &"n".repeat(256)] {
        assert_eq!(upload(file).status, 400, "{file:?}");
    }
    for body in [
        "do=folder&name=..%2Fout",
        "do=folder&name=%2Fout",
        "do=folder&name=a%00b",
        "do=rename&name=x&to=..%2F..%2Fout",
        "do=rename&name=..%2Fsmall&to=out",
        "do=delete&name=..",
        "do=rename&name=x&to=.stoa",
    ] {
        assert_eq!(ask(&daemon, "POST", "/in/", &[FORM], body.as_bytes()).status, 400, "{body}");
    }
    assert_eq!(ask(&daemon, "POST", "/in/", &[FORM], b"do=rename&name=x&to=renamed").status, 303);
    assert!(daemon.on_disk("/in/renamed").exists() && !daemon.on_disk("/out").exists());
    assert_eq!(
        ask(&daemon, "POST", "/in/", &[FORM], b"do=rename&name=renamed&to=z").status,
        409,
        "nothing is replaced by it"
    );
}

#[test]
fn a_method_in_a_header_is_not_heard() {
    let daemon = daemon("");
    assert_eq!(ask(&daemon, "PUT", "/in/kept", &[], b"x").status, 201);
    for header in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"] {
        for method in ["GET", "POST"] {
            let said = ask(&daemon, method, "/in/kept", &[(header, "DELETE")], b"");
            assert!([200, 405].contains(&said.status), "{header} {method}: {said:?}");
        }
        ask(&daemon, "POST", "/in/?_method=DELETE", &[FORM, (header, "DELETE")], b"_method=DELETE&name=kept");
    }
    assert_eq!(fs::read(daemon.on_disk("/in/kept")).unwrap(), b"x");
}
