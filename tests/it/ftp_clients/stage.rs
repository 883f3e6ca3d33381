//! What each client meets: a daemon with one FTP door, a folder of its own, and trees to carry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::daemon::Daemon;

/// Whatever a client does here is done in this time, on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// How a client reaches the server.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Plain,
    Explicit(Version),
    Implicit(Version),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Form {
    pub fn plain() -> Self {
        Self::Plain
    }

    pub fn explicit_tls12() -> Self {
        Self::Explicit(Version::Tls12)
    }

    pub fn explicit_tls13() -> Self {
        Self::Explicit(Version::Tls13)
    }

    pub fn implicit_tls12() -> Self {
        Self::Implicit(Version::Tls12)
    }

    pub fn implicit_tls13() -> Self {
        Self::Implicit(Version::Tls13)
    }

    pub fn version(self) -> Option<Version> {
        match self {
            Self::Plain => None,
            Self::Explicit(version) | Self::Implicit(version) => Some(version),
        }
    }

    /// One of the words, as the programs want them.
    pub fn pick<'a>(self, plain: &'a str, explicit: &'a str, implicit: &'a str) -> &'a str {
        match self {
            Self::Plain => plain,
            Self::Explicit(_) => explicit,
            Self::Implicit(_) => implicit,
        }
    }

    pub fn pick_version<'a>(self, none: &'a str, tls12: &'a str, tls13: &'a str) -> &'a str {
        match self.version() {
            None => none,
            Some(Version::Tls12) => tls12,
            Some(Version::Tls13) => tls13,
        }
    }
}

/// A daemon with one FTP door, and a folder for the client.
pub struct Stage {
    pub form: Form,
    pub daemon: Daemon,
    folder: TempDir,
}

/// What became of a client: all it said.
struct Said {
    ok: bool,
    text: String,
}

impl Stage {
    /// Data connections have to resume the TLS session of their control connection, unless the client cannot.
    pub fn new(form: Form, resumes: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let password = folder.path().join("password");
        fs::write(&password, "wonder\n").unwrap();
        let (password, tls) = (password.display(), form.pick("upgrade", "upgrade", "implicit"));
        let reuse = if resumes { "require" } else { "prefer" };
        let version = form.pick_version("TLSv1.2", "TLSv1.2", "TLSv1.3");
        let openssl = format!(
            "openssl_conf = top\n[top]\nssl_conf = ssl\n[ssl]\nsystem_default = only\n\
             [only]\nMinProtocol = {version}\nMaxProtocol = {version}\n"
        );
        fs::write(folder.path().join("openssl.cnf"), openssl).unwrap();
        let daemon = Daemon::start(&format!(
            r#"
[log]
level = "info,stoa::net=debug"
[ftp]
active = true
require_reuse = "{reuse}"
[[user]]
name = "alice"
password_file = "{password}"
[[space]]
path = "/files"
grants = [ {{ to = "user:alice", allow = "own" }} ]
[[space]]
path = "/scans"
grants = [ {{ to = "user:alice", allow = "own" }} ]
[[listen]]
protocol = "ftp"
address = "127.0.0.1:0"
tls = "{tls}"
"#
        ));
        Self { form, daemon, folder }
    }

    pub fn port(&self) -> String {
        self.daemon.ftp.port().to_string()
    }

    /// `ftp://localhost:2121/files/PATH`
    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}/files/{path}", self.port())
    }

    pub fn local(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn stored(&self, name: &str) -> PathBuf {
        self.daemon.on_disk("/files").join(name)
    }

    pub fn certificate(&self) -> String {
        self.daemon.data.join("tls/cert.pem").display().to_string()
    }

    /// Runs a program in the client's folder, in a time zone that is half an hour off.
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Said {
        let (heard, said) = (self.local("stdin"), self.local("stdout"));
        fs::write(&heard, input).unwrap();
        let output = File::create(&said).unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "Asia/Kolkata")
            .env("SSL_CERT_FILE", self.certificate())
            .env("OPENSSL_CONF", self.local("openssl.cnf"))
            .stdin(File::open(&heard).unwrap())
            .stderr(output.try_clone().unwrap())
            .stdout(Stdio::from(output))
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs what the tests need"));
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut text = Vec::new();
        File::open(&said).unwrap().read_to_end(&mut text).unwrap();
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if status.is_none() {
            text.push_str("\n(ended by the test: it took too long)");
        }
        Said { ok: status.is_some_and(|status| status.success()), text }
    }

    /// The same; it must succeed. What it said.
    pub fn must(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let said = self.run(program, arguments, input);
        assert!(said.ok, "{program} {arguments:?} failed:\n{}", tail(&said.text));
        said.text
    }

    /// The client spoke as it was told to, and the server had nothing to complain about.
    pub fn check(&self) {
        let log = self.daemon.log();
        let spoke = |version: &str| log.contains(&format!("TLS is up cipher=\"{version} "));
        assert_eq!(spoke("TLSv1.2"), self.form.version() == Some(Version::Tls12), "TLS 1.2");
        assert_eq!(spoke("TLSv1.3"), self.form.version() == Some(Version::Tls13), "TLS 1.3");
        let complaint = log.lines().find(|line| line.contains(" ERROR "));
        assert_eq!(complaint, None);
    }
}

pub fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(4000);
    &text[(from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0)..]
}

/// Bytes that are no pattern a mistake could hide in.
pub fn bytes(seed: usize, count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1);
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(count)
    .collect()
}

/// Writes a file that was last changed some day in 2020.
pub fn write(path: &Path, seed: usize, size: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes(seed, size)).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + 1_234 * seed as u64);
    File::options().append(true).open(path).unwrap().set_modified(changed).unwrap();
}

/// So many small files in folders of a hundred, some with names that need care; some are empty.
pub fn small(root: &Path, count: usize) {
    const SIZES: [usize; 7] = [1, 10, 0, 999, 1_460, 4_096, 7_001];
    for at in 0..count {
        let name = match at % 25 {
            3 => format!("with two  blanks {at}.txt"),
            7 => format!("größer ☂ {at}"),
            11 => format!("a#{at}%41+b=c&d;e,f.txt"),
            15 => format!("it's [{at}] (1) {{x}} ~ @ $ !"),
            _ => format!("f{at:04}.bin"),
        };
        write(&root.join(format!("d{}", at / 100)).join(name), at, SIZES[at % SIZES.len()]);
    }
}

/// Three that take many packets, of odd sizes.
pub fn large(root: &Path) {
    for at in 0..3 {
        write(&root.join("large").join(format!("{at}.bin")), 5_000 + at, (8 << 20) + 4_321 * at);
    }
}

/// Digest (and, if wanted, time) of each file below.
pub fn sums(root: &Path, times: bool) -> BTreeMap<PathBuf, (String, u64)> {
    fn walk(root: &Path, folder: &Path, times: bool, into: &mut BTreeMap<PathBuf, (String, u64)>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, times, into);
                continue;
            }
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            into.insert(path.strip_prefix(root).unwrap().into(), (sum(&path), if times { time } else { 0 }));
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, times, &mut found);
    found
}

pub fn sum(path: &Path) -> String {
    let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    digest(&content)
}

pub fn digest(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

/// Both trees hold the same files; said without listing a thousand.
pub fn assert_same(what: &str, left: &Path, right: &Path, times: bool) {
    let (left, right) = (sums(left, times), sums(right, times));
    assert!(!left.is_empty(), "{what}: nothing there");
    let differ = left.keys().chain(right.keys()).find(|path| left.get(*path) != right.get(*path));
    assert_eq!(differ.map(|path| (path, left.get(path), right.get(path))), None, "{what}");
}

pub fn modified(path: &Path) -> u64 {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
