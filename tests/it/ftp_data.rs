//! FTP's data connections: who may have them, how TLS proves it, how fast they are, and what is said when they fail.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa::error::Kind;
use stoa::hub::{TreePath, WriteOptions};
use stoa::net::TlsMode;
use stoa::store::HistoryFilter;
use stoa::units::ByteSize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::daemon::Daemon;
use crate::ftp::{Client, Server, bytes, must};
use crate::smtp::Anyone;
use crate::world::World;

/// A client that keeps its TLS sessions, as real ones do.
fn keeping(version: &'static rustls::SupportedProtocolVersion) -> TlsConnector {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(&[version])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

async fn shake(connector: &TlsConnector, stream: TcpStream) -> TlsStream<TcpStream> {
    connector.connect("localhost".try_into().unwrap(), stream).await.expect("a handshake")
}

fn resumed(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

/// Signed in over implicit TLS.
async fn sign_in(server: &Server, connector: &TlsConnector) -> Client<TlsStream<TcpStream>> {
    let stream = shake(connector, TcpStream::connect(server.address).await.unwrap()).await;
    let mut client = Client(BufReader::new(stream));
    assert!(client.reply().await.starts_with("220"));
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resumes_its_session_moves_as_many_files_as_it_likes() {
    let server = Server::start(TlsMode::Implicit, "require_reuse = \"require\"").await;
    for version in VERSIONS {
        let connector = keeping(version);
        let mut client = sign_in(&server, &connector).await;
        // More transfers than one handshake gives tickets: each brings new ones, uploads too.
        for number in 0..12 {
            let lane = client.lane().await;
            client.expect(&format!("STOR /pub/{number}"), "150").await;
            let mut lane = shake(&connector, lane).await;
            assert!(resumed(&lane), "{version:?} {number}");
            lane.write_all(b"content").await.unwrap();
            lane.shutdown().await.unwrap();
            // Our close_notify comes, and the tickets before it.
            assert_eq!(lane.read_to_end(&mut Vec::new()).await.unwrap(), 0);
            assert!(client.reply().await.starts_with("226"));
            let lane = client.lane().await;
            client.expect(&format!("RETR /pub/{number}"), "150").await;
            let mut lane = shake(&connector, lane).await;
            assert!(resumed(&lane), "{version:?} {number}");
            let mut content = String::new();
            lane.read_to_string(&mut content).await.unwrap();
            assert_eq!(content, "content");
            assert!(client.reply().await.starts_with("226"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_resume_the_session_is_not_given_the_data() {
    let server = Server::start(TlsMode::Implicit, "require_reuse = \"require\"").await;
    server.world.put("/pub/a.txt", b"hello");
    for version in VERSIONS {
        let (alice, thief) = (keeping(version), keeping(version));
        let mut client = sign_in(&server, &alice).await;
        // The thief has a session of its own, with valid tickets: of another control connection.
        let mut own = sign_in(&server, &thief).await;
        own.expect("NOOP", "200").await;
        for stranger in [&thief, &keeping(version)] {
            let lane = client.lane().await;
            client.expect("RETR /pub/a.txt", "150").await;
            let mut lane = shake(stranger, lane).await;
            let mut stolen = Vec::new();
            let _ = lane.read_to_end(&mut stolen).await;
            assert!(stolen.is_empty());
            let reply = client.reply().await;
            assert!(reply.starts_with("522") && reply.contains("resume"), "{reply}");
        }
        let lane = client.lane().await;
        client.expect("RETR /pub/a.txt", "150").await;
        let mut content = String::new();
        shake(&alice, lane).await.read_to_string(&mut content).await.unwrap();
        assert_eq!(content, "hello");
        assert!(client.reply().await.starts_with("226"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_whole_although_its_client_never_reads() {
    let server = Server::start(TlsMode::Implicit, "").await;
    let content = bytes(1_500_000);
    for version in VERSIONS {
        let connector = keeping(version);
        let mut client = sign_in(&server, &connector).await;
        for _ in 0..8 {
            let lane = client.lane().await;
            client.expect("STOR /pub/a.bin", "150").await;
            let mut lane = shake(&connector, lane).await;
            lane.write_all(&content).await.unwrap();
            lane.shutdown().await.unwrap();
            // Closed with whatever the kernel holds for it unread: tickets there would turn this into a reset.
            drop(lane);
            let reply = client.reply().await;
            assert!(reply.starts_with("226"), "{reply}");
            assert!(std::fs::read(server.world.disk("/pub/a.bin")).unwrap() == content, "{version:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_just_ends_is_taken_and_the_history_says_so() {
    let server = Server::start(TlsMode::Implicit, "").await;
    let connector = keeping(&rustls::version::TLS13);
    let mut client = sign_in(&server, &connector).await;
    for (name, said) in [("said", true), ("unsaid", false)] {
        let lane = client.lane().await;
        client.expect(&format!("STOR /pub/{name}"), "150").await;
        let mut lane = shake(&connector, lane).await;
        lane.write_all(b"content").await.unwrap();
        lane.flush().await.unwrap();
        match said {
            true => lane.shutdown().await.unwrap(),
            false => lane.get_mut().0.shutdown().await.unwrap(),
        }
        assert!(client.reply().await.starts_with("226"));
    }
    let lines = server.world.hub.history(&HistoryFilter { limit: 9, ..HistoryFilter::default() }).await.unwrap();
    let detail = |path: &str| lines.iter().find(|line| line.path == path).map(|line| line.detail.as_str());
    assert_eq!((detail("/pub/said"), detail("/pub/unsaid")), (Some(""), Some("no close_notify")));
}

#[tokio::test]
async fn rules_of_an_account_count_more_than_the_listeners() {
    let section = r#"
        active = true
        accounts = [
            { names = ["group:staff"], active = false },
            { names = ["bob"], require_tls = true },
        ]
    "#;
    let server = Server::start(TlsMode::Upgrade, section).await;
    let mut alice = server.sign_in().await;
    alice.expect("PORT 127,0,0,1,200,10", "502").await;
    let mut bob = server.connect().await;
    bob.expect("USER bob", "530 sign-in needs TLS").await;
    bob.expect("AUTH TLS", "234").await;
    let mut bob = Client(BufReader::new(crate::ftp::secure(bob.0.into_inner()).await));
    bob.expect("USER bob", "331").await;
    bob.expect("PASS builder", "230").await;
    bob.expect("PORT 127,0,0,1,200,10", "200").await;
    bob.expect("PROT C", "534").await;
    // Who signs in as another one has another one's rules.
    bob.expect("USER alice", "331").await;
    bob.expect("PASS wonder", "230").await;
    bob.expect("PORT 127,0,0,1,200,10", "502").await;
    bob.expect("PROT C", "200").await;
}

#[tokio::test]
async fn a_group_may_need_tls_and_only_the_right_password_learns_it() {
    let server =
        Server::start(TlsMode::Upgrade, "accounts = [{ names = [\"group:staff\"], require_tls = true }]").await;
    let mut client = server.connect().await;
    client.expect("USER alice", "331").await;
    client.expect("PASS wrong", "530 name or password").await;
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "530 sign-in needs TLS").await;
    client.expect("PWD", "530").await;
    client.expect("USER bob", "331").await;
    client.expect("PASS builder", "230").await;
}

/// Seconds that an upload of so many bytes takes in each of some sessions of alice at once.
async fn upload(server: &Server, sessions: usize, size: usize) -> Duration {
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..sessions {
        let (mut client, content) = (server.sign_in().await, bytes(size));
        running.spawn(async move {
            let mut lane = client.lane().await;
            client.expect(&format!("STOR /pub/{number}"), "150").await;
            lane.write_all(&content).await.unwrap();
            drop(lane);
            assert!(client.reply().await.starts_with("226"));
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transfers_of_an_account_share_its_rate() {
    let rule = "accounts = [{ names = [\"alice\"], upload_rate = \"400 KiB\", download_rate = \"400 KiB\" }]";
    let server = Server::start(TlsMode::None, rule).await;
    // 600 KiB at 400 KiB a second, one quarter of a second of it at once.
    let took = upload(&server, 3, 200 << 10).await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let begun = Instant::now();
    server.world.put("/pub/big", &bytes(600 << 10));
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    client.expect("RETR /pub/big", "150").await;
    let mut content = Vec::new();
    lane.read_to_end(&mut content).await.unwrap();
    assert!(client.reply().await.starts_with("226"));
    assert!(content == bytes(600 << 10));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_has_a_rate_for_all() {
    let server = Server::start(TlsMode::None, "upload_rate = \"400 KiB\"").await;
    let took = upload(&server, 2, 300 << 10).await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn names_in_a_code_page_travel_both_ways() {
    let rule = "accounts = [{ names = [\"alice\"], encoding = \"cp1252\" }]";
    let server = Server::start(TlsMode::None, rule).await;
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    client.0.write_all(b"STOR /pub/f\xfcr \x80.txt\r\n").await.unwrap();
    client.0.flush().await.unwrap();
    let mut line = Vec::new();
    tokio::io::AsyncBufReadExt::read_until(&mut client.0, b'\n', &mut line).await.unwrap();
    assert!(line.starts_with(b"150"), "{line:?}");
    lane.write_all(b"x").await.unwrap();
    drop(lane);
    assert!(client.reply().await.starts_with("226"));
    assert!(server.world.disk("/pub/für €.txt").exists());
    server.world.put("/pub/😀.txt", b"smile");
    let mut names = Vec::new();
    let mut lane = client.lane().await;
    client.expect("NLST /pub", "150").await;
    lane.read_to_end(&mut names).await.unwrap();
    assert!(client.reply().await.starts_with("226"));
    let has = |wanted: &[u8]| names.split(|byte| *byte == b'\n').any(|line| line == [wanted, b"\r"].concat());
    assert!(has(b"/pub/f\xfcr \x80.txt") && has(b"/pub/&#128512;.txt"), "{}", String::from_utf8_lossy(&names));
    // What it was shown is what it can ask for.
    client.expect("SIZE /pub/&#128512;.txt", "213 5").await;
    client.expect("OPTS UTF8 ON", "200").await;
    client.expect("SIZE /pub/für €.txt", "213 1").await;
    client.expect("SIZE /pub/😀.txt", "213 5").await;
}

#[tokio::test]
async fn a_client_with_several_addresses_can_be_let_in() {
    let server = Server::start(TlsMode::None, "data_peer = \"network\"").await;
    server.world.put("/pub/a.txt", b"hello");
    let mut client = server.sign_in().await;
    let reply = client.expect("EPSV", "229").await;
    let port: u16 = reply.split('|').nth(3).and_then(|port| port.parse().ok()).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut lane = socket.connect(to).await.unwrap();
    client.expect("RETR /pub/a.txt", "150").await;
    let mut content = String::new();
    lane.read_to_string(&mut content).await.unwrap();
    assert_eq!(content, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_proves_itself_when_it_is_asked_to() {
    let server = Server::start(TlsMode::Upgrade, "require_reuse = \"require\"").await;
    server.world.put("/pub/a.txt", b"hello");
    let url = server.url("alice:wonder", "/pub/a.txt");
    for version in ["1.2", "1.3"] {
        let most = format!("--tlsv{version}");
        assert_eq!(must("curl", &["-sS", "-k", "--ssl-reqd", &most, "--tls-max", version, &url]).await, "hello");
    }
}

#[test]
fn the_log_says_why_a_client_never_came() {
    let daemon = Daemon::start(
        r#"
        [ftp]
        data_wait = "50ms"
        [[space]]
        path = "/pub"
        grants = [{ to = "everyone", allow = "edit" }]
        "#,
    );
    let mut stream = std::io::BufReader::new(std::net::TcpStream::connect(daemon.ftp).unwrap());
    let mut ask = |line: &str, wanted: &str| {
        if !line.is_empty() {
            stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        }
        let mut reply = String::new();
        stream.read_line(&mut reply).unwrap();
        assert!(reply.starts_with(wanted), "{line} → {reply}");
    };
    ask("", "220");
    ask("USER anonymous", "331");
    ask("PASS x", "230");
    ask("PASV", "227");
    ask("LIST", "150");
    ask("", "425");
    daemon.wait_for_log("never came");
    let log = daemon.log();
    assert!(log.contains("passive_ports") && log.contains("passive_address"), "{log}");
}

#[tokio::test]
async fn a_long_upload_stops_when_others_fill_the_disk() {
    let mut settings = None;
    let world = World::with(|all| settings = Some(all.clone())).await;
    let caller = world.caller("alice", "ftp").await;
    let path = TreePath::parse("/pub/long").unwrap();
    let mut upload = caller.write(&path, WriteOptions::default()).await.unwrap();
    let piece = bytes::Bytes::from(vec![7; 1 << 20]);
    upload.push(piece.clone()).await.unwrap();
    let mut settings = settings.unwrap();
    settings.storage.keep_free = ByteSize(u64::MAX);
    world.hub.reload(settings).await.unwrap();
    let mut pushed = 1;
    let error = loop {
        match upload.push(piece.clone()).await {
            Ok(()) => pushed += 1,
            Err(error) => break error,
        }
        assert!(pushed < 128, "nothing stops it");
    };
    assert_eq!(error.kind(), Kind::Full);
    upload.abandon().await;
    assert!(!world.disk("/pub/long").exists());
}

#[tokio::test]
async fn what_the_kernel_moves_by_itself_is_counted_too() {
    let mut settings = None;
    let world = World::with(|all| settings = Some(all.clone())).await;
    let caller = world.caller("alice", "ftp").await;
    let path = TreePath::parse("/pub/long").unwrap();
    let mut upload = caller.write(&path, WriteOptions::default()).await.unwrap();
    upload.push(bytes::Bytes::from(vec![7; 1 << 20])).await.unwrap();
    let mut settings = settings.unwrap();
    settings.storage.keep_free = ByteSize(u64::MAX);
    world.hub.reload(settings).await.unwrap();
    let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let receiver = std::sync::Arc::new(std::os::fd::OwnedFd::from(receiver));
    let sending = std::thread::spawn(move || {
        let piece = vec![7; 1 << 20];
        std::iter::repeat_n((), 256).all(|()| std::io::Write::write_all(&mut sender, &piece).is_ok())
    });
    let error = loop {
        match upload.soak(&receiver).await {
            Ok(soaked) => {
                assert!(soaked.is_none_or(|soaked| !matches!(soaked.then, stoa::hub::Then::End)), "nothing stops it");
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Full);
    upload.abandon().await;
    drop(receiver);
    assert!(!sending.join().unwrap(), "all of it was taken");
    assert!(!world.disk("/pub/long").exists());
}

#[test]
fn the_access_line_of_a_broken_transfer_has_the_bytes_that_moved() {
    const CAME: usize = 100_000;
    const SIZE: u64 = 256 << 20;
    let daemon = Daemon::start(
        r#"
[limits]
stall = "300ms"
[[space]]
path = "/pub"
grants = [{ to = "everyone", allow = "edit" }]
"#,
    );
    std::fs::File::create(daemon.on_disk("/pub/large")).unwrap().set_len(SIZE).unwrap();
    let mut control = std::io::BufReader::new(std::net::TcpStream::connect(daemon.ftp).unwrap());
    let mut ask = |line: &str, wanted: &str| {
        if !line.is_empty() {
            control.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        }
        let mut reply = String::new();
        control.read_line(&mut reply).unwrap();
        assert!(reply.starts_with(wanted), "{line} → {reply}");
        reply
    };
    let lane = |reply: &str| {
        let port = reply.rsplit('|').nth(1).unwrap().parse::<u16>().unwrap();
        std::net::TcpStream::connect((daemon.ftp.ip(), port)).unwrap()
    };
    // Bytes of the line about a path.
    let noted = |words: &str| {
        daemon.wait_for_log(words);
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains(words)).unwrap().to_owned();
        line.split("bytes=").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    ask("", "220");
    ask("USER anonymous", "331");
    ask("PASS x", "230");
    ask("TYPE I", "200");
    let mut up = lane(&ask("EPSV", "229"));
    ask("STOR /pub/broken", "150");
    up.write_all(&vec![7; CAME]).unwrap();
    ask("", "426");
    assert_eq!(noted("path=/pub/broken"), CAME as u64);
    let mut down = lane(&ask("EPSV", "229"));
    ask("RETR /pub/large", "150");
    std::io::Read::read_exact(&mut down, &mut vec![0; CAME]).unwrap();
    ask("", "426");
    assert!((CAME as u64..SIZE).contains(&noted("path=/pub/large")), "{}", daemon.log());
}
