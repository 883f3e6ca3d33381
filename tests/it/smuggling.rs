//! Where a message ends: every way to write an end that is none, through the framing at every split point and through the door.
//!
//! A server that ends a message where the sender's server did not lets one message hide another (CVE-2023-51764 and its kin). The end
//! is CRLF.CRLF, and nothing else.

use std::time::Duration;

use bytes::BytesMut;
use stoa::proto::dialogue::{Bare, Framing};
use stoa::proto::framing::Unframe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, pipe};

/// What stands before the dot.
const BEFORE: [&str; 8] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\r", "\r\n\0", "\n\n"];
/// What stands behind it.
const BEHIND: [&str; 9] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\0\r\n", " \r\n", ".\r\n", "\t\n"];
/// What would be heard as a second message.
const HIDDEN: &str = "MAIL FROM:<evil@else.where>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nhidden\r\n.\r\nQUIT\r\n";

struct Variant {
    name: String,
    /// Content up to and with the end that is to be judged.
    text: String,
    /// It is one.
    ends: bool,
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for before in BEFORE {
        for behind in BEHIND {
            // Only the five octets count: behind a CR that stands alone they still do.
            let text = format!("Subject: seen\r\n\r\nseen{before}.{behind}");
            let ends = text.contains("\r\n.\r\n");
            all.push(Variant { name: format!("{before:?} . {behind:?}"), text, ends });
        }
    }
    assert!(all.len() >= 60);
    assert_eq!(all.iter().filter(|variant| variant.ends).count(), 2, "CRLF.CRLF, also behind a lone CR");
    all
}

/// How many bytes of the text belong to the message, if it ended.
fn ended_at(pieces: &[&[u8]], bare: Bare) -> Option<usize> {
    let mut unframe = Unframe::new(Framing::Dots { swallow: 0, bare });
    let (mut out, mut at) = (BytesMut::new(), 0);
    for piece in pieces {
        let (used, ended) = unframe.feed(piece, &mut out);
        at += used;
        if ended {
            return Some(at);
        }
        assert_eq!(used, piece.len(), "bytes are left without an end");
    }
    None
}

#[test]
fn only_crlf_dot_crlf_ends_a_message_however_it_is_split() {
    for variant in variants() {
        let whole = format!("{}{HIDDEN}", variant.text);
        let bytes = whole.as_bytes();
        // Without a real end of its own the hidden message's end is the first one.
        let expected = whole.find("\r\n.\r\n").map(|at| at + 5);
        assert_eq!(expected == Some(variant.text.len()), variant.ends, "{}", variant.name);
        for bare in [Bare::Normalize, Bare::Keep, Bare::Refuse] {
            for first in 0..bytes.len() {
                let (one, two) = bytes.split_at(first);
                assert_eq!(ended_at(&[one, two], bare), expected, "{} split at {first}", variant.name);
                let (two, three) = two.split_at(two.len().min(3));
                assert_eq!(ended_at(&[one, two, three], bare), expected, "{} split at {first} and 3 on", variant.name);
            }
        }
    }
}

/// Says all of it in writes that arrive `cut` bytes at a time; everything the server said.
async fn converse(world: &World, text: &str, cut: usize) -> String {
    let (link, theirs) = pipe("smtp", cut);
    let handler = world.door("smtp", &toml::Table::new());
    let serving = tokio::spawn(async move { handler.serve(link).await });
    let (mut read, mut write) = tokio::io::split(theirs);
    let saying = async {
        // The server may close before it heard everything.
        let _ = write.write_all(text.as_bytes()).await;
        let _ = write.shutdown().await;
    };
    let mut said = Vec::new();
    let talk = async { tokio::join!(saying, read.read_to_end(&mut said)).1 };
    tokio::time::timeout(Duration::from_mins(1), talk).await.expect("an end in time").expect("read");
    let _ = serving.await;
    String::from_utf8(said).expect("ASCII replies")
}

#[tokio::test]
async fn no_message_hides_another_through_the_door() {
    let world = World::light().await;
    let delivered = |who: &str| std::fs::read_dir(world.disk(&format!("/mail/{who}/new"))).map_or(0, Iterator::count);
    let (mut for_alice, mut for_bob) = (0, 0);
    for variant in variants() {
        for cut in [1, 5, 1000] {
            let start = "HELO me\r\nMAIL FROM:<me@else.where>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n";
            let said = converse(&world, &format!("{start}{}{HIDDEN}", variant.text), cut).await;
            for_alice += 1;
            for_bob += usize::from(variant.ends);
            assert_eq!(delivered("alice"), for_alice, "{} cut at {cut}: {said}", variant.name);
            assert_eq!(delivered("bob"), for_bob, "{} cut at {cut}: {said}", variant.name);
            // In step to the last word: QUIT was heard as a command, and nothing else of the content was.
            assert!(said.ends_with("221 2.0.0 bye\r\n"), "{} cut at {cut}: {said}", variant.name);
            let queued = if variant.ends { 2 } else { 1 };
            assert_eq!(said.matches("queued as").count(), queued, "{} cut at {cut}: {said}", variant.name);
        }
    }
}

#[tokio::test]
async fn what_comes_ahead_of_a_reply_ends_the_conversation_where_servers_talk() {
    let world = World::light().await;
    let handler = world.door("smtp", &"role = \"mx\"".parse().expect("TOML"));
    for (text, said) in [
        ("EHLO me\r\nMAIL FROM:<a@b>\r\n", "554 5.5.0"),
        ("HELO me\r\nQUIT\r\n", "554 5.5.0"),
        ("EHLO me\r\n", "250 HELP"),
    ] {
        let (link, mut theirs) = pipe("smtp", 4096);
        // All of it is there before the server reads.
        theirs.write_all(text.as_bytes()).await.expect("written");
        theirs.shutdown().await.expect("shut down");
        handler.serve(link).await.expect("served");
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.expect("read");
        let last = heard.lines().last().unwrap_or_default();
        assert!(last.starts_with(said), "{text:?}: {heard}");
    }
}
