//! What RFC 9113 says of frames that are wrong, too many or in the wrong place, case by case: the list that h2spec walks through.

use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::frames::{
    ACK, Connection, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::frames::{block, frame, request};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
/// A kind of frame that no RFC defines.
const UNKNOWN: u8 = 0x16;

const PADDED: u8 = 8;

/// Error codes (§7). `PROTOCOL_ERROR` may stand where no more specific one is told: the h2 crate tells it for every frame that it cannot read,
/// so it is taken in place of `COMPRESSION_ERROR`, `FRAME_SIZE_ERROR`, `FLOW_CONTROL_ERROR` and `STREAM_CLOSED` too.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

const PATIENCE: Duration = Duration::from_secs(10);

/// What must become of it.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The connection goes on as if nothing had come.
    Ignored,
    /// Stream 1 is answered.
    Answered,
    /// `GOAWAY` with one of these codes, and the end of the connection.
    Connection(&'static [u32]),
    /// `RST_STREAM` for stream 1, after which the connection goes on; or the same as an error of the connection (§5.4.2).
    Stream(&'static [u32]),
    /// A malformed request (§8.1.1): the same with `PROTOCOL_ERROR`, or an answer 400.
    Malformed,
}

use Fate::{Answered, Connection as Broken, Ignored, Malformed, Stream};

type Case = (&'static str, Vec<u8>, Fate);

/// A frame that came.
enum Seen {
    Pong,
    Goaway(u32),
    Reset(u32),
    /// The first byte of the answer's header block.
    Answer(u8),
    End,
}

/// The next thing that matters for a case.
fn look(connection: &mut Connection) -> Seen {
    let number = |bytes: &[u8]| bytes.iter().take(4).fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
    while let Some(came) = connection.next() {
        match (came.kind, came.stream) {
            (PING, _) if came.flags & ACK != 0 && came.payload == *b"whatever" => return Seen::Pong,
            (GOAWAY, _) => return Seen::Goaway(number(&came.payload[4..])),
            (RST_STREAM, 1) => return Seen::Reset(number(&came.payload)),
            (HEADERS, 1) => return Seen::Answer(came.payload[0]),
            _ => {}
        }
    }
    Seen::End
}

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"whatever")
}

/// What was wrong, if it was not as it must be.
fn judge(connection: &mut Connection, fate: Fate) -> Result<(), String> {
    if matches!(fate, Ignored | Answered) {
        connection.send(&ping());
    }
    loop {
        let seen = look(connection);
        match (fate, seen) {
            (Ignored, Seen::Pong)
            | (Answered, Seen::Answer(_))
            | (Malformed, Seen::Answer(0x8c) | Seen::Goaway(PROTOCOL_ERROR)) => return Ok(()),
            (Malformed, Seen::Reset(PROTOCOL_ERROR)) => return goes_on(connection),
            (Stream(codes), Seen::Reset(code)) if codes.contains(&code) => return goes_on(connection),
            (Stream(codes), Seen::Goaway(code)) if code == PROTOCOL_ERROR || codes.contains(&code) => return Ok(()),
            (Broken(codes), Seen::Goaway(code)) if code == PROTOCOL_ERROR || codes.contains(&code) => {
                return ends(connection);
            }
            // Before what came last was judged.
            (Answered, Seen::Pong)
            | (Ignored | Broken(_) | Stream(_), Seen::Answer(_))
            | (Broken(_), Seen::Reset(_)) => {}
            (_, Seen::Pong) => return Err("answered a ping".to_owned()),
            (_, Seen::Goaway(code)) => return Err(format!("GOAWAY {code}")),
            (_, Seen::Reset(code)) => return Err(format!("RST_STREAM {code}")),
            (_, Seen::Answer(first)) => return Err(format!("an answer that begins with {first:#x}")),
            (_, Seen::End) => return Err("the connection ended or nothing came".to_owned()),
        }
    }
}

/// An error of a stream is none of the connection.
fn goes_on(connection: &mut Connection) -> Result<(), String> {
    connection.send(&ping());
    match look(connection) {
        Seen::Pong => Ok(()),
        _ => Err("the connection does not go on".to_owned()),
    }
}

fn ends(connection: &mut Connection) -> Result<(), String> {
    let began = Instant::now();
    while connection.next().is_some() {}
    match began.elapsed() < PATIENCE {
        true => Ok(()),
        false => Err("the connection stays open".to_owned()),
    }
}

fn get() -> Vec<u8> {
    request(1, "GET", "/-/health", &[], true)
}

/// A request on stream 1 that waits for its body.
fn put() -> Vec<u8> {
    request(1, "PUT", "/pub/file", &[("content-length", "4")], false)
}

/// The head of a request with these header lines only.
fn head(stream: u32, lines: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(lines))
}

fn setting(key: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&key.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn add(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn reset() -> Vec<u8> {
    frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "stoa"), (":path", "/-/health")];

/// §4: the form of frames.
fn form() -> Vec<Case> {
    let whole = END_HEADERS | END_STREAM;
    vec![
        ("an unknown kind of frame", frame(UNKNOWN, 0, 0, b"something"), Ignored),
        ("an unknown kind on a stream", [put(), frame(UNKNOWN, 0, 1, b"something")].concat(), Ignored),
        ("undefined flags", frame(PING, UNKNOWN & !ACK, 0, b"the-ping"), Ignored),
        ("the reserved bit", frame(PING, 0, 1 << 31, b"the-ping"), Ignored),
        ("DATA as long as allowed", [put(), frame(DATA, END_STREAM, 1, &[0; 16_384])].concat(), Malformed),
        (
            "DATA that is too long",
            [put(), frame(DATA, END_STREAM, 1, &[0; 16_385])].concat(),
            Stream(&[FRAME_SIZE_ERROR]),
        ),
        ("HEADERS that are too long", frame(HEADERS, whole, 1, &[0; 16_385]), Broken(&[FRAME_SIZE_ERROR])),
        ("SETTINGS that are too long", frame(SETTINGS, 0, 0, &[0; 16_386]), Broken(&[FRAME_SIZE_ERROR])),
        ("a header block with index 0", frame(HEADERS, whole, 1, &[0x80]), Broken(&[COMPRESSION_ERROR])),
        ("a header block that breaks off", frame(HEADERS, whole, 1, &[0, 9, b'a']), Broken(&[COMPRESSION_ERROR])),
        ("an index beyond the table", frame(HEADERS, whole, 1, &[0xff, 0x80, 0x10]), Broken(&[COMPRESSION_ERROR])),
        (
            "a table that grows beyond what was allowed",
            frame(HEADERS, whole, 1, &[&[0x3f, 0xe1, 0xff, 0x07][..], &block(&GET)].concat()),
            Broken(&[COMPRESSION_ERROR]),
        ),
    ]
}

/// §4.3, §6.10: header blocks in several frames.
fn blocks() -> Vec<Case> {
    let lines = block(&GET);
    let (one, two) = lines.split_at(20);
    let open = || frame(HEADERS, END_STREAM, 1, one);
    let rest = |flags| frame(CONTINUATION, flags, 1, two);
    let broken = Broken(&[PROTOCOL_ERROR]);
    vec![
        ("a block in two frames", [open(), rest(END_HEADERS)].concat(), Answered),
        ("with an empty one between", [open(), frame(CONTINUATION, 0, 1, b""), rest(END_HEADERS)].concat(), Answered),
        ("PRIORITY inside a block", [open(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])].concat(), broken),
        ("DATA inside a block", [open(), frame(DATA, 0, 1, b"x")].concat(), broken),
        ("PING inside a block", [open(), ping()].concat(), broken),
        ("SETTINGS inside a block", [open(), frame(SETTINGS, 0, 0, b"")].concat(), broken),
        ("an unknown frame inside a block", [open(), frame(UNKNOWN, 0, 1, b"x")].concat(), broken),
        ("HEADERS of another stream inside a block", [open(), head(3, &GET, END_HEADERS)].concat(), broken),
        ("CONTINUATION of another stream", [open(), frame(CONTINUATION, END_HEADERS, 3, two)].concat(), broken),
        ("CONTINUATION after the end of a block", [put(), rest(END_HEADERS)].concat(), broken),
        ("CONTINUATION on no stream", frame(CONTINUATION, END_HEADERS, 0, two), broken),
        ("CONTINUATION on an idle stream", rest(END_HEADERS), broken),
    ]
}

/// §5: the states of streams.
fn states() -> Vec<Case> {
    let broken = Broken(&[PROTOCOL_ERROR]);
    let closed = Stream(&[STREAM_CLOSED]);
    let data = || frame(DATA, END_STREAM, 1, b"late");
    vec![
        ("DATA on an idle stream", data(), broken),
        ("RST_STREAM on an idle stream", reset(), broken),
        ("WINDOW_UPDATE on an idle stream", add(1, 100), broken),
        ("DATA after the end of a stream", [get(), data()].concat(), closed),
        ("HEADERS after the end of a stream", [get(), get()].concat(), Stream(&[STREAM_CLOSED, PROTOCOL_ERROR])),
        (
            "HEADERS on a stream that was reset",
            [put(), reset(), get()].concat(),
            Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        ("WINDOW_UPDATE on a stream that was reset", [put(), reset(), add(1, 100)].concat(), Ignored),
        ("RST_STREAM twice", [put(), reset(), reset()].concat(), Ignored),
        (
            "PRIORITY on a stream that was reset",
            [put(), reset(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])].concat(),
            Ignored,
        ),
        ("PRIORITY on an idle stream", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), Ignored),
        ("a stream with an even number", head(2, &GET, END_HEADERS | END_STREAM), broken),
        (
            "a stream with a number below another's",
            [head(5, &GET, END_HEADERS | END_STREAM), head(3, &GET, END_HEADERS | END_STREAM)].concat(),
            Broken(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "a stream that depends on itself",
            frame(HEADERS, END_HEADERS | END_STREAM | 0x20, 1, &[&[0, 0, 0, 1, 9][..], &block(&GET)].concat()),
            Stream(&[PROTOCOL_ERROR]),
        ),
    ]
}

/// §6: each kind of frame.
fn kinds() -> Vec<Case> {
    let broken = Broken(&[PROTOCOL_ERROR]);
    let size = Broken(&[FRAME_SIZE_ERROR]);
    let most = (1 << 31) - 1;
    vec![
        ("DATA on no stream", frame(DATA, END_STREAM, 0, b"x"), broken),
        (
            "DATA with more padding than it has bytes",
            [put(), frame(DATA, PADDED | END_STREAM, 1, b"\x06test")].concat(),
            broken,
        ),
        ("HEADERS on no stream", head(0, &GET, END_HEADERS | END_STREAM), broken),
        (
            "HEADERS with more padding than they have bytes",
            frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[200, 0x82]),
            broken,
        ),
        ("PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 9]), broken),
        ("PRIORITY of four bytes", [put(), frame(PRIORITY, 0, 1, &[0; 4])].concat(), Stream(&[FRAME_SIZE_ERROR])),
        ("RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0; 4]), broken),
        ("RST_STREAM of three bytes", [put(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), size),
        ("an acknowledgement of settings with settings", frame(SETTINGS, ACK, 0, &[0; 6]), size),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[0; 6]), broken),
        ("SETTINGS of three bytes", frame(SETTINGS, 0, 0, &[0; 3]), size),
        ("SETTINGS_ENABLE_PUSH of 2", setting(2, 2), broken),
        ("SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1", setting(4, 1 << 31), Broken(&[FLOW_CONTROL_ERROR])),
        ("SETTINGS_MAX_FRAME_SIZE below 16384", setting(5, 16_383), broken),
        ("SETTINGS_MAX_FRAME_SIZE above 2^24-1", setting(5, 1 << 24), broken),
        ("an unknown setting", setting(0xff, 1), Ignored),
        (
            "PUSH_PROMISE of a client",
            [put(), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&GET)].concat())].concat(),
            broken,
        ),
        ("PING on a stream", frame(PING, 0, 1, b"whatever"), broken),
        ("PING of six bytes", frame(PING, 0, 0, b"length"), size),
        ("an acknowledgement of no PING", frame(PING, ACK, 0, b"whatever"), Ignored),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), broken),
        ("WINDOW_UPDATE of 0", add(0, 0), broken),
        ("WINDOW_UPDATE of 0 on a stream", [put(), add(1, 0)].concat(), Stream(&[PROTOCOL_ERROR])),
        ("WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), size),
        ("a connection's window above 2^31-1", [add(0, most), add(0, most)].concat(), Broken(&[FLOW_CONTROL_ERROR])),
        ("a stream's window above 2^31-1", [put(), add(1, most), add(1, most)].concat(), Stream(&[FLOW_CONTROL_ERROR])),
        (
            "a stream's window above 2^31-1 by a setting",
            [put(), add(1, most - 65_535), setting(4, 65_536)].concat(),
            Broken(&[FLOW_CONTROL_ERROR]),
        ),
    ]
}

/// §8: requests. `lines` come behind the four pseudo-header fields of a request, or in their place.
fn requests() -> Vec<Case> {
    let all = |lines: &[(&str, &str)]| head(1, lines, END_HEADERS | END_STREAM);
    let more = |name, value| all(&[&GET[..], &[(name, value)]].concat());
    let without = |name: &str| all(&GET.into_iter().filter(|line| line.0 != name).collect::<Vec<_>>());
    let instead = |name: &str, value| all(&GET.map(|line| if line.0 == name { (line.0, value) } else { line }));
    let body = |pieces: &[&[u8]]| {
        let (last, before) = pieces.split_last().unwrap();
        let before: Vec<u8> = before.iter().flat_map(|piece| frame(DATA, 0, 1, piece)).collect();
        [put(), before, frame(DATA, END_STREAM, 1, last)].concat()
    };
    let trailers = |lines: &[(&str, &str)], flags| [put(), frame(DATA, 0, 1, b"four"), head(1, lines, flags)].concat();
    vec![
        ("a name with a capital letter", more("X-Capital", "1"), Malformed),
        ("a name with a space", more("x y", "1"), Malformed),
        ("an empty name", more("", "1"), Malformed),
        ("a value with a line feed", more("x-value", "a\nb"), Malformed),
        ("a value with a NUL", more("x-value", "a\0b"), Malformed),
        ("an unknown pseudo-header field", more(":test", "1"), Malformed),
        ("a pseudo-header field of responses", more(":status", "200"), Malformed),
        ("a pseudo-header field behind others", all(&[&GET[..3], &[("x-first", "1"), GET[3]]].concat()), Malformed),
        ("connection", more("connection", "keep-alive"), Malformed),
        ("transfer-encoding", more("transfer-encoding", "chunked"), Malformed),
        ("te other than trailers", more("te", "trailers, deflate"), Malformed),
        ("te: trailers", more("te", "trailers"), Answered),
        ("no :method", without(":method"), Malformed),
        ("no :scheme", without(":scheme"), Malformed),
        ("no :path", without(":path"), Malformed),
        ("an empty :path", instead(":path", ""), Malformed),
        (":method twice", more(":method", "GET"), Malformed),
        (":scheme twice", more(":scheme", "http"), Malformed),
        (":path twice", more(":path", "/"), Malformed),
        (":authority twice", more(":authority", "stoa"), Malformed),
        ("an :authority with a user", instead(":authority", "me@stoa"), Malformed),
        ("a body shorter than its content-length", body(&[b"abc"]), Malformed),
        ("a body longer than its content-length", body(&[b"abcde"]), Malformed),
        ("in two frames", body(&[b"abc", b"de"]), Malformed),
        ("a body of its content-length", body(&[b"ab", b"", b"cd"]), Answered),
        ("trailers that do not end the stream", trailers(&[("x-trailer", "1")], END_HEADERS), Malformed),
        ("trailers", trailers(&[("x-trailer", "1")], END_HEADERS | END_STREAM), Answered),
    ]
}

#[test]
fn frames_that_are_wrong_meet_what_the_rfc_says() {
    let daemon = Daemon::start("[[space]]\npath = \"/pub\"\ngrants = [ { to = \"everyone\", allow = \"edit\" } ]\n");
    let cases: Vec<Case> = [form(), blocks(), states(), kinds(), requests()].into_iter().flatten().collect();
    assert!(cases.len() > 80, "{}", cases.len());
    let mut wrong = Vec::new();
    for (name, bytes, fate) in cases {
        let mut connection = Connection::open(daemon.http, &[]);
        connection.0.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.send(&bytes);
        if let Err(what) = judge(&mut connection, fate) {
            wrong.push(format!("{name}: {fate:?} was due, {what} came"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// §5.1.2.
#[test]
fn a_stream_more_than_allowed_is_refused_and_the_others_go_on() {
    let daemon = Daemon::start("[[space]]\npath = \"/pub\"\ngrants = [ { to = \"everyone\", allow = \"edit\" } ]\n");
    let mut connection = Connection::open(daemon.http, &[]);
    for number in 0..101 {
        let path = format!("/pub/{number}");
        connection.send(&request(1 + 2 * number, "PUT", &path, &[("content-length", "4")], false));
    }
    let came = connection.until(RST_STREAM, 201);
    assert_eq!(came.payload, REFUSED_STREAM.to_be_bytes());
    connection.send(&frame(DATA, END_STREAM, 1, b"four"));
    assert!(connection.answered(1));
    connection.send(&request(203, "GET", "/-/health", &[], true));
    assert!(connection.answered(203), "there is a place again");
}
