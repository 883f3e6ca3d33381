//! What becomes of a message: stored once although it is sent twice, refused in words, one file for many mailboxes, and
//! never held in memory.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa::error::{Error, Kind};
use stoa::hub::settings::{DropSettings, MailSettings, Required, SpaceSettings};
use stoa::hub::{Caller, Envelope, Rcpt, Receipt};
use stoa::store::{DeliveryRow, HistoryFilter};
use stoa::units::{ByteSize, Span};

use crate::mail::with_files;
use crate::mailbox::rcpt;
use crate::world::{World, origin, space};

/// A message on its way by a caller: id and outcome.
async fn send(world: &World, caller: &Caller, to: &[&str], message: &[u8]) -> (String, Result<Receipt, Error>) {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let mut recipients = Vec::new();
    for local in to {
        match world.hub.recipient(caller, &rcpt(local, "example.org")).await {
            Ok(recipient) => recipients.push(recipient),
            Err(error) => return (id, Err(error)),
        }
    }
    let envelope = Envelope { id: id.clone(), sender: "me@else.where".into(), recipients, size: None, proof: None };
    let mut upload = caller.deliver(envelope).await.expect("an upload");
    upload.preface(format!("Received: by us with id {id}\r\n").into()).await.expect("room");
    for chunk in message.chunks(1000) {
        upload.push(Bytes::copy_from_slice(chunk)).await.expect("room");
    }
    (id, upload.commit().await)
}

fn count(world: &World, folder: &str) -> usize {
    std::fs::read_dir(world.disk(folder)).map_or(0, Iterator::count)
}

async fn states(world: &World, id: &str) -> Vec<&'static str> {
    let rows = world.hub.trace(id).await.expect("a trace");
    rows.iter().map(|row| row.state.as_str()).collect()
}

async fn verbs(world: &World, path: &str) -> Vec<String> {
    let filter = HistoryFilter { path: Some(path.into()), limit: 100, ..HistoryFilter::default() };
    world.hub.history(&filter).await.expect("the history").into_iter().map(|line| line.verb).collect()
}

/// Rows of a refusal are written behind the reply.
async fn refusals(world: &World, of: &str) -> Vec<DeliveryRow> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let rows = world.hub.trace(of).await.expect("a trace");
        if !rows.is_empty() {
            return rows;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing was written down about {of}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const MESSAGE: &[u8] = b"Message-ID: <1@else.where>\r\nSubject: x\r\n\r\nhello\r\n";

#[tokio::test]
async fn a_message_sent_again_is_stored_once_and_said_to_be() {
    let world = World::light().await;
    let guest = world.hub.guest(origin("smtp"));
    let (first, outcome) = send(&world, &guest, &["bob"], MESSAGE).await;
    outcome.expect("stored");
    let (again, outcome) = send(&world, &guest, &["BOB"], MESSAGE).await;
    outcome.expect("taken all the same");
    assert_eq!(count(&world, "/mail/bob/new"), 1);
    assert_eq!((states(&world, &first).await, states(&world, &again).await), (vec!["stored"], vec!["redelivered"]));
    assert_eq!(verbs(&world, "/mail/bob").await, ["deliver", "redeliver"]);

    // To other recipients, or with another body, it is another message.
    let (more, outcome) = send(&world, &guest, &["bob", "alice"], MESSAGE).await;
    outcome.expect("stored");
    assert_eq!(states(&world, &more).await, ["stored", "stored"]);
    let (other, outcome) = send(&world, &guest, &["bob"], &MESSAGE.repeat(2)).await;
    outcome.expect("stored");
    assert_eq!(states(&world, &other).await, ["stored"]);
    assert_eq!((count(&world, "/mail/bob/new"), count(&world, "/mail/alice/new")), (3, 1));
    let held = |world: &World| world.hub.clone();
    let usage = held(&world).spaces().await.expect("spaces");
    let bob = usage.iter().find(|space| space.row.path == "/mail/bob").expect("a mailbox");
    assert_eq!(bob.usage.files, 3);
}

#[tokio::test]
async fn sixteen_bring_the_same_at_once_and_it_is_stored_once() {
    let world = Arc::new(World::light().await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let world = world.clone();
        tasks.spawn(async move {
            let guest = world.hub.guest(origin("smtp"));
            let (id, outcome) = send(&world, &guest, &["bob", "alice"], MESSAGE).await;
            outcome.expect("taken");
            states(&world, &id).await
        });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|states| *states == &["stored", "stored"]).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|states| *states == &["redelivered", "redelivered"]).count(), 15, "{all:?}");
    assert_eq!((count(&world, "/mail/bob/new"), count(&world, "/mail/alice/new")), (1, 1));
}

#[tokio::test]
async fn who_wants_every_copy_gets_every_copy() {
    let world = World::with(|settings| {
        settings.mail = MailSettings { redelivery: Span(Duration::ZERO), ..MailSettings::default() };
    })
    .await;
    let guest = world.hub.guest(origin("smtp"));
    for _ in 0..2 {
        send(&world, &guest, &["bob"], MESSAGE).await.1.expect("stored");
    }
    assert_eq!(count(&world, "/mail/bob/new"), 2);
}

#[tokio::test]
async fn what_was_refused_can_be_followed_too() {
    let world = World::with(|settings| {
        settings.mail = MailSettings { refusals: 3, ..MailSettings::default() };
        settings.spaces.push(SpaceSettings { quota: ByteSize(100), ..space("/mail/bob", &[]) });
    })
    .await;
    let guest = world.hub.guest(origin("smtp"));
    let (_, outcome) = send(&world, &guest, &["nobody"], MESSAGE).await;
    assert_eq!(outcome.expect_err("unknown").kind(), Kind::NotFound);
    let rows = refusals(&world, "nobody@example.org").await;
    assert_eq!((rows[0].state.as_str(), rows[0].sender.as_str()), ("refused", "me@else.where"));
    assert!(rows[0].detail.contains("there is no nobody"), "{}", rows[0].detail);

    // Larger than all the mailbox holds: never. Larger than what is left: later, and nothing of it is kept.
    let sized = Rcpt { size: Some(1000), ..rcpt("bob", "example.org") };
    assert_eq!(world.hub.recipient(&guest, &sized).await.expect_err("never").kind(), Kind::TooLarge);
    let (id, outcome) = send(&world, &guest, &["bob"], &MESSAGE.repeat(10)).await;
    assert_eq!(outcome.expect_err("full").kind(), Kind::OverQuota);
    let rows = refusals(&world, &id).await;
    assert_eq!((rows[0].state.as_str(), rows[0].target.as_str()), ("refused", "/mail/bob"));
    assert_eq!(count(&world, "/mail/bob/new"), 0);
    assert_eq!(verbs(&world, "/mail/bob").await, ["refuse"]);

    // Three a minute are written down, not more: a stranger cannot fill the records.
    for _ in 0..5 {
        send(&world, &guest, &["nobody"], MESSAGE).await.1.expect_err("unknown");
    }
    let (_, outcome) = send(&world, &guest, &["alice"], MESSAGE).await;
    outcome.expect("stored");
    assert_eq!(world.hub.trace("nobody@example.org").await.expect("a trace").len(), 1);
    assert_eq!(world.hub.trace("me@else.where").await.expect("a trace").len(), 4);
}

#[tokio::test]
async fn a_refused_message_may_be_sent_again_and_is_stored_then() {
    let world = World::with(|settings| {
        settings.spaces.push(SpaceSettings { quota: ByteSize(200), ..space("/mail/bob", &[]) });
    })
    .await;
    let guest = world.hub.guest(origin("smtp"));
    send(&world, &guest, &["bob"], b"A: 1\r\n\r\nfirst").await.1.expect("stored");
    let large = [MESSAGE, &[b'x'; 60]].concat();
    assert_eq!(send(&world, &guest, &["bob"], &large).await.1.expect_err("full").kind(), Kind::OverQuota);
    let bob = world.caller("bob", "pop3").await;
    bob.open_mailbox("").await.expect("a mailbox").remove(&[1]).await.expect("removed");
    let (id, outcome) = send(&world, &guest, &["bob"], &large).await;
    outcome.expect("there is room now");
    assert_eq!(states(&world, &id).await, ["stored"]);
}

#[tokio::test]
async fn a_large_message_to_many_is_one_file() {
    let world = World::light().await;
    let guest = world.hub.guest(origin("smtp"));
    let inode = |name: &str| {
        let mut entries = std::fs::read_dir(world.disk(&format!("/mail/{name}/new"))).expect("a mailbox");
        let entry = entries.next().expect("a message").expect("an entry");
        let meta = entry.metadata().expect("metadata");
        (meta.ino(), meta.len())
    };
    for (size, files) in [(40_000, 1), (1000, 2)] {
        let message = [b"A: b\r\n\r\n".as_slice(), &vec![b'x'; size]].concat();
        send(&world, &guest, &["alice", "bob"], &message).await.1.expect("stored");
        let mut inodes = ["alice", "bob"].map(inode);
        inodes.sort_unstable();
        let (_, len) = inodes[0];
        assert!(inodes.iter().all(|one| one.1 == len));
        let mut distinct = inodes.to_vec();
        distinct.dedup();
        assert_eq!(distinct.len(), files, "two of {size} bytes");
        for name in ["alice", "bob"] {
            for entry in std::fs::read_dir(world.disk(&format!("/mail/{name}/new"))).expect("a mailbox") {
                std::fs::remove_file(entry.expect("an entry").path()).expect("removed");
            }
        }
    }
    assert_eq!(std::fs::read_dir(world.folder.path().join("stage")).expect("the stages").count(), 0);
}

fn dropping(address: &str, mail: DropSettings) -> SpaceSettings {
    let grants = [("everyone", "drop"), ("users", "edit")];
    SpaceSettings { address: address.into(), mail, ..space(&format!("/{address}"), &grants) }
}

#[tokio::test]
async fn a_drop_address_takes_only_what_it_is_told_to() {
    let words = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let world = World::with(|settings| {
        let rules = DropSettings {
            senders: words(&["*@Else.where"]),
            networks: words(&["127.0.0.0/8"]),
            size: ByteSize(3000),
            types: words(&["application/pdf", "*.TIF"]),
            ..DropSettings::default()
        };
        settings.spaces.push(dropping("forms", rules.clone()));
        settings.spaces.push(dropping("near", DropSettings { networks: words(&["10.0.0.0/8"]), ..rules }));
        settings.spaces.push(dropping("sure", DropSettings { proof: Required::Dkim, ..DropSettings::default() }));
    })
    .await;
    let guest = world.hub.guest(origin("smtp"));
    let (_, outcome) = send(&world, &guest, &["forms+2026"], &with_files(&[("a.pdf", b"1")])).await;
    outcome.expect("filed");
    assert_eq!(std::fs::read(world.disk("/forms/2026/a.pdf")).expect("the file"), b"1");

    let refused = |outcome: Result<_, Error>| outcome.expect_err("refused");
    let from = |sender| Rcpt { sender, ..rcpt("forms", "example.org") };
    let stranger = refused(world.hub.recipient(&guest, &from("me@elsewhere")).await.map(drop));
    assert_eq!(stranger.kind(), Kind::Denied);
    assert!(stranger.public().contains("forms takes no mail from <me@elsewhere>"), "{stranger}");
    assert_eq!(refused(world.hub.recipient(&guest, &from("")).await.map(drop)).kind(), Kind::Denied);
    let far = refused(world.hub.recipient(&guest, &rcpt("near", "example.org")).await.map(drop));
    assert!(far.public().contains("your network"), "{far}");
    let large = Rcpt { size: Some(3001), ..rcpt("forms", "example.org") };
    assert_eq!(refused(world.hub.recipient(&guest, &large).await.map(drop)).kind(), Kind::TooLarge);

    let (_, outcome) = send(&world, &guest, &["forms"], &with_files(&[("a.pdf", &[b'x'; 4000])])).await;
    assert_eq!(refused(outcome.map(drop)).kind(), Kind::TooLarge);
    let message = String::from_utf8(with_files(&[("b.pdf", b"1"), ("c.exe", b"2")])).expect("text");
    let message = message.replace("application/pdf; name=\"c", "application/octet-stream; name=\"c");
    let (id, outcome) = send(&world, &guest, &["forms"], message.as_bytes()).await;
    let wrong = refused(outcome.map(drop));
    assert_eq!(wrong.kind(), Kind::Invalid);
    assert!(wrong.public().contains("files only application/pdf, *.TIF; c.exe is"), "{wrong}");
    assert_eq!(refusals(&world, &id).await[0].detail, wrong.public());
    let (_, outcome) = send(&world, &guest, &["forms"], b"Subject: no file\r\n\r\nhello").await;
    assert_eq!(refused(outcome.map(drop)).kind(), Kind::Invalid);
    let (_, outcome) = send(&world, &guest, &["forms"], &with_files(&[("scan.tif", b"3")])).await;
    outcome.expect("by its name");

    let (_, outcome) = send(&world, &guest, &["sure"], &with_files(&[("a.pdf", b"1")])).await;
    assert!(refused(outcome.map(drop)).public().contains("DKIM"));
    let bob = world.caller("bob", "smtp").await;
    send(&world, &bob, &["sure"], &with_files(&[("a.pdf", b"1")])).await.1.expect("who signed in has proved it");
}

/// Resident memory now and at its peak, in bytes.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status");
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[tokio::test]
async fn a_message_far_larger_than_memory_passes_through() {
    const SIZE: usize = 96 << 20;
    const MOST: u64 = 24 << 20;
    let world = World::light().await;
    let camera = world.caller("camera-3", "smtp").await;
    let mut recipients = Vec::new();
    for local in ["bob", "scans", "alice"] {
        recipients.push(world.hub.recipient(&camera, &rcpt(local, "example.org")).await.expect("a recipient"));
    }
    let id = uuid::Uuid::now_v7().simple().to_string();
    let envelope = Envelope { id, sender: "me@else.where".into(), recipients, size: None, proof: None };
    let mut upload = camera.deliver(envelope).await.expect("an upload");
    let (before, _) = resident();
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: video/mp4; name=long.mp4\r\n\r\n";
    upload.push(Bytes::from_static(head.as_bytes())).await.expect("room");
    let chunk = Bytes::from(vec![b'x'; 256 << 10]);
    for _ in 0..SIZE / chunk.len() {
        upload.push(chunk.clone()).await.expect("room");
    }
    upload.push(Bytes::from_static(b"\r\n--b--\r\n")).await.expect("room");
    upload.commit().await.expect("stored");
    let (_, peak) = resident();
    assert!(peak.saturating_sub(before) < MOST, "{} more bytes at the peak", peak.saturating_sub(before));
    let filed = std::fs::metadata(world.disk("/scans/long.mp4")).expect("filed").len();
    assert_eq!(filed, SIZE as u64);
}
