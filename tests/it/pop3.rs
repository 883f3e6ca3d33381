//! POP3 sessions side by side and over time: one at a time has the mailbox, nothing goes but at QUIT, what was fetched is known.

use std::time::Duration;

use bytes::Bytes;
use stoa::hub::{Caller, Envelope};
use stoa::store::{DeliveryState, HistoryFilter};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use crate::world::{World, origin, pipe};

/// A client of one session, signed in as alice.
struct Client(BufReader<DuplexStream>);

impl Client {
    fn connect(world: &World) -> Self {
        let (mut link, theirs) = pipe("pop3", 4096);
        link.origin.secure = true;
        let handler = world.door("pop3", &toml::Table::new());
        tokio::spawn(async move { handler.serve(link).await });
        Self(BufReader::new(theirs))
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("a line");
        line.trim_end().to_owned()
    }

    async fn ask(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).await.expect("a write");
        self.line().await
    }

    /// The answer to the password.
    async fn sign_in(&mut self) -> String {
        self.line().await;
        self.ask("USER alice").await;
        self.ask("PASS wonder").await
    }

    async fn many(&mut self, command: &str) -> Vec<String> {
        let mut lines = vec![self.ask(command).await];
        while lines.last().is_some_and(|line| line != ".") {
            lines.push(self.line().await);
        }
        lines
    }
}

async fn deliver(world: &World, text: &str) -> String {
    let caller: Caller = world.hub.guest(origin("smtp"));
    let recipient =
        world.hub.recipient(&caller, &crate::mailbox::rcpt("alice", "example.org")).await.expect("a recipient");
    let id = uuid::Uuid::now_v7().simple().to_string();
    let envelope = Envelope {
        id: id.clone(),
        sender: "me@else.where".into(),
        recipients: vec![recipient],
        size: None,
        proof: None,
    };
    let mut upload = caller.deliver(envelope).await.expect("an upload");
    upload.push(Bytes::copy_from_slice(text.as_bytes())).await.expect("room");
    upload.commit().await.expect("a delivery");
    id
}

#[tokio::test]
async fn one_session_at_a_time_has_the_mailbox() {
    let world = World::light().await;
    world.put("/mail/alice/new/1.a.host", b"Subject: x\r\n\r\n");
    let mut first = Client::connect(&world);
    assert!(first.sign_in().await.starts_with("+OK 1 messages"));
    let mut second = Client::connect(&world);
    assert_eq!(second.sign_in().await, "-ERR [IN-USE] the mailbox is open in another session; try again later");
    assert!(first.ask("DELE 1").await.starts_with("+OK"));
    // The link drops: nothing is deleted, and the mailbox is free.
    drop(first);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let mut third = Client::connect(&world);
        let answer = third.sign_in().await;
        if answer.starts_with("+OK") {
            assert_eq!(answer, "+OK 1 messages, 14 octets");
            assert_eq!(third.ask("QUIT").await, "+OK bye; 0 deleted");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn ids_stay_when_flags_change_and_what_other_programs_take_is_gone() {
    let world = World::light().await;
    for name in ["1.a.host", "2.b.host", "3.c.host"] {
        world.put(&format!("/mail/alice/new/{name}"), format!("Subject: {name}\r\n\r\n").as_bytes());
    }
    let mut client = Client::connect(&world);
    client.sign_in().await;
    let ids = client.many("UIDL").await;
    // A Maildir program reads one, flags it, and throws another away, all during the session.
    std::fs::create_dir_all(world.disk("/mail/alice/cur")).unwrap();
    let moved = world.disk("/mail/alice/cur/2.b.host:2,FS");
    std::fs::rename(world.disk("/mail/alice/new/2.b.host"), moved).unwrap();
    std::fs::remove_file(world.disk("/mail/alice/new/3.c.host")).unwrap();
    assert_eq!(client.many("RETR 2").await, ["+OK 21 octets", "Subject: 2.b.host", "", "."]);
    assert_eq!(client.ask("RETR 3").await, "-ERR the message is gone: another program took it away");
    client.ask("DELE 2").await;
    client.ask("DELE 3").await;
    assert_eq!(client.ask("QUIT").await, "+OK bye; 2 deleted");
    assert!(std::fs::read_dir(world.disk("/mail/alice/cur")).unwrap().next().is_none());
    let mut client = Client::connect(&world);
    assert!(client.sign_in().await.starts_with("+OK 1 messages"));
    assert_eq!(client.many("UIDL").await[..2], ids[..2]);
}

#[tokio::test]
async fn what_was_fetched_is_known() {
    let world = World::light().await;
    let (read, left) =
        (deliver(&world, "Subject: read\r\n\r\n").await, deliver(&world, "Subject: left\n\nLF only").await);
    let mut client = Client::connect(&world);
    assert_eq!(client.sign_in().await, "+OK 2 messages, 43 octets");
    client.many("RETR 1").await;
    client.many("TOP 2 5").await;
    client.ask("QUIT").await;
    let state = async |id: &str| world.hub.trace(id).await.expect("rows").first().map(|row| row.state);
    assert_eq!(state(&read).await, Some(DeliveryState::Fetched));
    assert_eq!(state(&left).await, Some(DeliveryState::Stored), "its top is not all of it");
    let lines = world.hub.history(&HistoryFilter { limit: 10, ..HistoryFilter::default() }).await.unwrap();
    let fetched: Vec<_> = lines.iter().filter(|line| line.verb == "fetch").collect();
    assert!(fetched.len() == 1 && fetched[0].door == "pop3" && fetched[0].account == "alice", "{fetched:?}");
}

#[tokio::test]
async fn an_idle_session_ends_after_ten_minutes_without_a_word() {
    let world = World::light().await;
    world.put("/mail/alice/new/1.a.host", b"Subject: x\r\n\r\n");
    let mut client = Client::connect(&world);
    client.sign_in().await;
    client.ask("DELE 1").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(595)).await;
    assert_eq!(client.ask("NOOP").await, "+OK nothing done", "ten minutes are not over");
    tokio::time::advance(Duration::from_secs(601)).await;
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(String::from_utf8_lossy(&rest), "", "RFC 1939 §3: without any response");
    tokio::time::resume();
    assert!(world.disk("/mail/alice/new/1.a.host").exists(), "and without UPDATE");
}

#[tokio::test]
async fn too_little_idle_time_is_refused() {
    use stoa::proto::{PROTOCOLS, Section, Tools};
    let world = World::light().await;
    let door = PROTOCOLS.iter().find(|door| door.name() == "pop3").expect("a door");
    let tools = Tools { hub: world.hub.clone(), tls: world.tls(), ready: std::sync::Arc::new(|| true) };
    let values = "idle = \"5m\"".parse().expect("TOML");
    let refused = door.open(&Section { name: "pop3", values }, &tools).err().expect("a refusal");
    assert!(refused.to_string().contains("at least 10m"), "{refused}");
}

#[tokio::test]
async fn thousands_of_messages_are_listed_and_the_sizes_in_their_names_believed() {
    let world = World::light().await;
    let folder = world.disk("/mail/alice/new");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..3000 {
        std::fs::write(folder.join(format!("{number}.x.host,S=3,W=4")), "a\nb").unwrap();
    }
    let mut client = Client::connect(&world);
    assert_eq!(client.sign_in().await, "+OK 3000 messages, 12000 octets");
    assert_eq!(client.many("LIST").await.len(), 3002);
    let ids: std::collections::BTreeSet<String> = client.many("UIDL").await.into_iter().collect();
    assert_eq!(ids.len(), 3002, "each its own");
    client.ask("QUIT").await;
}
