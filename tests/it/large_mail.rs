//! One message of two gibibytes: to a mailbox and to a drop address, and fetched again, in a hundred mebibytes of memory.
//!
//! It moves some 8 GiB, so it is run by hand: `cargo nextest run --release --run-ignored only -E 'test(two_gibibytes)' --no-capture`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::daemon::Daemon;

const SIZE: u64 = 2 << 30;
const MOST_MEMORY: u64 = 100 << 20;

/// 57 bytes, and the line they are in base64.
const BYTES: &[u8] = b"It was the best of times, it was the worst of times, it w";
const LINE: &[u8] = b"SXQgd2FzIHRoZSBiZXN0IG9mIHRpbWVzLCBpdCB3YXMgdGhlIHdvcnN0IG9mIHRpbWVzLCBpdCB3\r\n";
const HEAD: &str = "From: ann@example.net\r\nSubject: all of it\r\nMIME-Version: 1.0\r\n\
                    Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nIt is large.\r\n--b\r\n\
                    Content-Type: application/octet-stream; name=\"all.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n";
const END: &str = "--b--\r\n";

/// Most memory the daemon ever had.
fn peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

struct Talk(BufReader<TcpStream>);

impl Talk {
    fn begin(to: SocketAddr) -> Self {
        let mut talk = Self(BufReader::new(TcpStream::connect(to).unwrap()));
        talk.line();
        talk
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn say(&mut self, words: &str, wanted: &str) -> String {
        self.0.get_mut().write_all(format!("{words}\r\n").as_bytes()).unwrap();
        self.reply(wanted)
    }

    /// The last line of a reply.
    fn reply(&mut self, wanted: &str) -> String {
        loop {
            let line = self.line();
            if line.as_bytes().get(3) != Some(&b'-') {
                assert!(line.starts_with(wanted), "{line}");
                return line;
            }
        }
    }
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

/// The attachment is what was sent.
fn compare(path: &Path, blocks: u64) {
    let file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), blocks * BYTES.len() as u64);
    let (mut file, piece) = (BufReader::with_capacity(1 << 20, file), BYTES.repeat(1 << 12));
    let (mut left, mut read) = (blocks, vec![0; piece.len()]);
    while left > 0 {
        let count = left.min(1 << 12);
        let size = usize::try_from(count).unwrap() * BYTES.len();
        file.read_exact(&mut read[..size]).unwrap();
        assert!(read[..size] == piece[..size], "other bytes are there");
        left -= count;
    }
}

#[test]
#[ignore = "moves 8 GiB; run by hand, in the release build"]
fn a_message_of_two_gibibytes_passes_in_a_hundred_mebibytes() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "wonder").unwrap();
    let doors = "[[listen]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:0\"\n[[listen]]\nprotocol = \"pop3\"\naddress = \"127.0.0.1:0\"\n";
    let daemon = Daemon::start(&format!(
        "domain = \"example.org\"\n{doors}[smtp]\nmessage_size = \"0 B\"\nverify = \"note\"\ndns = [\"127.0.0.1:9\"]\n\
         verify_time = \"1s\"\n[pop3]\nauth_in_clear = true\n[[user]]\nname = \"alice\"\npassword_file = {:?}\n\
         [[space]]\npath = \"/scans\"\naddress = \"scans\"\ngrants = [{{ to = \"everyone\", allow = \"drop\" }}]\n",
        secret.path().display().to_string()
    ));
    let listeners = fs::read_to_string(daemon.data.join("listeners")).unwrap();
    let pop3 = listeners.lines().find_map(|line| line.strip_prefix("pop3 ")).unwrap().parse().unwrap();
    let before = peak(&daemon);

    let began = Instant::now();
    let mut talk = Talk::begin(daemon.smtp);
    talk.say("EHLO sender.example.net", "250");
    talk.say("MAIL FROM:<ann@example.net>", "250");
    talk.say("RCPT TO:<alice@example.org>", "250");
    talk.say("RCPT TO:<scans@example.org>", "250");
    talk.say("DATA", "354");
    let blocks = SIZE / LINE.len() as u64;
    let mut out = BufWriter::with_capacity(1 << 20, talk.0.get_ref().try_clone().unwrap());
    out.write_all(HEAD.as_bytes()).unwrap();
    (0..blocks).for_each(|_| out.write_all(LINE).unwrap());
    out.write_all(format!("{END}.\r\n").as_bytes()).unwrap();
    out.flush().unwrap();
    let sent = began.elapsed();
    talk.reply("250");
    let (accepted, taken) = (began.elapsed(), peak(&daemon));
    let size = HEAD.len() as u64 + blocks * LINE.len() as u64 + END.len() as u64;
    let stored = fs::metadata(only_file(&daemon.on_disk("/mail/alice/new"))).unwrap().len();
    assert!((size..size + 2_000).contains(&stored), "{stored} for {size}");
    compare(&daemon.on_disk("/scans/all.bin"), blocks);

    let began = Instant::now();
    let mut talk = Talk::begin(pop3);
    talk.say("USER alice", "+OK");
    talk.say("PASS wonder", "+OK");
    let told = talk.say("RETR 1", "+OK");
    let mut piece = vec![0; 1 << 20];
    let (mut fetched, mut last) = (0, Vec::new());
    while !last.ends_with(b"\r\n.\r\n") {
        let count = talk.0.read(&mut piece).unwrap();
        assert!(count > 0, "cut off after {fetched} bytes: {told}");
        fetched += count as u64;
        last.extend_from_slice(&piece[count.saturating_sub(8)..count]);
        last.drain(..last.len().saturating_sub(8));
    }
    assert_eq!(fetched, stored + 3);
    println!(
        "{size} bytes: sent in {sent:.1?}, accepted after {accepted:.1?}, fetched in {:.1?}; peak memory {} MiB at the start, {} MiB after \
         SMTP, {} MiB after POP3",
        began.elapsed(),
        before >> 20,
        taken >> 20,
        peak(&daemon) >> 20
    );
    assert!(peak(&daemon) <= MOST_MEMORY, "{} bytes", peak(&daemon));
}
