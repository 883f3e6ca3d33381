//! One tree through three doors, by real clients: what one puts, the others see; one history tells of all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Place, until};

/// A scans folder everyone may view, staff may edit and a camera may drop into.
const OFFICE: &str = r#"
domain = "example.org"
[http]
basic_in_clear = true
[[user]]
name = "alice"
password_file = "PASSWORD"
groups = ["staff"]
[[device]]
name = "camera-3"
password_file = "PASSWORD"
protocols = ["ftp", "smtp"]
[[space]]
path = "/scans"
address = "scans"
grants = [ { to = "group:staff", allow = "edit" }, { to = "device:camera-3", allow = "drop" }, { to = "everyone", allow = "view create" } ]
[[space]]
path = "/ten"
address = "ten"
quota = "10 KiB"
grants = [ { to = "group:staff", allow = "edit" }, { to = "everyone", allow = "create" } ]
"#;

const PASSWORD: &str = "wonder-land";

/// The office with its password file in a folder that goes with it.
struct Office {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Office {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let daemon = Daemon::start(&OFFICE.replace("PASSWORD", &password.to_string_lossy()));
        Self { daemon, folder }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.daemon.http)
    }

    fn ftp(&self, path: &str) -> String {
        format!("ftp://alice:{PASSWORD}@{}{path}", self.daemon.ftp)
    }
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn must(program: &str, args: &[&str]) -> Vec<u8> {
    let output = run(program, args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{out}\n{err}", output.status);
    output.stdout
}

fn random(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// What headless Chromium makes of a page.
fn browse(office: &Office, url: &str) -> String {
    let profile = office.folder.path().join("chromium");
    let profile = format!("--user-data-dir={}", profile.to_string_lossy());
    let quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
    let plain = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--virtual-time-budget=5000"];
    let mut args: Vec<&str> = plain.into_iter().chain(quiet).collect();
    args.extend([profile.as_str(), "--dump-dom", url]);
    String::from_utf8_lossy(&must("chromium", &args)).into_owned()
}

#[test]
fn one_folder_through_three_doors_with_real_clients() {
    let office = Office::open();
    let (pdf, photo) = (random(1, 300_000), random(2, 50_000));
    let (pdf_file, photo_file) = (office.file("by-ftp.pdf", &pdf), office.file("by-mail.jpg", &photo));

    must("curl", &["-sS", "-T", &pdf_file, &office.ftp("/scans/by-ftp.pdf")]);
    assert_eq!(must("curl", &["-sS", "-f", &office.http("/scans/by-ftp.pdf")]), pdf, "fetched over HTTP by anyone");

    let server = office.daemon.smtp.to_string();
    let attach = format!("@{photo_file}");
    let mail = ["--server", &server, "--from", "camera@example.org", "--to", "scans@example.org", "--tls-optional"];
    let mail: Vec<&str> = mail
        .into_iter()
        .chain(["--attach-type", "image/jpeg", "--attach-name", "by-mail.jpg", "--attach", &attach])
        .collect();
    must("swaks", &mail);
    assert_eq!(must("curl", &["-sS", "-f", &office.http("/scans/by-mail.jpg")]), photo, "the attachment is a file");

    let web_file = office.file("by-web.txt", b"by web");
    let login = format!("alice:{PASSWORD}");
    must("curl", &["-sS", "-f", "-u", &login, "-T", &web_file, &office.http("/scans/by-web.txt")]);
    assert_eq!(must("curl", &["-sS", &office.ftp("/scans/by-web.txt")]), b"by web", "seen by FTP");

    let page = browse(&office, &office.http("/scans/"));
    for name in ["by-ftp.pdf", "by-mail.jpg", "by-web.txt"] {
        assert!(page.contains(name), "{name} is not on the page:\n{page}");
        assert!(office.daemon.on_disk(&format!("/scans/{name}")).exists());
    }

    let history = office.daemon.must(&["history", "--path", "/scans"], "");
    for (door, account, name) in
        [("ftp", "alice", "by-ftp.pdf"), ("smtp", "", "by-mail.jpg"), ("http", "alice", "by-web.txt")]
    {
        let line =
            history.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in\n{history}"));
        assert!(line.contains(door) && line.contains(account) && line.contains("127.0.0.1"), "{line}");
    }
}

#[test]
fn lftp_mirrors_both_ways_plain_and_over_tls() {
    let office = Office::open();
    let folder = office.folder.path().join("up");
    std::fs::create_dir_all(folder.join("deep/er")).unwrap();
    for number in 0..20 {
        std::fs::write(folder.join(format!("deep/{number}.bin")), random(number, usize::from(number) * 9_000)).unwrap();
    }
    std::fs::write(folder.join("deep/er/last"), b"last").unwrap();
    for (name, tls) in [
        ("plain", "set ftp:ssl-allow no;"),
        ("tls", "set ftp:ssl-force true; set ftp:ssl-protect-data true; set ssl:verify-certificate no;"),
    ] {
        let back = office.folder.path().join(format!("back-{name}"));
        let script = format!(
            "{tls} set net:max-retries 1; set net:timeout 20; open -u alice,{PASSWORD} {}; mirror -R {} /scans/{name}; mirror /scans/{name} {}; bye",
            office.daemon.ftp,
            folder.display(),
            back.display()
        );
        must("lftp", &["-c", &script]);
        must("diff", &["-r", &folder.to_string_lossy(), &back.to_string_lossy()]);
    }
}

#[test]
fn curl_uploads_over_explicit_tls_and_resumes() {
    let office = Office::open();
    let bytes = random(9, 400_000);
    let (whole, half) = (office.file("whole", &bytes), office.file("half", &bytes[..150_000]));
    let url = office.ftp("/scans/whole");
    must("curl", &["-sS", "-k", "--ssl-reqd", "-T", &half, &url]);
    must("curl", &["-sS", "-k", "--ssl-reqd", "-C", "-", "-T", &whole, &url]);
    assert_eq!(must("curl", &["-sS", "-k", "--ssl-reqd", &url]), bytes);
}

/// A line protocol by hand, for what no client program does.
struct Talk {
    stream: TcpStream,
}

impl Talk {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut talk = Self { stream };
        talk.reply();
        talk
    }

    fn reply(&mut self) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        loop {
            assert_eq!(self.stream.read(&mut byte).unwrap(), 1, "closed after {}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
            let line = text.rsplit(|byte| *byte == b'\n').nth(usize::from(byte[0] == b'\n')).unwrap_or_default();
            if byte[0] == b'\n' && line.get(3) == Some(&b' ') {
                return String::from_utf8_lossy(&text).into_owned();
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.reply()
    }
}

fn mail_one(smtp: SocketAddr, number: usize) -> bool {
    let mut talk = Talk::to(smtp);
    talk.say("EHLO racer");
    talk.say("MAIL FROM:<racer@example.org>");
    if !talk.say("RCPT TO:<ten@example.org>").starts_with("250") {
        return false;
    }
    talk.say("DATA");
    let attachment = "x".repeat(1024);
    let head = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n";
    let name = format!("Content-Disposition: attachment; filename=smtp-{number}\r\n\r\n");
    talk.say(&format!("{head}{name}{attachment}\r\n--b--\r\n.")).starts_with("250")
}

#[test]
fn sixty_four_uploads_by_every_door_fit_ten_times_and_no_more() {
    let office = Office::open();
    let file = office.file("kilobyte", &[b'x'; 1024]);
    let won = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..64)
            .map(|number| {
                let (office, file) = (&office, file.as_str());
                scope.spawn(move || match number % 3 {
                    0 => run("curl", &["-sS", "-T", file, &office.ftp(&format!("/ten/ftp-{number}"))]).status.success(),
                    1 => {
                        let login = format!("alice:{PASSWORD}");
                        let url = office.http(&format!("/ten/http-{number}"));
                        run("curl", &["-sS", "-f", "-u", &login, "-T", file, &url]).status.success()
                    }
                    _ => mail_one(office.daemon.smtp, number),
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
    });
    let names: Vec<_> =
        std::fs::read_dir(office.daemon.on_disk("/ten")).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!((won, names.len()), (10, 10), "{names:?}\n{}", office.daemon.log());
    let spaces = office.daemon.must(&["space", "list", "--json"], "");
    let spaces: serde_json::Value = serde_json::from_str(&spaces).unwrap();
    let ten = spaces.as_array().unwrap().iter().find(|space| space["path"] == "/ten").unwrap();
    assert_eq!((ten["bytes"].as_u64(), ten["files"].as_u64()), (Some(10 * 1024), Some(10)));
}

#[test]
fn ten_thousand_idle_connections_do_not_delay_a_new_one() {
    let place = Place::new("");
    let text = std::fs::read_to_string(place.config()).unwrap();
    let raised = text.replace("connections_per_address = 4096", "connections_per_address = 20000");
    assert_ne!(text, raised);
    std::fs::write(place.config(), raised).unwrap();
    let daemon = place.start();
    let before = memory(daemon.pid());
    let mut held = Vec::with_capacity(10_000);
    for number in 0..10_000 {
        let mut stream =
            TcpStream::connect([daemon.http, daemon.ftp, daemon.smtp][number % 3]).expect("a free descriptor");
        if number % 3 == 0 {
            stream.write_all(b"GET /-/health HTTP/1.1\r\nHost: idle\r\n\r\n").unwrap();
        }
        let mut first = [0; 512];
        assert!(stream.read(&mut first).unwrap() > 0);
        held.push(stream);
    }
    let each = (memory(daemon.pid()) - before) / 10_000;
    let mut slowest = Duration::ZERO;
    for address in [daemon.ftp, daemon.smtp] {
        let start = Instant::now();
        drop(Talk::to(address));
        slowest = slowest.max(start.elapsed());
    }
    eprintln!("{each} bytes for each idle connection; the slowest new one took {slowest:?}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    assert!(each < 64 << 10, "{each} bytes for each idle connection");
}

#[test]
fn an_account_has_so_many_connections_whichever_doors_they_come_through() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let text = OFFICE.replace("PASSWORD", &password.to_string_lossy());
    let limits = "[limits]\nconnections_per_account = 2\n[smtp]\nauth_in_clear = true\n";
    let daemon = Daemon::start(&text.replace("[http]", &format!("{limits}[http]")));
    // RFC 4616: NUL alice NUL wonder-land
    let proof = "AUTH PLAIN AGFsaWNlAHdvbmRlci1sYW5k";
    let mut mail = Talk::to(daemon.smtp);
    mail.say("EHLO one");
    assert!(mail.say(proof).starts_with("235"));
    let mut files = Talk::to(daemon.ftp);
    files.say("USER alice");
    assert!(files.say(&format!("PASS {PASSWORD}")).starts_with("230"));
    let mut more = Talk::to(daemon.smtp);
    more.say("EHLO three");
    let refused = more.say(proof);
    assert!(refused.starts_with('4') && refused.contains("too many connections"), "{refused}");
    drop(mail);
    until("a place is free again", || {
        let mut again = Talk::to(daemon.smtp);
        again.say("EHLO four");
        again.say(proof).starts_with("235")
    });
}

/// Bytes resident for a process.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn files_changed_by_other_programs_are_seen_on_every_door() {
    let office = Office::open();
    std::fs::write(office.daemon.on_disk("/scans/from-outside.txt"), b"outside").unwrap();
    assert_eq!(must("curl", &["-sS", "-f", &office.http("/scans/from-outside.txt")]), b"outside");
    until("the history tells of it", || {
        office.daemon.must(&["history", "--path", "/scans"], "").contains("from-outside.txt")
    });
}
