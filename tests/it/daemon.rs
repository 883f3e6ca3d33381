//! A real daemon on a folder of its own, with every port chosen by the system; ended by its process id when dropped.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The binary under test.
pub const STOA: &str = env!("CARGO_BIN_EXE_stoa");

/// How long a daemon may take to start, to end, or to do what a signal says.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Tables a test gets unless it brings its own: a short drain, cheap password hashes, patience with wrong passwords, and
/// every door on a port of loopback that the system chooses.
const BASE: [(&str, &str); 3] = [
    ("[limits]", "drain = \"5s\"\nconnections_per_address = 4096"),
    ("[login]", "memory = \"8 MiB\"\nattempts = 1000000"),
    ("[[listen]]", LISTENERS),
];

const LISTENERS: &str = r#"protocol = "http"
address = "127.0.0.1:0"
[[listen]]
protocol = "ftp"
address = "127.0.0.1:0"
tls = "upgrade"
[[listen]]
protocol = "smtp"
address = "127.0.0.1:0"
tls = "upgrade"
[[listen]]
protocol = "admin"
address = "127.0.0.1:0""#;

/// A folder with a configuration, where a daemon can be started again and again.
pub struct Place {
    folder: TempDir,
    /// Whose daemon it is, if not this process's own account's.
    account: Option<u32>,
}

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    place: Option<Place>,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Where FTP listens.
    pub ftp: SocketAddr,
    /// Where SMTP listens.
    pub smtp: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
}

impl Place {
    /// Writes the configuration: top-level keys first, then tables; see `BASE` for what is there already.
    pub fn new(toml: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), account: None };
        place.configure(toml);
        place
    }

    /// Writes another configuration.
    pub fn configure(&self, toml: &str) {
        let whole = format!("\n{toml}");
        let (top, tables) = whole.split_at(whole.find("\n[").unwrap_or(whole.len()));
        let own = |header: &str| tables.lines().any(|line| line == header);
        let base = BASE.iter().filter(|(header, _)| !own(header)).map(|(header, keys)| format!("{header}\n{keys}\n"));
        let base = base.collect::<Vec<_>>().concat();
        let text = format!("data = {:?}\n{top}\n{base}{tables}\n", self.data().display().to_string());
        fs::write(self.config(), text).expect("the configuration");
    }

    /// Daemon and commands run as another account, which owns the folder. Only root can have it so; for others nothing changes.
    pub fn owned_by(mut self, account: u32) -> Self {
        let folder = self.folder.path();
        if fs::metadata(folder).expect("a folder").uid() != 0 {
            return self;
        }
        // The binary may lie where that account may not look.
        fs::copy(STOA, folder.join("stoa")).expect("a copy");
        for path in [folder.to_owned(), self.config()] {
            chown(path, Some(account), Some(account)).expect("another owner");
        }
        self.account = Some(account);
        self
    }

    fn command(&self) -> Command {
        let Some(account) = self.account else { return clean(STOA.as_ref()) };
        let mut command = clean(&self.folder.path().join("stoa"));
        command.uid(account).gid(account).current_dir(self.folder.path());
        command
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("stoa.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What the daemons here wrote to their standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A command on the same configuration, with something to read.
    pub fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command();
        command.arg("--config").arg(self.config()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        // A command that does not read closes the pipe early.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("an end")
    }

    /// The same, which must succeed; its standard output.
    pub fn must(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {} {error}\n{}", output.status, self.log());
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Starts a daemon without waiting.
    pub fn spawn(&self) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut command = self.command();
        command.arg("--config").arg(self.config()).arg("serve");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("the binary")
    }

    /// Starts a daemon and waits until it listens.
    pub fn start(self) -> Daemon {
        let listeners = self.data().join("listeners");
        let _ = fs::remove_file(&listeners);
        // Ended with the test when it never listens.
        let mut starting = Starting(Some(self.spawn()));
        let mut text = String::new();
        until("the daemon listens", || {
            if let Some(status) = starting.0.as_mut().and_then(|child| child.try_wait().expect("a child")) {
                panic!("the daemon ended: {status}\n{}", self.log());
            }
            text = fs::read_to_string(&listeners).unwrap_or_default();
            !text.is_empty()
        });
        let child = starting.0.take().expect("a child");
        // A door the test did not open has port 0.
        let at = |door: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(door)?.strip_prefix(' '));
            line.unwrap_or("127.0.0.1:0").parse().expect("an address")
        };
        let (http, ftp, smtp, admin) = (at("http"), at("ftp"), at("smtp"), at("admin"));
        Daemon { child, http, ftp, smtp, admin, data: self.data(), place: Some(self) }
    }
}

/// A daemon that does not listen yet.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Daemon {
    /// Starts a daemon; `toml` may hold top-level keys (not `data`), then tables. All doors listen, unless it declares [[listen]].
    pub fn start(toml: &str) -> Self {
        Place::new(toml).start()
    }

    pub fn place(&self) -> &Place {
        self.place.as_ref().expect("a place until the end")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard error.
    pub fn log(&self) -> String {
        self.place().log()
    }

    /// A command on the same configuration; it must succeed.
    pub fn must(&self, args: &[&str], input: &str) -> String {
        self.place().must(args, input)
    }

    /// The path of a tree path on the disk.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.data.join("tree").join(path.trim_start_matches('/'))
    }

    /// Sends `TERM`, `HUP`, `USR1`, …
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits until it wrote this to its log.
    pub fn wait_for_log(&self, words: &str) {
        until(words, || self.log().contains(words));
    }

    /// Waits for its end by itself.
    pub fn wait(mut self) -> (ExitStatus, Place) {
        let mut status = None;
        until("the daemon ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        (status.expect("an end"), self.place.take().expect("a place"))
    }

    /// Asks it to end and waits; its place can start another.
    pub fn stop(self) -> Place {
        self.signal("TERM");
        let (status, place) = self.wait();
        assert!(status.success(), "{status}\n{}", place.log());
        place
    }

    /// Kills it as a power cut would, and gives its place back.
    pub fn kill(mut self) -> Place {
        self.child.kill().expect("a child");
        self.child.wait().expect("an end");
        self.place.take().expect("a place")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(place) = &self.place
        {
            let log = place.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the daemon said at the end:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// The binary without what the environment of the test may hold.
fn clean(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("STOA__") || text.starts_with("LISTEN_") || text == "NOTIFY_SOCKET" || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

/// Asks until it is so, with bounded patience.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
