//! Mailboxes as their readers see them: numbers that stay, whatever other Maildir programs do in between.

use std::time::Duration;

use bytes::Bytes;
use stoa::error::Kind;
use stoa::hub::{Caller, Envelope, Mailbox, Rcpt};
use stoa::store::HistoryFilter;

use crate::world::{World, origin};

/// A recipient without more.
pub fn rcpt<'a>(local: &'a str, domain: &'a str) -> Rcpt<'a> {
    Rcpt { local, domain, sender: "me@else.where", catch_all: None, size: None }
}

/// Sends a message; its id.
pub async fn send(world: &World, to: &[&str], message: &str) -> String {
    let caller = world.hub.guest(origin("smtp"));
    let mut recipients = Vec::new();
    for local in to {
        recipients.push(world.hub.recipient(&caller, &rcpt(local, "example.org")).await.expect("a recipient"));
    }
    let id = uuid::Uuid::now_v7().simple().to_string();
    let envelope = Envelope { id: id.clone(), sender: "me@else.where".into(), recipients, size: None, proof: None };
    let mut upload = caller.deliver(envelope).await.expect("an upload");
    upload.push(Bytes::copy_from_slice(message.as_bytes())).await.expect("room");
    upload.commit().await.expect("delivered");
    id
}

async fn bob(world: &World) -> Caller {
    world.caller("bob", "pop3").await
}

/// UID, size, flags of each message.
fn seen(mailbox: &Mailbox) -> Vec<(u32, u64, &str)> {
    mailbox.messages().iter().map(|message| (message.uid, message.size, message.flags.as_str())).collect()
}

async fn text(mailbox: &mut Mailbox, uid: u32) -> String {
    let download = mailbox.open(uid).await.expect("a message");
    let size = usize::try_from(download.node().size).expect("small");
    String::from_utf8(download.read_at(0, size).await.expect("bytes").to_vec()).expect("text")
}

fn names(world: &World, folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(world.disk(folder)) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn messages_keep_their_numbers_whatever_maildir_programs_do() {
    let world = World::light().await;
    for text in ["one", "two!", "three"] {
        send(&world, &["bob"], text).await;
    }
    let caller = bob(&world).await;
    let mut mailbox = caller.open_mailbox("").await.expect("a mailbox");
    assert_eq!(seen(&mailbox), [(1, 3, ""), (2, 4, ""), (3, 5, "")]);
    assert_eq!(text(&mut mailbox, 2).await, "two!");
    let unique: Vec<String> = mailbox.messages().iter().map(stoa::hub::Message::unique).collect();
    let validity = mailbox.validity();

    // Another program notices the first, flags the second, removes the third and brings one of its own.
    let new = names(&world, "/mail/bob/new");
    let rename = |from: &str, to: &str| {
        std::fs::rename(world.disk("/mail/bob/new").join(from), world.disk("/mail/bob/cur").join(to)).expect("renamed");
    };
    rename(&new[0], &format!("{}:2,", new[0]));
    rename(&new[1], &format!("{}:2,SF", new[1]));
    std::fs::remove_file(world.disk("/mail/bob/new").join(&new[2])).expect("removed");
    world.put("/mail/bob/cur/1.M2P3.elsewhere:2,S", b"theirs");
    assert_eq!(text(&mut mailbox, 1).await, "one", "the name changed while it was open");
    assert_eq!(seen(&mailbox), [(1, 3, ""), (2, 4, "FS"), (4, 6, "S")]);
    assert_eq!(mailbox.validity(), validity);
    assert_eq!(mailbox.messages()[0].unique(), unique[0]);
    assert_eq!(mailbox.messages()[1].unique(), unique[1]);

    // Two more changes of flags, by both.
    let cur = world.disk("/mail/bob/cur");
    std::fs::rename(cur.join(format!("{}:2,SF", new[1])), cur.join(format!("{}:2,", new[1]))).expect("renamed");
    mailbox.flag(1, "SR").await.expect("flagged");
    assert_eq!(seen(&mailbox), [(1, 3, "RS"), (2, 4, ""), (4, 6, "S")]);
    assert!(cur.join(format!("{}:2,RS", new[0])).is_file());
    drop(mailbox);

    // A number is never given twice, not even after the last message has gone.
    let mut mailbox = caller.open_mailbox("").await.expect("given back");
    mailbox.remove(&[1, 2, 4, 99]).await.expect("removed");
    assert_eq!(seen(&mailbox), []);
    assert!(names(&world, "/mail/bob/cur").is_empty() && names(&world, "/mail/bob/new").is_empty());
    send(&world, &["bob"], "five5").await;
    mailbox.refresh().await.expect("looked again");
    assert_eq!(seen(&mailbox), [(5, 5, "")]);
    assert_eq!(mailbox.open(1).await.err().expect("gone").kind(), Kind::NotFound);
}

#[tokio::test]
async fn folders_come_and_go_as_other_programs_make_them() {
    let world = World::light().await;
    let caller = bob(&world).await;
    assert_eq!(caller.mail_folders().await.expect("folders"), [""]);
    assert_eq!(seen(&caller.open_mailbox("").await.expect("an empty mailbox")), []);
    world.put("/mail/bob/.Lists.rust/cur/1.M2P3.elsewhere:2,S", b"theirs");
    world.put("/mail/bob/dovecot-uidlist", b"not a folder");
    assert_eq!(caller.mail_folders().await.expect("folders"), ["", ".Lists.rust"]);
    let lists = caller.open_mailbox(".Lists.rust").await.expect("a folder");
    assert_eq!(seen(&lists), [(1, 6, "S")]);
    drop(lists);
    std::fs::remove_dir_all(world.disk("/mail/bob/.Lists.rust")).expect("removed");
    assert_eq!(caller.mail_folders().await.expect("folders"), [""]);
    for wrong in ["Sent", "..", ".a/../../alice"] {
        assert_eq!(caller.open_mailbox(wrong).await.err().expect(wrong).kind(), Kind::Invalid);
    }
}

#[tokio::test]
async fn one_session_has_a_mailbox_and_nobody_anothers() {
    let world = World::light().await;
    let caller = bob(&world).await;
    let first = caller.open_mailbox("").await.expect("the first");
    assert_eq!(caller.open_mailbox("").await.err().expect("held").kind(), Kind::Locked);
    let alice = world.caller("alice", "pop3").await.open_mailbox("").await.expect("her own");
    assert_eq!(seen(&alice), []);
    drop(first);
    caller.open_mailbox("").await.expect("given back").close().await;
    for (name, door) in [("camera-3", "pop3"), ("rita", "pop3")] {
        let outcome = world.caller(name, door).await.open_mailbox("").await;
        // A device has none; what an account confined to a folder cannot see, it cannot read.
        assert_eq!(outcome.err().expect(name).kind(), Kind::NotFound);
    }
    let guest = world.hub.guest(origin("pop3"));
    assert_eq!(guest.open_mailbox("").await.err().expect("a guest").kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_message_can_be_followed_until_it_was_fetched() {
    let world = World::light().await;
    let id = send(&world, &["bob"], "Subject: x\r\n\r\nhello").await;
    let states = async || {
        let rows = world.hub.trace(&id).await.expect("a trace");
        rows.into_iter().map(|row| (row.target, row.state.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [("/mail/bob".to_owned(), "stored")]);
    let mut mailbox = bob(&world).await.open_mailbox("").await.expect("a mailbox");
    mailbox.open(1).await.expect("open");
    mailbox.fetched(1);
    mailbox.close().await;
    assert_eq!(states().await, [("/mail/bob".to_owned(), "fetched")]);
    let filter = HistoryFilter { path: Some("/mail/bob".into()), limit: 10, ..HistoryFilter::default() };
    let history = world.hub.history(&filter).await.expect("the history");
    let verbs: Vec<_> = history.iter().map(|line| (line.verb.as_str(), line.door.as_str())).collect();
    assert_eq!(verbs, [("deliver", "smtp"), ("fetch", "pop3")]);
    assert!(history.iter().all(|line| line.detail.contains(&id)));

    // Read through another door, by the path: the same.
    let id = send(&world, &["bob"], "again").await;
    let name = names(&world, "/mail/bob/new").pop().expect("a message");
    let path = stoa::hub::TreePath::parse(&format!("/mail/bob/new/{name}")).expect("a path");
    bob(&world).await.open(&path).await.expect("open");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.hub.trace(&id).await.expect("a trace")[0].state.as_str() != "fetched" {
        assert!(tokio::time::Instant::now() < deadline, "never fetched");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let found = world.hub.trace("BOB@example.org").await.expect("by address");
    assert_eq!(found.len(), 2);
    assert!(world.hub.trace("nobody@example.org").await.expect("by address").is_empty());
}
