//! Uploads that the daemon itself breaks off, by a drain or by a kill: what came is kept, and is gone on with.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, until};
use crate::uploads::{Said, connect, daemon, exchange, request};

const SIZE: usize = 6 << 20;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

/// Bytes of the daemon's stages.
fn staged(daemon: &Daemon) -> u64 {
    let files = fs::read_dir(daemon.data.join("stage")).unwrap();
    files.map(|file| file.unwrap().metadata().map_or(0, |about| about.len())).sum()
}

/// An upload of alice's to `/in/NAME` that is under way and sends no more.
struct Under {
    lane: TcpStream,
    _control: Option<TcpStream>,
}

fn line(stream: &mut TcpStream, say: &str, start: &str) -> String {
    use std::io::BufRead as _;
    if !say.is_empty() {
        stream.write_all(format!("{say}\r\n").as_bytes()).unwrap();
    }
    // Replies come one at a time here, so nothing is lost with the reader.
    let mut reply = String::new();
    std::io::BufReader::with_capacity(1, stream.try_clone().unwrap()).read_line(&mut reply).unwrap();
    assert!(reply.starts_with(start), "{say} → {reply}");
    reply
}

fn begin(daemon: &Daemon, door: &str) -> Under {
    if door == "http" {
        let mut lane = connect(daemon.http);
        let head = request("alice", "PUT", "/in/http", &[("Content-Length", &SIZE.to_string())], b"");
        lane.write_all(&head).unwrap();
        return Under { lane, _control: None };
    }
    let mut control = connect(daemon.ftp);
    line(&mut control, "", "220");
    line(&mut control, "USER alice", "331");
    line(&mut control, "PASS secret-alice", "230");
    line(&mut control, "TYPE I", "200");
    let reply = line(&mut control, "EPSV", "229");
    let port: u16 = reply.split('|').nth(3).unwrap().parse().unwrap();
    let lane = connect((daemon.ftp.ip(), port).into());
    line(&mut control, "STOR /in/ftp", "150");
    Under { lane, _control: Some(control) }
}

fn question(daemon: &Daemon, door: &str) -> Said {
    let range = format!("bytes */{SIZE}");
    exchange(daemon.http, &request("alice", "PUT", &format!("/in/{door}"), &[("Content-Range", &range)], b""))
}

fn offset(daemon: &Daemon, door: &str) -> usize {
    question(daemon, door).header("upload-offset").unwrap().parse().unwrap()
}

/// Goes on as clients do; the whole file is there then.
fn go_on(daemon: &Daemon, door: &str, whole: &[u8]) {
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("whole");
    fs::write(&file, whole).unwrap();
    let kept = offset(daemon, door);
    let (resume, url) = match door {
        "ftp" => ("-".to_owned(), format!("ftp://{}/in/ftp", daemon.ftp)),
        _ => (kept.to_string(), format!("http://{}/in/http", daemon.http)),
    };
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "--fail",
        "--max-time",
        "30",
        "-u",
        "alice:secret-alice",
        "-C",
        &resume,
        "-w",
        "%{size_upload}",
    ]);
    let output = command.arg("-T").arg(&file).arg(url).output().unwrap();
    assert!(output.status.success(), "{door}: {}", String::from_utf8_lossy(&output.stderr));
    let sent = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(sent, (whole.len() - kept).to_string(), "{door}: only the rest was sent");
    assert!(fs::read(daemon.on_disk(&format!("/in/{door}"))).unwrap() == whole, "{door}");
}

#[test]
fn a_drain_cuts_running_uploads_and_keeps_what_came() {
    let whole = content();
    let mut daemon = daemon("");
    let half = SIZE / 2;
    let mut under: Vec<Under> = ["http", "ftp"].map(|door| begin(&daemon, door)).into();
    for upload in &mut under {
        upload.lane.write_all(&whole[..half]).unwrap();
    }
    until("both halves are here", || staged(&daemon) == 2 * half as u64);
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, place) = daemon.wait();
    assert!(status.success(), "{}", place.log());
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for its drain to be over: {:?}", begun.elapsed());
    daemon = place.start();
    for door in ["http", "ftp"] {
        assert_eq!(offset(&daemon, door), half, "{door}");
        assert!(!daemon.on_disk(&format!("/in/{door}")).exists());
        go_on(&daemon, door, &whole);
    }
}

#[test]
fn a_kill_leaves_what_was_written_down() {
    let whole = content();
    let mut daemon = daemon("");
    let mut under: Vec<Under> = ["http", "ftp", "http"].map(|door| begin(&daemon, door)).into();
    // Two of them go to one path: only the one that began last can be gone on with.
    // Slow senders: a piece now and then, for longer than what came stays unwritten.
    for piece in 0..30 {
        for upload in &mut under {
            upload.lane.write_all(&whole[piece * 100_000..(piece + 1) * 100_000]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    daemon = daemon.kill().start();
    drop(under);
    assert_eq!(fs::read_dir(daemon.data.join("stage")).unwrap().count(), 2, "the displaced one is removed");
    for door in ["http", "ftp"] {
        let kept = offset(&daemon, door);
        assert!((1_000_000..=3_000_000).contains(&kept), "{door}: {kept}");
        assert!(!daemon.on_disk(&format!("/in/{door}")).exists());
        go_on(&daemon, door, &whole);
    }
}
