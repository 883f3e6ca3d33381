//! The life of the daemon: first start, reload, drain, kill, and the commands beside it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::daemon::{Daemon, PATIENCE, Place, STOA, until};

/// Alice, whose password is in a file; a space she may edit.
const ALICE: &str = r#"
[[user]]
name = "alice"
password_file = "PASSWORD"
[[space]]
path = "/scans"
grants = [{ to = "user:alice", allow = "edit" }, { to = "everyone", allow = "view" }]
"#;

fn alice() -> Place {
    let place = Place::new("");
    let file = place.data().with_file_name("alice.password");
    fs::write(&file, "correct horse\n").unwrap();
    place.configure(&ALICE.replace("PASSWORD", file.to_str().unwrap()));
    place
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn first_line(to: SocketAddr) -> String {
    let mut line = String::new();
    BufReader::new(connect(to)).read_line(&mut line).unwrap();
    line
}

/// One HTTP request; status line, headers and body as they came.
fn ask(to: SocketAddr, method: &str, path: &str, password: Option<&str>, body: &str) -> String {
    let mut stream = connect(to);
    let sign_in = password.map(|password| format!("Authorization: Basic {}\r\n", base64(password))).unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{sign_in}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

const KEY: &str = "alice:correct horse";

#[test]
fn every_door_answers_after_the_start() {
    let daemon = Daemon::start("domain = [\"example.org\"]\n");
    assert!(first_line(daemon.ftp).starts_with("220"));
    assert!(first_line(daemon.smtp).starts_with("220"));
    assert_eq!(status(&ask(daemon.admin, "GET", "/ready", None, "")), 200);
    assert!(ask(daemon.http, "GET", "/-/login", None, "").starts_with("HTTP/1.1"));
    let place = daemon.stop();
    assert!(!place.data().join("listeners").exists(), "nothing listens any more");
}

#[test]
fn the_first_start_makes_one_administrator_whose_password_works() {
    let daemon = Daemon::start("");
    let file = daemon.data.join("admin-password");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let password = fs::read_to_string(&file).unwrap();
    let key = format!("admin:{}", password.trim());
    assert!(daemon.log().contains(password.trim()), "said once on the terminal");
    assert_eq!(status(&ask(daemon.http, "PUT", "/home/admin/a.txt", Some(&key), "x")), 201);
    let daemon = daemon.stop().start();
    assert_eq!(fs::read_to_string(&file).unwrap(), password);
    assert_eq!(daemon.log().matches("first sign-in").count(), 1);
}

#[test]
fn a_declared_user_means_no_administrator_is_made() {
    let daemon = alice().start();
    assert!(!daemon.data.join("admin-password").exists());
    assert_eq!(status(&ask(daemon.http, "PUT", "/scans/a.txt", Some(KEY), "x")), 201);
}

#[test]
fn a_term_signal_lets_a_running_upload_finish() {
    let daemon = alice().start();
    let mut stream = connect(daemon.http);
    let key = base64(KEY);
    write!(stream, "PUT /scans/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {key}\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("100"), "{line}");
    stream.write_all(b"first").unwrap();
    daemon.signal("TERM");
    daemon.wait_for_log("draining");
    stream.write_all(b"-last").unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("201 Created"), "{answer}");
    let (status, place) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{}", place.log());
    assert_eq!(fs::read(place.data().join("tree/scans/slow")).unwrap(), b"first-last");
}

#[test]
fn a_term_signal_says_goodbye_to_an_idle_session() {
    let daemon = Daemon::start("");
    let mut reader = BufReader::new(connect(daemon.ftp));
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    daemon.signal("TERM");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("421"), "{rest:?}");
    assert!(daemon.wait().0.success());
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let daemon = Daemon::start("");
    let second = daemon.place().run(&["serve"], "");
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(69), "{words}");
    assert!(words.contains(&format!("another stoa runs on this data folder (pid {})", daemon.pid())), "{words}");
    assert!(first_line(daemon.ftp).starts_with("220"), "the first one goes on");
    assert!(daemon.data.join("listeners").exists());
}

#[test]
fn a_killed_daemon_starts_again_with_what_it_acknowledged() {
    let mut place = alice();
    for round in 0..3 {
        let daemon = place.start();
        let path = format!("/scans/{round}.txt");
        assert_eq!(status(&ask(daemon.http, "PUT", &path, Some(KEY), "kept")), 201);
        place = daemon.kill();
    }
    let daemon = place.start();
    for round in 0..3 {
        assert!(ask(daemon.http, "GET", &format!("/scans/{round}.txt"), None, "").ends_with("\r\n\r\nkept"));
    }
    assert!(daemon.must(&["history", "--verify"], "").contains("every one as it was written"));
}

#[test]
fn a_reload_takes_new_users_and_keeps_the_old_configuration_when_the_new_one_is_bad() {
    let daemon = alice().start();
    let mut held = BufReader::new(connect(daemon.ftp));
    held.read_line(&mut String::new()).unwrap();
    let good = fs::read_to_string(daemon.place().config()).unwrap();

    fs::write(daemon.place().config(), format!("{good}\n[limits2]\nx = 1\n")).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("reload refused, the old configuration stays");
    assert!(
        daemon.log().contains("unknown key `limits2`; did you mean") || daemon.log().contains("unknown key `limits2`")
    );
    assert_eq!(status(&ask(daemon.http, "PUT", "/scans/b.txt", Some(KEY), "x")), 201);

    let password = daemon.data.with_file_name("bob.password");
    fs::write(&password, "battery staple\n").unwrap();
    let bob = format!("{good}\n[[user]]\nname = \"bob\"\npassword_file = {password:?}\n");
    fs::write(daemon.place().config(), bob.replacen("127.0.0.1:0", "127.0.0.1:1", 1)).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration was reloaded");
    assert!(daemon.log().contains("[[listen]] changed: takes effect at the next restart"));
    assert_eq!(status(&ask(daemon.http, "PUT", "/home/bob/c.txt", Some("bob:battery staple"), "x")), 201);

    held.get_mut().write_all(b"NOOP\r\n").unwrap();
    let mut line = String::new();
    held.read_line(&mut line).unwrap();
    assert!(line.starts_with('2'), "a held session goes on: {line:?}");
}

#[test]
fn a_listeners_own_options_are_served_and_reloaded() {
    let listen = "[[listen]]\nprotocol = \"ftp\"\naddress = \"127.0.0.1:0\"\n";
    let config = |own: &str, all: &str| format!("{listen}{listen}ftp = {{ {own} }}\n[ftp]\nbanner = \"{all}\"\n");
    let place = Place::new("");
    place.configure(&config("banner = \"second\"", "first"));
    let daemon = place.start();
    let listeners = fs::read_to_string(daemon.data.join("listeners")).unwrap();
    let addresses: Vec<SocketAddr> =
        listeners.lines().filter_map(|line| line.strip_prefix("ftp ")?.parse().ok()).collect();
    let greetings = || addresses.iter().map(|address| first_line(*address)).collect::<Vec<_>>();
    assert_eq!(greetings(), ["220 first\r\n", "220 second\r\n"]);

    daemon.place().configure(&config("banner = \"two\"", "one"));
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration was reloaded");
    assert_eq!(greetings(), ["220 one\r\n", "220 two\r\n"]);

    daemon.place().configure(&config("banner = \"2\", passive_ports = \"9-8\"", "1"));
    daemon.signal("HUP");
    daemon.wait_for_log("reload refused, the old configuration stays: ");
    assert!(daemon.log().contains("listen[1].ftp, laid over [ftp]"), "{}", daemon.log());
    assert_eq!(greetings(), ["220 one\r\n", "220 two\r\n"]);
    daemon.stop();
}

#[test]
fn an_account_made_by_command_can_sign_in_while_the_daemon_runs() {
    let daemon = alice().start();
    daemon.must(&["user", "add", "carol", "--groups", "staff"], "tr0ub4dor\n");
    let put = || status(&ask(daemon.http, "PUT", "/home/carol/a.txt", Some("carol:tr0ub4dor"), "x"));
    until("carol can sign in", || matches!(put(), 201 | 204));
    daemon.must(&["user", "disable", "carol"], "");
    until("carol can no longer sign in", || put() == 401);
    let refused = daemon.place().run(&["user", "add", "alice"], "another one\n");
    assert!(!refused.status.success(), "declared users are changed in the configuration");
    assert!(daemon.must(&["user", "list"], "").contains("carol"));
    assert!(daemon.must(&["group", "list"], "").contains("staff"));
}

#[test]
fn log_files_are_opened_again_when_they_were_moved() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let daemon = Daemon::start(&format!("[log]\nfolder = {:?}\n", logs.to_str().unwrap()));
    until("a log file", || logs.join("stoa.log").exists());
    fs::rename(logs.join("stoa.log"), logs.join("old.log")).unwrap();
    daemon.signal("USR1");
    until("a new log file", || logs.join("stoa.log").exists());
}

#[test]
fn systemd_hears_of_the_start_the_reload_the_watchdog_and_the_end() {
    let place = Place::new("");
    let path = place.data().with_file_name("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = Command::new(STOA)
        .arg("--config")
        .arg(place.config())
        .arg("serve")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|line| line == wanted) {
                return message;
            }
        }
    };
    assert!(hear("READY=1").contains("STATUS=serving"));
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    let signal =
        |name: &str| assert!(Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap().success());
    signal("-HUP");
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="), "in one message");
    hear("READY=1");
    signal("-TERM");
    hear("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_bad_configuration_ends_with_its_own_code_and_all_problems() {
    let place = Place::new(
        "workers = 1000\n[[space]]\npath = \"scans\"\n[[space]]\npath = \"/x\"\nsource = \"/nowhere/at/all\"\n",
    );
    for command in ["serve", "check"] {
        let output = place.run(&[command], "");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{words}");
        assert!(words.contains("workers") && words.contains("`scans`"), "{words}");
    }
    place.configure("[[space]]\npath = \"/x\"\nsource = \"/nowhere/at/all\"\n[ftp]\npassive_ports = \"9-1\"\n");
    let output = place.run(&["check", "--json"], "");
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("/nowhere/at/all` is no directory") && text.contains("passive_ports"), "{text}");
    assert!(!place.data().exists(), "a check makes nothing");
    place.configure("[[space]]\npath = \"/x\"\ngrants = [{ to = \"user:nobody\", allow = \"view\" }]\n");
    let output = place.run(&["check", "--quiet"], "");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody"));
    assert_eq!(place.run(&["serve", "--colour"], "").status.code(), Some(64));
}

#[test]
fn check_prints_a_configuration_that_works_and_leaves_nothing() {
    let place = alice();
    let text = place.must(&["check"], "");
    assert!(text.contains("path = \"/scans\"") && text.contains("# default"), "{text}");
    assert!(!place.data().exists(), "a check makes nothing");
    assert_eq!(place.must(&["check", "--quiet"], ""), "");
    fs::write(place.config(), text).unwrap();
    place.must(&["check", "--quiet"], "");
}

#[test]
fn init_makes_a_server_that_starts_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("etc/stoa.toml"), folder.path().join("data"));
    let init = |more: &[&str]| {
        let mut command = Command::new(STOA);
        command.arg("--config").arg(&file).args(["init", "--yes"]).args(more).output().unwrap()
    };
    let made = init(&["--data", data.to_str().unwrap(), "--domain", "example.org"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let password = fs::read(data.join("admin-password")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(init(&[]).status.success(), "again changes nothing");
    assert_eq!(fs::read(data.join("admin-password")).unwrap(), password);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(init(&["--domain", "other.org"]).status.code(), Some(73), "and refuses to overwrite");
    // The usual ports may be somebody else's on this machine.
    fs::write(&file, format!("{text}\n[[listen]]\nprotocol = \"http\"\naddress = \"127.0.0.1:0\"\n")).unwrap();
    let check = Command::new(STOA).arg("--config").arg(&file).args(["check", "--quiet"]).status().unwrap();
    assert!(check.success());
}

#[test]
fn passwords_come_from_a_pipe_or_a_file_and_are_never_short() {
    let place = Place::new("");
    let hash = place.must(&["user", "hash"], "long enough\n");
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    assert_eq!(place.run(&["user", "hash"], "short\n").status.code(), Some(64));
    assert_eq!(place.run(&["user", "hash"], "").status.code(), Some(64));
    let file = place.data().with_file_name("password");
    fs::write(&file, "from a file\nsecond line\n").unwrap();
    place.must(&["device", "add", "camera-3", "--folder", "/cameras/3", "--password-file", file.to_str().unwrap()], "");
    assert!(place.must(&["device", "list"], "").contains("/cameras/3"));
    place.must(&["device", "remove", "camera-3"], "");
    assert_eq!(place.run(&["device", "remove", "camera-3"], "").status.code(), Some(67));
    let made_up = place.must(&["user", "add", "dora", "--generate"], "");
    assert_eq!(made_up.trim().len(), 27, "{made_up}");
}

#[test]
fn spaces_made_by_command_are_served() {
    let daemon = alice().start();
    daemon.must(
        &["space", "add", "/inbox", "--quota", "10 MiB", "--grant", "user:alice=edit", "--grant", "everyone=view"],
        "",
    );
    let put = || status(&ask(daemon.http, "PUT", "/inbox/a.txt", Some(KEY), "abc"));
    until("the space is there", || matches!(put(), 201 | 204));
    let list = daemon.must(&["space", "list"], "");
    let line = list.lines().find(|line| line.starts_with("/inbox")).unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("3 B") && line.contains("10 MiB"), "{list}");
    daemon.must(&["space", "remove", "/inbox"], "");
    assert!(daemon.on_disk("/inbox/a.txt").exists(), "its files stay");
    let history = daemon.must(&["history", "--path", "/inbox", "--json"], "");
    assert!(history.lines().any(|line| line.contains("\"http\"") && line.contains("/inbox/a.txt")), "{history}");
}

/// Where the processor makes glibc copy badly the daemon begins anew, as the same process and never twice.
#[test]
fn copies_are_chosen_once_and_by_the_administrator_first() {
    const THRESHOLD: &str = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=";
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap();
    let copies_badly = cfg!(target_env = "gnu")
        && processor.contains("AuthenticAMD")
        && processor.split_whitespace().any(|flag| flag == "fsrm");
    let environment = |pid: u32| fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let daemon = Daemon::start("");
    assert_eq!(environment(daemon.pid()).contains(THRESHOLD), copies_badly);
    // What was chosen before outlives the new beginning.
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(!status.contains("THP_enabled:\t1"), "{status}");
    let place = daemon.stop();
    // The administrator's choice, and a C library that dropped ours: neither is tried again.
    for (name, value) in [("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=2112"), ("STOA_BEGUN", "1")] {
        let mut command = Command::new(STOA);
        command.arg("--config").arg(place.config()).arg("serve").env(name, value).stderr(Stdio::null());
        let _ = fs::remove_file(place.data().join("listeners"));
        let mut child = command.spawn().unwrap();
        until("the daemon listens", || place.data().join("listeners").exists());
        let said = environment(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(said.contains(&format!("{name}={value}")), "{said}");
        assert!(!said.contains("threshold=4294967295"), "{said}");
    }
}
