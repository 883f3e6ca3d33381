//! The network room over real sockets: limits, PROXY headers, TLS, drain, files, and what the log says about it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use stoa::net::pour::send_file;
use stoa::net::{
    Drained, Gate, Handler, Limits, Link, ListenSettings, Passed, Service, Tls, TlsMode, TlsSettings, Workers, bind_all,
};
use stoa::units::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// A language of single letters.
struct Letters;

#[async_trait]
impl Handler for Letters {
    fn alpn(&self) -> &'static [&'static [u8]] {
        &[b"letters"]
    }

    fn busy(&self) -> &'static [u8] {
        b"busy\r\n"
    }

    async fn serve(&self, mut link: Link) -> std::io::Result<()> {
        link.stream.write_all(b"hello\r\n").await?;
        loop {
            let mut letter = [0];
            let read = tokio::select! {
                read = link.stream.read(&mut letter) => read?,
                () = link.stop.cancelled() => {
                    link.stream.write_all(b"parting\r\n").await?;
                    return link.stream.shutdown().await;
                }
            };
            let answer = match letter[0] {
                _ if read == 0 => return Ok(()),
                b'a' => link.permit.account("alice").map_or_else(|error| error.to_string(), |()| "welcome".into()),
                b'c' => link.stream.cipher().unwrap_or("clear".into()),
                b'e' => "echo".into(),
                b'h' => {
                    link.stream.write_all(b"holding\r\n").await?;
                    std::future::pending().await
                }
                b'p' => panic!("asked to"),
                b's' => {
                    link.stream.write_all(b"go\r\n").await?;
                    link.secure().await?;
                    format!("secure {}", link.origin.secure)
                }
                b'w' => format!("{} {}", link.origin.peer, link.origin.door),
                other => format!("what is {other}"),
            };
            link.stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }
}

/// A daemon of one listener.
struct House {
    address: SocketAddr,
    workers: Workers,
    gate: Arc<Gate>,
    tls: Arc<Tls>,
    data: tempfile::TempDir,
}

impl House {
    fn open(mode: TlsMode, limits: Limits) -> Self {
        Self::with(Arc::new(Letters), mode, limits)
    }

    fn with(handler: Arc<dyn Handler>, mode: TlsMode, limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let tls = Tls::open(&TlsSettings::default(), data.path(), &[]).unwrap();
        let gate = Gate::new(limits).unwrap();
        let listen = ListenSettings {
            protocol: "letters".into(),
            address: "127.0.0.1:0".into(),
            tls: mode,
            ..ListenSettings::default()
        };
        let mut bound = bind_all(&[listen], &mut Passed::default()).unwrap();
        let bound = bound.remove(0);
        let address = bound.address;
        let service = Service::new("ftp", handler, mode, &tls, &gate);
        let workers = Workers::start(2, vec![(bound, service)], CancellationToken::new()).unwrap();
        Self { address, workers, gate, tls, data }
    }

    fn call(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// Waits until the daemon has noticed what happened to its connections.
    fn until_open(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.gate.open() != count {
            assert!(Instant::now() < deadline, "{} connections are open, not {count}", self.gate.open());
            std::thread::yield_now();
        }
    }
}

struct Peer<S: Read>(BufReader<S>);

impl Peer<TcpStream> {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(BufReader::new(stream))
    }
}

impl<S: Read + Write> Peer<S> {
    /// The next line; `None` when the other side closed, however roughly.
    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(read) if read > 0 => Some(line.trim_end().into()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing was said in time"),
            Ok(_) | Err(_) => None,
        }
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.hear().expect("an answer")
    }
}

fn hear(peer: &mut Peer<TcpStream>, line: &str) {
    assert_eq!(peer.hear().as_deref(), Some(line));
}

#[test]
fn an_address_has_so_many_places_and_gets_one_back_when_it_leaves() {
    let house = House::open(TlsMode::None, Limits { connections_per_address: 2, ..Limits::default() });
    let (mut one, mut two) = (house.call(), house.call());
    hear(&mut one, "hello");
    hear(&mut two, "hello");
    let mut three = house.call();
    hear(&mut three, "busy");
    assert_eq!(three.hear(), None);
    drop(one);
    house.until_open(1);
    hear(&mut house.call(), "hello");
}

#[test]
fn the_whole_daemon_and_one_account_have_their_limits() {
    let limits = Limits { connections: 3, connections_per_account: 1, ..Limits::default() };
    let house = House::open(TlsMode::None, limits.clone());
    let mut peers: Vec<_> = (0..3).map(|_| house.call()).collect();
    for peer in &mut peers {
        hear(peer, "hello");
    }
    assert_eq!(peers[0].ask("a"), "welcome");
    assert_eq!(peers[0].ask("a"), "welcome");
    assert!(peers[1].ask("a").contains("too many connections"));
    hear(&mut house.call(), "busy");
    house.gate.change(Limits { connections: 4, ..limits }).unwrap();
    hear(&mut house.call(), "hello");
}

#[test]
fn a_trusted_proxy_names_the_peer_and_is_not_counted_itself() {
    let limits = Limits { connections_per_address: 1, proxy_from: vec!["127.0.0.0/8".into()], ..Limits::default() };
    let house = House::open(TlsMode::None, limits);
    let mut peers = Vec::new();
    for number in 1..4 {
        let mut peer = house.call();
        peer.say(&format!("PROXY TCP4 192.0.2.{number} 198.51.100.1 5000 21\r\nw"));
        hear(&mut peer, "hello");
        hear(&mut peer, &format!("192.0.2.{number}:5000 ftp"));
        peers.push(peer);
    }
    let mut again = house.call();
    again.say("PROXY TCP4 192.0.2.1 198.51.100.1 5001 21\r\n");
    hear(&mut again, "busy");
    let mut liar = house.call();
    liar.say("GET / HTTP/1.1\r\n");
    assert_eq!(liar.hear(), None);
}

#[test]
fn a_proxy_that_says_nothing_loses_its_place_at_the_deadline() {
    let limits = Limits {
        handshake: Span(Duration::from_millis(100)),
        proxy_from: vec!["127.0.0.1".into()],
        ..Limits::default()
    };
    let house = House::open(TlsMode::None, limits);
    let mut silent = house.call();
    silent.say("PROXY TCP4 ");
    assert_eq!(silent.hear(), None);
    house.until_open(0);
}

#[test]
fn a_fault_in_one_connection_ends_only_that_one() {
    let house = House::open(TlsMode::None, Limits::default());
    let (mut faulty, mut calm) = (house.call(), house.call());
    hear(&mut faulty, "hello");
    hear(&mut calm, "hello");
    faulty.say("p");
    assert_eq!(faulty.hear(), None);
    assert_eq!(calm.ask("e"), "echo");
    house.until_open(1);
}

#[test]
fn a_connection_older_than_the_total_parts_and_is_cut_when_it_does_not() {
    let limits = Limits {
        total: Span(Duration::from_millis(500)),
        drain: Span(Duration::from_millis(100)),
        ..Limits::default()
    };
    let house = House::open(TlsMode::None, limits);
    let (mut polite, mut stuck) = (house.call(), house.call());
    hear(&mut polite, "hello");
    hear(&mut stuck, "hello");
    assert_eq!(stuck.ask("h"), "holding");
    hear(&mut polite, "parting");
    assert_eq!((polite.hear(), stuck.hear()), (None, None));
    house.until_open(0);
}

#[tokio::test]
async fn a_drain_lets_links_part_and_refuses_new_ones() {
    let house = House::open(TlsMode::None, Limits::default());
    let mut peer = house.call();
    hear(&mut peer, "hello");
    let drained = house.workers.drain(Duration::from_secs(10)).await;
    assert_eq!(drained, Drained { open: 1, cut: 0 });
    hear(&mut peer, "parting");
    assert!(TcpStream::connect(house.address).is_err());
    assert_eq!(house.gate.open(), 0);
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_part_and_a_second_word_hurries_it() {
    let house = House::open(TlsMode::None, Limits::default());
    let mut peer = house.call();
    hear(&mut peer, "hello");
    assert_eq!(peer.ask("h"), "holding");
    let links = house.workers.links().clone();
    let begun = Instant::now();
    let (drained, ()) = tokio::join!(house.workers.drain(Duration::from_mins(1)), async {
        tokio::task::yield_now().await;
        links.now();
    });
    assert_eq!(drained, Drained { open: 1, cut: 1 });
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(peer.hear(), None);
    assert_eq!(house.gate.open(), 0);
}

/// A TLS client that believes the house's own certificate.
mod client {
    use super::*;
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    pub type Session = StreamOwned<ClientConnection, TcpStream>;

    pub fn config(house: &House) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(house.data.path().join("tls/cert.pem")).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"letters".to_vec()];
        Arc::new(config)
    }

    pub fn call(config: &Arc<ClientConfig>, tcp: TcpStream) -> Peer<Session> {
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        Peer(BufReader::new(StreamOwned::new(session, tcp)))
    }

    pub fn certificate(peer: &Peer<Session>) -> Vec<u8> {
        peer.0.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
    }
}

#[test]
fn a_certificate_is_swapped_under_connections_that_go_on() {
    let house = House::open(TlsMode::Implicit, Limits::default());
    let config = client::config(&house);
    let mut old = client::call(&config, TcpStream::connect(house.address).unwrap());
    assert_eq!(old.hear().as_deref(), Some("hello"));
    assert!(old.ask("c").starts_with("TLSv1.3 "));
    assert_eq!(old.0.get_ref().conn.alpn_protocol(), Some(&b"letters"[..]));

    house.tls.reload(&TlsSettings::default(), house.data.path(), &["new.example".into()]).unwrap();
    assert_eq!(old.ask("e"), "echo");
    let mut new = client::call(&client::config(&house), TcpStream::connect(house.address).unwrap());
    assert_eq!(new.hear().as_deref(), Some("hello"));
    assert_ne!(client::certificate(&old), client::certificate(&new));

    let nowhere =
        TlsSettings { certificate: "/nowhere/c.pem".into(), key: "/nowhere/k.pem".into(), ..TlsSettings::default() };
    assert!(house.tls.reload(&nowhere, house.data.path(), &[]).is_err());
    let mut still = client::call(&client::config(&house), TcpStream::connect(house.address).unwrap());
    assert_eq!(still.hear().as_deref(), Some("hello"));
}

#[test]
fn a_second_connection_resumes_the_session_of_the_first() {
    let house = House::open(TlsMode::Implicit, Limits::default());
    let config = client::config(&house);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut peer = client::call(&config, TcpStream::connect(house.address).unwrap());
        assert_eq!(peer.hear().as_deref(), Some("hello"));
        kinds.push(peer.0.get_ref().conn.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
}

#[test]
fn a_plain_connection_is_upgraded_when_it_asks() {
    let house = House::open(TlsMode::Upgrade, Limits::default());
    let mut plain = house.call();
    hear(&mut plain, "hello");
    assert_eq!(plain.ask("c"), "clear");
    assert_eq!(plain.ask("s"), "go");
    let mut secure = client::call(&client::config(&house), plain.0.into_inner());
    assert_eq!(secure.hear().as_deref(), Some("secure true"));
    assert_eq!(secure.ask("e"), "echo");
}

#[test]
fn a_peer_that_does_not_speak_tls_is_closed_at_once_and_a_silent_one_at_the_deadline() {
    let limits = Limits { handshake: Span(Duration::from_millis(200)), ..Limits::default() };
    let house = House::open(TlsMode::Implicit, limits);
    let (mut plain, mut silent) = (house.call(), house.call());
    plain.say("GET / HTTP/1.1\r\n\r\n");
    let mut alert = Vec::new();
    let _ = plain.0.read_to_end(&mut alert);
    assert!(!alert.starts_with(b"hello"));
    assert_eq!(silent.hear(), None);
    house.until_open(0);
}

/// Sends a file and ends.
struct Pourer(Arc<std::fs::File>, u64);

#[async_trait]
impl Handler for Pourer {
    async fn serve(&self, mut link: Link) -> std::io::Result<()> {
        let mut sent = 0;
        let mut count = |more| sent += more;
        let result = send_file(&mut link.stream, Arc::clone(&self.0), 1, self.1, &mut count).await;
        assert!(result.is_err() || sent == self.1);
        result?;
        link.stream.shutdown().await
    }
}

fn poured(mode: TlsMode, claimed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..3_000_001_u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    file.write_all(&content).unwrap();
    let house = House::with(Arc::new(Pourer(Arc::new(file), claimed)), mode, Limits::default());
    let tcp = TcpStream::connect(house.address).unwrap();
    let mut got = Vec::new();
    let _ = match mode {
        TlsMode::None => Peer::new(tcp).0.read_to_end(&mut got),
        _ => client::call(&client::config(&house), tcp).0.read_to_end(&mut got),
    };
    (content[1..].to_vec(), got)
}

#[test]
fn a_file_arrives_whole_by_sendfile_and_under_tls() {
    for mode in [TlsMode::None, TlsMode::Implicit] {
        let (content, got) = poured(mode, 3_000_000);
        assert!(content == got, "{mode:?}: {} bytes of {}", got.len(), content.len());
    }
}

#[test]
fn a_file_that_became_shorter_ends_the_connection_after_what_is_there() {
    for mode in [TlsMode::None, TlsMode::Implicit] {
        let (content, got) = poured(mode, 5_000_000);
        assert!(got.len() <= content.len() && content.starts_with(&got), "{mode:?}");
    }
}

#[test]
#[ignore = "run by the next test, in a process of its own"]
fn a_daemon_with_few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let house = House::open(TlsMode::None, Limits::default());
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let few = Some(used as u64 + 5);
    setrlimit(Resource::Nofile, Rlimit { current: few, maximum: few }).unwrap();
    println!("\naddress {}", house.address);
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_daemon_out_of_descriptors_rests_and_serves_again_when_some_are_free() {
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "net::a_daemon_with_few_descriptors", "--ignored", "--nocapture"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(daemon.stdout.take().unwrap());
    let address =
        told.by_ref().lines().find_map(|line| line.unwrap().strip_prefix("address ").map(String::from)).unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let mut served = Vec::new();
    let (mut waiting, spent) = loop {
        let mut peer = Peer::new(TcpStream::connect(&address).unwrap());
        peer.0.get_mut().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let before = ticks();
        match peer.0.read_line(&mut String::new()) {
            Ok(_) => served.push(peer),
            Err(_) => break (peer, ticks() - before),
        }
        assert!(served.len() < 100, "the daemon has more descriptors than it was given");
    };
    // A hundred ticks are a second: half a second of spinning would be about fifty for each worker.
    assert!(spent < 15, "the accept loops spin: {spent} ticks");

    assert!(served.pop().is_some());
    waiting.0.get_mut().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    hear(&mut waiting, "hello");
    drop(daemon.stdin.take());
    assert!(daemon.wait().unwrap().success());
}

mod log {
    use std::fs::read_to_string;

    use stoa::origin::Origin;
    use stoa::telemetry::Access;
    use stoa::telemetry::LogSettings;
    use stoa::telemetry::log::within;

    use super::*;

    fn access(path: &str) {
        let origin = Origin::inside("ftp");
        let took = Duration::from_millis(3);
        Access { origin: &origin, account: "alice", verb: "STOR", path, bytes: 7, result: "226", took }.note();
    }

    fn written(format: &str, level: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            folder: folder.path().display().to_string(),
            format: format.into(),
            level: level.into(),
            ..LogSettings::default()
        };
        within(&settings, || {
            let span = tracing::info_span!("link", link = 7, peer = "192.0.2.1:5");
            let _inside = span.enter();
            tracing::info!("an ordinary line");
            tracing::warn!(target: "login", account = "bob", "refused");
            access("/a b\n<3>time=now level=error msg=\"forged\"\u{1b}[2J");
        })
        .unwrap();
        let read = |name: &str| read_to_string(folder.path().join(name)).unwrap();
        (read("stoa.log"), read("access.log"))
    }

    #[test]
    fn each_line_goes_where_it_belongs_and_no_value_forges_another() {
        let (own, access) = written("text", "info");
        assert_eq!((own.lines().count(), access.lines().count()), (2, 2), "{own}{access}");
        assert!(own.contains("msg=\"an ordinary line\" link=7 peer=192.0.2.1:5\n"), "{own}");
        assert!(own.contains("target=login msg=refused account=bob link=7"), "{own}");
        assert!(access.contains("target=login") && access.contains("verb=STOR path=\"/a b\\n<3>time=now"), "{access}");
        assert!(access.contains("bytes=7 result=226 micros=3000\n") && !access.contains('\u{1b}'), "{access}");
    }

    #[test]
    fn access_lines_stay_when_the_level_is_raised() {
        let (own, access) = written("text", "error");
        assert!(!own.contains("ordinary") && access.contains("verb=STOR"), "{own}{access}");
    }

    #[test]
    fn json_lines_are_json() {
        let (own, access) = written("json", "info");
        for line in own.lines().chain(access.lines()) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["timestamp"].is_string() && value["level"].is_string(), "{line}");
        }
        assert_eq!(access.lines().count(), 2);
    }

    #[test]
    fn a_wrong_level_or_folder_is_said_in_words() {
        let said = |settings: LogSettings| within(&settings, || ()).unwrap_err().public().to_owned();
        let words = said(LogSettings { level: "loud=very".into(), ..LogSettings::default() });
        assert!(words.contains("[log] level = `loud=very`"), "{words}");
        let words = said(LogSettings { folder: "/dev/null/x".into(), ..LogSettings::default() });
        assert!(words.contains("/dev/null/x"), "{words}");
        let words = said(LogSettings { format: "xml".into(), ..LogSettings::default() });
        assert!(words.contains("`text` or `json`"), "{words}");
    }
}
