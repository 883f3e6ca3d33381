//! Unusual command lines beside vsftpd and proftpd in one run: what both take is taken here too, with the same effect.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{Daemon, PATIENCE, until};

/// Each is sent to a session of its own, in a folder of its own that holds `a.txt`, `pub/a.txt` and `pub/sub`.
const CASES: &[&[&str]] = &[
    &["NOOP\r\r\n"],
    &["NOOP \r\n"],
    &["noop\r\n"],
    &["NoOp x\r\n"],
    &[" NOOP\r\n"],
    &["NOOPX\r\n"],
    &["NOO\r\n"],
    &["NO", "OP\r\n"],
    &["NOOP\0\r\n"],
    &["\\xffNOOP\r\n"],
    &["SYST x\r\n"],
    &["QUIT x\r\n"],
    &["CWD pub\r\r\n", "PWD\r\n"],
    &["CWD pub/\r\n"],
    &["CWD ./pub//sub/\r\n"],
    &["CWD .\r\n"],
    &["CWD a.txt\r\n"],
    &["CWD  pub\r\n"],
    &["CWD pub \r\n"],
    &["CWD \"pub\"\r\n"],
    &["CWD pub\\sub\r\n"],
    &["CWD PUB\r\n"],
    &["XCWD pub\r\n", "XCUP\r\n", "XPWD\r\n"],
    &["CDUP\r\n", "CDUP\r\n", "CDUP\r\n", "CDUP\r\n"],
    &["MKD n\r\r\n"],
    &["MKD n/\r\n"],
    &["MKD pub\r\n"],
    &["MKD a.txt\r\n"],
    &["MKD x/y\r\n"],
    &["MKD pub/../z\r\n"],
    &["MKD .\r\n"],
    &["MKD -p\r\n"],
    &["MKD \"q\"\r\n"],
    &["MKD .hid\r\n"],
    &["MKD x.\r\n"],
    &["MKD con\r\n"],
    &["MKD a:b\r\n"],
    &["MKD a\\b\r\n"],
    &["MKD\r\n"],
    &["XMKD n\r\n", "XRMD n\r\n"],
    &["RMD pub\r\n"],
    &["RMD pub/sub/\r\n"],
    &["RMD a.txt\r\n"],
    &["DELE pub\r\n"],
    &["DELE ./a.txt\r\n"],
    &["DELE pub/../a.txt\r\n"],
    &["RNFR a.txt\r\n", "RNTO a.txt\r\n"],
    &["RNFR a.txt\r\n", "RNTO ./a.txt\r\n"],
    &["RNFR pub\r\n", "RNTO pub\r\n"],
    &["RNFR pub/\r\n", "RNTO q\r\n"],
    &["RNFR pub\r\n", "RNTO q/\r\n"],
    &["RNFR a.txt\r\n", "RNTO pub/a.txt\r\n"],
    &["RNFR a.txt\r\n", "RNTO pub\r\n"],
    &["RNFR pub\r\n", "RNTO pub/sub/x\r\n"],
    &["RNFR none\r\n"],
    &["RNTO x\r\n"],
    &["RNFR a.txt\r\n", "RNTO none/x\r\n"],
    &["RNFR a.txt\r\n", "NOOP\r\n", "RNTO b.txt\r\n"],
    &["TYPE A\r\n"],
    &["TYPE a n\r\n"],
    &["TYPE L 8\r\n"],
    &["TYPE E\r\n"],
    &["TYPE\r\n"],
    &["MODE s\r\n"],
    &["MODE B\r\n"],
    &["STRU f\r\n"],
    &["STRU R\r\n"],
    &["EPSV\r\n"],
    &["EPSV 1\r\n"],
    &["EPSV  1\r\n"],
    &["EPSV 1 2\r\n"],
    &["EPSV 3\r\n"],
    &["EPSV x\r\n"],
    &["epsv all\r\n", "EPSV\r\n"],
    &["PASV \r\n"],
    &["PASV\r\n", "PASV\r\n"],
    &["PORT 127,0,0,1,200,1\r\n"],
    &["PORT 127,0,0,1,200,1,\r\n"],
    &["PORT  127,0,0,1,200,001 \r\n"],
    &["PORT 127,0,0,1,4,999\r\n"],
    &["PORT 127,0,0,1,255\r\n"],
    &["EPRT |1|127.0.0.1|51201|\r\n"],
    &["EPRT |3|127.0.0.1|51201|\r\n"],
    &["REST 0\r\n", "REST 0\r\n"],
    &["REST 3\r\n"],
    &["REST  3\r\n"],
    &["REST 03\r\n"],
    &["REST +1\r\n"],
    &["REST 1 2\r\n"],
    &["ALLO 10\r\n"],
    &["ALLO 10 R 5\r\n"],
    &["ABOR\r\n", "ABOR\r\n"],
    &["SIZE pub\r\n"],
    &["SIZE ./a.txt\r\n"],
    &["SIZE a.txt \r\n"],
    &["MDTM a.txt\r\n"],
    &["MDTM pub\r\n"],
    &["STAT\r\n"],
    &["STAT a.txt\r\n"],
    &["HELP\r\n"],
    &["HELP NOOP\r\n"],
    &["OPTS UTF8 ON\r\n"],
    &["OPTS utf8 on\r\n"],
    &["OPTS FOO\r\n"],
    &["SITE FOO\r\n"],
    &["SITE CHMOD 644 none\r\n"],
    &["USER\r\n"],
    &["AUTH\r\n"],
    &["LPRT 1\r\n"],
    &["X\r\n"],
];

/// What both take and is refused here on purpose, with the reason.
const OUR_OWN: &[(&[&str], &str)] = &[
    (&["REST +1\r\n"], "one takes it for 0 and the other for 1: where an upload goes on is not guessed"),
    (
        &["RNFR a.txt\r\n", "NOOP\r\n", "RNTO b.txt\r\n"],
        "RNFR counts for the command right behind it (RFC 959 section 4.1.3)",
    ),
];

/// Cases that run side by side.
const SHARES: usize = 6;

/// One server, and what it shows of a folder.
struct Host {
    name: &'static str,
    address: SocketAddr,
    user: &'static str,
    /// The folder on the disk, and the same as its clients see it.
    root: PathBuf,
    seen: &'static str,
}

/// A peer's process, ended by its id.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Where scripts/test unpacks the packages.
fn unpacked() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/ftp-peers");
    assert!(place.join("usr/sbin/vsftpd").exists(), "vsftpd and proftpd are unpacked by scripts/test; run it once");
    place
}

fn start(program: &str, args: &[&str], folder: &Path) -> Peer {
    let place = unpacked();
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|one| place.join(one).display().to_string());
    let log = fs::File::create(folder.join(format!("{program}.log"))).expect("a log");
    let child = Command::new(place.join("usr/sbin").join(program))
        .args(args)
        .env("LD_LIBRARY_PATH", libraries.join(":"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    Peer(child)
}

/// Root gives its rights up for those of `daemon`; anybody else keeps their own.
fn vsftpd(folder: &Path, root: bool) -> (Peer, Host) {
    let (port, files, config) = (free_port(), folder.join("vsftpd"), folder.join("vsftpd.conf"));
    fs::create_dir_all(files.join("w")).expect("a folder");
    fs::create_dir_all(folder.join("empty")).expect("a folder");
    fs::set_permissions(files.join("w"), fs::Permissions::from_mode(0o777)).expect("a mode");
    let rights = if root { "ftp_username=daemon" } else { "run_as_launching_user=YES" };
    let text = format!(
        "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\nanonymous_enable=YES\nanon_root={}\n\
         anon_upload_enable=YES\nanon_mkdir_write_enable=YES\nanon_other_write_enable=YES\nanon_world_readable_only=NO\n\
         write_enable=YES\nxferlog_enable=NO\nsecure_chroot_dir={}\nseccomp_sandbox=NO\n{rights}\n",
        files.display(),
        folder.join("empty").display()
    );
    fs::write(&config, text).expect("a configuration");
    let peer = start("vsftpd", &[config.to_str().expect("a path")], folder);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    (peer, Host { name: "vsftpd", address, user: "anonymous", root: files.join("w"), seen: "w" })
}

fn proftpd(folder: &Path, root: bool) -> (Peer, Host) {
    let (port, files, config) = (free_port(), folder.join("proftpd"), folder.join("proftpd.conf"));
    fs::create_dir_all(files.join("w")).expect("a folder");
    fs::set_permissions(files.join("w"), fs::Permissions::from_mode(0o777)).expect("a mode");
    let own = fs::metadata(folder).expect("a folder");
    let (user, group) = if root { (65_534, 65_534) } else { (own.uid(), own.gid()) };
    let hash = Command::new("openssl").args(["passwd", "-1", "wonder"]).output().expect("openssl").stdout;
    let hash = String::from_utf8(hash).expect("text");
    let words = folder.join("words");
    fs::write(&words, format!("alice:{}:{user}:{group}::{}:/bin/false\n", hash.trim(), files.display()))
        .expect("a file");
    fs::set_permissions(&words, fs::Permissions::from_mode(0o600)).expect("a mode");
    let mut text = format!(
        "ServerType standalone\nDefaultAddress 127.0.0.1\nSocketBindTight on\nPort {port}\nUseReverseDNS off\nUseIPv6 off\n\
         PidFile {0}/proftpd.pid\nScoreboardFile none\nDelayEngine off\nWtmpLog off\nTransferLog NONE\nSystemLog NONE\n\
         AuthOrder mod_auth_file.c\nAuthUserFile {1}\nRequireValidShell off\nAllowOverwrite on\nAllowStoreRestart on\n",
        folder.display(),
        words.display()
    );
    if root {
        let _ = writeln!(text, "User nobody\nGroup nogroup\nDefaultRoot {}", files.display());
    }
    fs::write(&config, text).expect("a configuration");
    let peer = start("proftpd", &["-n", "-q", "-c", config.to_str().expect("a path")], folder);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    (peer, Host { name: "proftpd", address, user: "alice", root: files.join("w"), seen: "w" })
}

/// The folder of one case.
fn lay(root: &Path, case: usize) -> PathBuf {
    let folder = root.join(case.to_string());
    fs::create_dir_all(folder.join("pub/sub")).expect("folders");
    for place in [folder.clone(), folder.join("pub"), folder.join("pub/sub")] {
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    for name in ["a.txt", "pub/a.txt"] {
        fs::write(folder.join(name), name).expect("a file");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o666)).expect("a mode");
    }
    folder
}

/// Every path below it; files with their content.
fn tree(folder: &Path) -> BTreeSet<String> {
    let (mut found, mut waiting) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(one) = waiting.pop() {
        for path in fs::read_dir(one).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = path.strip_prefix(folder).expect("below").display().to_string();
            match path.is_dir() {
                true => {
                    found.insert(format!("{name}/"));
                    waiting.push(path);
                }
                false => {
                    found.insert(format!("{name}={}", fs::read_to_string(path).expect("text")));
                }
            }
        }
    }
    found
}

struct Session(BufReader<TcpStream>);

impl Session {
    fn open(host: &Host, case: usize) -> Self {
        let stream = TcpStream::connect(host.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut session = Self(BufReader::new(stream));
        assert_eq!(session.class(), '2', "{}", host.name);
        let into = format!("CWD {}/{case}\r\n", host.seen);
        for (line, class) in [
            (format!("USER {}\r\n", host.user), '3'),
            ("PASS wonder\r\n".into(), '2'),
            ("TYPE I\r\n".into(), '2'),
            (into, '2'),
        ] {
            session.say(&line);
            assert_eq!(session.class(), class, "{}: {line}", host.name);
        }
        session.0.get_ref().set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
        session
    }

    fn say(&mut self, text: &str) {
        let bytes = text.replace("\\xff", "\u{ff}").chars().map(|letter| letter as u8).collect::<Vec<_>>();
        self.0.get_mut().write_all(&bytes).expect("written");
    }

    /// The first digit of the next reply; `-` for silence or an end.
    fn class(&mut self) -> char {
        let (mut line, mut code) = (Vec::new(), None);
        loop {
            line.clear();
            match self.0.read_until(b'\n', &mut line) {
                Ok(count) if count > 3 => {}
                Ok(_) => return '-',
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset
                    ) =>
                {
                    return '-';
                }
                Err(error) => panic!("{error}"),
            }
            let first = code.get_or_insert_with(|| line[..3].to_vec()).clone();
            if line.starts_with(&first) && line[3] != b'-' {
                return char::from(first[0]);
            }
        }
    }
}

/// The class of each reply, and what became of the folder.
fn outcome(host: &Host, case: usize, lines: &[&str]) -> (String, BTreeSet<String>) {
    let folder = lay(&host.root, case);
    let mut session = Session::open(host, case);
    let mut classes = String::new();
    for line in lines {
        session.say(line);
        if line.ends_with('\n') {
            classes.push(session.class());
        }
    }
    drop(session);
    (classes, tree(&folder))
}

/// Every `SHARES`th case: how many both peers take alike, and where ours differs.
fn compare([first, second, ours]: [&Host; 3], share: usize) -> (usize, String) {
    let (mut both, mut wrong) = (0, String::new());
    for (case, lines) in CASES.iter().enumerate().skip(share).step_by(SHARES) {
        let (one, other) = (outcome(first, case, lines), outcome(second, case, lines));
        let takes = |classes: &str| classes.chars().all(|class| matches!(class, '2' | '3'));
        if one != other || !takes(&one.0) {
            continue;
        }
        both += 1;
        let own = OUR_OWN.iter().any(|(which, _)| which == lines);
        let got = outcome(ours, case, lines);
        if (got == one) == own {
            let _ = writeln!(wrong, "{lines:?}: they {one:?}, ours {got:?}");
        }
    }
    (both, wrong)
}

#[test]
fn what_vsftpd_and_proftpd_both_take_is_taken() {
    let folder = TempDir::new().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let root = fs::metadata(folder.path()).expect("a folder").uid() == 0;
    let (_vsftpd, first) = vsftpd(folder.path(), root);
    let (_proftpd, second) = proftpd(folder.path(), root);
    let daemon = Daemon::start(
        "[ftp]\nactive = true\n[[space]]\npath = \"/w\"\ngrants = [{ to = \"everyone\", allow = \"edit\" }]\n",
    );
    let ours = Host { name: "stoa", address: daemon.ftp, user: "anonymous", root: daemon.on_disk("/w"), seen: "/w" };
    for host in [&first, &second] {
        until(host.name, || TcpStream::connect(host.address).is_ok());
    }
    let hosts = [&first, &second, &ours];
    // Sessions wait for one another's processes more than for anything else.
    let shares: Vec<(usize, String)> = std::thread::scope(|scope| {
        let shares: Vec<_> = (0..SHARES).map(|share| scope.spawn(move || compare(hosts, share))).collect();
        shares.into_iter().map(|one| one.join().expect("a share")).collect()
    });
    let both: usize = shares.iter().map(|(both, _)| both).sum();
    let wrong: String = shares.into_iter().map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong}");
    assert!(CASES.len() >= 40 && both >= 40, "{both} of {} are taken by both", CASES.len());
}
