//! A real PostgreSQL for the tests: a child process on a socket in a folder of its own, gone when the test is.

use std::fs::Permissions;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Set to 1 to pass without PostgreSQL, knowingly.
const SKIP: &str = "STOA_TEST_SKIP_POSTGRES";

/// Where Debian and others keep the server's programs, the version left out.
const PLACES: &[&str] = &["/usr/lib/postgresql", "/usr/local/pgsql", "/opt/postgresql"];

/// How long the server may take to start.
const START: Duration = Duration::from_mins(1);

/// Settings of a server whose data nobody needs tomorrow; deadlocks are found at once.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "ssl=on",
    "ssl_cert_file=../server.crt",
    "ssl_key_file=../server.key",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=200",
    "deadlock_timeout=50ms",
    "logging_collector=off",
];

/// A running server; dropping it stops it.
pub struct Server {
    programs: PathBuf,
    folder: TempDir,
    user: Option<(u32, u32)>,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts one; `None` only when the environment says to do without.
    ///
    /// # Panics
    /// When there is no PostgreSQL to start: a contract that was not run is not kept.
    pub fn start() -> Option<Self> {
        if std::env::var(SKIP).is_ok_and(|value| value == "1") {
            println!("{SKIP}=1: not tested on PostgreSQL");
            return None;
        }
        let programs = programs().unwrap_or_else(|| {
            panic!("no PostgreSQL below {PLACES:?}: install `postgresql`, or set {SKIP}=1 to test without it")
        });
        let folder = tempfile::Builder::new().prefix("stoa-pg").tempdir().expect("a folder");
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("the folder is given to postgres");
        }
        let data = folder.path().join("data");
        let mut initdb = as_user(&programs.join("initdb"), user);
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        let made = initdb.arg(&data).output().expect("initdb runs");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        certify(folder.path(), user);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let child = serve(&programs, folder.path(), port, user);
        let mut server = Self { programs, folder, user, port, child };
        server.wait();
        Some(server)
    }

    /// A new empty database; its URL.
    pub fn database(&self, name: &str) -> String {
        let made = self.client("createdb").arg(name).output().expect("createdb runs");
        assert!(made.status.success(), "createdb failed: {}", String::from_utf8_lossy(&made.stderr));
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}:{}/{name}", self.port)
    }

    /// The same database over TCP and TLS, trusting the server's own certificate or only the public authorities.
    pub fn over_tls(&self, name: &str, trusted: bool) -> String {
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}?sslmode=require", self.port);
        let authority = self.folder.path().join("server.crt");
        if trusted { format!("{url}&sslrootcert={}", authority.display()) } else { url }
    }

    /// Stops it at once, as a crash would; its data stay.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("an end");
    }

    /// Starts it again at the same place.
    pub fn start_again(&mut self) {
        self.child = serve(&self.programs, self.folder.path(), self.port, self.user);
        self.wait();
    }

    fn client(&self, program: &str) -> Command {
        let mut command = as_user(&self.programs.join(program), self.user);
        command.arg("--host").arg(self.folder.path()).arg("--username=postgres");
        command.arg(format!("--port={}", self.port));
        command
    }

    fn wait(&mut self) {
        let until = Instant::now() + START;
        while !self.client("pg_isready").output().expect("pg_isready runs").status.success() {
            if self.child.try_wait().expect("a child").is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("PostgreSQL did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The shell around the server reads this pipe; its end is the order to stop, also when the test was killed.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The server inside a shell that stops it as soon as nobody holds the other end of its standard input.
fn serve(programs: &Path, folder: &Path, port: u16, user: Option<(u32, u32)>) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let mut shell = as_user(Path::new("/bin/sh"), user);
    shell.args(["-c", "\"$@\" </dev/null & server=$!; read -r _; kill -QUIT $server; wait $server", "sh"]);
    shell.arg(programs.join("postgres")).arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    shell.arg("-p").arg(port.to_string());
    for setting in SETTINGS {
        shell.args(["-c", setting]);
    }
    shell.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
    shell.spawn().expect("the server starts")
}

/// A certificate for the loopback address, its key readable by the server only.
fn certify(folder: &Path, user: Option<(u32, u32)>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("server.crt"), made.cert.pem()).expect("a certificate");
    let key = folder.join("server.key");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("a private key");
    if let Some((uid, gid)) = user {
        chown(&key, Some(uid), Some(gid)).expect("the key is given to postgres");
    }
}

fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// PostgreSQL refuses to run as root: then the user its package made.
fn unprivileged() -> Option<(u32, u32)> {
    let own = rustix::process::getuid().as_raw();
    if own != 0 {
        return None;
    }
    let mut passwd = String::new();
    std::fs::File::open("/etc/passwd").and_then(|mut file| file.read_to_string(&mut passwd)).expect("/etc/passwd");
    let fields = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    Some(fields("postgres").or_else(|| fields("nobody")).expect("a user to run PostgreSQL as"))
}

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let versions = PLACES.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<_> =
        versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists()).collect();
    found.sort_by_key(|path| version(path));
    found.pop().map(|path| path.join("bin"))
}
