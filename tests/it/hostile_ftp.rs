//! FTP against those who mean harm: every attack gets the right answer, and nothing of it stays behind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use stoa::net::TlsMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpSocket};

use crate::daemon::{Daemon, PATIENCE, until};
use crate::ftp::{Client, Server};
use crate::world::{World, pipe};

/// A daemon with one open folder.
fn daemon(more: &str) -> Daemon {
    let space = "[[space]]\npath = \"/pub\"\ngrants = [{ to = \"everyone\", allow = \"edit\" }]\n";
    Daemon::start(&format!("{more}\n{space}"))
}

/// A plain client of a daemon, or what is left of it.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn guest(to: SocketAddr) -> Self {
        let mut peer = Self::connect(to);
        peer.line();
        peer.expect("USER anonymous", "331");
        peer.expect("PASS x", "230");
        peer
    }

    /// One line; empty when the server closed or reset.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        line
    }

    fn ask(&mut self, line: &str) -> String {
        let _ = write!(self.0.get_mut(), "{line}\r\n");
        self.line()
    }

    fn expect(&mut self, line: &str, start: &str) -> String {
        let reply = self.ask(line);
        assert!(reply.starts_with(start), "{line} → {reply}");
        reply
    }
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

fn metric(daemon: &Daemon, name: &str) -> u64 {
    let mut stream = TcpStream::connect(daemon.admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{name}\n{text}"))
}

#[test]
fn ten_thousand_ports_are_asked_for_and_nobody_comes() {
    let daemon = daemon("");
    let mut peer = Peer::guest(daemon.ftp);
    peer.expect("PASV", "227");
    let before = (descriptors(daemon.pid()), resident(daemon.pid()));
    for round in 0..100 {
        let command = if round % 2 == 0 { "PASV\r\n" } else { "EPSV\r\n" };
        peer.0.get_mut().write_all(command.repeat(100).as_bytes()).unwrap();
        for _ in 0..100 {
            let reply = peer.line();
            assert!(reply.starts_with("22"), "{reply}");
        }
    }
    // Each took the place of the one before.
    assert!(
        descriptors(daemon.pid()) <= before.0 + 2,
        "{} descriptors, {} before",
        descriptors(daemon.pid()),
        before.0
    );
    let grown = resident(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 16 << 20, "{grown} bytes more");
    drop(peer);
    until("the session is gone", || metric(&daemon, "stoa_links{door=\"ftp\"}") == 0);
    until("its port too", || descriptors(daemon.pid()) < before.0);
    Peer::guest(daemon.ftp).expect("EPSV", "229");
}

#[test]
fn a_range_of_ports_is_shared_and_comes_back() {
    // Ports that were free a moment ago.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let first = loop {
        let listener = free();
        let port = listener.local_addr().unwrap().port();
        let all = (port + 1..port + 10).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
        if port < u16::MAX - 10 && all {
            break port;
        }
    };
    let daemon = daemon(&format!("[ftp]\npassive_ports = \"{first}-{}\"", first + 9));
    let mut peers: Vec<Peer> = (0..12).map(|_| Peer::guest(daemon.ftp)).collect();
    let replies: Vec<String> = peers.iter_mut().map(|peer| peer.ask("EPSV")).collect();
    let got = replies.iter().filter(|reply| reply.starts_with("229")).count();
    // Half of them, and fewer where another program took one meanwhile.
    assert!((1..=5).contains(&got), "{replies:?}");
    let refused = replies.iter().find(|reply| !reply.starts_with("229")).unwrap();
    assert!(refused.starts_with("425 no port is free"), "{refused}");
    assert!(metric(&daemon, "stoa_data_connections_failed_total{reason=\"ports\"}") >= 7);
    daemon.wait_for_log("widen [ftp] passive_ports");
    peers.truncate(1);
    until("the ports come back", || peers[0].ask("EPSV").starts_with("229"));
}

#[test]
fn a_flood_of_sign_ins_is_turned_away_and_forgotten() {
    let daemon = daemon("[login]\nattempts = 20\nmemory = \"8 MiB\"");
    Peer::guest(daemon.ftp).expect("NOOP", "200");
    until("quiet", || metric(&daemon, "stoa_links{door=\"ftp\"}") == 0);
    let before = (descriptors(daemon.pid()), resident(daemon.pid()));
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..60 {
        let mut peers: Vec<Peer> = (0..5).map(|_| Peer::connect(daemon.ftp)).collect();
        for (number, peer) in peers.iter_mut().enumerate() {
            let _ = write!(peer.0.get_mut(), "USER name{round}-{number}\r\nPASS guess\r\n");
        }
        for mut peer in peers {
            let replies = [peer.line(), peer.line(), peer.line()];
            let last = replies.iter().rev().find(|line| !line.is_empty()).unwrap();
            *codes.entry(last[..3].to_owned()).or_default() += 1;
        }
    }
    assert!(codes.keys().all(|code| code == "530" || code == "421"), "{codes:?}");
    // After so many wrong guesses, nobody from there is even listened to.
    assert!(codes["421"] >= 200, "{codes:?}");
    until("the flood is over", || metric(&daemon, "stoa_links{door=\"ftp\"}") == 0);
    until("nothing is left open", || descriptors(daemon.pid()) <= before.0 + 4);
    let grown = resident(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 64 << 20, "{grown} bytes more");
    // Who needs no password is still served.
    Peer::guest(daemon.ftp).expect("PWD", "257");
}

#[test]
fn more_connections_than_one_address_may_have_are_told_so() {
    let daemon = daemon("[limits]\nconnections_per_address = 8");
    let held: Vec<Peer> = (0..8).map(|_| Peer::guest(daemon.ftp)).collect();
    for _ in 0..20 {
        assert!(Peer::connect(daemon.ftp).line().starts_with("421 too many"));
    }
    drop(held);
    until("a place is free again", || Peer::connect(daemon.ftp).line().starts_with("220"));
}

#[test]
fn a_line_without_end_costs_nothing() {
    let daemon = daemon("");
    let mut peer = Peer::guest(daemon.ftp);
    let before = resident(daemon.pid());
    let piece = vec![b'A'; 1 << 20];
    for _ in 0..32 {
        peer.0.get_mut().write_all(&piece).unwrap();
    }
    peer.expect("", "500 the line is too long");
    let grown = resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    peer.expect("NOOP", "200");
    // Nor is the patience without end.
    let mut last = String::new();
    for _ in 0..30 {
        last = peer.ask(&"B".repeat(5_000));
        if last.starts_with("421") {
            break;
        }
        assert!(last.starts_with("500"), "{last}");
    }
    assert!(last.starts_with("421"), "{last}");
    assert_eq!(peer.line(), "", "closed");
}

#[tokio::test]
async fn nobody_makes_us_connect_to_others_or_to_services() {
    let server = Server::start(TlsMode::None, "active = true").await;
    let victim = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = victim.local_addr().unwrap().port();
    let [high, low] = port.to_be_bytes();
    let mut client = server.sign_in().await;
    let mut asked = vec![
        format!("PORT 127,0,0,2,{high},{low}"),
        format!("EPRT |1|127.0.0.2|{port}|"),
        format!("EPRT |2|::ffff:127.0.0.2|{port}|"),
        format!("PORT 0,0,0,0,{high},{low}"),
        format!("PORT 255,255,255,255,{high},{low}"),
        format!("EPRT |2|::1|{port}|"),
    ];
    for service in [1, 21, 22, 25, 80, 443, 1023] {
        asked.push(format!("PORT 127,0,0,1,{},{}", service / 256, service % 256));
        asked.push(format!("EPRT |1|127.0.0.1|{service}|"));
    }
    for line in asked {
        client.expect(&line, "504").await;
        client.expect("LIST", "425").await;
    }
    for line in ["PORT 127,0,0,1,0,0", "EPRT |1|127.0.0.1|0|"] {
        client.expect(line, "504").await;
    }
    let came = std::pin::pin!(victim.accept());
    assert!(futures_now(came).is_none(), "something connected to the victim");
}

/// What is ready without waiting.
fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn strangers_at_a_data_port_get_nothing_and_take_nothing() {
    let server = Server::start(TlsMode::None, "").await;
    server.world.put("/pub/a.txt", b"hello");
    let mut client = server.sign_in().await;
    let stranger = async |port: u16| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
    };
    for upload in [false, true] {
        let reply = client.expect("EPSV", "229").await;
        let port: u16 = reply.split('|').nth(3).and_then(|port| port.parse().ok()).unwrap();
        let mut thieves = Vec::new();
        for _ in 0..4 {
            let mut thief = stranger(port).await;
            let _ = thief.write_all(b"evil").await;
            thieves.push(thief);
        }
        client.expect(if upload { "STOR /pub/b.txt" } else { "RETR /pub/a.txt" }, "150").await;
        let mut lane = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut content = String::new();
        match upload {
            true => lane.write_all(b"mine").await.unwrap(),
            false => drop(lane.read_to_string(&mut content).await.unwrap()),
        }
        drop(lane);
        assert!(client.reply().await.starts_with("226"));
        assert_eq!(content, if upload { "" } else { "hello" });
        for mut thief in thieves {
            let mut stolen = Vec::new();
            let _ = thief.read_to_end(&mut stolen).await;
            assert!(stolen.is_empty());
        }
    }
    assert_eq!(std::fs::read(server.world.disk("/pub/b.txt")).unwrap(), b"mine");
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake_ends_only_that_transfer() {
    let server = Server::start(TlsMode::Upgrade, "").await;
    server.world.put("/pub/a.txt", b"x");
    let mut client = server.connect().await;
    client.expect("AUTH TLS", "234").await;
    let mut client = Client(tokio::io::BufReader::new(crate::ftp::secure(client.0.into_inner()).await));
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    client.expect("PBSZ 0", "200").await;
    client.expect("PROT P", "200").await;
    let mut lane = client.lane().await;
    client.expect("STOR /pub/a.txt", "150").await;
    lane.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let reply = client.reply().await;
    assert!(reply.starts_with("425"), "{reply}");
    assert_eq!(std::fs::read(server.world.disk("/pub/a.txt")).unwrap(), b"x");
    client.expect("NOOP", "200").await;
}

/// Sends bytes, then NOOP; every reply before that of the NOOP.
async fn raw(client: &mut Client<DuplexStream>, bytes: &[u8]) -> Vec<String> {
    client.0.write_all(bytes).await.unwrap();
    client.send("\r\nNOOP\r\n").await;
    let mut replies = Vec::new();
    loop {
        let reply = client.reply().await;
        assert!(!reply.is_empty(), "closed after {bytes:?}");
        if reply == "200 ok\r\n" {
            return replies;
        }
        replies.push(reply);
    }
}

#[tokio::test]
async fn every_byte_in_a_name_is_taken_or_refused_and_what_is_taken_is_found_again() {
    let world = World::light().await;
    let handler = world.door("ftp", &toml::Table::new());
    let mut taken = 0;
    for byte in 0..=255_u8 {
        // Malformed lines are counted, and too many part us.
        let (link, theirs) = pipe("ftp", 4096);
        let handler = handler.clone();
        tokio::spawn(async move { handler.serve(link).await });
        let mut client = Client(tokio::io::BufReader::new(theirs));
        assert!(client.reply().await.starts_with("220"));
        client.expect("USER alice", "331").await;
        client.expect("PASS wonder", "230").await;
        let name = [&b"/pub/a"[..], &[byte], b"z"].concat();
        let made = raw(&mut client, &[b"MKD ", &name[..]].concat()).await;
        let Some(first) = made.first() else { panic!("no answer to {byte}") };
        let code = &first[..3];
        assert!(["257", "500", "501", "550", "553"].contains(&code), "{byte}: {made:?}");
        if code != "257" {
            continue;
        }
        taken += 1;
        for command in ["MLST ", "CWD ", "RMD "] {
            let replies = raw(&mut client, &[command.as_bytes(), &name[..]].concat()).await;
            assert!(replies[0].starts_with("250"), "{byte}: {command}{replies:?}");
        }
    }
    assert!(taken > 200, "{taken}");
    // A line end in the middle made one folder of the first half; nothing is anywhere else.
    let left: Vec<_> = std::fs::read_dir(world.disk("/pub")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "a"), "{left:?}");
    assert!(!world.disk("/pub/a").join("z").exists());
}

/// Every file below, with its content.
fn everything(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.path().display().to_string();
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(everything(&entry.path())),
            false => drop(all.insert(name, std::fs::read(entry.path()).unwrap())),
        }
        let modified = entry.metadata().unwrap().modified().unwrap();
        all.insert(format!("{} modified", entry.path().display()), format!("{modified:?}").into_bytes());
    }
    all
}

/// A command with its data connection, whatever it needs; all it said and gave.
async fn whole(server: &Server, line: &str) -> String {
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    let mut said = client.ask(line).await;
    if said.starts_with("350") {
        said.push_str(&client.ask("RNTO /pub/stolen").await);
    }
    if said.starts_with("150") {
        // Downloads end by themselves, uploads with us.
        let upload = ["STOR", "APPE", "STOU"].iter().any(|verb| line.starts_with(verb));
        let mut content = Vec::new();
        match upload {
            true => lane.write_all(b"overwritten").await.unwrap(),
            false => drop(lane.read_to_end(&mut content).await),
        }
        drop(lane);
        said.push_str(&String::from_utf8_lossy(&content));
        said.push_str(&client.reply().await);
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_leads_out_of_the_tree() {
    let server = Server::start(TlsMode::None, "").await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.txt"), "SECRET").unwrap();
    std::fs::create_dir(outside.path().join("empty")).unwrap();
    server.world.put("/pub/own.txt", b"own");
    let link = |target: &Path, name: &str| {
        let place = server.world.disk(name);
        let _ = std::fs::remove_file(&place).or_else(|_| std::fs::remove_dir_all(&place));
        std::os::unix::fs::symlink(target, place).unwrap();
    };
    let links = || {
        link(outside.path(), "/pub/folder");
        link(&outside.path().join("secret.txt"), "/pub/file");
        link(&outside.path().join("new.txt"), "/pub/dangling");
        link(Path::new("../../../../../../../../etc/passwd"), "/pub/relative");
    };
    let before = everything(outside.path());
    let up = "../".repeat(20);
    let away = outside.path().display().to_string();
    let paths = [
        "/pub/folder/secret.txt".to_owned(),
        "/pub/folder/empty".to_owned(),
        "/pub/folder/new.txt".to_owned(),
        "/pub/folder".to_owned(),
        "/pub/file".to_owned(),
        "/pub/dangling".to_owned(),
        "/pub/relative".to_owned(),
        format!("{up}{away}/secret.txt"),
        format!("/pub/{up}etc/passwd"),
        format!("{away}/secret.txt"),
    ];
    let commands = [
        "CWD",
        "RETR",
        "STOR",
        "APPE",
        "STOU",
        "DELE",
        "RMD",
        "MKD",
        "RNFR",
        "SIZE",
        "MDTM",
        "MLST",
        "MLSD",
        "LIST",
        "NLST",
        "STAT",
        "MFMT 20200101000000",
        "MDTM 20200101000000",
        "SITE CHMOD 777",
        "SITE UTIME 20200101000000",
        "XCWD",
        "XMKD",
        "XRMD",
        "HASH",
        "XCRC",
        "XSHA256",
    ];
    for path in &paths {
        for command in commands {
            links();
            let said = whole(&server, &format!("{command} {path}")).await;
            assert!(!said.contains("SECRET") && !said.contains("root:"), "{command} {path} → {said}");
            let got_in = ["CWD", "XCWD", "SIZE", "HASH", "XCRC", "XSHA256"].contains(&command) && said.starts_with('2');
            assert!(!got_in, "{command} {path} → {said}");
        }
        // A link may be removed, or be replaced by a file of ours; what it led to is not touched.
        assert!(everything(outside.path()) == before, "something outside changed by {path}");
    }
    assert_eq!(std::fs::read(server.world.disk("/pub/own.txt")).unwrap(), b"own");
}
