//! FTP over real sockets: curl, lftp and Python's ftplib as foreign clients, plain and secured; and what only sockets show.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use stoa::hub::settings::Settings;
use stoa::net::{Gate, Handler, Limits, Link, Permit, Stream, TlsMode};
use stoa::origin::{Origin, Whence};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::smtp::Anyone;
use crate::world::World;

/// Whatever a client does on this machine is done in this time.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Connections of one account.
const ACCOUNT: usize = 8;

/// The door on a free port of the loopback.
pub struct Server {
    pub world: World,
    pub address: SocketAddr,
    stop: CancellationToken,
    sessions: TaskTracker,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    pub async fn start(mode: TlsMode, section: &str) -> Self {
        Self::with(mode, section, |_| {}).await
    }

    pub async fn with(mode: TlsMode, section: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let world = World::with(change).await;
        let handler = world.door("ftp", &section.parse().expect("TOML"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, sessions) = (CancellationToken::new(), TaskTracker::new());
        let tls = world.tls();
        let accepting = Accepting { listener, handler, mode, tls, stop: stop.clone(), sessions: sessions.clone() };
        tokio::spawn(accepting.run());
        Self { world, address, stop, sessions }
    }

    pub fn url(&self, user: &str, path: &str) -> String {
        format!("ftp://{user}@127.0.0.1:{}{path}", self.address.port())
    }

    /// Every session has ended.
    pub async fn quiet(&self) {
        self.sessions.close();
        timeout(PATIENCE, self.sessions.wait()).await.expect("the sessions end");
        self.sessions.reopen();
    }

    pub async fn connect(&self) -> Client<TcpStream> {
        let mut client = Client(BufReader::new(TcpStream::connect(self.address).await.expect("a connection")));
        assert!(client.reply().await.starts_with("220"));
        client
    }

    pub async fn sign_in(&self) -> Client<TcpStream> {
        let mut client = self.connect().await;
        client.expect("USER alice", "331").await;
        client.expect("PASS wonder", "230").await;
        client
    }
}

struct Accepting {
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    mode: TlsMode,
    tls: Arc<stoa::net::Tls>,
    stop: CancellationToken,
    sessions: TaskTracker,
}

impl Accepting {
    async fn run(self) {
        let limits = Limits { connections_per_account: ACCOUNT, ..Limits::default() };
        let gate = Gate::new(limits.clone()).expect("a gate");
        let limits = Arc::new(limits);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let (stream, peer) = accepted.expect("a connection");
            let origin = Origin::from(Whence {
                door: "ftp",
                listener: "ftp@test".into(),
                peer,
                local: stream.local_addr().expect("an address"),
                link: u64::from(peer.port()),
                secure: false,
            });
            let mut link = Link {
                stream: Stream::Tcp(stream),
                origin,
                stop: self.stop.child_token(),
                limits: limits.clone(),
                tls: (self.mode != TlsMode::None).then(|| self.tls.clone()),
                permit: gate.admit().unwrap_or_else(|_| Permit::uncounted()),
                trusted: None,
            };
            let (handler, implicit) = (self.handler.clone(), self.mode == TlsMode::Implicit);
            self.sessions.spawn(async move {
                if implicit {
                    link.secure().await?;
                }
                handler.serve(link).await
            });
        }
    }
}

/// Speaks lines.
pub struct Client<S>(pub BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("written");
        self.0.flush().await.expect("flushed");
    }

    /// One reply, all its lines.
    pub async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("an answer in time");
            let last = line.len() < 4 || (line.as_bytes()[3] == b' ' && line.as_bytes()[0].is_ascii_digit());
            reply.push_str(&line);
            if last || read.is_err() {
                return reply;
            }
        }
    }

    pub async fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line}\r\n")).await;
        self.reply().await
    }

    pub async fn expect(&mut self, line: &str, start: &str) -> String {
        let reply = self.ask(line).await;
        assert!(reply.starts_with(start), "{line} → {reply}");
        reply
    }

    /// EPSV, and the connection to the port it tells.
    pub async fn lane(&mut self) -> TcpStream {
        let reply = self.expect("EPSV", "229").await;
        let port = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
        TcpStream::connect(("127.0.0.1", port)).await.expect("a data connection")
    }
}

pub fn connector() -> TlsConnector {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

pub async fn secure(stream: TcpStream) -> TlsStream<TcpStream> {
    let name = "localhost".try_into().expect("a name");
    connector().connect(name, stream).await.expect("a handshake")
}

pub async fn run(program: &str, arguments: &[&str]) -> Output {
    let command = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    timeout(PATIENCE, command).await.expect("the client ends").unwrap_or_else(|error| panic!("{program}: {error}"))
}

pub async fn must(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Bytes that are no pattern a mistake could hide in.
pub fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(count)
    .collect()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

async fn curl_there_and_back(mode: TlsMode, scheme: &str, extra: &[&str]) {
    let server = Server::start(mode, "").await;
    let content = bytes(3_000_000);
    let (up, down) = (server.world.folder.path().join("up.bin"), server.world.folder.path().join("down.bin"));
    std::fs::write(&up, &content).unwrap();
    let url = server.url("alice:wonder", "/scans/2026/07/up.bin").replace("ftp:", &format!("{scheme}:"));
    let base = ["-sS", "-k"];
    let with =
        |more: &[&str]| -> Vec<String> { base.iter().chain(extra).chain(more).map(ToString::to_string).collect() };
    let curl = async |more: &[&str]| {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        must("curl", &arguments).await
    };
    curl(&["--ftp-create-dirs", "-T", text(&up), &url]).await;
    assert_eq!(std::fs::read(server.world.disk("/scans/2026/07/up.bin")).unwrap(), content);
    curl(&["-o", text(&down), &url]).await;
    assert_eq!(std::fs::read(&down).unwrap(), content);
    std::fs::write(&down, &content[..1_000_001]).unwrap();
    curl(&["-C", "-", "-o", text(&down), &url]).await;
    assert_eq!(std::fs::read(&down).unwrap(), content);
    assert_eq!(curl(&["-r", "10-19", &url]).await.len(), String::from_utf8_lossy(&content[10..20]).len());
    let folder = url.trim_end_matches("up.bin").to_owned();
    assert!(curl(&["-l", &folder]).await.contains("up.bin"));
    assert!(curl(&[&folder]).await.contains(" 3000000 "));
    let head = curl(&["-I", &url]).await;
    assert!(head.contains("Content-Length: 3000000") && head.contains("Last-Modified"), "{head}");
    curl(&["-Q", "-DELE /scans/2026/07/up.bin", "-l", &folder]).await;
    assert!(!server.world.disk("/scans/2026/07/up.bin").exists());
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_brings_and_fetches_a_file() {
    curl_there_and_back(TlsMode::None, "ftp", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_brings_and_fetches_a_file_over_auth_tls() {
    curl_there_and_back(TlsMode::Upgrade, "ftp", &["--ssl-reqd"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_brings_and_fetches_a_file_over_implicit_tls() {
    curl_there_and_back(TlsMode::Implicit, "ftps", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_uses_active_mode_where_it_is_allowed() {
    let server = Server::start(TlsMode::None, "active = true").await;
    server.world.put("/pub/a.txt", b"hello");
    for extra in ["--eprt", "--disable-eprt"] {
        let url = server.url("bob:builder", "/pub/a.txt");
        assert_eq!(must("curl", &["-sS", extra, "--ftp-port", "127.0.0.1", &url]).await, "hello");
    }
}

async fn lftp_mirrors(mode: TlsMode, settings: &str) {
    let server = Server::start(mode, "").await;
    let local = server.world.folder.path().join("local");
    let back = server.world.folder.path().join("back");
    for (name, size) in [("a.txt", 10), ("sub/empty", 0), ("sub/deep/ünïcode näme.bin", 700_000), ("with space", 3)]
    {
        let place = local.join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, bytes(size)).unwrap();
    }
    let open =
        format!("set net:max-retries 1; set cmd:fail-exit yes; {settings} open -u alice,wonder 127.0.0.1:{};", {
            server.address.port()
        });
    let script = format!(
        "{open} mirror -R --parallel=2 {} /scans/m; mirror --parallel=2 /scans/m {}; chmod 644 /scans/m/a.txt; \
         mv /scans/m/a.txt /scans/m/b.txt; put -O /scans/m {} -o b.txt; rm -r /scans/m/sub; cls -1 /scans/m; quit",
        text(&local),
        text(&back),
        text(&local.join("with space")).replace(' ', "\\ "),
    );
    let said = must("lftp", &["-c", &script]).await;
    assert!(said.contains("b.txt") && !said.contains("a.txt"), "{said}");
    for name in ["a.txt", "sub/empty", "sub/deep/ünïcode näme.bin", "with space"] {
        assert_eq!(std::fs::read(local.join(name)).unwrap(), std::fs::read(back.join(name)).unwrap(), "{name}");
        let time = |root: &Path| std::fs::metadata(root.join(name)).unwrap().modified().unwrap();
        let apart = time(&local).duration_since(time(&back)).unwrap_or_else(|error| error.duration());
        assert!(apart < Duration::from_secs(2), "{name}: times survive the way there and back");
    }
    assert_eq!(std::fs::read(server.world.disk("/scans/m/b.txt")).unwrap(), bytes(3));
    assert!(!server.world.disk("/scans/m/sub").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lftp_mirrors_there_and_back() {
    lftp_mirrors(TlsMode::None, "set ftp:ssl-allow no;").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lftp_mirrors_there_and_back_over_tls() {
    let tls = "set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set ssl:verify-certificate no;";
    lftp_mirrors(TlsMode::Upgrade, tls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_ftplib_understands_every_reply() {
    let server = Server::start(TlsMode::Upgrade, "").await;
    let script = r"
import ftplib, io, ssl, sys
port = int(sys.argv[1])
context = ssl._create_unverified_context()
for cls in (ftplib.FTP, ftplib.FTP_TLS):
    ftp = cls(context=context) if cls is ftplib.FTP_TLS else cls()
    ftp.connect('127.0.0.1', port)
    ftp.login('alice', 'wonder')
    if cls is ftplib.FTP_TLS: ftp.prot_p()
    for family in (False, True):
        ftp.af = ftp.af if family else __import__('socket').AF_INET
        ftp.mkd('/pub/d'); ftp.cwd('/pub/d')
        assert ftp.pwd() == '/pub/d'
        ftp.storbinary('STOR a.bin', io.BytesIO(b'x' * 100000))
        ftp.storbinary('APPE a.bin', io.BytesIO(b'y' * 10))
        assert ftp.size('a.bin') == 100010
        got = io.BytesIO(); ftp.retrbinary('RETR a.bin', got.write, rest=100005)
        assert got.getvalue() == b'yyyyy', got.getvalue()
        lines = []; ftp.retrlines('LIST', lines.append)
        assert len(lines) == 1 and lines[0].endswith(' a.bin'), lines
        facts = dict(ftp.mlsd())
        assert facts['a.bin']['size'] == '100010' and facts['a.bin']['type'] == 'file', facts
        assert ftp.nlst('/pub/d') == ['/pub/d/a.bin']
        ftp.rename('a.bin', 'b.bin')
        assert ftp.voidcmd('MDTM b.bin').startswith('213 20')
        ftp.delete('b.bin'); ftp.cwd('..'); ftp.rmd('d')
    try: ftp.retrbinary('RETR none', print)
    except ftplib.error_perm as error: assert str(error).startswith('550')
    else: assert False
    ftp.quit()
";
    must("python3", &["-c", script, &server.address.port().to_string()]).await;
}

#[tokio::test]
async fn what_was_slipped_in_behind_auth_tls_is_not_heard() {
    let server = Server::start(TlsMode::Upgrade, "").await;
    server.world.put("/pub/a.txt", b"x");
    let mut client = server.sign_in().await;
    client.send("AUTH TLS\r\nDELE /pub/a.txt\r\nUSER evil\r\nPWD\r\n").await;
    assert!(client.reply().await.starts_with("234"));
    assert!(client.0.buffer().is_empty(), "nothing was said in the clear after the go-ahead");
    let mut client = Client(BufReader::new(secure(client.0.into_inner()).await));
    client.expect("NOOP", "200").await;
    // RFC 4217 §4: the sign-in of before is forgotten too.
    client.expect("PWD", "530").await;
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    client.expect("PWD", "257").await;
    client.expect("AUTH TLS", "503").await;
    assert!(server.world.disk("/pub/a.txt").exists());
}

#[tokio::test]
async fn a_cut_tls_upload_is_not_taken_for_a_whole_one_where_that_is_asked_for() {
    let server = Server::start(TlsMode::Implicit, "close_notify = \"strict\"").await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut client = Client(BufReader::new(secure(stream).await));
    assert!(client.reply().await.starts_with("220"));
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    // Implicit TLS protects data without PROT P.
    for whole in [false, true] {
        let lane = client.lane().await;
        client.expect("STOR /pub/a.bin", "150").await;
        let mut lane = secure(lane).await;
        lane.write_all(b"half").await.unwrap();
        lane.flush().await.unwrap();
        match whole {
            true => lane.shutdown().await.unwrap(),
            // Someone on the way ends the TCP connection: there is no close_notify.
            false => lane.get_mut().0.shutdown().await.unwrap(),
        }
        let reply = client.reply().await;
        assert!(reply.starts_with(if whole { "226" } else { "426" }), "{reply}");
        assert_eq!(server.world.disk("/pub/a.bin").exists(), whole);
    }
}

#[tokio::test]
async fn a_stranger_cannot_take_the_data_connection() {
    let server = Server::start(TlsMode::None, "").await;
    server.world.put("/pub/a.txt", b"hello");
    let mut client = server.sign_in().await;
    let reply = client.expect("EPSV", "229").await;
    let port: u16 = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stranger = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    client.expect("RETR /pub/a.txt", "150").await;
    let mut stolen = Vec::new();
    let _ = timeout(PATIENCE, stranger.read_to_end(&mut stolen)).await.expect("the stranger is dropped");
    assert!(stolen.is_empty());
    let mut lane = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut content = String::new();
    lane.read_to_string(&mut content).await.unwrap();
    assert_eq!(content, "hello");
    assert!(client.reply().await.starts_with("226"));
}

#[tokio::test]
async fn a_reset_upload_is_not_taken_for_a_whole_one() {
    let server = Server::start(TlsMode::None, "").await;
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    client.expect("STOR /pub/a.bin", "150").await;
    lane.write_all(b"half").await.unwrap();
    lane.set_zero_linger().unwrap();
    drop(lane);
    assert!(client.reply().await.starts_with("426"));
    assert!(!server.world.disk("/pub/a.bin").exists());
    client.expect("NOOP", "200").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_leaves_nothing_to_see_and_can_go_on() {
    let server = Server::start(TlsMode::None, "").await;
    let content = bytes(4_000_000);
    let up = server.world.folder.path().join("up.bin");
    std::fs::write(&up, &content).unwrap();
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    client.expect("STOR /scans/big.bin", "150").await;
    lane.write_all(&content[..1_500_000]).await.unwrap();
    // What a kernel does for a killed process: both connections end in good order, one after the other.
    drop(lane);
    drop(client);
    server.quiet().await;
    assert!(!server.world.disk("/scans/big.bin").exists(), "half a file is shown");
    let mut client = server.sign_in().await;
    client.expect("SIZE /scans/big.bin", "213 1500000").await;
    let url = server.url("alice:wonder", "/scans/big.bin");
    must("curl", &["-sS", "-C", "-", "-T", text(&up), &url]).await;
    assert_eq!(std::fs::read(server.world.disk("/scans/big.bin")).unwrap(), content);
}

#[tokio::test]
async fn a_download_nobody_reads_can_be_aborted() {
    let server = Server::start(TlsMode::None, "").await;
    server.world.put("/pub/big.bin", &bytes(32 << 20));
    let mut client = server.sign_in().await;
    let lane = client.lane().await;
    client.expect("RETR /pub/big.bin", "150").await;
    // Nobody reads: ABOR must still be heard at once.
    client.expect("ABOR", "426").await;
    assert!(client.reply().await.starts_with("226"));
    drop(lane);
    client.expect("NOOP", "200").await;
}

#[tokio::test]
async fn data_in_the_clear_is_refused_where_tls_is_required() {
    let server = Server::start(TlsMode::Upgrade, "require_tls = true").await;
    let mut client = server.connect().await;
    client.expect("USER alice", "530").await;
    client.expect("AUTH TLS", "234").await;
    let mut client = Client(BufReader::new(secure(client.0.into_inner()).await));
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    let lane = client.lane().await;
    client.expect("NLST", "521").await;
    drop(lane);
    client.expect("PBSZ 0", "200").await;
    client.expect("PROT P", "200").await;
    let lane = client.lane().await;
    client.expect("NLST", "150").await;
    let mut names = String::new();
    secure(lane).await.read_to_string(&mut names).await.unwrap();
    assert!(names.contains("scans\r\n"), "{names}");
    assert!(client.reply().await.starts_with("226"));
}

#[tokio::test]
async fn an_account_has_so_many_connections() {
    let server = Server::start(TlsMode::None, "").await;
    let mut held = Vec::new();
    for _ in 0..ACCOUNT {
        held.push(server.sign_in().await);
    }
    let mut client = server.connect().await;
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "421 this account has too many connections").await;
    assert_eq!(client.reply().await, "", "closed");
    held.pop();
    let mut client = server.connect().await;
    client.expect("USER bob", "331").await;
    client.expect("PASS builder", "230").await;
    let again = async {
        loop {
            let mut client = server.connect().await;
            client.expect("USER alice", "331").await;
            if client.ask("PASS wonder").await.starts_with("230") {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("a place is free again");
}
