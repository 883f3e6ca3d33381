//! FTP with the programs people have: each client in each form it can do, plain and over TLS, against the real daemon.
//!
//! Every file must come through equal, and with its time where the client asks for that. One test is one client in one form, so
//! that they run side by side and a failure names the client.

use std::fs;
use std::path::Path;

use stage::{Form, Stage, Version, assert_same, bytes, digest, large, modified, small, sum, sums, tail, text, write};

pub mod stage;

macro_rules! matrix {
    ($($client:ident, $resumes:ident: $($form:ident)+;)+) => {
        $(mod $client {
            $(#[test]
            fn $form() {
                let stage = super::Stage::new(super::Form::$form(), super::$resumes(super::Form::$form()));
                super::$client(&stage);
                stage.check();
            })+
        })+
    };
}

/// Whether each data connection of a client resumes the TLS session of its control connection.
const ALWAYS: fn(Form) -> bool = |_| true;
const NEVER: fn(Form) -> bool = |_| false;
/// Under TLS 1.3 curl spends its session on the first upload, and clients of GnuTLS may open their data connection before the
/// ticket of the control connection is there.
const BEFORE_TLS13: fn(Form) -> bool = |form| form.version() != Some(Version::Tls13);

matrix! {
    lftp, BEFORE_TLS13: plain explicit_tls12 explicit_tls13 implicit_tls12 implicit_tls13;
    curl, BEFORE_TLS13: plain explicit_tls12 explicit_tls13 implicit_tls12 implicit_tls13;
    rclone, NEVER: plain explicit_tls12 explicit_tls13 implicit_tls12 implicit_tls13;
    wget, BEFORE_TLS13: plain explicit_tls12 explicit_tls13 implicit_tls12 implicit_tls13;
    ftplib, ALWAYS: plain explicit_tls12 explicit_tls13 implicit_tls12 implicit_tls13;
    basic_ftp, ALWAYS: plain explicit_tls12 explicit_tls13 implicit_tls12 implicit_tls13;
    ncftp, ALWAYS: plain;
    tnftp, ALWAYS: plain;
    inetutils, ALWAYS: plain;
    busybox, ALWAYS: plain;
    aria2, ALWAYS: plain;
    gftp, ALWAYS: plain;
    ftp_ssl, NEVER: explicit_tls12 explicit_tls13;
}

/// A thousand small and three large files there and back, many at a time; segments; resume; active mode.
fn lftp(stage: &Stage) {
    let (up, down) = (stage.local("up"), stage.local("down"));
    // Each connection over TLS costs this client a hundred times a plain one: a thousand once.
    let many = matches!(stage.form, Form::Plain | Form::Explicit(Version::Tls13));
    small(&up, if many { 1_000 } else { 200 });
    large(&up);
    fs::create_dir_all(up.join("empty folder")).unwrap();
    let set = stage.form.pick("set ftp:ssl-allow no", "set ftp:ssl-force yes; set ftp:ssl-protect-data yes", "");
    let version = stage.form.pick_version("NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3");
    let open = format!(
        "set cmd:fail-exit yes; set net:max-retries 2; set net:timeout 60; set ssl:ca-file {}; set ssl:priority {version}; {set};\n\
         open -u alice,wonder {}",
        stage.certificate(),
        stage.url(stage.form.pick("ftp", "ftp", "ftps"), ""),
    );
    let script = format!(
        "{open}\nmirror -R --parallel=4 up m\nmirror --parallel=4 --use-pget-n=3 m down\n\
         pget -n 5 m/large/1.bin -o segments\nget -c m/large/2.bin -o half\nput half-up -o resumed\nput -c up/large/0.bin -o resumed\n\
         set ftp:passive-mode no\nget m/large/0.bin -o active\nput active -o active\nmv active moved\nrm -r m/d1\ncls -1\nquit\n"
    );
    for (name, of) in [("half", "2.bin"), ("half-up", "0.bin")] {
        fs::write(stage.local(name), &fs::read(up.join("large").join(of)).unwrap()[..3_000_001]).unwrap();
    }
    let said = stage.must("lftp", &["-f", "/dev/stdin"], &script);
    assert!(said.contains("moved") && !said.contains("active\n"), "{}", tail(&said));
    assert_same("there and back", &up, &down, true);
    assert!(down.join("empty folder").is_dir());
    assert!(!stage.stored("m/d1").exists());
    let kept = ["large/0.bin", "large/1.bin", "large/2.bin", "d0/f0000.bin"];
    for name in kept {
        assert_eq!(modified(&up.join(name)), modified(&stage.stored("m").join(name)), "{name}");
    }
    for (copy, of) in [("segments", "1.bin"), ("half", "2.bin"), ("active", "0.bin")] {
        assert_eq!(sum(&stage.local(copy)), sum(&up.join("large").join(of)), "{copy}");
    }
    for copy in ["resumed", "moved"] {
        assert_eq!(sum(&stage.stored(copy)), sum(&up.join("large/0.bin")), "{copy}");
    }
}

/// Every way to open a data connection; resume both ways; append; one process for many files; commands around.
fn curl(stage: &Stage) {
    let certificate = stage.certificate();
    let mut base = vec!["-sS", "--cacert", certificate.as_str(), "-u", "alice:wonder"];
    base.extend(stage.form.pick("", "--ssl-reqd", "").split_ascii_whitespace());
    base.extend(stage.form.pick_version("", "--tlsv1.2 --tls-max 1.2", "--tlsv1.3").split_ascii_whitespace());
    let curl = |more: &[&str]| stage.must("curl", &[&base, more].concat(), "");
    let url = |path: &str| stage.url(stage.form.pick("ftp", "ftp", "ftps"), path);
    let (whole, part) = (stage.local("whole"), stage.local("part"));
    write(&whole, 1, 3_000_001);
    let cut = |to: &Path| fs::write(to, &fs::read(&whole).unwrap()[..1_000_003]).unwrap();

    let mut ways: Vec<&[&str]> = vec![&[], &["--disable-epsv"]];
    if stage.form == Form::Plain {
        // This curl (7.88) breaks off active mode over TLS by itself.
        ways.extend([["--ftp-port", "127.0.0.1", "--eprt"].as_slice(), &["--ftp-port", "127.0.0.1", "--disable-eprt"]]);
    }
    for (at, way) in ways.iter().enumerate() {
        let there = url(&format!("new/folder {at}/whole").replace(' ', "%20"));
        curl(&[*way, &["--ftp-create-dirs", "-T", text(&whole), &there]].concat());
        let back = stage.local(&format!("back{at}"));
        curl(&[*way, &["-R", "-o", text(&back), &there]].concat());
        assert_eq!(sum(&back), sum(&whole), "{way:?}");
        let stored = stage.stored(&format!("new/folder {at}/whole"));
        assert_eq!((sum(&stored), modified(&stored)), (sum(&whole), modified(&back)), "{way:?}");
    }

    let there = url("resumed");
    cut(&part);
    curl(&["-T", text(&part), &there]);
    curl(&["-C", "-", "-T", text(&whole), &there]);
    assert_eq!(sum(&stage.stored("resumed")), sum(&whole), "an upload goes on");
    curl(&["-C", "-", "-o", text(&part), &there]);
    assert_eq!(sum(&part), sum(&whole), "a download goes on");
    curl(&["-a", "-T", text(&part), &there]);
    assert_eq!(fs::metadata(stage.stored("resumed")).unwrap().len(), 6_000_002, "appended");
    assert_eq!(curl(&["-r", "0-9", "-o", "ten", &there]), "");
    assert_eq!(fs::read(stage.local("ten")).unwrap(), bytes(1, 10), "a range");

    for at in 1..4 {
        write(&stage.local(&format!("s{at}")), at, 5_000);
    }
    let said = curl(&["-v", "-T", "{s1,s2,s3}", &url("")]) + &curl(&["-v", "-o", "back#1", &url("s[1-3]")]);
    let times = |words: &str| said.matches(words).count();
    assert_eq!(times("Re-using existing connection"), 4, "one sign-in for three files");
    if stage.form != Form::Plain {
        assert_eq!(times("SSL re-using session ID"), 6, "each data connection resumes: {}", tail(&said));
    }
    for at in 1..4 {
        assert_eq!(sum(&stage.local(&format!("s{at}"))), sum(&stage.local(&format!("back{at}"))));
    }

    let before = ["-Q", "MKD /files/q", "-Q", "RNFR /files/s1", "-Q", "RNTO /files/q/s1", "-Q", "*NOSUCH"];
    let after = ["-Q", "-MFMT 20200102030405 q/s1", "-Q", "-DELE s2"];
    let names = curl(&[before.as_slice(), &after, &["-l", &url("")]].concat());
    assert!(names.contains("q\n") && names.contains("s2\n") && !names.contains("s1\n"), "{names}");
    assert!(!stage.stored("s2").exists());
    let head = curl(&["-I", &url("q/s1")]);
    assert!(head.contains("Content-Length: 5000") && head.contains("Thu, 02 Jan 2020 03:04:05 GMT"), "{head}");
}

/// A tree is made equal both ways, checked byte for byte; a second time there is nothing to do.
fn rclone(stage: &Stage) {
    let (up, down) = (stage.local("up"), stage.local("down"));
    small(&up, 150);
    write(&up.join("large.bin"), 9, 8_000_003);
    fs::create_dir_all(up.join("empty")).unwrap();
    let password = stage.must("rclone", &["obscure", "wonder"], "");
    let (port, password) = (stage.port(), password.trim());
    let mut base = vec!["--config", "/dev/null", "--retries", "1", "--transfers", "3", "--checkers", "3"];
    base.extend(["--ftp-host", "localhost", "--ftp-port", &port, "--ftp-user", "alice", "--ftp-pass", password]);
    base.extend(stage.form.pick("", "--ftp-explicit-tls", "--ftp-tls").split_ascii_whitespace());
    base.extend(stage.form.pick_version("", "--ftp-disable-tls13", "").split_ascii_whitespace());
    let rclone = |more: &[&str]| stage.must("rclone", &[&base, more].concat(), "");
    let sync = ["sync", "--create-empty-src-dirs", "-v", "up", ":ftp:/files/up"];
    rclone(&sync);
    assert_same("stored", &up, &stage.stored("up"), true);
    assert!(stage.stored("up/empty").is_dir());
    let said = rclone(&["check", "--download", "up", ":ftp:/files/up"]);
    assert!(said.contains("0 differences found") && said.contains("151 matching files"), "{}", tail(&said));
    rclone(&["sync", ":ftp:/files/up", "down"]);
    assert_same("back", &up, &down, true);
    assert!(rclone(&sync).contains("There was nothing to transfer"));
    fs::remove_file(up.join("large.bin")).unwrap();
    write(&up.join("d0/f0000.bin"), 77, 3_333);
    rclone(&sync);
    assert_same("changed", &up, &stage.stored("up"), true);
}

/// What it reads from listings: recursion, patterns, time stamps; and going on where it stopped.
fn wget(stage: &Stage) {
    let there = stage.stored("w");
    small(&there, 60);
    write(&there.join("big"), 3, 3_000_001);
    // It decodes what looks like an escape in the names of a listing.
    fs::remove_file(there.join("d0/a#11%41+b=c&d;e,f.txt")).unwrap();
    fs::remove_file(there.join("d0/a#36%41+b=c&d;e,f.txt")).unwrap();
    let certificate = format!("--ca-certificate={}", stage.certificate());
    let mut base = vec!["-nv", "-t", "2", "--user=alice", "--password=wonder", "--ca-directory=/nowhere", &certificate];
    base.extend(stage.form.pick("", "", "--ftps-implicit").split_ascii_whitespace());
    let (tls12, tls13) = ("--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.2", "--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3");
    base.push(stage.form.pick_version("-nv", tls12, tls13));
    let wget = |more: &[&str]| stage.must("wget", &[&base, more].concat(), "");
    let url = |path: &str| stage.url(stage.form.pick("ftp", "ftps", "ftps"), path);
    let tree = ["-r", "-N", "-nH", "--cut-dirs=2", "-P", "down", &url("w/")];
    wget(&tree);
    assert_same("a tree", &there, &stage.local("down"), false);
    // It learns the day from the listing, no more.
    let day = |path: &Path| (modified(path) + 19_800) / 86_400;
    assert!(day(&there.join("big")).abs_diff(day(&stage.local("down/big"))) <= 1);
    wget(&["-nH", "--cut-dirs=3", "-P", "some", &url("w/d0/f*4.bin")]);
    let some = sums(&stage.local("some"), false);
    assert_eq!(some.len(), 6, "{:?}", some.keys());
    fs::write(stage.local("big"), bytes(3, 1_000_000)).unwrap();
    wget(&["-c", &url("w/big")]);
    assert_eq!(sum(&stage.local("big")), sum(&there.join("big")));
}

/// Python's own, with the TLS session of the control connection used for data as strict servers want it.
fn ftplib(stage: &Stage) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/ftplib-session.py");
    let version = stage.form.pick_version("none", "TLSv1_2", "TLSv1_3");
    let mode = stage.form.pick("plain", "explicit", "implicit");
    let said = stage.must("python3", &[script, &stage.port(), mode, version, &stage.certificate()], "");
    assert!(said.ends_with("done\n"), "{}", tail(&said));
}

/// The client of the Node world.
fn basic_ftp(stage: &Stage) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/basic-ftp.js");
    let up = stage.local("up");
    small(&up, 40);
    write(&up.join("big.bin"), 8, 3_000_001);
    if stage.form != Form::Plain {
        // Node ends a TLS connection that carried nothing without saying so: not told from a broken one.
        for path in sums(&up, false).into_keys().map(|path| up.join(path)) {
            if fs::metadata(&path).unwrap().len() == 0 {
                fs::remove_file(path).unwrap();
            }
        }
    }
    let version = stage.form.pick_version("none", "TLSv1.2", "TLSv1.3");
    let mode = stage.form.pick("plain", "explicit", "implicit");
    let said = stage.must("node", &[script, &stage.port(), mode, version, &stage.certificate()], "");
    assert!(said.ends_with("done\n"), "{}", tail(&said));
    assert_same("stored", &up, &stage.stored("up"), false);
    assert_same("back", &up, &stage.local("down"), false);
    assert_eq!(sum(&stage.stored("appended")), digest(&bytes(8, 3_000_001).repeat(2)));
}

fn ncftp(stage: &Stage) {
    let (up, port) = (stage.local("up"), stage.port());
    small(&up, 60);
    let sign_in = ["-V", "-P", &port, "-u", "alice", "-p", "wonder"];
    let with = |program: &str, more: &[&str]| stage.must(program, &[&sign_in, more].concat(), "");
    with("ncftpput", &["-R", "-m", "127.0.0.1", "/files/new/place", "up"]);
    assert_same("stored", &up, &stage.stored("new/place/up"), true);
    fs::create_dir(stage.local("down")).unwrap();
    with("ncftpget", &["-R", "-T", "127.0.0.1", "down", "/files/new/place/up"]);
    assert_same("back", &up, &stage.local("down/up"), true);
    write(&stage.local("big"), 4, 3_000_001);
    write(&stage.local("half/big"), 4, 1_000_000);
    // Its own way to go on with an upload (REST) sends the whole file again behind the offset: not tried here.
    with("ncftpput", &["127.0.0.1", "/files", "big"]);
    with("ncftpget", &["-z", "127.0.0.1", "half", "/files/big"]);
    assert_eq!(sum(&stage.local("half/big")), sum(&stage.local("big")), "a download goes on");
    with("ncftpput", &["-A", "127.0.0.1", "/files", "big"]);
    assert_eq!(fs::metadata(stage.stored("big")).unwrap().len(), 6_000_002, "appended");
    with("ncftpput", &["-E", "127.0.0.1", "/files/new", "big"]);
    assert_eq!(sum(&stage.stored("new/big")), sum(&stage.local("big")), "active mode");
    let listed =
        stage.must("ncftpls", &["-P", &port, "-u", "alice", "-p", "wonder", "-1", "ftp://127.0.0.1/files/"], "");
    assert!(listed.contains("big\n") && listed.contains("new"), "{listed}");
}

/// What the two classic clients both can; their prompts are commands on the standard input.
fn classic(stage: &Stage, program: &str, arguments: &[&str], more: &str) -> String {
    write(&stage.local("up"), 5, 300_001);
    write(&stage.local("m1"), 6, 100);
    write(&stage.local("m2"), 7, 0);
    fs::write(stage.local("half"), bytes(5, 100_000)).unwrap();
    let script = format!(
        "open localhost {}\nuser alice wonder\nbinary\nmkdir /files/c\ncd /files/c\nput up up\nappend m1 up\nsize up\nmodtime up\n\
         get up back\nreget up half\nrename up moved\nmput m1 m2\ndelete m1\nnlist . names\ndir . lines\npwd\nsystem\nstatus\n{more}bye\n",
        stage.port()
    );
    let said = stage.must(program, arguments, &script);
    let whole = [bytes(5, 300_001), bytes(6, 100)].concat();
    assert_eq!(sum(&stage.stored("c/moved")), digest(&whole), "{said}");
    for copy in ["back", "half"] {
        assert_eq!(sum(&stage.local(copy)), sum(&stage.stored("c/moved")), "{copy}: {said}");
    }
    let read = |name: &str| fs::read_to_string(stage.local(name)).unwrap().replace('\r', "");
    assert_eq!(read("names"), "m2\nmoved\n", "{said}");
    assert!(read("lines").lines().any(|line| line.ends_with(" moved") && line.contains(" 300101 ")), "{said}");
    assert!(said.contains("300101") && !stage.stored("c/m1").exists(), "{said}");
    said
}

fn tnftp(stage: &Stage) {
    classic(stage, "tnftp", &["-n", "-i", "-v", "-p"], "epsv4\nget moved pasv\npassive\nget moved active\n");
    for copy in ["pasv", "active"] {
        assert_eq!(sum(&stage.local(copy)), sum(&stage.stored("c/moved")), "{copy}");
    }
    assert_eq!(modified(&stage.local("back")), modified(&stage.stored("c/moved")), "its time came along");
    let url = |path: &str| format!("ftp://alice:wonder@127.0.0.1:{}/%2Ffiles/{path}", stage.port());
    stage.must("tnftp", &["-V", "-u", &url("by-url"), "up"], "");
    stage.must("tnftp", &["-V", "-o", "by-url", &url("by-url")], "");
    assert_eq!(sum(&stage.local("by-url")), sum(&stage.local("up")));
}

fn inetutils(stage: &Stage) {
    let said = classic(stage, "inetutils-ftp", &["-n", "-i", "-v", "-p"], "passive\nget moved active\n");
    assert!(said.contains("213 300101") && said.contains("up\t"), "size and modtime: {said}");
    assert_eq!(sum(&stage.local("active")), sum(&stage.stored("c/moved")));
}

/// Knows no end of TLS data but the end of the connection: what it uploads counts as whole because `close_notify` is lenient.
fn ftp_ssl(stage: &Stage) {
    let said = classic(stage, "ftp-ssl", &["-n", "-i", "-v", "-p", "-z", "secure"], "");
    assert!(said.contains("[Encrypted data transfer.]"), "{said}");
}

fn busybox(stage: &Stage) {
    write(&stage.local("up"), 5, 3_000_001);
    let port = stage.port();
    let sign_in = ["-u", "alice", "-p", "wonder", "-P", &port, "127.0.0.1"];
    let with = |tool: &[&str], more: &[&str]| stage.must("busybox", &[tool, &sign_in, more].concat(), "");
    with(&["ftpput"], &["/files/up", "up"]);
    with(&["ftpget"], &["back", "/files/up"]);
    fs::write(stage.local("half"), bytes(5, 1_000_000)).unwrap();
    with(&["ftpget", "-c"], &["half", "/files/up"]);
    let url = format!("ftp://alice:wonder@127.0.0.1:{port}/files/up");
    stage.must("busybox", &["wget", "-q", "-O", "by-url", &url], "");
    for copy in ["back", "half", "by-url"] {
        assert_eq!(sum(&stage.local(copy)), sum(&stage.local("up")), "{copy}");
    }
}

/// Four connections that each fetch a piece of one file, and hang up when they have it. (It overlooks a 226 that comes in one packet
/// with the 150 and then waits for its own time limit.)
fn aria2(stage: &Stage) {
    write(&stage.stored("big"), 5, (8 << 20) + 1);
    let pieces = ["-x4", "-s4", "-k1M", "--no-conf", "--file-allocation=none", "-R", "--timeout=10"];
    let sign_in = ["--ftp-user=alice", "--ftp-passwd=wonder", "--summary-interval=0"];
    stage.must("aria2c", &[pieces.as_slice(), &sign_in, &["-d", "down", &stage.url("ftp", "big")]].concat(), "");
    assert_same("in pieces", &stage.daemon.on_disk("/files"), &stage.local("down"), true);
}

fn gftp(stage: &Stage) {
    write(&stage.local("up"), 5, 3_000_001);
    fs::create_dir(stage.local("down")).unwrap();
    let script = format!(
        "open ftp://alice:wonder@127.0.0.1:{}\nbinary\ncd /files\nmkdir g\ncd g\nput up\nlcd down\nget up\nrename up moved\nls\nquit\n",
        stage.port()
    );
    let said = stage.must("gftp-text", &[], &script);
    assert_eq!(sum(&stage.stored("g/moved")), sum(&stage.local("up")), "{said}");
    assert_eq!(sum(&stage.local("down/up")), sum(&stage.local("up")), "{said}");
}
