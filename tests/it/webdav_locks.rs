//! Locks: taken by WebDAV, honoured by every door, kept over a restart, ended by time.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::daemon::until;
use crate::webdav::{Dav, Reply, ftp, ftp_as};

fn lockinfo(scope: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><D:lockinfo xmlns:D='DAV:'><D:lockscope><D:{scope}/></D:lockscope>\
         <D:locktype><D:write/></D:locktype><D:owner>me <D:href>mailto:a@b</D:href> &amp; <x xmlns='urn:x'/></D:owner></D:lockinfo>"
    )
}

fn lock(dav: &Dav, who: &str, path: &str, depth: &str, scope: &str) -> Reply {
    let headers = format!("Depth: {depth}\r\nTimeout: Infinite, Second-600\r\n");
    dav.ask(who, "LOCK", path, &headers, lockinfo(scope).as_bytes())
}

fn status(dav: &Dav, who: &str, method: &str, path: &str, headers: &str) -> u16 {
    dav.ask(who, method, path, headers, b"").status
}

#[test]
fn a_lock_is_told_kept_refreshed_and_given_back() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "a");
    let reply = lock(&dav, "alice", "/dav/a", "0", "exclusive");
    let (token, text) = (reply.token(), reply.text());
    assert_eq!(reply.status, 200);
    let bare = token.trim_matches(['<', '>']).to_owned();
    for part in [
        "<D:lockscope><D:exclusive/></D:lockscope><D:depth>0</D:depth>",
        "<D:owner>me <href xmlns=\"DAV:\">mailto:a@b</href> &amp; <x xmlns=\"urn:x\"/></D:owner>",
        "<D:lockroot><D:href>/dav/a</D:href></D:lockroot>",
        &format!("<D:locktoken><D:href>{bare}</D:href></D:locktoken>"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("<D:timeout>Second-600</D:timeout>") || text.contains("<D:timeout>Second-59"), "{text}");
    assert!(dav.propfind("/dav/a", "0", "").contains(&bare));
    let theirs = dav.ask("carol", "PROPFIND", "/dav/a", "Depth: 0\r\n", b"").text();
    assert!(theirs.contains("<D:activelock>") && !theirs.contains(&bare), "its token is nobody else's business");

    let refreshed = dav.alice("LOCK", "/dav/a", &format!("If: ({token})\r\nTimeout: Second-1200\r\n"), "");
    assert_eq!((refreshed.status, refreshed.header("lock-token")), (200, None));
    assert!(
        refreshed.text().contains("Second-1200") || refreshed.text().contains("Second-119"),
        "{}",
        refreshed.text()
    );
    let other = "If: (<opaquelocktoken:none>)\r\n";
    assert_eq!(status(&dav, "alice", "LOCK", "/dav/a", other), 412);
    assert_eq!(status(&dav, "alice", "LOCK", "/dav/a", ""), 400, "a refresh names its lock");
    assert_eq!(status(&dav, "bob", "LOCK", "/dav/a", &format!("If: ({token})\r\n")), 403);

    dav.must("PUT", "/dav/b", "", "b");
    assert_eq!(status(&dav, "alice", "UNLOCK", "/dav/a", ""), 400);
    assert_eq!(status(&dav, "alice", "UNLOCK", "/dav/b", &format!("Lock-Token: {token}\r\n")), 409);
    assert_eq!(status(&dav, "bob", "UNLOCK", "/dav/a", &format!("Lock-Token: {token}\r\n")), 403);
    assert_eq!(status(&dav, "alice", "UNLOCK", "/dav/a", &format!("Lock-Token: {token}\r\n")), 204);
    assert!(!dav.propfind("/dav/a", "0", "").contains("activelock>"));
}

#[test]
fn every_door_honours_a_lock() {
    let dav = Dav::start();
    dav.must("MKCOL", "/dav/d/", "", "");
    dav.must("PUT", "/dav/d/a", "", "old");
    dav.must("PUT", "/dav/free", "", "free");
    let token = lock(&dav, "alice", "/dav/d/", "infinity", "exclusive").token();
    for who in ["alice", "bob"] {
        for (method, path, headers) in [
            ("PUT", "/dav/d/a", ""),
            ("PUT", "/dav/d/new", ""),
            ("DELETE", "/dav/d/a", ""),
            ("DELETE", "/dav/d/", ""),
            ("MKCOL", "/dav/d/sub/", ""),
            ("MOVE", "/dav/d/a", "Destination: /dav/x\r\n"),
            ("MOVE", "/dav/free", "Destination: /dav/d/x\r\n"),
            ("COPY", "/dav/free", "Destination: /dav/d/x\r\n"),
            ("MOVE", "/dav/d/", "Destination: /dav/x\r\n"),
        ] {
            let reply = dav.ask(who, method, path, headers, b"");
            assert_eq!(reply.status, 423, "{who} {method} {path}: {}", reply.text());
            let told = "<D:lock-token-submitted><D:href>/dav/d</D:href></D:lock-token-submitted>";
            assert!(method == "MKCOL" || reply.text().contains(told), "{method}: {}", reply.text());
            assert!(reply.text().contains("locked"), "{}", reply.text());
        }
        let update = "<propertyupdate xmlns='DAV:'><set><prop><x xmlns='urn:x'/></prop></set></propertyupdate>";
        assert_eq!(dav.ask(who, "PROPPATCH", "/dav/d/a", "", update.as_bytes()).status, 423);
        let replies =
            ftp_as(&dav, who, &["DELE /dav/d/a", "MKD /dav/d/sub", "RMD /dav/d", "RNFR /dav/d/a", "RNTO /dav/x"]);
        for (number, reply) in replies.iter().take(5).enumerate() {
            let refused = reply.starts_with("450") && reply.contains("locked by alice");
            assert!(refused || (number == 3 && reply.starts_with("350")), "{who}: {reply}");
        }
        let url = format!("ftp://{}/dav/d/a", dav.daemon.ftp);
        let upload = std::process::Command::new("curl")
            .args(["-sS", "--max-time", "20", "-u", &format!("{who}:secret"), "-T", "-", &url])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("curl");
        assert!(!upload.status.success(), "STOR by {who}");
    }
    assert_eq!(dav.must("GET", "/dav/d/a", "", "").text(), "old", "reading is free");
    assert!(!dav.daemon.on_disk("/dav/d/sub").exists());
    let mine = format!("If: ({token})\r\n");
    assert_eq!(status(&dav, "bob", "PUT", "/dav/d/a", &mine), 423, "a token is of use to its account alone");
    dav.must("PUT", "/dav/d/a", &mine, "new");
    dav.must("MKCOL", "/dav/d/sub/", &format!("If: </dav/d/> ({token})\r\n"), "");
    dav.must("DELETE", "/dav/d/", &mine, "");
    ftp(&dav, &["MKD /dav/d"]);
}

#[test]
fn a_lock_on_a_folder_alone_guards_its_names() {
    let dav = Dav::start();
    dav.must("MKCOL", "/dav/d/", "", "");
    dav.must("PUT", "/dav/d/a", "", "old");
    let token = lock(&dav, "alice", "/dav/d/", "0", "exclusive").token();
    assert_eq!(status(&dav, "bob", "PUT", "/dav/d/a", ""), 204, "what is in a file is not the folder's");
    assert_eq!(status(&dav, "bob", "PUT", "/dav/d/b", ""), 423);
    assert_eq!(status(&dav, "bob", "DELETE", "/dav/d/a", ""), 423);
    let refused = ftp_as(&dav, "bob", &["DELE /dav/d/a", "MKD /dav/d/x"]);
    assert!(refused[0].starts_with("450") && refused[1].starts_with("450"), "{refused:?}");
    assert_eq!(status(&dav, "alice", "PUT", "/dav/d/b", &format!("If: </dav/d/> ({token})\r\n")), 201);
    assert_eq!(lock(&dav, "bob", "/dav/d/a", "0", "exclusive").status, 200, "it covers no file in it");
}

#[test]
fn locks_exclude_each_other_unless_all_are_shared() {
    let dav = Dav::start();
    dav.must("MKCOL", "/dav/d/", "", "");
    dav.must("PUT", "/dav/d/a", "", "old");
    let one = lock(&dav, "alice", "/dav/d/a", "0", "shared").token();
    let two = lock(&dav, "bob", "/dav/d/a", "0", "shared").token();
    for (path, depth) in [("/dav/d/a", "0"), ("/dav/d/", "infinity")] {
        let refused = lock(&dav, "bob", path, depth, "exclusive");
        assert_eq!(refused.status, 423);
        assert!(refused.text().contains("<D:no-conflicting-lock>"), "{}", refused.text());
    }
    assert_eq!(status(&dav, "alice", "PUT", "/dav/d/a", ""), 423);
    assert_eq!(status(&dav, "alice", "PUT", "/dav/d/a", &format!("If: ({one})\r\n")), 204);
    assert_eq!(status(&dav, "alice", "PUT", "/dav/d/a", &format!("If: ({two})\r\n")), 423, "that one is bob's");
    assert_eq!(status(&dav, "carol", "LOCK", "/dav/d/a", ""), 400);
    assert_eq!(lock(&dav, "carol", "/dav/d/a", "0", "shared").status, 403, "who may not write may not lock");
    assert_eq!(lock(&dav, "", "/dav/d/a", "0", "shared").status, 401);
    assert_eq!(lock(&dav, "alice", "/dav/d/a", "1", "shared").status, 400);
    assert_eq!(lock(&dav, "alice", "/dav/none/a", "0", "exclusive").status, 409);
    assert_eq!(lock(&dav, "alice", "/", "infinity", "exclusive").status, 403);
}

#[test]
fn what_is_locked_before_it_is_there_is_an_empty_file_until_it_is_filled() {
    let dav = Dav::start();
    let reply = lock(&dav, "alice", "/both/new.txt", "0", "exclusive");
    assert_eq!((reply.status, reply.header("location")), (201, Some("/both/new.txt")));
    assert_eq!(dav.must("GET", "/both/new.txt", "", "").body.len(), 0);
    let mine = format!("If: ({})\r\n", reply.token());
    let filled = dav.must("PUT", "/both/new.txt", &mine, "text");
    assert_eq!(filled.status, 204, "also where a space keeps both, and by one who may only create");
    assert_eq!(dav.must("GET", "/both/new.txt", "", "").text(), "text");
    assert_eq!(std::fs::read_dir(dav.daemon.on_disk("/both")).expect("a folder").count(), 1);
    dav.must("PUT", "/dav/x", "", "x");
    let token = lock(&dav, "alice", "/dav/x", "0", "exclusive").token();
    dav.must("DELETE", "/dav/x", &format!("If: ({token})\r\n"), "");
    assert_eq!(status(&dav, "bob", "PUT", "/dav/x", ""), 201, "a lock ends with what it is on");
    dav.must("PUT", "/dav/y", "", "y");
    let token = lock(&dav, "alice", "/dav/y", "0", "exclusive").token();
    dav.must("MOVE", "/dav/y", &format!("If: ({token})\r\nDestination: /dav/z\r\n"), "");
    assert_eq!(status(&dav, "bob", "PUT", "/dav/z", ""), 204, "and does not move with it");
}

#[test]
fn the_if_header_is_read_in_full() {
    let dav = Dav::start();
    let tag = dav.must("PUT", "/dav/a", "", "a").header("etag").expect("a tag").to_owned();
    dav.must("PUT", "/dav/b", "", "b");
    let token = lock(&dav, "alice", "/dav/b", "0", "exclusive").token();
    for (header, wanted) in [
        (format!("([{tag}])"), 200),
        ("([\"other\"])".into(), 412),
        (format!("([W/{tag}])"), 412),
        ("(Not [\"other\"])".into(), 200),
        ("(<opaquelocktoken:none>)".into(), 412),
        ("(Not <DAV:no-lock>)".into(), 200),
        (format!("(<opaquelocktoken:none> [{tag}]) (Not <DAV:no-lock> [{tag}])"), 200),
        (format!("</dav/b> ({token})"), 200),
        (format!("</dav/b> (Not {token})"), 412),
        (format!("<http://elsewhere.example/dav/b> ({token})"), 412),
        (format!("</dav/a> ([\"x\"]) </dav/b> ({token})"), 200),
        ("nonsense".into(), 400),
        ("(".into(), 400),
        ("()".into(), 400),
    ] {
        let reply = dav.alice("GET", "/dav/a", &format!("If: {header}\r\n"), "");
        assert_eq!(reply.status, wanted, "{header}: {}", reply.text());
    }
    assert_eq!(dav.alice("PUT", "/dav/a", "If: ([\"other\"])\r\n", "no").status, 412);
    assert_eq!(dav.alice("DELETE", "/dav/a", "If: (<opaquelocktoken:none>)\r\n", "").status, 412);
    assert_eq!(dav.alice("PUT", "/dav/b", "If: (Not <DAV:no-lock>)\r\n", "no").status, 423, "true, but shows no token");
    assert_eq!(
        dav.alice("PUT", "/dav/b", &format!("If: (<opaquelocktoken:none>) (Not <DAV:no-lock> {token})\r\n"), "b")
            .status,
        204
    );
    assert_eq!(dav.must("GET", "/dav/a", "", "").text(), "a");
}

#[test]
fn a_lock_outlives_the_daemon_and_ends_by_its_time() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "a");
    dav.must("PUT", "/dav/b", "", "b");
    let token = lock(&dav, "alice", "/dav/a", "0", "exclusive").token();
    let place = dav.daemon.kill();
    let dav = Dav { daemon: place.start() };
    assert_eq!(status(&dav, "bob", "PUT", "/dav/a", ""), 423);
    assert!(dav.propfind("/dav/a", "0", "").contains("me <href xmlns=\"DAV:\">mailto:a@b</href>"));
    assert_eq!(status(&dav, "alice", "PUT", "/dav/a", &format!("If: ({token})\r\n")), 204);

    let began = Instant::now();
    let short = dav.ask("alice", "LOCK", "/dav/b", "Timeout: Second-2\r\n", lockinfo("exclusive").as_bytes());
    assert_eq!(short.status, 200);
    until("the lock is past its time", || status(&dav, "bob", "PUT", "/dav/b", "") == 204);
    assert!(began.elapsed() >= Duration::from_secs(2), "not before");
    assert_eq!(status(&dav, "alice", "UNLOCK", "/dav/b", &format!("Lock-Token: {}\r\n", short.token())), 409);
}

#[test]
fn locks_are_limited_in_number_and_words() {
    let limits = "[locks]\nmost_of_account = 3\nowner = \"100 B\"\nlongest = \"1m\"\n";
    let dav = Dav { daemon: crate::daemon::Place::new(&Dav::config(limits)).start() };
    for name in ["a", "b", "c"] {
        let reply = lock(&dav, "alice", &format!("/dav/{name}"), "0", "exclusive");
        assert_eq!(reply.status, 201);
        assert!(reply.text().contains("Second-60") || reply.text().contains("Second-5"), "{}", reply.text());
    }
    assert_eq!(lock(&dav, "alice", "/dav/d", "0", "exclusive").status, 429);
    assert!(!dav.daemon.on_disk("/dav/d").exists(), "nothing is left of it");
    assert_eq!(lock(&dav, "bob", "/dav/d", "0", "exclusive").status, 201);
    let wordy = lockinfo("exclusive").replace("me ", &"me ".repeat(100));
    assert_eq!(dav.ask("bob", "LOCK", "/dav/e", "", wordy.as_bytes()).status, 413);
}

/// What a tus client sends beside its own words.
const TUS: &str = "Tus-Resumable: 1.0.0\r\n";

fn begin(dav: &Dav, who: &str, name: &str, length: usize, more: &str) -> Reply {
    let name = STANDARD.encode(name);
    let headers = format!("{TUS}Upload-Length: {length}\r\nUpload-Metadata: filename {name}\r\n{more}");
    dav.ask(who, "POST", "/dav/", &headers, b"")
}

fn patch(dav: &Dav, who: &str, place: &str, offset: usize, more: &str, body: &[u8]) -> Reply {
    let kind = "Content-Type: application/offset+octet-stream\r\n";
    dav.ask(who, "PATCH", place, &format!("{TUS}{kind}Upload-Offset: {offset}\r\n{more}"), body)
}

fn refused_by_lock(reply: &Reply, lock: &str) {
    let told = format!("<D:lock-token-submitted><D:href>{lock}</D:href></D:lock-token-submitted>");
    assert!(reply.status == 423 && reply.text().contains(&told), "{} {}", reply.status, reply.text());
}

#[test]
fn uploads_in_pieces_pass_locks_as_put_does() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "old");
    let token = lock(&dav, "alice", "/dav/a", "0", "exclusive").token();
    let mine = format!("If: ({token})\r\n");
    for who in ["alice", "bob"] {
        refused_by_lock(&begin(&dav, who, "a", 3, ""), "/dav/a");
        assert_eq!(begin(&dav, who, "b", 3, "").status, 201, "another name is free");
    }
    refused_by_lock(&begin(&dav, "bob", "a", 3, &mine), "/dav/a");
    assert_eq!(begin(&dav, "alice", "a", 3, "If: (<opaquelocktoken:none>)\r\n").status, 412);
    assert_eq!(begin(&dav, "alice", "a", 3, &format!("If: </dav/> ({token})\r\n")).status, 412, "no lock is there");
    assert_eq!(begin(&dav, "alice", "a", 3, "Lock-Token: <opaquelocktoken:none>\r\n").status, 423);

    // Each request shows the token: by `If`, about the file or with its name, or plainly.
    for (round, shown) in
        [mine.clone(), format!("If: </dav/a> ({token})\r\n"), format!("Lock-Token: {token}\r\n")].iter().enumerate()
    {
        let made = begin(&dav, "alice", "a", 4, shown);
        let place = made.header("location").expect("an address").to_owned();
        let text = format!("new{round}");
        refused_by_lock(&patch(&dav, "alice", &place, 0, "", text.as_bytes()), "/dav/a");
        assert_eq!(patch(&dav, "alice", &place, 0, shown, &text.as_bytes()[..2]).header("upload-offset"), Some("2"));
        refused_by_lock(&patch(&dav, "alice", &place, 2, "", &text.as_bytes()[2..]), "/dav/a");
        let done = patch(&dav, "alice", &place, 2, shown, &text.as_bytes()[2..]);
        assert_eq!((done.status, done.header("content-location")), (204, Some("/dav/a")));
        assert_eq!(dav.must("GET", "/dav/a", "", "").text(), text);
    }
    let place = begin(&dav, "alice", "a", 0, "").header("location").map(str::to_owned);
    assert_eq!(place, None, "an upload of nothing replaces too");
    assert_eq!(begin(&dav, "alice", "a", 0, &mine).status, 201);
    assert_eq!(dav.must("GET", "/dav/a", "", "").body.len(), 0);
}

#[test]
fn a_lock_that_comes_while_an_upload_is_under_way_holds_it_up() {
    let dav = Dav::start();
    let place = |reply: Reply| reply.header("location").expect("an address").to_owned();
    let old = place(begin(&dav, "bob", "a", 4, ""));
    let new = place(begin(&dav, "bob", "n", 4, ""));
    assert_eq!(patch(&dav, "bob", &old, 0, "", b"bo").status, 204);
    assert_eq!(patch(&dav, "bob", &new, 0, "", b"bo").status, 204);
    let file = lock(&dav, "alice", "/dav/a", "0", "exclusive").token();
    let folder = lock(&dav, "alice", "/dav/", "0", "shared").token();
    refused_by_lock(&patch(&dav, "bob", &old, 2, "", b"b!"), "/dav/a");
    // The folder's names are locked: the last bytes are kept, the name does not come.
    refused_by_lock(&patch(&dav, "bob", &new, 2, "", b"b!"), "/dav");
    assert_eq!(status(&dav, "bob", "GET", "/dav/n", ""), 404);
    assert_eq!(status(&dav, "alice", "UNLOCK", "/dav/a", &format!("Lock-Token: {file}\r\n")), 204);
    assert_eq!(status(&dav, "alice", "UNLOCK", "/dav/", &format!("Lock-Token: {folder}\r\n")), 204);
    assert_eq!(patch(&dav, "bob", &old, 2, "", b"b!").header("content-location"), Some("/dav/a"));
    assert_eq!(
        patch(&dav, "bob", &new, 4, "", b"").header("content-location"),
        Some("/dav/n"),
        "nothing is sent again"
    );
    assert_eq!(dav.must("GET", "/dav/n", "", "").text(), "bob!");
}

#[test]
fn parts_are_free_and_what_they_make_passes_locks() {
    let dav = Dav::start();
    dav.must("PUT", "/dav/a", "", "old");
    let token = lock(&dav, "alice", "/dav/a", "0", "exclusive").token();
    let parts: Vec<String> = ["one ", "two"]
        .iter()
        .map(|text| {
            let made = begin(&dav, "alice", "a", text.len(), "Upload-Concat: partial\r\n");
            let place = made.header("location").expect("an address").to_owned();
            assert_eq!(patch(&dav, "alice", &place, 0, "", text.as_bytes()).status, 204);
            place
        })
        .collect();
    let whole = |more: &str| {
        let name = STANDARD.encode("a");
        let headers =
            format!("{TUS}Upload-Metadata: filename {name}\r\nUpload-Concat: final;{}\r\n{more}", parts.join(" "));
        dav.ask("alice", "POST", "/dav/", &headers, b"")
    };
    refused_by_lock(&whole(""), "/dav/a");
    assert_eq!(whole(&format!("If: ({token})\r\n")).status, 201, "the parts are still there");
    assert_eq!(dav.must("GET", "/dav/a", "", "").text(), "one two");
}
