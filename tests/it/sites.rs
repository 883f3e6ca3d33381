//! Websites: hosts, indexes, fallbacks, error pages, redirects, caching; and what they must not be.

use std::fs;
use std::path::Path;

use crate::daemon::{Daemon, until};
use crate::web::{Reply, ask};

/// Two sites beside the tree, all readable by everyone but `/own`.
fn daemon(folder: &Path) -> Daemon {
    let password = folder.join("password");
    fs::write(&password, "wonderland").unwrap();
    Daemon::start(&format!(
        r#"
[http]
cache_rules = [{{ match = "*.png", control = "public, max-age=60" }}]
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/www"
grants = [ {{ to = "everyone", allow = "view" }}, {{ to = "user:alice", allow = "edit" }} ]
[[space]]
path = "/own"
grants = [ {{ to = "user:alice", allow = "edit" }} ]
[[site]]
host = "one.example"
path = "/www/one"
index = ["index.html", "index.htm"]
error_pages = {{ 404 = "/missing.html" }}
redirects = [ {{ from = "/old/*", to = "/docs/*" }}, {{ from = "/blog", to = "https://blog.example/", status = 302 }}, {{ from = "/to*", to = "/*" }} ]
cache_rules = [ {{ match = "/assets/*", control = "public, max-age=31536000, immutable" }} ]
clean_urls = true
trusted = true
[[site]]
host = ["*.two.example"]
path = "/www/two"
fallback = "/app.html"
listing = true
[[site]]
host = "own.example"
path = "/own"
"#,
        password.display()
    ))
}

fn write(daemon: &Daemon, path: &str, text: &str) {
    let file = daemon.on_disk(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn get(daemon: &Daemon, host: &str, path: &str) -> Reply {
    ask(daemon.http, "GET", path, host, "Accept: text/html\r\n", "")
}

#[test]
fn the_same_path_on_two_hosts_is_two_things_however_often_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    for (path, text) in [("/www/one/a.txt", "one"), ("/www/two/a.txt", "two"), ("/www/a.txt", "tree")] {
        write(&daemon, path, text);
    }
    for _ in 0..6 {
        assert_eq!(get(&daemon, "one.example", "/a.txt").text(), "one");
        assert_eq!(get(&daemon, "ONE.example.:8080", "/a.txt").text(), "one");
        assert_eq!(get(&daemon, "x.two.example", "/a.txt").text(), "two");
        assert_eq!(get(&daemon, "files.example", "/www/a.txt").text(), "tree");
        assert_eq!(get(&daemon, "one.example", "/www/a.txt").status, 404);
    }
    write(&daemon, "/www/one/a.txt", "changed");
    assert_eq!(get(&daemon, "one.example", "/a.txt").text(), "changed");
    assert_eq!(get(&daemon, "x.two.example", "/a.txt").text(), "two");
}

#[test]
fn a_folder_shows_its_index_and_the_first_one_wins_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    write(&daemon, "/www/one/index.htm", "second");
    write(&daemon, "/www/one/docs/index.html", "docs");
    write(&daemon, "/www/one/about.html", "about");
    for _ in 0..4 {
        assert_eq!(get(&daemon, "one.example", "/").text(), "second");
        assert_eq!(get(&daemon, "one.example", "/about").text(), "about");
    }
    write(&daemon, "/www/one/index.html", "first");
    write(&daemon, "/www/one/about", "plain");
    for _ in 0..4 {
        assert_eq!(get(&daemon, "one.example", "/").text(), "first");
        assert_eq!(get(&daemon, "one.example", "/about").text(), "plain");
    }
    let reply = get(&daemon, "one.example", "/docs?a=b");
    assert_eq!((reply.status, reply.header("location")), (308, Some("/docs/?a=b")));
    assert_eq!(get(&daemon, "one.example", "/docs/").text(), "docs");
    fs::remove_file(daemon.on_disk("/www/one/index.html")).unwrap();
    until("the second index is back", || get(&daemon, "one.example", "/").text() == "second");
}

#[test]
fn what_is_not_there_has_the_sites_own_page_or_ours() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    write(&daemon, "/www/one/a", "");
    let reply = get(&daemon, "one.example", "/nothing");
    assert!(reply.status == 404 && reply.text().contains("<h1>Not Found</h1>"), "{reply:?}");
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!reply.text().contains("/-/"), "nothing of ours is there to link to");

    write(&daemon, "/www/one/missing.html", "<p>gone fishing");
    for headers in ["", "Range: bytes=0-1\r\n", "If-None-Match: *\r\n"] {
        let reply = ask(daemon.http, "GET", "/nothing", "one.example", headers, "");
        assert_eq!((reply.status, reply.text().as_str()), (404, "<p>gone fishing"), "{headers}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    }
    let head = ask(daemon.http, "HEAD", "/nothing", "one.example", "", "");
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[test]
fn an_application_has_every_page_and_no_missing_picture() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    write(&daemon, "/www/two/app.html", "app");
    write(&daemon, "/www/two/real.txt", "real");
    assert_eq!(get(&daemon, "a.two.example", "/deep/link").text(), "app");
    assert_eq!(get(&daemon, "a.two.example", "/real.txt").text(), "real");
    let script = ask(daemon.http, "GET", "/gone.js", "a.two.example", "Accept: */*\r\n", "");
    assert_eq!(script.status, 404, "{script:?}");
    write(&daemon, "/www/two/deep/link", "a file now");
    assert_eq!(get(&daemon, "a.two.example", "/deep/link").text(), "a file now");
}

#[test]
fn a_list_links_within_the_site_and_its_names_stay_names() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    for name in ["sub/a:b.txt", "sub/<b>.txt", "sub/deeper/x"] {
        write(&daemon, &format!("/www/two/{name}"), "x");
    }
    let text = get(&daemon, "a.two.example", "/sub/").text();
    assert!(text.contains("href=\"./a%3Ab.txt\"") && text.contains("href=\"./deeper/\""), "{text}");
    assert!(text.contains("&lt;b&gt;.txt") && !text.contains("<b>.txt") && !text.contains("/www/two"), "{text}");
    assert!(text.contains("href=\"./../\""), "{text}");
    assert_eq!(get(&daemon, "one.example", "/sub/").status, 404, "no list unless it is wanted");
}

#[test]
fn old_places_lead_to_new_ones_and_never_to_another_host() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    write(&daemon, "/www/one/a", "");
    let place = |path: &str| {
        let reply = get(&daemon, "one.example", path);
        (reply.status, reply.header("location").unwrap_or_default().to_owned())
    };
    assert_eq!(place("/old/a/b%20c?x=1"), (308, "/docs/a/b%20c?x=1".to_owned()));
    assert_eq!(place("/blog"), (302, "https://blog.example/".to_owned()));
    assert_eq!(place("/to/evil.example"), (404, String::new()));
    let (status, location) = place("/to\\evil.example");
    assert!([400, 404].contains(&status) && location.is_empty(), "{status} {location}");
    assert_eq!(place("/old/../b").0, 400);
}

#[test]
fn a_site_is_for_reading_and_judged_by_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    write(&daemon, "/www/one/a.txt", "a");
    write(&daemon, "/own/secret.txt", "secret");
    let basic = "Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n";
    for method in ["PUT", "DELETE", "POST", "MKCOL", "PROPFIND"] {
        let reply = ask(daemon.http, method, "/a.txt", "one.example", basic, "");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    assert_eq!(ask(daemon.http, "OPTIONS", "/", "one.example", "", "").status, 204);
    let refused = get(&daemon, "own.example", "/secret.txt");
    assert_eq!(refused.status, 401, "no way to a sign-in page that is not there: {refused:?}");
    assert!(refused.header("www-authenticate").is_some() && !refused.text().contains("secret"));
    let own = ask(daemon.http, "GET", "/secret.txt", "own.example", basic, "");
    assert_eq!(
        (own.status, own.text().as_str(), own.header("cache-control")),
        (200, "secret", Some("private, no-cache"))
    );
    assert_eq!(get(&daemon, "own.example", "/secret.txt").status, 401, "not even when it was kept for alice");
    for path in ["/-/login", "/-/assets/stoa.css", "/-/health"] {
        assert_eq!(get(&daemon, "one.example", path).status, 404, "{path}");
        assert_eq!(get(&daemon, "files.example", path).status, 200, "{path}");
    }
}

#[test]
fn what_browsers_and_caches_are_told_depends_on_the_site() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    for path in ["/www/one/assets/a.js", "/www/one/p.html", "/www/one/a.png", "/www/two/p.html"] {
        write(&daemon, path, "<p>x");
    }
    let said =
        |host: &str, path: &str, name: &str| get(&daemon, host, path).header(name).unwrap_or_default().to_owned();
    let immutable = "public, max-age=31536000, immutable";
    for _ in 0..3 {
        assert_eq!(said("one.example", "/assets/a.js", "cache-control"), immutable);
        assert_eq!(said("one.example", "/p.html", "cache-control"), "no-cache");
        assert_eq!(said("one.example", "/a.png", "cache-control"), "no-cache", "the tree's rules are the tree's");
        assert_eq!(said("tree", "/www/one/a.png", "cache-control"), "public, max-age=60");
        let trusted = said("one.example", "/p.html", "content-security-policy");
        assert!(!trusted.contains("sandbox") && trusted.contains("frame-ancestors 'self'"), "{trusted}");
        for (host, path) in [("a.two.example", "/p.html"), ("tree", "/www/one/p.html")] {
            let policy = said(host, path, "content-security-policy");
            assert!(policy.starts_with("sandbox;") && !policy.contains("script"), "{host}: {policy}");
            assert_eq!(said(host, path, "cross-origin-opener-policy"), "same-origin");
        }
        assert_eq!(said("one.example", "/p.html", "x-content-type-options"), "nosniff");
    }
}

#[test]
fn a_name_of_nobodys_is_told_so_when_the_tree_has_names_of_its_own() {
    let daemon = Daemon::start("[http]\nhosts = [\"files.example\"]\n");
    let ask = |host: &str| ask(daemon.http, "GET", "/-/health", host, "", "").status;
    assert_eq!((ask("files.example"), ask("files.example:80"), ask("evil.example")), (200, 200, 421));
}
