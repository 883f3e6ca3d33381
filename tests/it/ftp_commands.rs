//! FTP commands that only real sockets show: Synch as urgent data, clients that hang up, work that can be cut, listings of any length.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use stoa::net::TlsMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ftp::{Client, Server, secure};

/// Names in the long listing.
const NAMES: usize = 100_000;

/// What the listing may add to the memory of the process once its first lines are out: less than the text of the listing.
const GROWTH: u64 = 6 << 20;

/// A device, whose folder is `/cameras/3`.
async fn camera(server: &Server) -> Client<TcpStream> {
    let mut client = server.connect().await;
    client.expect("USER camera-3", "331").await;
    client.expect("PASS shutter", "230").await;
    client
}

#[tokio::test]
async fn abor_behind_a_real_synch_is_heard() {
    let server = Server::start(TlsMode::None, "").await;
    let mut client = server.sign_in().await;
    // BSD's ftp marks the IAC of Synch, others its DM. A read ends at the mark although ABOR came with it.
    for (before, marked, behind) in
        [(&b"\xff\xf4"[..], &b"\xff"[..], &b"\xf2ABOR\r\n"[..]), (b"\xff\xf4", b"\xff\xf2", b"ABOR\r\n")]
    {
        let mut lane = client.lane().await;
        client.expect("STOR /pub/a.bin", "150").await;
        lane.write_all(b"half").await.unwrap();
        let wire = client.0.get_ref();
        assert_eq!(rustix::net::send(wire, before, SendFlags::empty()).unwrap(), before.len());
        assert_eq!(rustix::net::send(wire, marked, SendFlags::OOB).unwrap(), marked.len());
        assert_eq!(rustix::net::send(wire, behind, SendFlags::empty()).unwrap(), behind.len());
        assert!(client.reply().await.starts_with("426"));
        assert!(client.reply().await.starts_with("226"));
        drop(lane);
    }
    assert!(!server.world.disk("/pub/a.bin").exists());
}

#[tokio::test]
async fn an_abor_whose_last_byte_is_urgent_is_heard() {
    let server = Server::start(TlsMode::None, "").await;
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    client.expect("STOR /pub/a.bin", "150").await;
    lane.write_all(b"half").await.unwrap();
    // Python's ftplib: the whole line as urgent data, of which the last byte is the urgent one.
    assert_eq!(rustix::net::send(client.0.get_ref(), b"ABOR\r\n", SendFlags::OOB).unwrap(), 6);
    assert!(client.reply().await.starts_with("426"));
    assert!(client.reply().await.starts_with("226"));
}

#[tokio::test]
async fn replies_keep_the_order_of_commands_while_bytes_flow() {
    let server = Server::start(TlsMode::None, "").await;
    let mut client = server.sign_in().await;
    let _lane = client.lane().await;
    client.expect("STOR /pub/a.bin", "150").await;
    client.expect("NOOP", "200").await;
    // PWD waits for the end of the transfer, and so must the NOOP behind it.
    client.send("PWD\r\nNOOP\r\nABOR\r\n").await;
    for code in ["426", "257", "200", "226"] {
        let reply = client.reply().await;
        assert!(reply.starts_with(code), "{reply}");
    }
}

#[tokio::test]
async fn rest_counts_for_the_next_transfer_only() {
    let server = Server::start(TlsMode::None, "").await;
    server.world.put("/pub/a.txt", b"hello");
    let mut client = server.sign_in().await;
    client.expect("REST 3", "350").await;
    client.expect(&format!("STOR {}", "x".repeat(300)), "553").await;
    let mut lane = client.lane().await;
    client.expect("RETR /pub/a.txt", "150").await;
    let mut content = String::new();
    lane.read_to_string(&mut content).await.unwrap();
    assert_eq!(content, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_hangs_up_behind_its_data_is_believed() {
    let server = Server::start(TlsMode::None, "").await;
    for size in [3_usize, 1_500_000] {
        let name = format!("{size}.jpg");
        let mut client = camera(&server).await;
        let mut lane = client.lane().await;
        client.expect(&format!("STOR {name}"), "150").await;
        lane.write_all(&vec![b'x'; size]).await.unwrap();
        lane.shutdown().await.unwrap();
        // It saw that all was taken before it goes: on one machine nothing else tells which of two ends came first.
        assert_eq!(lane.read(&mut [0; 8]).await.unwrap_or(0), 0);
        drop((lane, client));
        server.quiet().await;
        assert_eq!(std::fs::metadata(server.world.disk(&format!("/cameras/3/{name}"))).unwrap().len(), size as u64);
    }
}

#[tokio::test]
async fn a_camera_that_is_gone_before_its_data_ends_is_not_believed() {
    let server = Server::start(TlsMode::None, "").await;
    let mut client = camera(&server).await;
    let mut lane = client.lane().await;
    client.expect("STOR cut.jpg", "150").await;
    lane.write_all(b"half").await.unwrap();
    drop(client);
    // The session shares this thread: each time we wait it hears what the kernel knows, which is the end of its client.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lane.write_all(b"more").await.unwrap();
    drop(lane);
    server.quiet().await;
    assert!(!server.world.disk("/cameras/3/cut.jpg").exists(), "half a picture is shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_said_close_notify_was_not_killed() {
    let server = Server::start(TlsMode::Implicit, "").await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut client = Client(tokio::io::BufReader::new(secure(stream).await));
    assert!(client.reply().await.starts_with("220"));
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    let lane = client.lane().await;
    client.expect("STOR /pub/a.bin", "150").await;
    let mut lane = secure(lane).await;
    lane.write_all(&vec![b'x'; 300_000]).await.unwrap();
    lane.shutdown().await.unwrap();
    drop((client, lane));
    server.quiet().await;
    assert_eq!(std::fs::metadata(server.world.disk("/pub/a.bin")).unwrap().len(), 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checksum_can_be_cut_and_ends_with_its_client() {
    let server = Server::start(TlsMode::None, "checksums = 1").await;
    server.world.put("/pub/small.bin", b"123456789");
    let big = std::fs::File::create(server.world.disk("/pub/big.bin")).unwrap();
    // Holes cost no disk, and reading them takes longer than any test may.
    big.set_len(1 << 40).unwrap();
    let mut client = server.sign_in().await;
    client.send("XSHA512 /pub/big.bin\r\n").await;
    // Small talk is answered meanwhile; ABOR ends it.
    client.expect("NOOP", "200").await;
    client.expect("ABOR", "426").await;
    assert!(client.reply().await.starts_with("226"));
    client.expect("XCRC /pub/small.bin", "250 CBF43926").await;
    client.send("XSHA512 /pub/big.bin\r\n").await;
    client.expect("NOOP", "200").await;
    drop(client);
    // Only one may be computed at once: this one waits for nobody that is gone.
    let mut client = server.sign_in().await;
    client.expect("XCRC /pub/small.bin", "250 CBF43926").await;
    drop(client);
    server.quiet().await;
}

/// In a process of its own, so that nothing else is measured.
#[test]
fn a_hundred_thousand_names_are_listed_in_flat_memory() {
    let itself = std::env::current_exe().unwrap();
    let inner = "ftp_commands::lists_a_hundred_thousand_names";
    // A disk would spend a minute on so many files.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let mut child = Command::new(itself)
        .env("TMPDIR", folder)
        .args(["--exact", inner, "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_mins(3);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it takes too long");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
#[ignore = "measures its process: run by a_hundred_thousand_names_are_listed_in_flat_memory"]
async fn lists_a_hundred_thousand_names() {
    let server = Server::start(TlsMode::None, "").await;
    let folder = server.world.disk("/pub/many");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..NAMES {
        std::fs::File::create(folder.join(format!("{number:06}.jpg"))).unwrap();
    }
    let mut client = server.sign_in().await;
    let mut lane = client.lane().await;
    client.expect("MLSD /pub/many", "150").await;
    let (mut lines, mut text, mut piece, mut first, mut most) = (0, 0, vec![0; 64 << 10], None, 0);
    loop {
        let read = lane.read(&mut piece).await.unwrap();
        if read == 0 {
            break;
        }
        text += read as u64;
        lines += memchr::memchr_iter(b'\n', &piece[..read]).count();
        let now = memory();
        most = most.max(now.saturating_sub(*first.get_or_insert(now)));
    }
    assert!(client.reply().await.starts_with("226"));
    assert_eq!(lines, NAMES);
    assert!(text > 2 * GROWTH, "the listing is too short to show anything");
    assert!(most < GROWTH, "it grew by {most} bytes");
    println!("{most} bytes more for a listing of {text}");
}

/// Resident bytes of this process.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap();
    pages * 4096
}
