//! Peers that read slowly, write slowly or say nothing: others are served beside them, they take little memory, and they are cut.
//!
//! `scripts/bench http-slow` does the same with slowhttptest and thousands of them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, until};
use crate::frames::{Connection, HEADERS, PING, RST_STREAM, frame, request};

/// Of each slow kind.
const SLOW: usize = 200;
/// Idle ones.
const IDLE: usize = 1000;
/// Descriptors the daemon may hold besides, for what it does in between.
const OWN: usize = 8;
/// What all of them together may take of the daemon's memory: no buffer of the size of what they asked for.
const MOST: usize = 48 << 20;

fn daemon(slowest: &str) -> Daemon {
    // Many descriptors: the test's own limit is raised as far as it goes.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let daemon = Daemon::start(
        &r#"
[limits]
connections_per_address = 4096
greeting = "4s"
stall = "4s"
idle = "5m"
slowest = "SLOWEST"
drain = "1s"
[[space]]
path = "/pub"
grants = [ { to = "everyone", allow = "edit" } ]
"#
        .replace("SLOWEST", slowest),
    );
    fs::write(daemon.on_disk("/pub/small"), "small").unwrap();
    fs::write(daemon.on_disk("/pub/large"), vec![b'x'; 32 << 20]).unwrap();
    daemon
}

fn resident(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

fn say(address: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    stream
}

/// A normal client's request, on a connection of its own.
fn serve_one(daemon: &Daemon) {
    let mut stream = say(daemon.http, "GET /pub/small HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("small"), "{text}");
}

/// The server has ended the connection, though what it sent before may still be unread.
fn is_cut(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut scrap = vec![0; 64 << 10];
    loop {
        match stream.read(&mut scrap) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn slow_peers_leave_room_for_others_and_are_cut() {
    let daemon = daemon("10 KiB");
    serve_one(&daemon);
    let before = resident(&daemon);
    let held = |daemon: &Daemon| fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let few = held(&daemon);
    let idle: Vec<TcpStream> = (0..IDLE)
        .map(|_| {
            let mut stream = say(daemon.http, "GET /pub/small HTTP/1.1\r\nHost: stoa\r\n\r\n");
            let mut scrap = [0; 2048];
            assert!(stream.read(&mut scrap).unwrap() > 0);
            stream
        })
        .collect();
    let all = |words: &str| (0..SLOW).map(|_| say(daemon.http, words)).collect::<Vec<_>>();
    let mut heads = all("GET /pub/small HTTP/1.1\r\nHost: stoa\r\nX-A: b");
    let put = |chunk: &str| format!("PUT /pub/up HTTP/1.1\r\nHost: stoa\r\nContent-Length: 100000\r\n\r\n{chunk}");
    let mut writers = all(&put("a little"));
    let mut readers = all("GET /pub/large HTTP/1.1\r\nHost: stoa\r\n\r\n");
    serve_one(&daemon);
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < MOST, "{} slow and {IDLE} idle peers take {grown} bytes", 3 * SLOW);
    until("slow heads are cut", || heads.iter_mut().all(is_cut));
    until("slow writers are cut", || writers.iter_mut().all(is_cut));
    serve_one(&daemon);
    // The readers read nothing until here: what the server could not send must be missing at the end.
    until("slow readers are cut", || held(&daemon) <= few + IDLE + OWN);
    for stream in &mut readers {
        let mut got = 0;
        let mut scrap = vec![0; 256 << 10];
        loop {
            match stream.read(&mut scrap) {
                Ok(0) | Err(_) => break,
                Ok(count) => got += count,
            }
        }
        assert!(got < 32 << 20, "a reader that stood still was served to the end");
    }
    for stream in idle.iter().step_by(100) {
        let mut stream = stream.try_clone().unwrap();
        stream.write_all(b"GET /pub/small HTTP/1.1\r\nHost: stoa\r\n\r\n").unwrap();
        let mut scrap = [0; 2048];
        assert!(stream.read(&mut scrap).unwrap() > 0, "an idle connection serves on");
    }
}

/// Connections, and the streams on each of them, in the test of streams that stand still.
const CONNECTIONS: usize = 64;
const STREAMS: usize = 100;
/// What they may take of the daemon's memory.
const MOST_OF_STREAMS: usize = 64 << 20;

/// Counts what came: answers and resets.
#[derive(Default)]
struct Count {
    answers: AtomicUsize,
    resets: AtomicUsize,
}

impl Count {
    /// Reads until as many streams were reset.
    fn read(&self, peer: &mut Connection, streams: usize) {
        let mut left = streams;
        while left > 0 {
            match peer.next().expect("the connection goes on").kind {
                HEADERS => {
                    self.answers.fetch_add(1, Relaxed);
                }
                RST_STREAM => {
                    left -= 1;
                    self.resets.fetch_add(1, Relaxed);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn streams_that_stand_still_take_little_memory_and_are_cut_though_their_peers_ping() {
    // So few bytes that pings alone keep a connection: it is the streams that are judged.
    let daemon = daemon("100 B");
    serve_one(&daemon);
    let before = resident(&daemon);
    let count = Count::default();
    let mut peers: Vec<Connection> = (0..CONNECTIONS)
        .map(|_| {
            let mut peer = Connection::open(daemon.http, &[(4, 1)]);
            let ids = (0..STREAMS).map(|number| u32::try_from(2 * number + 1).unwrap());
            peer.send(&ids.flat_map(|id| request(id, "GET", "/pub/large", &[], true)).collect::<Vec<_>>());
            peer
        })
        .collect();
    let mut writers: Vec<TcpStream> = peers.iter().map(|peer| peer.0.try_clone().unwrap()).collect();
    let (all, mut most) = (CONNECTIONS * STREAMS, 0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for peer in &mut peers {
            scope.spawn(|| count.read(peer, STREAMS));
        }
        until("every stream is cut", || {
            for writer in &mut writers {
                writer.write_all(&frame(PING, 0, 0, b"still on").repeat(10)).unwrap();
            }
            most = most.max(resident(&daemon).saturating_sub(before));
            std::thread::sleep(Duration::from_millis(90));
            count.resets.load(Relaxed) == all
        });
    });
    assert_eq!(count.answers.load(Relaxed), all, "each was answered first");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(most < MOST_OF_STREAMS, "{all} streams took {most} bytes");
    // Their connections serve on.
    for peer in peers.iter_mut().step_by(16) {
        peer.send(&request(2 * u32::try_from(STREAMS).unwrap() + 1, "GET", "/-/health", &[], true));
        peer.until(HEADERS, 2 * u32::try_from(STREAMS).unwrap() + 1);
    }
    serve_one(&daemon);
}
