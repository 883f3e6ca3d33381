//! The driver of the line protocols with a toy language and paused time: deadlines, drain, faults in the middle of a body.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use stoa::error::{Error, Kind, Result};
use stoa::hub::{Receipt, Soaked, TreePath};
use stoa::net::{Limits, Link};
use stoa::proto::converse::converse;
use stoa::proto::dialogue::{Bare, Dialogue, Encode, Event, Framing, Intake, Lane, Lines, Malformed, Source, Turn};
use stoa::units::{ByteSize, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::world::pipe;

struct Line(String);

impl Encode for Line {
    fn encode(&self, into: &mut BytesMut) {
        into.extend_from_slice(self.0.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}

/// `take` takes a body, `deny` refuses its first byte, anything in capitals is malformed, `settle` settles, the rest is echoed.
#[derive(Default)]
struct Toy {
    settled: bool,
    bodies: Arc<Mutex<Vec<String>>>,
}

struct Body {
    denies: bool,
    content: BytesMut,
    bodies: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Intake for Body {
    async fn push(&mut self, chunk: Bytes) -> Result<()> {
        if self.denies {
            return Err(Error::new(Kind::TooLarge, "too large"));
        }
        self.content.extend_from_slice(&chunk);
        Ok(())
    }

    async fn soak(&mut self, _from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        Ok(None)
    }

    async fn commit(self: Box<Self>) -> Result<Option<Receipt>> {
        self.bodies.lock().push(String::from_utf8_lossy(&self.content).into_owned());
        let path = TreePath::root();
        let bytes = self.content.len() as u64;
        Ok(Some(Receipt { path, bytes, sha256: None, tag: 0, modified: 0, created: true, id: String::new() }))
    }

    async fn abandon(self: Box<Self>) {
        self.bodies.lock().push("abandoned".into());
    }
}

impl Dialogue for Toy {
    type Command = String;
    type Reply = Line;
    const LINES: Lines = Lines { longest: 100, bare_lf: false, telnet: false };

    fn parse(&self, line: &[u8]) -> std::result::Result<String, Malformed> {
        let text = String::from_utf8_lossy(line).into_owned();
        if text.chars().any(char::is_uppercase) { Err(Malformed::Unknown) } else { Ok(text) }
    }

    async fn answer(&mut self, command: String) -> Turn<Line> {
        let take = |denies| Turn::Take {
            prompt: Some(Line("go".into())),
            intake: Box::new(Body { denies, content: BytesMut::new(), bodies: self.bodies.clone() }),
            framing: Framing::Dots { swallow: 1_000, bare: Bare::Normalize },
            lane: Lane::Inline,
        };
        match command.as_str() {
            "take" => take(false),
            "deny" => take(true),
            "give" => Turn::Give {
                prompt: None,
                source: Source::Feed(Box::new(Endless)),
                framing: Framing::Raw,
                lane: Lane::Inline,
            },
            "settle" => {
                self.settled = true;
                Turn::Wait
            }
            _ => Turn::Say(Line(command)),
        }
    }

    async fn react(&mut self, event: Event) -> Turn<Line> {
        Turn::Say(Line(match event {
            Event::Opened => "hello".into(),
            Event::Malformed(malformed) => format!("{malformed:?}"),
            Event::Secured => return Turn::Wait,
            Event::Received(_, Ok(receipt)) => format!("took {}", receipt.map_or(0, |receipt| receipt.bytes)),
            Event::Received(_, Err(error)) | Event::Sent(_, Err(error)) => format!("{:?}: {error}", error.kind()),
            Event::Sent(bytes, Ok(())) => format!("gave {bytes}"),
            Event::Parting(why) => format!("{why:?}"),
        }))
    }

    fn settled(&self) -> bool {
        self.settled
    }
}

struct Endless;

#[async_trait]
impl stoa::proto::dialogue::Feed for Endless {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(Some(Bytes::from_static(&[b'x'; 1_000])))
    }
}

struct Talk {
    peer: DuplexStream,
    stop: CancellationToken,
    bodies: Arc<Mutex<Vec<String>>>,
    begun: Instant,
    driver: JoinHandle<std::io::Result<()>>,
}

impl Talk {
    fn begin(change: impl FnOnce(&mut Limits)) -> Self {
        let (mut link, peer): (Link, _) = pipe("toy", 4_096);
        let mut limits = Limits {
            greeting: Span(Duration::from_secs(10)),
            idle: Span(Duration::from_secs(30)),
            stall: Span(Duration::from_secs(20)),
            slowest: ByteSize(10),
            ..Limits::default()
        };
        change(&mut limits);
        link.limits = Arc::new(limits);
        let (stop, toy) = (link.stop.clone(), Toy::default());
        let bodies = toy.bodies.clone();
        Self { peer, stop, bodies, begun: Instant::now(), driver: tokio::spawn(converse(toy, link)) }
    }

    async fn say(&mut self, text: &str) {
        self.peer.write_all(text.as_bytes()).await.expect("the driver listens");
    }

    /// What came up to and with this text.
    async fn until(&mut self, end: &str) -> String {
        let mut said = Vec::new();
        while !said.ends_with(end.as_bytes()) {
            let byte = self.peer.read_u8().await;
            said.push(byte.unwrap_or_else(|_| panic!("ended after {:?}", String::from_utf8_lossy(&said))));
        }
        String::from_utf8(said).expect("text")
    }

    /// All that comes to the end, and when it came.
    async fn rest(&mut self) -> (String, u64) {
        let mut said = String::new();
        self.peer.read_to_string(&mut said).await.expect("text");
        (said, self.begun.elapsed().as_secs())
    }
}

#[tokio::test(start_paused = true)]
async fn who_never_signs_in_is_parted_with_however_busy() {
    let mut talk = Talk::begin(|_| {});
    for _ in 0..3 {
        sleep(Duration::from_secs(3)).await;
        talk.say("noop\r\n").await;
    }
    assert_eq!(talk.rest().await, ("hello\r\nnoop\r\nnoop\r\nnoop\r\nIdle\r\n".into(), 10));
    drop(talk.peer);
    talk.driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn dripping_bytes_do_not_keep_a_connection() {
    let mut talk = Talk::begin(|_| {});
    talk.say("settle\r\n").await;
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        talk.say("x").await;
    }
    assert_eq!(talk.rest().await, ("hello\r\nIdle\r\n".into(), 30));
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_a_total_time() {
    let mut talk = Talk::begin(|limits| limits.total = Span(Duration::from_secs(25)));
    talk.say("settle\r\n").await;
    for _ in 0..8 {
        sleep(Duration::from_secs(3)).await;
        talk.say("a\r\n").await;
    }
    let (said, after) = talk.rest().await;
    assert!(said.ends_with("a\r\nTotal\r\n") && after == 25, "{said} {after}");
}

#[tokio::test(start_paused = true)]
async fn malformed_commands_are_counted_and_long_ones_are_malformed() {
    let mut talk = Talk::begin(|limits| limits.errors = 2);
    let long = "x".repeat(5_000);
    talk.say(&format!("A\r\nok\r\n{long}\r\nstill\r\nB\r\nnever\r\n")).await;
    assert_eq!(talk.rest().await.0, "hello\r\nUnknown\r\nok\r\nTooLong\r\nstill\r\nErrors\r\n");
}

#[tokio::test(start_paused = true)]
async fn pipelined_commands_are_answered_in_one_write() {
    let mut talk = Talk::begin(|_| {});
    talk.until("hello\r\n").await;
    talk.say("a\r\nb\r\ntake\r\none\r\n.\r\nc\r\n").await;
    let mut piece = [0; 100];
    let read = talk.peer.read(&mut piece).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&piece[..read]), "a\r\nb\r\ngo\r\ntook 5\r\nc\r\n");
    assert_eq!(*talk.bodies.lock(), ["one\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn draining_parts_between_commands_and_after_a_running_body() {
    let mut talk = Talk::begin(|_| {});
    talk.say("take\r\nhalf").await;
    talk.until("go\r\n").await;
    talk.stop.cancel();
    sleep(Duration::from_secs(5)).await;
    talk.say(" done\r\n.\r\nnever\r\n").await;
    assert_eq!(talk.rest().await.0, "took 11\r\nShutdown\r\n");
    assert_eq!(*talk.bodies.lock(), ["half done\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_or_breaks_off_is_abandoned() {
    let mut talk = Talk::begin(|_| {});
    talk.say("take\r\nhalf").await;
    let (said, after) = talk.rest().await;
    assert_eq!(said, "hello\r\ngo\r\nCancelled: transfer cut: nothing moved for 20 s\r\n");
    assert_eq!((after, talk.bodies.lock().join(",")), (20, "abandoned".into()));

    let mut talk = Talk::begin(|_| {});
    talk.say("take\r\nhalf\r\n").await;
    talk.peer.shutdown().await.unwrap();
    assert!(talk.rest().await.0.contains("Cancelled: the connection broke off"));
    assert_eq!(talk.bodies.lock().join(","), "abandoned");
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_silent_for_five_minutes_by_default() {
    let defaults =
        |limits: &mut Limits| (limits.stall, limits.slowest) = (Limits::default().stall, Limits::default().slowest);
    let mut talk = Talk::begin(defaults);
    talk.say("take\r\nhalf").await;
    talk.until("go\r\n").await;
    sleep(Duration::from_secs(299)).await;
    talk.say(" done\r\n.\r\n").await;
    talk.until("took 11\r\n").await;

    let mut talk = Talk::begin(defaults);
    talk.say("take\r\nhalf").await;
    let (said, after) = talk.rest().await;
    assert!(said.ends_with("nothing moved for 300 s\r\n") && after == 300, "{said} {after}");
}

#[tokio::test(start_paused = true)]
async fn a_body_slower_than_allowed_is_cut() {
    let mut talk = Talk::begin(|_| {});
    talk.say("take\r\n").await;
    let mut sent = 0;
    while talk.peer.write_all(b"x").await.is_ok() && sent < 100 {
        sent += 1;
        sleep(Duration::from_secs(1)).await;
    }
    assert!((19..=22).contains(&sent), "{sent} bytes at one a second");
    assert!(talk.rest().await.0.contains("slower than 10 bytes a second"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_body_is_swallowed_and_the_next_command_heard() {
    let mut talk = Talk::begin(|_| {});
    talk.say(&format!("deny\r\n{}\r\n.\r\nnext\r\n", "x".repeat(900))).await;
    assert_eq!(talk.until("next\r\n").await, "hello\r\ngo\r\nTooLarge: too large\r\nnext\r\n");
    // Beyond the limit nobody can tell any more where commands begin: answered, then closed.
    talk.say("deny\r\n").await;
    talk.until("go\r\n").await;
    for _ in 0..200 {
        if talk.peer.write_all(&[b'x'; 1_000]).await.is_err() {
            break;
        }
    }
    assert_eq!(talk.rest().await.0, "TooLarge: too large\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_not_waited_for() {
    let mut talk = Talk::begin(|_| {});
    talk.say("give\r\n").await;
    (&mut talk.driver).await.unwrap().unwrap();
    assert_eq!(talk.begun.elapsed().as_secs(), 20 + 1, "one stall, and a moment for the goodbye");

    let mut talk = Talk::begin(|_| {});
    let (mut read, mut write) = tokio::io::split(talk.peer);
    let flood = async { while write.write_all(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await.is_ok() {} };
    flood.await;
    let ended = (&mut talk.driver).await.unwrap();
    assert_eq!(ended.map_err(|error| error.kind()), Err(std::io::ErrorKind::TimedOut));
    let mut left = Vec::new();
    read.read_to_end(&mut left).await.unwrap();
    assert!(left.len() <= 4_096);
}

#[test]
fn an_idle_connection_is_small() {
    let (link, _peer) = pipe("toy", 64);
    let size = std::mem::size_of_val(&converse(Toy::default(), link));
    assert!(size < 1_500, "{size} bytes for each idle connection, beside its dialogue");
}
