//! A folder that stands for a machine: `/etc/stoa`, `/var/lib/stoa` and a clone of the project are below it, and what a page says is done there.
//!
//! The text of a block is used as it is, but for the substitutions in [`Place::here`]. A page that needs a user, a space or a file makes it itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::blocks::{Block, project};
use super::shell::Shell;
use crate::daemon::{STOA, until};

/// How a page finds the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// A clone in which the release is built, and nothing else.
    Clone,
    /// `scripts/run` runs in that clone.
    Running,
    /// `scripts/install` was run, and `systemctl start stoa`.
    Installed,
}

/// Networks of the pages' examples, and what is a client's here.
const NETWORKS: [(&str, &str); 4] = [
    ("10.0.5.0/24", "127.0.0.0/8"),
    ("10.0.6.17", "127.0.0.1"),
    ("10.0.5.7", "127.0.0.1"),
    // There is no account of this name: the daemon runs as whoever runs the tests.
    (" -o root -g stoa", ""),
];

/// Folders that are below the place.
const FOLDERS: [&str; 9] = [
    "/etc/stoa",
    "/etc/ssl",
    "/etc/nginx",
    "/etc/caddy",
    "/etc/haproxy",
    "/etc/systemd/system",
    "/var/lib/stoa",
    "/var/log/stoa",
    "/run/stoa",
];

/// The port of each scheme that a URL of `files.example.org` or `mail.example.org` leaves out.
const SCHEMES: [(&str, u16); 8] = [
    ("https", 443),
    ("http", 80),
    ("ftps", 990),
    ("ftp", 21),
    ("smtps", 465),
    ("smtp", 25),
    ("pop3s", 995),
    ("pop3", 110),
];

/// The ports that `scripts/run` uses where they are free.
const USUAL: [(&str, u16); 5] = [("http", 8080), ("ftp", 2121), ("smtp", 2525), ("pop3", 1110), ("admin", 8081)];

pub struct Place {
    folder: TempDir,
    start: Start,
    /// `scripts/run`, while it runs.
    run: Option<Child>,
    /// Address and port in the configuration → the port here.
    ports: BTreeMap<(String, u16), u16>,
    shell: Option<Shell>,
}

impl Place {
    pub fn new(start: Start) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut place = Self { folder, start, run: None, ports: BTreeMap::new(), shell: None };
        place.lay();
        match start {
            Start::Clone => {}
            Start::Running => drop(place.serve("scripts/run")),
            Start::Installed => {
                place.sh("scripts/install\nsystemctl start stoa").unwrap_or_else(|error| panic!("{error}"));
            }
        }
        place
    }

    /// Makes the clone, and the commands that stand for others.
    fn lay(&self) {
        for folder in FOLDERS.iter().chain(&["/bin", "/home", "/etc/ssl/private", "/clone/target/release"]) {
            fs::create_dir_all(self.path(folder)).expect("a folder");
        }
        for name in ["README.md", "conf", "docs", "scripts", "systemd", "tests"] {
            symlink(project().join(name), self.path("/clone").join(name)).expect("a link");
        }
        symlink(STOA, self.path("/clone/target/release/stoa")).expect("a link");
        let config = self.path("/etc/stoa/stoa.toml");
        let is_clone = self.start == Start::Running;
        let config = if is_clone { String::new() } else { format!("--config '{}'", config.display()) };
        let stoa = include_str!("stoa").replace("STOA", STOA).replace("CONFIG", &config);
        self.command("stoa", &stoa);
        // What `scripts/run` would build is built.
        self.command("cargo", "#!/bin/sh\nexit 0\n");
        self.command("systemctl", include_str!("systemctl"));
    }

    fn command(&self, name: &str, text: &str) {
        let path = self.path("/bin").join(name);
        fs::write(&path, text).expect("a command");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("may be run");
    }

    /// Where a path of the pages is here; one without a slash in front is in the clone.
    pub fn path(&self, name: &str) -> PathBuf {
        match name.strip_prefix('/') {
            Some(below) => self.folder.path().join(below),
            None => self.folder.path().join("clone").join(name),
        }
    }

    /// The daemon's data folder.
    pub fn data(&self) -> PathBuf {
        self.path(if self.start == Start::Installed { "/var/lib/stoa" } else { "stoa-data" })
    }

    /// What the daemon wrote to its log.
    pub fn log(&self) -> String {
        ["/log", "/var/log/stoa/stoa.log"].map(|name| fs::read_to_string(self.path(name)).unwrap_or_default()).concat()
    }

    /// The port here of a port in the configuration.
    pub fn port(&mut self, host: &str, port: u16) -> u16 {
        *self.ports.entry((host.into(), port)).or_insert_with(free_port)
    }

    /// The port of a door of the running daemon.
    fn door(&self, name: &str) -> Option<u16> {
        let text = fs::read_to_string(self.data().join("listeners")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.rsplit_once(':')?.1.parse().ok()
    }

    /// The text of a block for this machine.
    pub fn here(&self, text: &str) -> String {
        let mut text = text.replace("sudo ", "");
        text = text.replace("runuser -u stoa -- /usr/bin/stoa", &self.path("/bin/stoa").display().to_string());
        for (theirs, ours) in NETWORKS {
            text = text.replace(theirs, ours);
        }
        for folder in FOLDERS {
            text = below(&text, folder, &self.path(folder).display().to_string());
        }
        if self.start == Start::Installed {
            text = self.scheme_ports(text);
        } else {
            for (door, usual) in USUAL {
                let port = self.door(door).unwrap_or(usual);
                text = text.replace(&format!("127.0.0.1:{usual}"), &format!("127.0.0.1:{port}"));
                text = text.replace(&format!("localhost:{usual}"), &format!("localhost:{port}"));
            }
        }
        if let Ok(password) = fs::read_to_string(self.data().join("admin-password")) {
            text = text.replace("PASSWORD", password.lines().next().unwrap_or_default());
        }
        text
    }

    /// `https://files.example.org` → `https://localhost:PORT`.
    fn scheme_ports(&self, mut text: String) -> String {
        let listeners = fs::read_to_string(self.data().join("listeners")).unwrap_or_default();
        let open: Vec<u16> = listeners.lines().filter_map(|line| line.rsplit_once(':')?.1.parse().ok()).collect();
        for (scheme, usual) in SCHEMES {
            let known = self.ports.iter().filter(|((_, port), _)| *port == usual).map(|(_, port)| *port);
            // The page may have closed the one it began with.
            let Some(port) = known.clone().rfind(|port| open.contains(port)).or_else(|| known.clone().next_back())
            else {
                continue;
            };
            for host in ["files.example.org", "mail.example.org"] {
                text = text.replace(&format!("{scheme}://{host}"), &format!("{scheme}://localhost:{port}"));
            }
        }
        text
    }

    /// Runs commands, or says what they wrote before one failed.
    pub fn sh(&mut self, commands: &str) -> Result<String, String> {
        let commands = self.here(commands);
        let installs =
            commands.lines().any(|line| line.split('#').next().is_some_and(|line| line.trim() == "scripts/install"));
        if installs {
            self.start = Start::Installed;
        }
        if self.shell.is_none() {
            self.shell = Some(Shell::start(&self.path(""), self.folder.path(), &self.environment()));
        }
        let (before, after) = commands.split_once("scripts/install").filter(|_| installs).unwrap_or(("", &commands));
        let shell = self.shell.as_mut().expect("a shell");
        let mut written = String::new();
        if installs {
            let root = self.folder.path().display().to_string();
            written = shell.run(&format!("{before}\nDESTDIR='{root}' scripts/install"))?;
            self.map_ports(&self.path("/etc/stoa/stoa.toml"));
        }
        let shell = self.shell.as_mut().expect("a shell");
        shell.run(after).map(|more| written.clone() + &more).map_err(|more| written + &more)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let root = self.folder.path().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        vec![
            ("PATH", format!("{root}/bin:{path}:/usr/sbin:/sbin")),
            ("HOME", format!("{root}/home")),
            ("XDG_DATA_HOME", format!("{root}/home/data")),
            ("PLACE", root),
            // What takes long on purpose.
            ("STOA__LOGIN__MEMORY", "8 MiB".into()),
            ("STOA__LIMITS__DRAIN", "2s".into()),
        ]
    }

    /// Runs a line that ends in `scripts/run` until it says that it is up; what it wrote. The one before is ended.
    pub fn serve(&mut self, line: &str) -> String {
        self.end_run();
        let shown = self.path("/run.out");
        // Another test may take a port between the script's look and the daemon's: then once more.
        for _ in 0..5 {
            let output = fs::File::create(&shown).expect("a file");
            let mut command = Command::new("bash");
            command.args(["-c", &format!("exec env {line}")]).current_dir(self.path("")).envs(self.environment());
            command.stdin(Stdio::null()).stderr(output.try_clone().expect("a file")).stdout(output);
            let mut child = command.spawn().expect("bash");
            let (mut text, mut ended) = (String::new(), false);
            until("scripts/run is up", || {
                ended = child.try_wait().expect("a child").is_some();
                text = fs::read_to_string(&shown).unwrap_or_default();
                ended || text.contains("Ctrl-C stops it.")
            });
            if !ended {
                self.run = Some(child);
                return text;
            }
            assert!(text.contains("another program has this port"), "{line}: {text}");
        }
        panic!("{line}: no port is free");
    }

    fn end_run(&mut self) {
        let Some(mut child) = self.run.take() else { return };
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }

    /// Writes a configuration block into its file; the path of that file.
    pub fn put(&mut self, block: &Block) -> PathBuf {
        let path = self.path(block.file());
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let text = self.here(&block.text);
        let text = match fs::read_to_string(&path) {
            Ok(old) if block.replaces() => in_place_of(&old, &text, &block.at),
            Ok(_) if block.file() == "/etc/stoa/stoa.toml" => panic!("{}: say `in place of …`", block.at),
            _ => text,
        };
        fs::write(&path, text).expect("the configuration");
        self.map_ports(&path);
        path
    }

    /// Gives every address with a port in a configuration file one that this machine has.
    fn map_ports(&mut self, path: &Path) {
        let text = fs::read_to_string(path).expect("a configuration");
        let mut mapped = String::new();
        for line in text.lines() {
            let address =
                line.split_once("address = \"").and_then(|(_, rest)| rest.split_once('"')).map(|(text, _)| text);
            let port = address
                .and_then(|text| text.rsplit_once(':'))
                .and_then(|(host, port)| Some((host, port.parse().ok()?)));
            match port {
                // Mapped already: it was written here before.
                Some((_, port)) if self.ports.values().any(|known| *known == port) => mapped.push_str(line),
                Some((host, port)) => {
                    let here = format!("127.0.0.1:{}", self.port(host, port));
                    mapped.push_str(&line.replace(address.unwrap_or_default(), &here));
                }
                None => mapped.push_str(line),
            }
            mapped.push('\n');
        }
        fs::write(path, mapped.replace("\"/var/", &format!("\"{}/var/", self.folder.path().display())))
            .expect("written");
    }
}

/// Puts a path of this machine in the place of `folder`, but not where that is the end of a longer path.
fn below(text: &str, folder: &str, here: &str) -> String {
    let mut pieces = text.split(folder);
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_inner = whole.ends_with(|letter: char| letter.is_alphanumeric() || "._-".contains(letter));
        whole.push_str(if is_inner { folder } else { here });
        whole.push_str(piece);
    }
    whole
}

/// Keys and listeners of `new` take the place of those of `old`: listeners those of the same protocols.
fn in_place_of(old: &str, new: &str, at: &str) -> String {
    let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap_or_else(|error| panic!("{at}: {error}"));
    let (mut whole, new) = (table(old), table(new));
    for (key, value) in new {
        let value = match (key.as_str(), value, whole.remove(&key)) {
            ("listen", toml::Value::Array(new), Some(toml::Value::Array(old))) => {
                let protocol =
                    |entry: &toml::Value| entry.get("protocol").and_then(|it| it.as_str().map(str::to_owned));
                let kept = old.into_iter().filter(|entry| !new.iter().any(|one| protocol(one) == protocol(entry)));
                toml::Value::Array(kept.chain(new.clone()).collect())
            }
            (_, value, _) => value,
        };
        whole.insert(key, value);
    }
    toml::to_string(&whole).expect("TOML")
}

/// A port that nobody had a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.shell.take());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the daemon said at the end:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.end_run();
        // The daemon that the page's `systemctl` started.
        if let Ok(pid) = fs::read_to_string(self.path("/pid")) {
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).stderr(Stdio::null()).status();
        }
    }
}
