//! Where messages really come from: SPF, DKIM, DMARC and ARC against a name server of the test's own, and what is done with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_auth::hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, AuthenticationResults, MessageAuthenticator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::world::{World, pipe};

/// Answers TXT questions from a table; everything else does not exist.
pub struct Names {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Names {
    pub async fn serve(records: &[(&str, String)]) -> Self {
        let records: HashMap<String, String> =
            records.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut question).await {
                let answer = answer(&question[..count], &records);
                let _ = socket.send_to(&answer, peer).await;
            }
        });
        Self { address, task }
    }
}

/// RFC 1035 §4.1: the question back, and the TXT records of the name, one a line. A name without any is there if there are names below it.
fn answer(question: &[u8], records: &HashMap<String, String>) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    let end = at + 5;
    let is_text = question[at + 1..at + 3] == [0, 16];
    let name = labels.join(".");
    let below = format!(".{name}");
    let exists = records.keys().any(|key| *key == name || key.ends_with(&below));
    let found = records.get(&name).filter(|_| is_text).map(|text| text.lines().collect::<Vec<_>>()).unwrap_or_default();
    let mut answer = question[..2].to_vec();
    let count = u8::try_from(found.len()).expect("few records");
    answer.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    for text in found {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(255).collect();
        let length = text.len() + parts.len();
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(length).expect("a short record").to_be_bytes());
        for part in parts {
            answer.push(u8::try_from(part.len()).expect("at most 255"));
            answer.extend(part);
        }
    }
    answer
}

const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// RFC 8463's example key, and records of two domains: one sends from our address and signs, one asks to refuse what is not its own.
async fn names() -> Names {
    Names::serve(&[
        ("good.example", "v=spf1 ip4:192.0.2.9 -all".into()),
        ("s._domainkey.good.example", format!("v=DKIM1; k=ed25519; p={PUBLIC}")),
        ("_dmarc.good.example", "v=DMARC1; p=reject".into()),
        ("strict.example", "v=spf1 -all".into()),
        ("_dmarc.strict.example", "v=DMARC1; p=reject".into()),
        ("alone.example", "v=spf1 -all".into()),
        ("s._domainkey.list.example", format!("v=DKIM1; k=ed25519; p={PUBLIC}")),
        ("s._domainkey.hop.example", format!("v=DKIM1; k=ed25519; p={PUBLIC}")),
    ])
    .await
}

fn key() -> Ed25519Key {
    let decode = |text: &str| BASE64.decode(text).expect("base64");
    Ed25519Key::from_seed_and_public_key(&decode(SEED), &decode(PUBLIC)).expect("a key")
}

fn signed(text: &str) -> String {
    let signer = DkimSigner::from_key(key()).domain("good.example").selector("s").headers(["From", "Subject"]);
    format!("{}{text}", signer.sign(text.as_bytes()).expect("a signature").to_header())
}

/// What a forwarder of this domain makes of a message: its own ARC set above those that are there (RFC 8617 §5.1).
async fn sealed(names: &Names, domain: &str, text: &str) -> String {
    let mut server = NameServerConfig::udp_and_tcp(names.address.ip());
    server.connections.iter_mut().for_each(|way| way.port = names.address.port());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let authenticator = MessageAuthenticator::new(config, ResolverOpts::default()).expect("a resolver");
    let message = AuthenticatedMessage::parse(text.as_bytes()).expect("a message");
    let chain = authenticator.verify_arc(&message).await;
    let results = AuthenticationResults::new(domain);
    let sealer = ArcSealer::from_key(key()).domain(domain).selector("s").headers(["From", "Subject"]);
    let set = sealer.seal(&message, &results, &chain).expect("a set");
    format!("{}{text}", set.to_header())
}

/// Sends one message; the last reply to it and what was stored.
pub async fn send(world: &World, section: &str, sender: &str, text: &str) -> (String, String) {
    let (mut link, theirs) = pipe("smtp", 997);
    link.origin.peer = "192.0.2.9:1000".parse().expect("an address");
    let handler = world.door("smtp", &section.parse().expect("TOML"));
    let serving = tokio::spawn(async move { handler.serve(link).await });
    let (mut read, mut write) = tokio::io::split(theirs);
    let talk = format!(
        "EHLO mta.good.example\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n{text}\r\n.\r\nQUIT\r\n"
    );
    let saying = async {
        let _ = write.write_all(talk.as_bytes()).await;
    };
    let mut said = String::new();
    let both = async { tokio::join!(saying, read.read_to_string(&mut said)).1 };
    tokio::time::timeout(Duration::from_mins(1), both).await.expect("an end in time").expect("text");
    // The server need not wait for the end of this side.
    drop((read, write));
    let _ = serving.await;
    let reply = said.lines().rev().nth(1).unwrap_or_default().to_owned();
    let folder = world.disk("/mail/alice/new");
    let mut stored = String::new();
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        stored = std::fs::read_to_string(file.path()).expect("a message");
        std::fs::remove_file(file.path()).expect("removed");
    }
    (reply, stored)
}

pub fn section(verify: &str, names: &Names) -> String {
    format!("verify = \"{verify}\"\ndns = [\"{}\"]", names.address)
}

#[tokio::test]
async fn what_is_proved_is_written_above_the_message() {
    let (world, names) = (World::light().await, names().await);
    let note = section("note", &names);
    let text = signed("From: Ann <ann@good.example>\r\nSubject: hi\r\n\r\nhello \r\n\r\n\r\n");
    let (reply, stored) = send(&world, &note, "ann@good.example", &text).await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert!(
        stored.starts_with("Return-Path: <ann@good.example>\r\nAuthentication-Results: example.org;\r\n\t"),
        "{stored}"
    );
    for part in ["spf=pass", "dkim=pass header.d=good.example", "dmarc=pass header.from=good.example"] {
        assert!(stored.contains(part), "{part}: {stored}");
    }
    assert!(stored.contains("\r\nReceived: from mta.good.example "), "{stored}");
    let body = text.split_once("Subject").expect("a subject").1;
    assert!(stored.contains(body), "the message itself is as it came: {stored}");

    // A large message is staged, and its body hashed as it passes.
    let large = format!("From: ann@good.example\r\nSubject: large\r\n\r\n{}", "0123456789 abcdef\r\n".repeat(20_000));
    let (reply, stored) = send(&world, &note, "ann@good.example", &signed(&large)).await;
    assert!(
        reply.starts_with("250 2.0.0") && stored.contains("dkim=pass"),
        "{reply} {}",
        &stored[..600.min(stored.len())]
    );
    assert!(stored.trim_end().ends_with("0123456789 abcdef") && stored.len() > 300_000);

    // What was changed on the way is no longer signed; noting refuses nobody.
    let (reply, stored) = send(&world, &note, "ann@good.example", &text.replace("hello", "jello")).await;
    assert!(reply.starts_with("250 2.0.0") && !stored.contains("dkim=pass") && stored.contains("spf=pass"), "{stored}");
    let (reply, stored) = send(&world, &note, "x@strict.example", "From: x@strict.example\r\n\r\nforged").await;
    assert!(reply.starts_with("250 2.0.0") && stored.contains("spf=fail") && stored.contains("dmarc=fail"), "{stored}");
}

#[tokio::test]
async fn what_a_domain_asks_to_refuse_is_refused_where_that_is_enforced() {
    let (world, names) = (World::light().await, names().await);
    let enforce = section("enforce", &names);
    let (reply, stored) = send(&world, &enforce, "x@strict.example", "From: x@strict.example\r\n\r\nforged").await;
    assert!(reply.starts_with("550 5.7.26 strict.example"), "{reply}");
    assert_eq!(stored, "");
    let (reply, _) = send(&world, &enforce, "x@alone.example", "From: x@alone.example\r\n\r\nforged").await;
    assert!(reply.starts_with("550 5.7.23"), "{reply}");
    let text = signed("From: ann@good.example\r\nSubject: hi\r\n\r\nhello\r\n");
    let (reply, stored) = send(&world, &enforce, "list@forwarder.example", &text).await;
    assert!(reply.starts_with("250 2.0.0") && stored.contains("dmarc=pass"), "{reply} {stored}");
    let (reply, stored) = send(&world, &enforce, "", "no header at all").await;
    assert!(
        reply.starts_with("250 2.0.0") && stored.contains("Authentication-Results: example.org"),
        "{reply} {stored}"
    );
}

#[tokio::test]
async fn a_message_whose_author_cannot_be_told_is_refused_where_that_is_enforced() {
    let (world, names) = (World::light().await, names().await);
    let enforce = section("enforce", &names);
    let rest = "Subject: pay\r\n\r\nx\r\n";
    for from in [
        "From: ceo@strict.example\r\nFrom: x@evil.example\r\n",
        "From: x@evil.example\r\nFrom : ceo@strict.example\r\n",
        "From: x@evil.example, ceo@strict.example\r\n",
        "From: the boss\r\n",
    ] {
        let (reply, stored) = send(&world, &enforce, "x@evil.example", &format!("{from}{rest}")).await;
        assert!(reply.starts_with("550 5.7.1 ") && stored.is_empty(), "{from}: {reply}");
    }
    let (reply, _) = send(&world, &enforce, "x@evil.example", &format!("From: x@evil.example\r\n{rest}")).await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let padded = format!("From: ceo@strict.example\r\nX-Pad: {}\r\n{rest}", "x\r\n ".repeat(100_000));
    let (reply, _) = send(&world, &enforce, "x@evil.example", &padded).await;
    assert!(reply.starts_with("550 5.7.1 "), "a header too large to be checked: {reply}");
    let (reply, _) =
        send(&world, &section("note", &names), "x@evil.example", &format!("From: a@b.c\r\nFrom: d@e.f\r\n{rest}"))
            .await;
    assert!(reply.starts_with("250 2.0.0"), "noting refuses nobody: {reply}");
}

#[tokio::test]
async fn a_chain_of_forwarders_is_followed_to_its_beginning() {
    let (world, names) = (World::light().await, names().await);
    let note = section("note", &names);
    let text = signed("From: Ann <ann@good.example>\r\nSubject: hi\r\n\r\nhello\r\n");
    let arc = async |text: &str| {
        let (reply, stored) = send(&world, &note, "list@list.example", text).await;
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
        let (field, _) = stored.split_once("\r\nReceived:").expect("a trace");
        let found = field.split("\tarc=").nth(1).map(|rest| rest.split([' ', ';', '\r']).next().unwrap_or_default());
        found.unwrap_or_default().to_owned()
    };
    assert_eq!(arc(&text).await, "", "nobody forwarded it");
    let once = sealed(&names, "list.example", &text).await;
    assert_eq!(arc(&once).await, "pass");
    let twice = sealed(&names, "hop.example", &once).await;
    assert!(twice.matches("ARC-Seal:").count() == 2 && twice.contains("cv=pass"), "{twice}");
    assert_eq!(arc(&twice).await, "pass");

    // The list changed the text before it sealed it: the author's signature is void, the chain is not.
    let changed = sealed(&names, "list.example", &text.replace("hello", "hello, [list]")).await;
    let (_, stored) = send(&world, &note, "list@list.example", &changed).await;
    assert!(stored.contains("\tarc=pass") && !stored.contains("dkim=pass"), "{stored}");

    for (what, broken) in [
        ("the content changed behind the seal", twice.replace("hello", "jello")),
        ("a signed field changed behind the seal", twice.replace("Subject: hi", "Subject: hi there")),
        ("what the first one found was rewritten", twice.replace("i=1; list.example", "i=1; last.example")),
        ("the first one is somebody else", twice.replace("d=list.example", "d=good.example")),
        ("nobody knows its key", twice.replace("d=hop.example", "d=unknown.example")),
        ("a set is missing", once.replace("i=1;", "i=2;")),
    ] {
        assert_ne!(broken, twice, "{what}");
        let said = arc(&broken).await;
        assert!(!matches!(said.as_str(), "pass" | ""), "{what}: {said:?}\n{broken}");
    }

    let large = format!("From: ann@good.example\r\nSubject: large\r\n\r\n{}", "0123456789 abcdef\r\n".repeat(20_000));
    assert_eq!(arc(&sealed(&names, "list.example", &large).await).await, "pass", "hashed as it passes");
}

#[tokio::test]
async fn a_name_server_that_is_silent_holds_nobody_up_for_long() {
    let world = World::light().await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let section = format!(
        "verify = \"enforce\"\nverify_time = \"300 ms\"\ndns = [\"{}\"]",
        silent.local_addr().expect("an address")
    );
    let (reply, stored) = send(&world, &section, "x@strict.example", "From: x@strict.example\r\n\r\ntext").await;
    assert!(reply.starts_with("250 2.0.0") && stored.contains("spf=temperror"), "{reply} {stored}");
}

#[tokio::test]
async fn nothing_is_looked_up_unless_it_is_asked_for() {
    let world = World::light().await;
    let (reply, stored) = send(&world, "", "x@strict.example", "From: x@strict.example\r\n\r\ntext").await;
    assert!(reply.starts_with("250 2.0.0") && !stored.contains("Authentication-Results"), "{reply} {stored}");
}

/// What the hub is told, drop addresses judge by.
#[test]
fn a_proof_is_only_what_passed() {
    let proof = Arc::new(stoa::hub::Proof { signed_by: vec!["good.example".into()], ..Default::default() });
    assert!(proof.is_from("GOOD.example") && !proof.is_from("other.example"));
}
