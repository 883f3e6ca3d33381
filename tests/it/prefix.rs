//! Below a path of a proxy's name: every link, redirect, cookie and answer carries `[http] prefix`, and outside it nothing is ours.

use std::fs;
use std::path::Path;

use crate::daemon::Daemon;
use crate::web::{Reply, ask};

const BASIC: &str = "Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n";
const TUS: &str = "Tus-Resumable: 1.0.0\r\n";

/// Everyone may see `/pub`, alice may edit it; a site beside it.
fn daemon(folder: &Path, http: &str) -> Daemon {
    let password = folder.join("password");
    fs::write(&password, "wonderland").unwrap();
    let daemon = Daemon::start(&format!(
        r#"
[http]
prefix = "/files"
{http}
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
trusted = ["127.0.0.1"]
[[user]]
name = "alice"
password_file = "{}"
[[space]]
path = "/pub"
grants = [ {{ to = "everyone", allow = "view" }}, {{ to = "user:alice", allow = "edit" }} ]
[[space]]
path = "/own"
grants = [ {{ to = "user:alice", allow = "edit" }} ]
[[site]]
host = "site.example"
path = "/pub"
redirects = [ {{ from = "/old/*", to = "/new/*" }}, {{ from = "/far", to = "https://far.example/" }} ]
"#,
        password.display()
    ));
    fs::write(daemon.on_disk("/pub/a.txt"), "a").unwrap();
    fs::create_dir(daemon.on_disk("/pub/sub")).unwrap();
    daemon
}

fn say(daemon: &Daemon, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    ask(daemon.http, method, path, "host.example", headers, body)
}

fn alice(daemon: &Daemon, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    say(daemon, method, path, &format!("{BASIC}{headers}"), body)
}

/// Status and `Location`.
fn led(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.header("location").unwrap_or_default())
}

/// The values of the attributes by which a page leads elsewhere.
fn links(page: &str) -> Vec<&str> {
    let values = |name: &'static str| page.split(name).skip(1).filter_map(|rest| rest.split('"').next());
    values(" href=\"").chain(values(" action=\"")).collect()
}

/// Every link of a page stays below the prefix.
fn stays_inside(reply: &Reply) {
    let page = reply.text();
    let links = links(&page);
    assert!(links.len() > 3, "{page}");
    for link in links {
        assert!(["/files/", "?", "#", "data:image/svg"].iter().any(|begin| link.starts_with(begin)), "{link}\n{page}");
    }
}

#[test]
fn outside_the_prefix_nothing_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "");
    // Twice, for what is asked for again is answered before hyper.
    for _ in 0..3 {
        assert_eq!(say(&daemon, "GET", "/files/pub/a.txt", "", "").text(), "a");
        for path in
            ["/", "/pub/a.txt", "/-/health", "/-/login", "/filesystem", "/Files/pub/a.txt", "/x/files/pub/a.txt"]
        {
            for method in ["GET", "PUT", "PROPFIND", "OPTIONS"] {
                assert_eq!(alice(&daemon, method, path, "", "").status, 404, "{method} {path}");
            }
        }
    }
    assert!(!daemon.on_disk("/pub/a.txt/").exists() && fs::read(daemon.on_disk("/pub/a.txt")).unwrap() == b"a");
    assert_eq!(say(&daemon, "GET", "/files/-/health", "", "").text(), "ok\n");
    assert_eq!(led(&say(&daemon, "GET", "/files?sort=size", "", "")), (308, "/files/?sort=size"));
    assert_eq!(alice(&daemon, "PROPFIND", "/files", "Depth: 0\r\n", "").status, 207);
    assert_eq!(say(&daemon, "OPTIONS", "*", "", "").status, 200);
    // A folder of the same name is just that.
    assert_eq!(led(&alice(&daemon, "MKCOL", "/files/pub/files/", "", "")), (201, "/files/pub/files/"));
    assert_eq!(alice(&daemon, "GET", "/files/files/pub/a.txt", "", "").status, 404);
}

#[test]
fn pages_and_lists_lead_where_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "");
    let html = "Accept: text/html\r\n";
    for path in ["/files/", "/files/pub/", "/files/pub/sub/", "/files/-/connect", "/files/pub/none", "/elsewhere"] {
        stays_inside(&alice(&daemon, "GET", path, html, ""));
    }
    for path in ["/files/pub/", "/files/-/login", "/files/-/connect"] {
        stays_inside(&say(&daemon, "GET", path, html, ""));
    }
    let page = say(&daemon, "GET", "/files/pub/", html, "").text();
    let style = links(&page).into_iter().find(|link| link.contains("stoa.css")).unwrap().to_owned();
    assert_eq!(say(&daemon, "GET", &style, "", "").status, 200);
    assert!(alice(&daemon, "GET", "/files/-/connect", html, "").text().contains("http://host.example/files/"));
    let list: serde_json::Value =
        serde_json::from_slice(&say(&daemon, "GET", "/files/pub/?format=json", "", "").body).unwrap();
    assert_eq!((&list["path"], &list["entries"][0]["url"]), (&"/pub".into(), &"/files/pub/a.txt".into()));
    assert_eq!(led(&alice(&daemon, "GET", "/files/pub/sub?x=1", "", "")), (308, "/files/pub/sub/?x=1"));
}

#[test]
fn signing_in_comes_back_to_where_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "");
    let reply = say(&daemon, "GET", "/files/own/", "Accept: text/html\r\n", "");
    assert_eq!(led(&reply), (303, "/files/-/login?next=%2Fown%2F"));
    let form = say(&daemon, "GET", reply.header("location").unwrap(), "", "").text();
    assert!(form.contains("action=\"/files/-/login\"") && form.contains("name=\"next\" value=\"/own/\""), "{form}");
    let body = "name=alice&password=wonderland&next=%2Fown%2F";
    let signed = say(&daemon, "POST", "/files/-/login", FORM, body);
    assert_eq!(led(&signed), (303, "/files/own/"));
    let cookie = signed.header("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("stoa=") && cookie.contains("; Path=/files; "), "{cookie}");
    let shown = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(say(&daemon, "GET", "/files/own/", &shown, "").status, 200);
    let out = say(&daemon, "POST", "/files/-/logout", &format!("{shown}{FORM}"), "");
    assert_eq!(led(&out), (303, "/files/-/login"));
    assert!(out.header("set-cookie").unwrap().starts_with("stoa=; Path=/files; Max-Age=0"));
    assert_eq!(say(&daemon, "GET", "/files/own/", &shown, "").status, 401);

    let tls = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    let signed = say(&daemon, "POST", "/files/-/login", &format!("{tls}{FORM}"), body);
    let cookie = signed.header("set-cookie").unwrap().to_owned();
    // Browsers take `__Host-` for the path `/` alone.
    assert!(cookie.starts_with("__Secure-stoa=") && cookie.ends_with("; Secure"), "{cookie}");
    let shown = format!("{tls}Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(say(&daemon, "GET", "/files/own/", &shown, "").status, 200);
}

#[test]
fn uploads_are_told_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "");
    assert_eq!(led(&alice(&daemon, "PUT", "/files/pub/b%20c", "", "bc")), (201, "/files/pub/b%20c"));
    let receipt = alice(&daemon, "PUT", "/files/pub/d", "Accept: application/json\r\n", "d");
    let receipt: serde_json::Value = serde_json::from_slice(&receipt.body).unwrap();
    assert_eq!((&receipt["path"], &receipt["url"]), (&"/pub/d".into(), &"/files/pub/d".into()));
    let parts = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"e\"\r\n\r\ne\r\n--x--\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=x\r\n";
    assert_eq!(led(&alice(&daemon, "POST", "/files/pub/", kind, parts)), (303, "/files/pub/?added=1"));
    let receipts = alice(&daemon, "POST", "/files/pub/", &format!("{kind}Accept: application/json\r\n"), parts);
    assert!(receipts.text().contains("\"url\":\"/files/pub/e\""), "{}", receipts.text());
    let made = alice(&daemon, "POST", "/files/pub/", FORM, "do=folder&name=new");
    assert_eq!(led(&made), (303, "/files/pub/new/"));

    for (path, said) in [("/files/pub/sub/", "filename Zg=="), ("/files/-/uploads", "path L3B1Yi9zdWIvZw==")] {
        let headers = format!("{TUS}Upload-Length: 4\r\nUpload-Metadata: {said}\r\n");
        let made = alice(&daemon, "POST", path, &headers, "");
        let place = made.header("location").unwrap();
        assert!(made.status == 201 && place.starts_with("/files/-/uploads/"), "{made:?}");
        let next = format!("{TUS}Content-Type: application/offset+octet-stream\r\nUpload-Offset: ");
        assert_eq!(alice(&daemon, "PATCH", place, &format!("{next}0\r\n"), "tw").header("upload-offset"), Some("2"));
        assert_eq!(alice(&daemon, "HEAD", place, TUS, "").header("upload-offset"), Some("2"));
        let done = alice(&daemon, "PATCH", place, &format!("{next}2\r\n"), "ce");
        let at = done.header("content-location").unwrap();
        assert!(at.starts_with("/files/pub/sub/"), "{done:?}");
        assert_eq!(say(&daemon, "GET", at, "", "").text(), "twce");
    }
}

#[test]
fn webdav_clients_see_one_tree_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "");
    let found = alice(&daemon, "PROPFIND", "/files/pub/", "Depth: 1\r\n", "").text();
    let hrefs: Vec<&str> =
        found.split("<D:response><D:href>").skip(1).filter_map(|rest| rest.split('<').next()).collect();
    assert_eq!(hrefs.first(), Some(&"/files/pub/"));
    assert!(hrefs.contains(&"/files/pub/a.txt") && hrefs.contains(&"/files/pub/sub/"), "{hrefs:?}");
    let root = alice(&daemon, "PROPFIND", "/files/", "Depth: 0\r\n", "").text();
    assert!(root.contains("<D:href>/files/</D:href>"), "{root}");
    let set =
        "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><x xmlns='urn:x'>1</x></D:prop></D:set></D:propertyupdate>";
    assert!(alice(&daemon, "PROPPATCH", "/files/pub/a.txt", "", set).text().contains("<D:href>/files/pub/a.txt<"));

    let to = |method: &str, from: &str, to: &str| {
        let reply = alice(&daemon, method, from, &format!("Destination: {to}\r\n"), "");
        (reply.status, reply.header("location").unwrap_or_default().to_owned())
    };
    assert_eq!(
        to("COPY", "/files/pub/a.txt", "http://host.example/files/pub/copy"),
        (201, "/files/pub/copy".to_owned())
    );
    assert_eq!(to("MOVE", "/files/pub/copy", "/files/pub/sub/moved"), (201, "/files/pub/sub/moved".to_owned()));
    for outside in
        ["/pub/x", "http://host.example/pub/x", "http://other.example/files/pub/x", "/filesystem/x", "/files"]
    {
        assert_eq!(to("COPY", "/files/pub/a.txt", outside).0, 502, "{outside}");
    }
    assert_eq!(fs::read(daemon.on_disk("/pub/sub/moved")).unwrap(), b"a");

    let lock = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>";
    let held = alice(&daemon, "LOCK", "/files/pub/a.txt", "Depth: 0\r\n", lock);
    assert!(held.text().contains("<D:lockroot><D:href>/files/pub/a.txt</D:href>"), "{}", held.text());
    let token = held.header("lock-token").unwrap();
    let refused = alice(&daemon, "PUT", "/files/pub/a.txt", "", "b");
    assert!(refused.status == 423 && refused.text().contains("<D:href>/files/pub/a.txt<"), "{refused:?}");
    let tagged =
        |url: &str| alice(&daemon, "PUT", "/files/pub/a.txt", &format!("If: <{url}> ({token})\r\n"), "b").status;
    assert_eq!(tagged("http://host.example/files/pub/a.txt"), 204);
    assert_eq!(tagged("/pub/a.txt"), 412, "that is not of this tree");
    let made = alice(&daemon, "LOCK", "/files/pub/fresh", "Depth: 0\r\n", lock);
    assert_eq!(led(&made), (201, "/files/pub/fresh"));
}

#[test]
fn sites_are_below_it_too_and_tls_is_led_to_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "redirect_to_https = true");
    let over = "X-Forwarded-Proto: https\r\n";
    let site = |path: &str| ask(daemon.http, "GET", path, "site.example", over, "");
    assert_eq!(led(&site("/files/old/a?b")), (308, "/files/new/a?b"));
    assert_eq!(led(&site("/files/far")), (308, "https://far.example/"));
    assert_eq!(led(&site("/files/sub")), (308, "/files/sub/"));
    assert_eq!((site("/files/a.txt").text().as_str(), site("/a.txt").status), ("a", 404));
    assert!(site("/files/none").status == 404);
    assert_eq!(led(&say(&daemon, "GET", "/files/pub/?x", "", "")), (308, "https://host.example/files/pub/?x"));
    assert_eq!(say(&daemon, "GET", "/pub/", "", "").status, 404);
    assert_eq!(say(&daemon, "GET", "/files/-/health", "", "").status, 200);
}
