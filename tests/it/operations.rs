//! What an operator is told: one verdict of `check`, `serve` and `reload`; damage, and the ways out of it; whether the server is ready.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::daemon::{Daemon, PATIENCE, Place, until};
use crate::postgres::Server;

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Status and body of a GET without sign-in.
pub fn get(to: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Stores a file as the first administrator; its status.
pub fn put(daemon: &Daemon, path: &str, body: &str) -> u16 {
    use base64::Engine;
    let password = fs::read_to_string(daemon.data.join("admin-password")).unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode(format!("admin:{}", password.trim()));
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {key}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

#[test]
fn check_and_serve_refuse_the_same() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("file"), "").unwrap();
    fs::write(at("cut.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    fs::create_dir_all(at("a/b")).unwrap();
    let listen = format!("[[listen]]\nprotocol = \"http\"\naddress = \"{}\"\n", taken.local_addr().unwrap());
    let space = |name: &str, source: &str| format!("[[space]]\npath = \"/{name}\"\nsource = \"{source}\"\n");
    let cases = [
        (format!("[log]\nfolder = \"{}\"\n", at("file/logs")), "log.folder"),
        (listen, "listen"),
        (format!("[tls]\ncertificate = \"{0}\"\nkey = \"{0}\"\n", at("cut.pem")), "cut short"),
        ("[log]\nlevel = \"loud\"\n".to_owned(), "`loud` is not a level"),
        ("[log]\nlevel = \"info,stoa::net=loud\"\n".to_owned(), "is not a level"),
        (space("x", "/"), "contains the data folder"),
        (format!("{}{}", space("x", &at("a")), space("y", &at("a/b"))), "lies in [[space]] /x"),
        ("[[user]]\nname = \"u\"\npassword_file = \"/nowhere/at/all\"\n".to_owned(), "cannot be read"),
        (
            "[[space]]\npath = \"/x\"\ngrants = [{ to = \"user:ghost\", allow = \"view\" }]\n".to_owned(),
            "space[0].grants",
        ),
        ("[limits]\nconnections = \"many\"\n".to_owned(), "expected a whole number"),
    ];
    for (toml, expected) in cases {
        let place = Place::new(&toml);
        for command in [&["check", "--quiet"][..], &["serve"]] {
            let output = place.run(command, "");
            let said = words(&output);
            assert!(matches!(output.status.code(), Some(69 | 78)), "{command:?} took\n{toml}\n{said}");
            assert!(said.contains(expected), "no `{expected}` in {said}");
            assert!(!said.contains("first sign-in") && !said.contains("default: accounts"), "{said}");
            assert!(!place.data().join("admin-password").exists(), "nobody is made before all is right: {toml}");
        }
    }
}

#[test]
fn what_may_not_be_meant_is_a_warning_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    fs::write(&secret, "x\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let cases = [
        ("[[user]]\nname = \"u\"\n".to_owned(), "user[0].name: u has no password"),
        (format!("[[user]]\nname = \"u\"\npassword_file = {secret:?}\n"), "can be read by every account"),
        ("[smtp]\ncatch_all = \"ghost\"\n".to_owned(), "smtp.catch_all: "),
        ("[[alias]]\naddress = \"info\"\nto = [\"ghost\"]\n".to_owned(), "alias[0].to: "),
        ("[[space]]\npath = \"/x\"\ngrants = [{ to = \"group:staf\", allow = \"view\" }]\n".to_owned(), "`staf`"),
        ("[storage]\nkeep_free = \"0 B\"\n".to_owned(), "storage.keep_free"),
        ("[log]\nlevel = \"off\"\n".to_owned(), "nothing is logged"),
        ("[login]\nnever_ban = [\"0.0.0.0/0\"]\n".to_owned(), "login.never_ban"),
        ("[limits]\nproxy_from = [\"::/0\"]\n".to_owned(), "limits.proxy_from"),
        ("[[listen]]\nprotocol = \"admin\"\naddress = \"0.0.0.0:0\"\n".to_owned(), "listen[0].address"),
    ];
    for (toml, expected) in cases {
        let output = Place::new(&toml).run(&["check", "--quiet"], "");
        let said = words(&output);
        assert!(output.status.success(), "{toml}\n{said}");
        let line = said.lines().find(|line| line.starts_with("WARNING: ") && line.contains(expected));
        assert!(line.is_some_and(|line| line.contains("stoa.toml:")), "no `{expected}` in {said}");
    }
}

/// The value of a metric; 0 where it is not told.
pub fn metric(daemon: &Daemon, name: &str) -> u64 {
    let (_, text) = get(daemon.admin, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[test]
fn each_durable_change_is_one_measured_commit() {
    let daemon = Daemon::start("");
    let both = || {
        let counted = metric(&daemon, "stoa_commits_total{result=\"ok\"}");
        (counted, metric(&daemon, "stoa_commit_seconds_count"))
    };
    let (counted, measured) = both();
    for number in 0..10 {
        assert_eq!(put(&daemon, &format!("/shared/{number}"), "x"), 201);
    }
    let (now_counted, now_measured) = both();
    assert!(now_counted >= counted + 10, "{counted} {now_counted}");
    assert!(now_measured >= measured + 10, "{measured} {now_measured}");
    assert_eq!(metric(&daemon, "stoa_commits_total{result=\"failed\"}"), 0);
}

#[test]
fn a_secret_is_not_shown_with_what_is_wrong_beside_it() {
    for toml in [
        "[[user]]\nname = \"u\"\npassword_hash = \"geheim\n",
        "[catalog]\nurl = \"postgres://stoa:geheim@db/stoa\" x\n",
        "[[user]]\nname = \"u\"\npassword_hash = [\"geheim\"]\n",
        "[catalog]\nurl = { geheim = 1 }\n",
        "[[user]]\nname = \"u\"\npassword_file = \"\"\"\ngeheim\n",
        "geheim\n",
    ] {
        let output = Place::new(toml).run(&["check", "--quiet"], "");
        let said = words(&output);
        assert_eq!(output.status.code(), Some(78), "{toml}");
        assert!(said.contains("stoa.toml:") && !said.contains("geheim"), "{said}");
    }
}

#[test]
fn a_reload_says_what_became_of_it() {
    let daemon = Daemon::start("");
    let good = fs::read_to_string(daemon.place().config()).unwrap();
    assert!(words(&daemon.place().run(&["reload"], "")).contains("was reloaded"));
    for (more, expected) in [
        ("[nonsense]\nx = 1\n", "unknown key `nonsense`"),
        ("[log]\nlevel = \"loud\"\n", "`loud` is not a level"),
        ("[[space]]\npath = \"/x\"\nsource = \"/nowhere/at/all\"\n", "is no directory"),
        ("[[space]]\npath = \"/x\"\ngrants = [{ to = \"user:ghost\", allow = \"view\" }]\n", "ghost"),
        ("[ftp]\npassive_ports = \"9-8\"\n", "passive_ports"),
    ] {
        fs::write(daemon.place().config(), format!("{good}\n{more}")).unwrap();
        let output = daemon.place().run(&["reload"], "");
        assert_eq!(output.status.code(), Some(78), "{more}");
        assert!(words(&output).contains(expected), "{}", words(&output));
        assert_eq!(get(daemon.admin, "/ready").0, 200);
    }
    fs::write(daemon.place().config(), good).unwrap();
    let place = daemon.stop();
    assert_eq!(place.run(&["reload"], "").status.code(), Some(69), "nobody runs");
}

#[test]
fn a_check_beside_the_daemon_knows_it_from_another() {
    let daemon = Daemon::start("");
    assert!(daemon.must(&["check"], "").contains("a daemon runs with this configuration"));
    let other = Place::new("");
    let text = fs::read_to_string(other.config()).unwrap();
    fs::write(other.config(), text.replace(other.data().to_str().unwrap(), daemon.data.to_str().unwrap())).unwrap();
    let output = other.run(&["check"], "");
    assert_eq!(output.status.code(), Some(78));
    assert!(words(&output).contains(&format!("another stoa (pid {}", daemon.pid())), "{}", words(&output));
}

#[test]
fn a_check_leaves_nothing_in_the_history() {
    let daemon = Daemon::start("");
    let lines = || daemon.must(&["history", "--json", "--limit", "10000"], "").lines().count();
    let before = lines();
    daemon.must(&["check"], "");
    let place = daemon.stop();
    place.must(&["check"], "");
    assert_eq!(place.must(&["history", "--json", "--limit", "10000"], "").lines().count(), before);
    let traced = place.run(&["trace", "nobody@example.com"], "");
    assert!(!String::from_utf8_lossy(&traced.stdout).contains("refused"), "{traced:?}");
}

#[test]
fn the_space_of_the_first_start_stays_when_others_are_made() {
    let daemon = Daemon::start("");
    assert_eq!(put(&daemon, "/shared/a.txt", "x"), 201);
    daemon.must(&["space", "add", "/inbox", "--grant", "users:edit"], "");
    until("the new space is there", || put(&daemon, "/inbox/a.txt", "x") / 100 == 2);
    assert_eq!(put(&daemon, "/shared/b.txt", "x"), 201);
    let place = daemon.stop();
    let text = fs::read_to_string(place.config()).unwrap();
    fs::write(place.config(), format!("{text}\n[[space]]\npath = \"/scans\"\n")).unwrap();
    let daemon = place.start();
    assert_eq!(put(&daemon, "/shared/c.txt", "x"), 201);

    let place = Place::new("");
    place.must(&["space", "add", "/first", "--grant", "users=edit"], "");
    let daemon = place.start();
    assert_eq!((put(&daemon, "/first/a.txt", "x"), put(&daemon, "/shared/a.txt", "x")), (201, 201));
}

#[test]
fn a_store_without_its_catalog_is_not_begun_anew_by_itself() {
    let daemon = Daemon::start("");
    assert_eq!(put(&daemon, "/shared/a.txt", "kept"), 201);
    daemon.must(&["user", "add", "bob", "--generate"], "");
    let place = daemon.stop();
    let catalog = place.data().join("catalog.db");
    let whole = fs::read(&catalog).unwrap();
    for harm in ["gone", "empty", "garbage", "cut"] {
        match harm {
            "gone" => fs::remove_file(&catalog).unwrap(),
            "empty" => fs::write(&catalog, "").unwrap(),
            "garbage" => fs::write(&catalog, vec![b'x'; whole.len()]).unwrap(),
            _ => fs::write(&catalog, &whole[..whole.len() / 2 / 4096 * 4096]).unwrap(),
        }
        for command in ["serve", "check"] {
            let output = place.run(&[command], "");
            assert!(!output.status.success(), "{harm}: {command}");
            let said = words(&output);
            assert!(said.contains("catalog.db") && said.contains("estore"), "{harm}: {said}");
            assert!(!said.contains("first administrator"), "{harm}: {said}");
        }
        assert!(!place.run(&["user", "list"], "").status.success(), "{harm}");
        fs::write(&catalog, &whole).unwrap();
        let _ = fs::remove_file(place.data().join("catalog.db-wal"));
        let _ = fs::remove_file(place.data().join("catalog.db-shm"));
    }
    assert!(place.must(&["user", "list"], "").contains("bob"), "restored");
    fs::remove_file(&catalog).unwrap();
    place.must(&["verify", "--adopt"], "");
    let daemon = place.start();
    assert_eq!(fs::read_to_string(daemon.on_disk("/shared/a.txt")).unwrap(), "kept");
    assert!(!daemon.must(&["user", "list"], "").contains("bob"));
    assert_eq!(put(&daemon, "/shared/b.txt", "new"), 201);
}

#[test]
fn a_missing_redo_log_is_refused_and_what_is_lost_is_listed_once() {
    let mut place = Place::new("");
    let daemon = place.start();
    for name in 0..20 {
        assert_eq!(put(&daemon, &format!("/shared/{name}.txt"), "small"), 201);
    }
    place = daemon.kill();
    fs::remove_file(place.data().join("catalog.redo")).unwrap();
    let output = place.run(&["serve"], "");
    assert!(!output.status.success());
    assert!(
        words(&output).contains("catalog.redo") && words(&output).contains("verify --repair"),
        "{}",
        words(&output)
    );
    place.must(&["verify", "--repair"], "");
    assert!(words(&place.run(&["verify"], "")).contains("agree"));
    let daemon = place.start();
    for name in 0..20 {
        let status = put(&daemon, &format!("/shared/{name}.txt"), "again");
        assert!(matches!(status, 201 | 204), "nothing is stuck: {status}");
    }
    assert_eq!(get(daemon.admin, "/ready").0, 200);
    assert!(daemon.must(&["history", "--verify"], "").contains("every one as it was written"));
}

#[test]
fn verify_names_each_difference_by_its_path_and_mends_it() {
    let daemon = Daemon::start("[storage]\nrescan = \"1d\"\n");
    for name in ["kept", "removed", "changed"] {
        assert_eq!(put(&daemon, &format!("/shared/{name}"), "12345"), 201);
    }
    let place = daemon.stop();
    let tree = place.data().join("tree/shared");
    fs::remove_file(tree.join("removed")).unwrap();
    fs::write(tree.join("changed"), "123").unwrap();
    fs::write(tree.join("new"), "1").unwrap();
    for repair in [false, true, false] {
        let output = place.run(if repair { &["verify", "--repair"] } else { &["verify"] }, "");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = told.lines().collect();
        if words(&output).contains("agree") {
            assert!(lines.is_empty(), "{told}");
            return;
        }
        assert!(output.status.success() == repair, "{}", words(&output));
        assert_eq!(lines.len(), 3, "{told}");
        for (line, expected) in lines.iter().zip([
            "/shared/changed: recorded with 5 bytes, but on the disk are 3",
            "/shared/new: on the disk, but not recorded",
            "/shared/removed: recorded, but not on the disk",
        ]) {
            assert_eq!(*line, expected);
        }
    }
    panic!("the repair mended nothing");
}

#[test]
fn ready_says_why_not() {
    let daemon = Daemon::start("[storage]\nkeep_free = \"900 TiB\"\n");
    let (status, why) = get(daemon.admin, "/ready");
    assert_eq!(status, 503);
    assert!(why.contains("storage.keep_free"), "{why}");
    assert_eq!(get(daemon.admin, "/health").0, 200, "alive all the same");
    assert!(get(daemon.admin, "/metrics").1.contains("stoa_ready 0"));

    let daemon = Daemon::start("");
    assert_eq!(get(daemon.admin, "/ready"), (200, "ready\n".to_owned()));
    assert!(get(daemon.admin, "/metrics").1.contains("stoa_ready 1"));
    fs::remove_file(daemon.data.join("catalog.db")).unwrap();
    until("it is not ready any more", || get(daemon.admin, "/ready").0 == 503);
    assert!(get(daemon.admin, "/ready").1.contains("catalog.db was removed"));
}

#[test]
fn folders_are_closed_to_other_accounts() {
    let place = Place::new("");
    fs::create_dir_all(place.data().join("conversations")).unwrap();
    for folder in [place.data(), place.data().join("conversations")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let daemon = place.start();
    let mode = |name: &str| fs::metadata(daemon.data.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("conversations")), (0o750, 0o700));
}

#[test]
fn of_daemons_that_share_a_catalog_one_runs() {
    let Some(server) = Server::start() else { return };
    let catalog = format!("[catalog]\nengine = \"postgres\"\nurl = \"{}\"\n", server.database("shared"));
    let first = Daemon::start(&catalog);
    let second = Place::new(&catalog);
    let refused = second.run(&["serve"], "");
    assert_eq!(refused.status.code(), Some(69));
    assert!(
        words(&refused).contains("another daemon (") && words(&refused).contains("same homes"),
        "{}",
        words(&refused)
    );
    let clone = Place::new(&catalog);
    fs::create_dir_all(clone.data()).unwrap();
    fs::copy(first.data.join("node"), clone.data().join("node")).unwrap();
    assert!(words(&clone.run(&["serve"], "")).contains("was the data folder copied"));
    assert!(second.run(&["user", "list"], "").status.success(), "commands go on");
    assert_eq!(put(&first, "/shared/a.txt", "x"), 201);
    drop(first.kill());
    drop(second.start());
}
